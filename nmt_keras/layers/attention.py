"""Attention: e_{t,i} = a(s_t, h_i), a_t = softmax(e_t), c_t = sum_i a_{t,i} h_i.

An attention layer has two methods. `prepare(states [B,S,D], mask [B,S]) -> AttentionMemory` computes once per sentence
what does not depend on the decoder. `call(query [B,Q,D], memory, attention_state) -> (context [B,Q,D], weights [B,Q,S],
attention_state)` reads; the state is `()` where a mechanism has none. Q is the T positions of teacher forcing, 1 inside
a recurrence, or the K beams of a search, so that memory is never tiled.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer
from nmt_keras.layers.masks import masked_softmax


class AttentionMemory(NamedTuple):
    """What attention reads."""

    keys: tf.Tensor  # float32 [B, S, A], what queries are compared with
    values: tf.Tensor  # float32 [B, S, D], what is read: h_1..h_S
    mask: tf.Tensor  # bool [B, S]


class Attention(Layer):
    """The part that mechanisms share; a subclass has `scores` and, if keys are not the states, `prepare`.

    Args:
        d_model: D, of queries and of values.
    """

    has_context = True

    def __init__(self, d_model: int, name: str | None = None):
        super().__init__(name=name)
        self.d_model = d_model

    def prepare(self, states: tf.Tensor, mask: tf.Tensor) -> AttentionMemory:
        """Encoder states, float32 [B, S, D], and their mask, bool [B, S], to what `call` reads."""
        return AttentionMemory(states, states, mask)

    def scores(self, query: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """e_{t,i}: query [B, Q, D] and keys [B, S, A] to float32 [B, Q, S]."""
        raise NotImplementedError

    def initial_state(self, memory: AttentionMemory):
        """The attention state before the first position."""
        del memory
        return ()

    def call(self, query: tf.Tensor, memory: AttentionMemory, attention_state=()):
        """Reads memory: see the module's docstring."""
        weights = masked_softmax(self.scores(query, memory.keys), memory.mask[:, None, :])
        return dense.batched_product(weights, memory.values, self.compute_dtype), weights, attention_state


class NoAttention(Attention):
    """Reads nothing: the plain encoder-decoder (Sutskever et al. 2014). The context is empty, the weights zero."""

    has_context = False

    def build(self, *_) -> None:
        pass

    def call(self, query: tf.Tensor, memory: AttentionMemory, attention_state=()):
        """A context [B, Q, 0] and weights of zeros [B, Q, S]."""
        shape = tf.shape(query)
        return query[:, :, :0], tf.zeros([shape[0], shape[1], tf.shape(memory.mask)[1]]), attention_state


class LuongDotAttention(Attention):
    """e_{t,i} = s_t^T h_i (Luong et al. 2015, eq. 8, dot)."""

    def build(self, *_) -> None:
        pass

    def scores(self, query: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        return dense.batched_product(query, keys, self.compute_dtype, transpose_y=True)


class LuongGeneralAttention(LuongDotAttention):
    """e_{t,i} = s_t^T W h_i (Luong et al. 2015, eq. 8, general)."""

    def build(self, *_) -> None:
        self.kernel = self.add_weight(shape=(self.d_model, self.d_model), initializer="glorot_uniform", name="kernel")

    def prepare(self, states: tf.Tensor, mask: tf.Tensor) -> AttentionMemory:
        return AttentionMemory(dense.product(states, self.kernel, self.compute_dtype), states, mask)


class LuongScaledAttention(LuongGeneralAttention):
    """e_{t,i} = g s_t^T W h_i with a learned g that starts at 1 (tensorflow/nmt's scaled_luong)."""

    def build(self, *_) -> None:
        super().build()
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def scores(self, query: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        return super().scores(query, keys) * self.scale


class BahdanauAttention(Attention):
    """e_{t,i} = v^T tanh(W s + U h_i) (Bahdanau et al. 2015, A.1.2)."""

    def build(self, *_) -> None:
        shape = (self.d_model, self.d_model)
        self.query_kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="query_kernel")
        self.key_kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="key_kernel")
        self.energy = self.add_weight(
            shape=(self.d_model,), name="energy", initializer=keras.initializers.RandomNormal(stddev=self.d_model**-0.5)
        )

    def prepare(self, states: tf.Tensor, mask: tf.Tensor) -> AttentionMemory:
        return AttentionMemory(dense.product(states, self.key_kernel, self.compute_dtype), states, mask)

    def scores(self, query: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        query = dense.product(query, self.query_kernel, self.compute_dtype)
        return tf.reduce_sum(tf.tanh(query[:, :, None] + keys[:, None]) * self.energy, -1)
