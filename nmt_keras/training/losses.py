"""Cross entropy of a batch, as sums; whoever reduces over replicas divides."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import tensorflow as tf

from nmt_keras.data.batching import Batch
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.seq2seq import Seq2Seq

_ROW_MULTIPLE = 128


class LossSums(NamedTuple):
    """Float32 scalars, summed over the real target tokens of a batch, each weighted as its row."""

    loss: tf.Tensor  # label-smoothed cross entropy, nats
    cross_entropy: tf.Tensor  # without smoothing, nats
    correct: tf.Tensor  # tokens whose most probable prediction is right
    tokens: tf.Tensor  # real target tokens, EOS included


def label_smoothed_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross entropy against (1 - smoothing) one-hot + smoothing uniform (Szegedy et al. 2016, section 7).

    The gradient is written out, softmax minus the smoothed label, so that one array [N, V] is made per pass.

    Args:
        logits: float32 [N, V].
        labels: int32 [N].
        smoothing: the mass spread over all V classes.

    Returns:
        The smoothed and the plain cross entropy, float32 [N] each; no gradient flows into the second.
    """
    vocab_size = tf.cast(tf.shape(logits)[1], tf.float32)

    @tf.custom_gradient
    def run(logits):
        log_partition = tf.reduce_logsumexp(logits, -1)
        label_logits = tf.gather(logits, labels, batch_dims=1)
        cross_entropy = log_partition - label_logits
        smooth = log_partition - (1.0 - smoothing) * label_logits - smoothing * tf.reduce_mean(logits, -1)

        def gradient(d_smooth, _):
            gradient = tf.exp(logits - log_partition[:, None]) - smoothing / vocab_size
            at_labels = tf.stack([tf.range(tf.shape(labels)[0]), labels], 1)
            gradient = tf.tensor_scatter_nd_sub(gradient, at_labels, tf.fill(tf.shape(labels), 1.0 - smoothing))
            return gradient * d_smooth[:, None]

        return (smooth, cross_entropy), gradient

    smooth, cross_entropy = run(logits)
    return smooth, tf.stop_gradient(cross_entropy)


def batch_loss(model: Seq2Seq, batch: Batch, dropout_seed: tf.Tensor | None, smoothing: float) -> LossSums:
    """Runs the model with teacher forcing and sums its loss.

    Real target positions are gathered into [N, D] before the output product, N rounded up to a multiple of 128, so that
    no padding reaches the largest product and a compiled loss would see few shapes.
    """
    hidden, _ = model(batch.source_ids, batch.target_input_ids, dropout_seed)
    real = tf.where(padding_mask(batch.target_output_ids))  # [N, 2]
    count = tf.shape(real)[0]
    fill = -count % _ROW_MULTIPLE
    hidden = tf.pad(tf.gather_nd(hidden, real), [[0, fill], [0, 0]])
    labels = tf.pad(tf.gather_nd(batch.target_output_ids, real), [[0, fill]])
    weights = tf.pad(tf.gather(batch.weights, real[:, 0]), [[0, fill]])
    logits = model.project(hidden)
    smooth, cross_entropy = label_smoothed_cross_entropy(logits, labels, smoothing)
    correct = tf.cast(tf.equal(tf.argmax(logits, -1, output_type=tf.int32), labels), tf.float32)
    loss, plain, right = (tf.reduce_sum(weights * values) for values in (smooth, cross_entropy, correct))
    return LossSums(loss, plain, right, tf.reduce_sum(weights))


def compile_dev_loss(model: Seq2Seq) -> Callable[[Iterable[Batch]], float]:
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
