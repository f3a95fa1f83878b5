"""R-Drop (Wu et al. 2021): two passes with other dropout, whose distributions are made similar."""

import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.data.batching import Batch
from nmt_keras.layers.dropout import fold_in
from nmt_keras.training.losses.cross_entropy import label_smoothed_cross_entropy
from nmt_keras.training.losses.forward import Forward, LossSums
from nmt_keras.training.losses.resources import Resources


class RDrop:
    """The mean cross entropy of two passes, and alpha / 2 times the mean of the two Kullback-Leibler divergences
    between their distributions; a `Loss`.

    It is half of Wu et al. 2021, eq. 4, which adds up the cross entropies of both passes, so that a token weighs as
    much as in `CrossEntropy`.

    Args:
        config: `r_drop_alpha`, and `label_smoothing` of the cross entropies.
        resources: none.
    """

    names = ("loss", "token_accuracy", "divergence")
    name_of_minimised = "r_drop_loss"

    def __init__(self, config: TrainingConfig, resources: Resources = Resources()):
        del resources
        self._smoothing = config.label_smoothing
        self._alpha = config.r_drop_alpha

    def __call__(self, forward: Forward, batch: Batch, seed: tf.Tensor | None) -> LossSums:
        """See `Loss`."""
        del batch

        def values_of(logits: list[tf.Tensor], labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
            entropies = zip(*(label_smoothed_cross_entropy(each, labels, self._smoothing) for each in logits))
            smoothed, plain, correct = (sum(pair) / 2.0 for pair in entropies)
            # KL(P || Q) + KL(Q || P) is the sum of (p - q) (log p - log q).
            log_p, log_q = (tf.nn.log_softmax(each) for each in logits)
            divergence = tf.reduce_sum((tf.exp(log_p) - tf.exp(log_q)) * (log_p - log_q), -1) / 2.0
            values = (smoothed + self._alpha / 2.0 * divergence, plain, correct, tf.stop_gradient(divergence))
            return tuple(tf.reduce_sum(weights * value) for value in values)

        passes = [forward(fold_in(seed, number)) for number in (1, 2)]
        total, *scalars = forward.sums(values_of, passes)
        return LossSums(total, tf.reduce_sum(forward.weights), dict(zip(self.names, scalars, strict=True)))
