"""Attention that remembers what it has read: location-aware, with coverage, and monotonic.

The state is what was read before, so that positions are read one after the other, in training too.
"""

import keras
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.attention import AttentionMemory, BahdanauAttention, NormedBahdanauAttention
from nmt_keras.layers.linear_recurrence import linear_recurrence
from nmt_keras.layers.masks import masked_softmax


class LocationAttention(BahdanauAttention):
    """e_{t,i} = v^T tanh(W s + U h_i + V f_{t,i}), f_t = F * a_{t-1} (Chorowski et al. 2015, eqs. 8 and 9).

    F holds `num_filters` filters of `kernel_size` positions; the paper's bias is left out, as Bahdanau's is. The state
    is a_{t-1}, zeros before the first position.
    """

    is_stateful = True
    num_filters = 10
    kernel_size = 7

    def build(self, *_) -> None:
        super().build()
        self.filters = self.add_weight(
            shape=(self.kernel_size, self.num_filters), initializer="glorot_uniform", name="filters"
        )
        self.location_kernel = self.add_weight(
            shape=(self.num_filters, self.d_model), initializer="glorot_uniform", name="location_kernel"
        )

    def initial_state(self, memory: AttentionMemory) -> tf.Tensor:
        return tf.zeros_like(memory.keys[:, None, :, 0])

    def call(self, query, memory: AttentionMemory, attention_state=(), positions=None, dropout_seed=None):
        """Reads memory; the state is the last weights, [B, Q, S]."""
        del positions, dropout_seed
        before = self.kernel_size // 2
        padded = tf.pad(attention_state, [[0, 0], [0, 0], [before, self.kernel_size - 1 - before]])
        length = tf.shape(attention_state)[2]
        windows = tf.stack([padded[:, :, i : i + length] for i in range(self.kernel_size)], -1)  # [B, Q, S, kernel]
        features = dense.product(windows, self.filters, self.compute_dtype)
        features = dense.product(features, self.location_kernel, self.compute_dtype)
        query = dense.product(query, self.query_kernel, self.compute_dtype)
        scores = self.energies(query[:, :, None] + memory.keys[:, None] + features)
        weights = masked_softmax(scores, memory.mask[:, None, :])
        return self.context(weights, memory), weights, weights


class CoverageAttention(BahdanauAttention):
    """e_{t,i} = v^T tanh(W s + U h_i + V C_{t-1,i}), C_{t,i} = C_{t-1,i} + a_{t,i} / Phi_i, Phi_i = 2 sigmoid(U_f
    h_i): the linguistic coverage of Tu et al. (2016, eqs. 6 to 8). The state is C, and Phi says how often a word is to
    be read.
    """

    is_stateful = True
    max_fertility = 2.0

    def build(self, *_) -> None:
        super().build()
        self.coverage_kernel = self.add_weight(
            shape=(self.d_model,), initializer=keras.initializers.RandomNormal(stddev=0.1), name="coverage_kernel"
        )
        self.fertility_kernel = self.add_weight(
            shape=(self.d_model, 1), initializer="glorot_uniform", name="fertility_kernel"
        )

    def prepare(self, states: tf.Tensor, mask: tf.Tensor) -> AttentionMemory:
        fertility = dense.product(states, self.fertility_kernel, self.compute_dtype)[:, :, 0]
        return super().prepare(states, mask)._replace(fertility=self.max_fertility * tf.sigmoid(fertility))

    def initial_state(self, memory: AttentionMemory) -> tf.Tensor:
        return tf.zeros_like(memory.keys[:, None, :, 0])

    def call(self, query, memory: AttentionMemory, attention_state=(), positions=None, dropout_seed=None):
        """Reads memory; the state is the coverage, [B, Q, S]."""
        del positions, dropout_seed
        query = dense.product(query, self.query_kernel, self.compute_dtype)
        covered = attention_state[..., None] * self.coverage_kernel
        weights = masked_softmax(
            self.energies(query[:, :, None] + memory.keys[:, None] + covered), memory.mask[:, None, :]
        )
        return self.context(weights, memory), weights, attention_state + weights / memory.fertility[:, None]


class MonotonicAttention(NormedBahdanauAttention):
    """p_{t,i} = sigmoid(e_{t,i} + r), a_{t,i} = p_{t,i} ((1 - p_{t,i-1}) a_{t,i-1} / p_{t,i-1} + a_{t-1,i}): the
    expected weights of reading from left to right without going back (Raffel et al. 2017, eqs. 9 to 11 and 16).

    Training adds standard normal noise to e, which drives p to 0 and 1. Weights sum to at most 1. The state is a_{t-1};
    at the start it is 1 at the first source position and 0 elsewhere.
    """

    is_stateful = True
    first_threshold = -1.0  # r at the start: at first most positions are passed over (Raffel et al. 2017, G)

    def build(self, *_) -> None:
        super().build()
        self.threshold = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(self.first_threshold), name="threshold"
        )

    def initial_state(self, memory: AttentionMemory) -> tf.Tensor:
        zeros = tf.zeros_like(memory.keys[:, None, :, 0])
        return tf.concat([tf.ones_like(zeros[:, :, :1]), zeros[:, :, 1:]], 2)

    def call(self, query, memory: AttentionMemory, attention_state=(), positions=None, dropout_seed=None):
        """Reads memory; the state is the last weights, [B, Q, S]."""
        del positions
        energies = self.scores(query, memory.keys) + self.threshold
        if dropout_seed is not None:
            energies += _normal(tf.shape(energies), dropout_seed)
        stop = tf.where(memory.mask[:, None, :], self._stop(energies, dropout_seed), 0.0)
        weights = expected_weights(stop, attention_state)
        return self.context(weights, memory), weights, weights

    def _stop(self, energies: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        del dropout_seed
        return tf.sigmoid(energies)


class HardMonotonicAttention(MonotonicAttention):
    """Trained as `MonotonicAttention`; at inference the reader stops at the first position of p > 1/2, from the one it
    stopped at before (Raffel et al. 2017, algorithm 1). Weights are 0 or 1, and all 0 once it has passed the end.
    """

    def _stop(self, energies: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        if dropout_seed is not None:
            return super()._stop(energies, dropout_seed)
        return tf.cast(energies > 0.0, tf.float32)


def expected_weights(stop: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
    """Raffel et al. 2017, eq. 13, as a recurrence over the source that needs no division.

    With q_i the probability that the reader arrives at position i, q_i = a_{t-1,i} + (1 - p_{i-1}) q_{i-1} and a_{t,i}
    = p_i q_i. The recurrence is linear, so it takes log2(S) passes over the whole (a scan by doubling).

    Args:
        stop: p_t, float32 [B, Q, S].
        before: a_{t-1}, float32 [B, Q, S].

    Returns:
        a_t, float32 [B, Q, S].
    """
    passed = tf.pad(1.0 - stop, [[0, 0], [0, 0], [1, 0]])[:, :, :-1]
    return stop * linear_recurrence(passed, before, axis=2)


def _normal(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws of the normal distribution, by its quantiles at 23 random bits: of TensorFlow's draws, those of whole bits
    alone are the same under XLA."""
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.uint64)
    return _quantile(tf.cast(tf.bitwise.right_shift(bits, tf.constant(41, tf.uint64)), tf.float32))


def _quantile(draw: tf.Tensor) -> tf.Tensor:
    """The normal quantile of a whole number from 0 to 2^23 - 1, as float32: finite, since a half more is exact."""
    return tf.math.ndtri((draw + 0.5) * 2.0**-23)
