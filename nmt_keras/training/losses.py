"""Cross entropy of a batch, as sums; whoever reduces over replicas divides."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.data.batching import Batch
from nmt_keras.layers.fusion import fused
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq

_ROW_MULTIPLE = 128
_CHUNK_ROWS = 2048


class LossSums(NamedTuple):
    """Float32 scalars, summed over the real target tokens of a batch, each weighted as its row."""

    loss: tf.Tensor  # label-smoothed cross entropy, nats
    cross_entropy: tf.Tensor  # without smoothing, nats
    correct: tf.Tensor  # tokens whose most probable prediction is right
    tokens: tf.Tensor  # real target tokens, EOS included


def label_smoothed_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cross entropy against (1 - smoothing) one-hot + smoothing uniform (Szegedy et al. 2016, section 7).

    Args:
        logits: float [N, V].
        labels: int32 [N].
        smoothing: the mass spread over all V classes.

    Returns:
        The smoothed and the plain cross entropy, [N] each, and whether the most probable class is the label, [N], all
        of the type of `logits`; a gradient flows into the first alone.
    """
    log_partition = tf.reduce_logsumexp(logits, -1)
    label_logits = tf.reduce_sum(tf.where(_at_labels(logits, labels), logits, tf.zeros_like(logits)), -1)
    smooth = log_partition - (1.0 - smoothing) * label_logits - smoothing * tf.reduce_mean(logits, -1)
    correct = tf.cast(label_logits >= tf.reduce_max(logits, -1), logits.dtype)
    return smooth, tf.stop_gradient(log_partition - label_logits), tf.stop_gradient(correct)


def _at_labels(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """bool [N, V]: True at each row's label."""
    return tf.range(logits.shape[-1])[None] == labels[:, None]


def projected_cross_entropy(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor,
    smoothing: float,
    gradient_scale: tf.Tensor | float = 1.0,
    *,
    transpose_kernel: bool = False,
    dtype: str = "float32",
    chunk_rows: int = _CHUNK_ROWS,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sums of `weights` times `label_smoothed_cross_entropy` of the logits `inputs` times `kernel` plus `bias`.

    The logits, a training step's largest array, are never there as a whole. They are made of some rows at a time, and
    their gradient, softmax minus the smoothed label, follows in the same kernel, and that of the factors before the
    next rows: the backward pass has only to multiply (as in the Liger Kernel of Hsu et al. 2024).

    Args:
        inputs: float32 [N, I].
        kernel: float32 [I, V], or [V, I], transposed.
        bias: float32 [V].
        labels: int32 [N].
        weights: float32 [N].
        smoothing: the mass spread over all V classes.
        gradient_scale: what the gradient of the first result is multiplied by, so that float16 can hold it.
        transpose_kernel: which of the two `kernel` is.
        dtype: of the products; what is between them is float32.
        chunk_rows: rows at a time, rounded up to a multiple of 128.

    Returns:
        Sums of the smoothed and the plain cross entropy and of right predictions, float32 []. A gradient flows from the
        first alone.
    """

    def values_and_gradient(logits, bias, labels, weights, scale):
        precise = tf.cast(logits, bias.dtype) + bias
        values = label_smoothed_cross_entropy(precise, labels, smoothing)
        probs = tf.nn.softmax(precise)
        target = tf.where(_at_labels(precise, labels), tf.ones_like(precise) * (1.0 - smoothing), 0.0)
        d_logits = (probs - target - smoothing / logits.shape[-1]) * (weights * scale)[:, None]
        sums = tuple(tf.reduce_sum(weights * value) for value in values)
        return sums, tf.cast(d_logits, logits.dtype), tf.reduce_sum(d_logits, 0)

    compiled = fused(values_and_gradient, bias.shape[0])

    @tf.custom_gradient
    def run(inputs, kernel, bias):
        columns = tf.cast(kernel, dtype)

        def of_chunk(rows, labels, weights):
            logits = tf.matmul(rows, columns, transpose_b=transpose_kernel)
            sums, d_logits, d_bias = compiled(logits, bias, labels, weights, gradient_scale)
            d_rows = tf.cast(tf.matmul(d_logits, columns, transpose_b=not transpose_kernel), inputs.dtype)
            pair = (d_logits, rows) if transpose_kernel else (rows, d_logits)
            return (sums, tf.cast(tf.matmul(*pair, transpose_a=True), kernel.dtype), d_bias), d_rows

        (sums, d_kernel, d_bias), d_inputs = _by_chunks(of_chunk, (tf.cast(inputs, dtype), labels, weights), chunk_rows)

        def gradient(d_loss, *_):
            return d_inputs * d_loss, d_kernel * d_loss, d_bias * d_loss

        return sums, gradient

    return run(inputs, kernel, bias)


def _by_chunks(of_chunk: Callable, rows: tuple[tf.Tensor, ...], most: int) -> tuple[Any, tf.Tensor]:
    """Of a function of some rows of tensors [N, ...], the first result summed over all rows, and the second joined.

    It sees about equally many rows at a time, zeros among the last of them, and one time ends before the next begins.
    There are as few times as `most`, rounded up to a multiple of 128, allows.
    """
    number = rows[0].shape[0] or tf.shape(rows[0])[0]
    at_once = _rounded(most)
    chunks = -(-number // at_once)
    chunks = max(chunks, 1) if isinstance(chunks, int) else tf.maximum(chunks, 1)
    size = _rounded(-(-number // chunks))
    fill = chunks * size - number
    cut = [
        tf.reshape(tf.pad(x, [[0, fill], *[[0, 0]] * (x.shape.rank - 1)]), [chunks, size, *x.shape[1:]]) for x in rows
    ]
    first, joined = of_chunk(*(x[0] for x in cut))
    parts = tf.TensorArray(joined.dtype, chunks, element_shape=joined.shape).write(0, joined)
    with tf.control_dependencies(tf.nest.flatten(first)):
        place = tf.constant(1)

    def body(place, total, parts):
        term, part = of_chunk(*(x[place] for x in cut))
        return place + 1, tf.nest.map_structure(tf.add, total, term), parts.write(place, part)

    _, total, parts = tf.while_loop(
        lambda place, *_: place < chunks, body, (place, first, parts), parallel_iterations=1
    )
    return total, tf.reshape(parts.stack(), [chunks * size, *joined.shape[1:]])[:number]


def _rounded(number: int | tf.Tensor) -> int | tf.Tensor:
    """The next multiple of 128, so that what is compiled sees few shapes."""
    return number + -number % _ROW_MULTIPLE


def batch_loss(
    model: Seq2Seq | Ensemble,
    batch: Batch,
    dropout_seed: tf.Tensor | None,
    smoothing: float,
    gradient_scale: tf.Tensor | float = 1.0,
) -> LossSums:
    """Runs the model with teacher forcing and sums its loss.

    Where `dropout_seed` is given, that is, in training, the gradient of the loss is multiplied by `gradient_scale`, and
    the loss of a `Seq2Seq` never holds all its logits.
    """
    hidden, _ = model(batch.source_ids, batch.target_input_ids, dropout_seed)
    hidden, labels, weights = _positions_with_a_label(hidden, batch)
    if dropout_seed is None or isinstance(model, Ensemble):
        values = label_smoothed_cross_entropy(model.project(hidden), labels, smoothing)
        loss, plain, right = (tf.reduce_sum(weights * value) for value in values)
    else:
        output = model.output_projection
        inputs, kernel = output.factors(hidden)
        loss, plain, right = projected_cross_entropy(
            inputs,
            tf.convert_to_tensor(kernel),
            tf.convert_to_tensor(output.bias),
            labels,
            weights,
            smoothing,
            gradient_scale,
            transpose_kernel=output.is_tied,
            dtype=output.compute_dtype,
        )
    return LossSums(loss, plain, right, tf.reduce_sum(weights))


def _positions_with_a_label(hidden: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Hidden states [N, D], labels [N] and weights [N], 0 where there is no label.

    Real target positions are gathered before the output product, N rounded up to a multiple of 128, so that no padding
    reaches the largest product and what is compiled sees few shapes. Where shapes are static (`data.static_shapes`), as
    for a TPU, how many positions are real is not known when the graph is compiled: all of them stay.
    """
    ids = batch.target_output_ids
    if ids.shape.is_fully_defined():
        weights = tf.where(padding_mask(ids), batch.weights[:, None], 0.0)
        return tf.reshape(hidden, [-1, hidden.shape[-1]]), tf.reshape(ids, [-1]), tf.reshape(weights, [-1])
    real = tf.where(padding_mask(ids))  # [N, 2]
    fill = _rounded(tf.shape(real)[0]) - tf.shape(real)[0]
    return (
        tf.pad(tf.gather_nd(hidden, real), [[0, fill], [0, 0]]),
        tf.pad(tf.gather_nd(ids, real), [[0, fill]]),
        tf.pad(tf.gather(batch.weights, real[:, 0]), [[0, fill]]),
    )


def compile_dev_loss(model: Seq2Seq | Ensemble) -> Callable[[Iterable[Batch]], float]:
    """A function from batches to the mean cross entropy of a target token, in nats, without label smoothing."""
    sums = tf.function(
        lambda batch: batch_loss(model, batch, None, 0.0),
        reduce_retracing=True,
        autograph=False,
        input_signature=(
            Batch(
                *(
                    tf.TensorSpec([None] * rank, dtype)
                    for rank, dtype in ((2, tf.int32), (2, tf.int32), (2, tf.int32), (1, tf.float32), (1, tf.int64))
                )
            ),
        ),
    )

    def mean(batches: Iterable[Batch]) -> float:
        results = [sums(batch) for batch in batches]
        return float(sum(r.cross_entropy for r in results)) / float(sum(r.tokens for r in results))

    return mean


def perplexity(cross_entropy: float) -> float:
    """exp of nats a token, bounded so that an untrained model has a number."""
    return math.exp(min(cross_entropy, 80.0))
