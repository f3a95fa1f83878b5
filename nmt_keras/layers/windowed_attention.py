"""Local attention: each target position reads a window of the source (Luong et al. 2015, 3.2)."""

import keras
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.attention import AttentionMemory, LuongGeneralAttention
from nmt_keras.layers.masks import masked_softmax

_WINDOW = 10  # D of the paper: positions on each side of the centre


class LocalMonotonicAttention(LuongGeneralAttention):
    """local-m: e_{t,i} = s_t^T W h_i within D positions of p_t = t, and nothing beyond.

    The paper assumes source and target roughly aligned. A target longer than its source goes on reading the last
    window.
    """

    def call(self, query, memory: AttentionMemory, attention_state=(), positions=None, dropout_seed=None):
        """Reads memory: see `nmt_keras.layers.attention`."""
        del dropout_seed
        last = tf.reduce_sum(tf.cast(memory.mask, tf.int32), -1) - 1
        centre = tf.minimum(positions[None, :], last[:, None])[:, :, None]  # [B, Q, 1]
        window = tf.abs(tf.range(tf.shape(memory.mask)[1]) - centre) <= _WINDOW
        weights = masked_softmax(self.scores(query, memory.keys), window & memory.mask[:, None, :])
        return self.context(weights, memory), weights, attention_state


class LocalPredictiveAttention(LuongGeneralAttention):
    """local-p: p_t = S sigmoid(v^T tanh(W_p s_t)), a_{t,i} = softmax(e_t)_i exp(-(i - p_t)^2 / (2 (D/2)^2)) within D
    positions of p_t (eqs. 9 and 10), S the real length. Weights sum to at most 1.
    """

    def build(self, *_) -> None:
        super().build()
        self.position_kernel = self.add_weight(
            shape=(self.d_model, self.d_model), initializer="glorot_uniform", name="position_kernel"
        )
        self.position_energy = self.add_weight(
            shape=(self.d_model, 1),
            initializer=keras.initializers.RandomNormal(stddev=self.d_model**-0.5),
            name="position_energy",
        )

    def call(self, query, memory: AttentionMemory, attention_state=(), positions=None, dropout_seed=None):
        """Reads memory: see `nmt_keras.layers.attention`."""
        del positions, dropout_seed
        length = tf.reduce_sum(tf.cast(memory.mask, tf.float32), -1)[:, None, None]
        hidden = tf.tanh(dense.product(query, self.position_kernel, self.compute_dtype))
        centre = length * tf.sigmoid(dense.product(hidden, self.position_energy, self.compute_dtype))  # [B, Q, 1]
        away = tf.range(tf.shape(memory.mask)[1], dtype=tf.float32) - centre  # [B, Q, S]
        window = (tf.abs(away) <= _WINDOW) & memory.mask[:, None, :]
        weights = masked_softmax(self.scores(query, memory.keys), window)
        weights *= tf.exp(-tf.square(away) / (2.0 * (_WINDOW / 2.0) ** 2))
        return self.context(weights, memory), weights, attention_state
