"""Guided alignment training (Chen et al. 2016; Garg et al. 2019): attention learns from given word alignments."""

import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.data.batching import Batch
from nmt_keras.training.losses.cross_entropy import label_smoothed_cross_entropy
from nmt_keras.training.losses.forward import Forward, LossSums
from nmt_keras.training.losses.resources import Resources

_LEAST_WEIGHT = 1e-30  # of attention, in the logarithm: below it no gradient flows


class GuidedAlignment:
    """The cross entropy of the next id, and w times that of attention against given alignments; a `Loss`.

    With G_{t,s} = 1 / n where the target piece t is linked to n source pieces, s among them, and attention weights
    a_{t,s}, the second is -sum_t sum_s G_{t,s} log a_{t,s} (Garg et al. 2019, eq. 5; a target piece without links adds
    nothing). It is of the attention that translations report: the only one, or the mean of the heads of the last layer.

    Args:
        config: `alignment_weight` is w, and `label_smoothing` of the cross entropy.
        resources: none.
    """

    names = ("loss", "token_accuracy", "alignment_loss")
    name_of_minimised = "guided_alignment_loss"

    def __init__(self, config: TrainingConfig, resources: Resources = Resources()):
        del resources
        self._smoothing = config.label_smoothing
        self._weight = config.alignment_weight

    def __call__(self, forward: Forward, batch: Batch, seed: tf.Tensor | None) -> LossSums:
        """See `Loss`."""

        def values_of(logits: list[tf.Tensor], labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
            values = label_smoothed_cross_entropy(logits[0], labels, self._smoothing)
            return tuple(tf.reduce_sum(weights * value) for value in values)

        own = forward(seed)
        smoothed, plain, correct = forward.sums(values_of, [own])
        distances = alignment_cross_entropy(own.attention_weights, batch.alignment)
        distance = tf.reduce_sum(forward.weights * forward.at_labels(distances))
        total = smoothed + forward.scaled(self._weight * distance)
        scalars = {"loss": plain, "token_accuracy": correct, "alignment_loss": tf.stop_gradient(distance)}
        return LossSums(total, tf.reduce_sum(forward.weights), scalars)


def alignment_cross_entropy(attention_weights: tf.Tensor, alignment: tf.Tensor) -> tf.Tensor:
    """The cross entropy of attention, float [B, T, S], against links, bool [B, T, S]; float32 [B, T], 0 without
    links."""
    links = tf.cast(alignment, tf.float32)
    shares = links / tf.maximum(tf.reduce_sum(links, -1, keepdims=True), 1.0)
    return -tf.reduce_sum(shares * tf.math.log(tf.maximum(tf.cast(attention_weights, tf.float32), _LEAST_WEIGHT)), -1)
