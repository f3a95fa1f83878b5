"""Word-level knowledge distillation (Hinton et al. 2015; Kim and Rush 2016, 3.1)."""

import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.data.batching import Batch
from nmt_keras.training.losses.chunks import Projected
from nmt_keras.training.losses.cross_entropy import label_smoothed_cross_entropy
from nmt_keras.training.losses.forward import Forward, LossSums
from nmt_keras.training.losses.resources import Resources


class Distillation:
    """(1 - w) times the cross entropy of the text, and w times the divergence from the teacher's distribution of each
    next id; a `Loss`.

    The divergence is tau^2 KL(teacher || student), both distributions taken at the temperature tau, so that tau changes
    the size of its gradient little (Hinton et al. 2015, 2).

    Args:
        config: `distillation_weight` is w, `distillation_temperature` tau; `label_smoothing` of the cross entropy.
        resources: `teacher`.
    """

    names = ("loss", "token_accuracy", "divergence")
    name_of_minimised = "distillation_loss"

    def __init__(self, config: TrainingConfig, resources: Resources = Resources()):
        self._smoothing = config.label_smoothing
        self._weight = config.distillation_weight
        self._temperature = config.distillation_temperature
        self._teacher = resources.teacher

    def __call__(self, forward: Forward, batch: Batch, seed: tf.Tensor | None) -> LossSums:
        """See `Loss`."""
        del batch
        assert self._teacher is not None, "the loss distillation needs a teacher"

        def values_of(
            logits: list[tf.Tensor], labels: tf.Tensor, weights: tf.Tensor, taught: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            smoothed, plain, correct = label_smoothed_cross_entropy(logits[0], labels, self._smoothing)
            log_p, log_q = (tf.nn.log_softmax(each / self._temperature) for each in (logits[0], taught))
            divergence = self._temperature**2 * tf.reduce_sum(tf.exp(log_q) * (log_q - log_p), -1)
            total = self._weight * divergence
            if self._weight < 1.0:
                total += (1.0 - self._weight) * smoothed
            values = (total, plain, correct, tf.stop_gradient(divergence))
            return tuple(tf.reduce_sum(weights * value) for value in values)

        hidden = tf.stop_gradient(forward.through(self._teacher)(None).hidden)
        total, *scalars = forward.sums(values_of, [forward(seed)], [Projected(hidden, self._teacher.project)])
        return LossSums(total, tf.reduce_sum(forward.weights), dict(zip(self.names, scalars, strict=True)))
