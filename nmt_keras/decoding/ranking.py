"""The score that ranks hypotheses: log probability, corrected for length and for what was left untranslated."""

from typing import Any, NamedTuple

import tensorflow as tf

_LEAST_COVERAGE = 1e-6  # of a source position, so that its logarithm is finite


class Ranking(NamedTuple):
    """total / penalty(length) + coverage_penalty * sum_i log(min(sum_t a_{t,i}, 1)) (Wu et al. 2016, eq. 14)."""

    length_penalty: float | tf.Tensor = 0.0  # alpha, not negative, float32 [] or [B]; 0 ranks by log probability
    kind: str = "gnmt"  # ((5 + length) / 6)^alpha, or `average`: length^alpha; alpha 1 gives the mean of a token
    coverage_penalty: float = 0.0  # beta, not negative
    source_mask: Any = None  # bool [B, S], needed with a coverage penalty

    def penalty(self, length: tf.Tensor) -> tf.Tensor:
        """float32 of the shape of `length`, int32 [B, N], which counts EOS; grows with it."""
        base = tf.cast(length, tf.float32)
        base = (5.0 + base) / 6.0 if self.kind == "gnmt" else tf.maximum(base, 1.0)
        return tf.pow(base, tf.reshape(tf.cast(self.length_penalty, tf.float32), [-1, 1]))

    def score(self, total: tf.Tensor, length: tf.Tensor, coverage: tf.Tensor | None) -> tf.Tensor:
        """float32 [B, N].

        Args:
            total: sum of token log probabilities, float32 [B, N].
            length: EOS included, int32 [B, N].
            coverage: sum of attention weights over target positions, float32 [B, N, S]; None without such a penalty.
        """
        score = total / self.penalty(length)
        if coverage is None:
            return score
        covered = tf.math.log(tf.clip_by_value(coverage, _LEAST_COVERAGE, 1.0))
        left_out = tf.reduce_sum(tf.where(self.source_mask[:, None, :], covered, 0.0), -1)
        return score + self.coverage_penalty * left_out

    def bound(self, total: tf.Tensor, max_length: tf.Tensor) -> tf.Tensor:
        """An upper bound on the score of any continuation of live hypotheses: totals only fall, penalties only grow.

        Args:
            total: float32 [B, N].
            max_length: int32 [B].
        """
        return total / self.penalty(max_length[:, None])
