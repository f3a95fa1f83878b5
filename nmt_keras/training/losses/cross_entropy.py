"""Cross entropy with label smoothing."""

import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.data.batching import Batch
from nmt_keras.training.losses.forward import Forward, LossSums
from nmt_keras.training.losses.resources import Resources


class CrossEntropy:
    """Cross entropy of the next id against a smoothed label (Szegedy et al. 2016, section 7); a `Loss`.

    Args:
        config: `label_smoothing` is the mass that all ids share.
        resources: none.
    """

    names = ("loss", "token_accuracy")

    def __init__(self, config: TrainingConfig, resources: Resources = Resources()):
        del resources
        self._smoothing = config.label_smoothing
        self.name_of_minimised = "smoothed_loss" if config.label_smoothing else ""

    def __call__(self, forward: Forward, batch: Batch, seed: tf.Tensor | None) -> LossSums:
        """See `Loss`."""
        del batch

        def values_of(logits: list[tf.Tensor], labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
            values = label_smoothed_cross_entropy(logits[0], labels, self._smoothing)
            return tuple(tf.reduce_sum(weights * value) for value in values)

        smoothed, plain, correct = forward.sums(values_of, [forward(seed)])
        return LossSums(smoothed, tf.reduce_sum(forward.weights), {"loss": plain, "token_accuracy": correct})


def label_smoothed_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cross entropy against (1 - smoothing) one-hot + smoothing uniform (Szegedy et al. 2016, section 7).

    Args:
        logits: float [N, V].
        labels: int32 [N].
        smoothing: the mass spread over all V classes.

    Returns:
        The smoothed and the plain cross entropy, [N] each, in nats, and whether the most probable class is the label,
        [N], all of the type of `logits`; a gradient flows into the first alone.
    """
    at_labels = tf.range(logits.shape[-1])[None] == labels[:, None]
    log_partition = tf.reduce_logsumexp(logits, -1)
    label_logits = tf.reduce_sum(tf.where(at_labels, logits, tf.zeros_like(logits)), -1)
    smooth = log_partition - (1.0 - smoothing) * label_logits - smoothing * tf.reduce_mean(logits, -1)
    correct = tf.cast(label_logits >= tf.reduce_max(logits, -1), logits.dtype)
    return smooth, tf.stop_gradient(log_partition - label_logits), tf.stop_gradient(correct)
