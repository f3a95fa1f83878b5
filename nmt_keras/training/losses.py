"""Cross entropy of a batch, as sums; whoever reduces over replicas divides."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import tensorflow as tf

from nmt_keras.data.batching import Batch
from nmt_keras.layers.fusion import fused
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq

_ROW_MULTIPLE = 128


class LossSums(NamedTuple):
    """Float32 scalars, summed over the real target tokens of a batch, each weighted as its row."""

    loss: tf.Tensor  # label-smoothed cross entropy, nats
    cross_entropy: tf.Tensor  # without smoothing, nats
    correct: tf.Tensor  # tokens whose most probable prediction is right
    tokens: tf.Tensor  # real target tokens, EOS included


def label_smoothed_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float, bias: tf.Tensor | None = None, compiled: bool = False
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cross entropy against (1 - smoothing) one-hot + smoothing uniform (Szegedy et al. 2016, section 7).

    The gradient is written out, softmax minus the smoothed label. One array [N, V] is read in the forward pass and one
    made in the backward pass, both of the dtype of `logits`; what is between them is float32, and never an array where
    it is compiled.

    Args:
        logits: [N, V], of any float dtype.
        labels: int32 [N].
        smoothing: the mass spread over all V classes.
        bias: float32 [V], added to the logits.
        compiled: make one kernel of each pass over a wide vocabulary, for training.

    Returns:
        The smoothed and the plain cross entropy, float32 [N] each, and whether the most probable class is the label,
        float32 [N]; a gradient flows into the first alone.
    """

    def forward(logits, bias, labels):
        logits = tf.cast(logits, tf.float32) + bias
        log_partition = tf.reduce_logsumexp(logits, -1)
        label_logits = tf.reduce_sum(tf.where(_at_labels(logits, labels), logits, 0.0), -1)
        smooth = log_partition - (1.0 - smoothing) * label_logits - smoothing * tf.reduce_mean(logits, -1)
        correct = tf.cast(label_logits >= tf.reduce_max(logits, -1), tf.float32)
        return smooth, log_partition - label_logits, correct, log_partition

    def backward(logits, bias, labels, log_partition, d_smooth):
        probs = tf.exp(tf.cast(logits, tf.float32) + bias - log_partition[:, None])
        target = tf.where(_at_labels(logits, labels), 1.0 - smoothing, 0.0)
        d_logits = (probs - target - smoothing / logits.shape[-1]) * d_smooth[:, None]
        return tf.cast(d_logits, logits.dtype), tf.reduce_sum(d_logits, 0)

    if compiled:
        forward, backward = (fused(function, logits.shape[-1]) for function in (forward, backward))

    @tf.custom_gradient
    def run(logits, bias):
        *results, log_partition = forward(logits, bias, labels)

        def gradient(d_smooth, *_):
            return backward(logits, bias, labels, log_partition, d_smooth)

        return results, gradient

    smooth, cross_entropy, correct = run(logits, tf.zeros(logits.shape[-1]) if bias is None else bias)
    return smooth, tf.stop_gradient(cross_entropy), tf.stop_gradient(correct)


def _at_labels(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """bool [N, V]: True at each row's label."""
    return tf.range(logits.shape[-1])[None] == labels[:, None]


def batch_loss(model: Seq2Seq | Ensemble, batch: Batch, dropout_seed: tf.Tensor | None, smoothing: float) -> LossSums:
    """Runs the model with teacher forcing and sums its loss; compiled where `dropout_seed` is given, that is, in
    training."""
    hidden, _ = model(batch.source_ids, batch.target_input_ids, dropout_seed)
    hidden, labels, weights = _positions_with_a_label(hidden, batch)
    if dropout_seed is None or isinstance(model, Ensemble):
        values = label_smoothed_cross_entropy(model.project(hidden), labels, smoothing)
    else:
        output = model.output_projection
        bias = tf.convert_to_tensor(output.bias)
        values = label_smoothed_cross_entropy(output.unbiased(hidden), labels, smoothing, bias, compiled=True)
    loss, plain, right = (tf.reduce_sum(weights * value) for value in values)
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
    fill = -tf.shape(real)[0] % _ROW_MULTIPLE
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
