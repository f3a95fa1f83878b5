"""Attention: e_{t,i} = a(s_t, h_i), a_t = softmax(e_t), c_t = sum_i a_{t,i} h_i.

An attention layer has two methods. `prepare(states [B,S,D], mask [B,S]) -> AttentionMemory` computes once per sentence
what does not depend on the decoder. `call(query [B,Q,D], memory, attention_state, positions, dropout_seed) -> (context
[B,Q,D], weights [B,Q,S], attention_state)` reads; `positions` [Q] or [1] are the queries' places in the target. The
state is `()` where a mechanism has none. Q is the T positions of teacher forcing, 1 inside a recurrence, or the K
beams of a search, so that memory is never tiled. `read_sequence` reads for the T positions of a sentence in either
case.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer
from nmt_keras.layers.dropout import fold_in
from nmt_keras.layers.masks import masked_softmax


class AttentionMemory(NamedTuple):
    """What attention reads."""

    keys: tf.Tensor  # float32 [B, S, A], what queries are compared with
    values: tf.Tensor  # float32 [B, S, D], what is read: h_1..h_S
    mask: tf.Tensor  # bool [B, S]
    fertility: Any = ()  # float32 [B, S], how often a position is to be read; of coverage alone


class Attention(Layer):
    """The part that mechanisms share; a subclass has `scores` and, if keys are not the states, `prepare`.

    Args:
        d_model: D, of queries and of values.
        num_heads: of mechanisms that have several; divides D.
    """

    has_context = True
    operands: tuple[str, ...] = ("values",)  # the fields of memory that only products read
    is_stateful = False  # whether what was read before changes what is read next

    def __init__(self, d_model: int, num_heads: int = 1, name: str | None = None):
        super().__init__(name=name)
        self.d_model = d_model
        self.num_heads = num_heads

    def prepare(self, states: tf.Tensor, mask: tf.Tensor) -> AttentionMemory:
        """Encoder states, float32 [B, S, D], and their mask, bool [B, S], to what `call` reads."""
        return AttentionMemory(states, states, mask)

    def scores(self, query: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """e_{t,i}: query [B, Q, D] and keys [B, S, A] to float32 [B, Q, S]."""
        raise NotImplementedError

    def initial_state(self, memory: AttentionMemory) -> Any:
        """The attention state before the first position, leaves [B, 1, ...]."""
        del memory
        return ()

    def call(self, query, memory: AttentionMemory, attention_state=(), positions=None, dropout_seed=None):
        """Reads memory: see the module's docstring."""
        del positions, dropout_seed
        weights = masked_softmax(self.scores(query, memory.keys), memory.mask[:, None, :])
        return self.context(weights, memory), weights, attention_state

    def context(self, weights: tf.Tensor, memory: AttentionMemory) -> tf.Tensor:
        """c_t = sum_i a_{t,i} h_i: weights [B, Q, S] to float32 [B, Q, D]."""
        return dense.batched_product(weights, memory.values, self.compute_dtype)

    def read_sequence(
        self, queries: tf.Tensor, memory: AttentionMemory, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Queries of all target positions, [B, T, D], to contexts [B, T, D] and weights [B, T, S].

        One product where the mechanism has no state; one position after the other where it has.
        """
        positions = tf.range(tf.shape(queries)[1])
        if not self.is_stateful:
            context, weights, _ = self(queries, memory, (), positions, dropout_seed)
            return context, weights

        def body(t, state, contexts, all_weights):
            context, weights, state = self(
                tf.gather(queries, [t], axis=1), memory, state, tf.reshape(t, [1]), fold_in(dropout_seed, t)
            )
            context, weights = (tf.squeeze(result, 1) for result in (context, weights))
            return t + 1, state, contexts.write(t, context), all_weights.write(t, weights)

        arrays = [tf.TensorArray(tf.float32, tf.shape(queries)[1]) for _ in range(2)]
        _, _, contexts, weights = tf.while_loop(
            lambda t, *_: t < tf.shape(queries)[1],
            body,
            (0, self.initial_state(memory), *arrays),
            maximum_iterations=tf.shape(queries)[1],
        )
        context, weights = (tf.transpose(array.stack(), [1, 0, 2]) for array in (contexts, weights))
        return tf.ensure_shape(context, [None, None, self.d_model]), weights


class NoAttention(Attention):
    """Reads nothing: the plain encoder-decoder (Sutskever et al. 2014). The context is empty, the weights zero."""

    has_context = False
    operands = ()

    def build(self, *_) -> None:
        pass

    def call(self, query, memory: AttentionMemory, attention_state=(), positions=None, dropout_seed=None):
        """A context [B, Q, 0] and weights of zeros [B, Q, S]."""
        del positions, dropout_seed
        shape = tf.shape(query)
        return query[:, :, :0], tf.zeros([shape[0], shape[1], tf.shape(memory.mask)[1]]), attention_state


class LuongDotAttention(Attention):
    """e_{t,i} = s_t^T h_i (Luong et al. 2015, eq. 8, dot)."""

    operands = ("keys", "values")

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
        projected = dense.product(query, self.query_kernel, self.compute_dtype)
        return self.energies(tf.expand_dims(projected, 2) + tf.expand_dims(keys, 1))

    def energies(self, compared: tf.Tensor) -> tf.Tensor:
        """v^T tanh(x): x [B, Q, S, D] to [B, Q, S]."""
        return tf.reduce_sum(tf.tanh(compared) * self.energy, -1)


class NormedBahdanauAttention(BahdanauAttention):
    """e_{t,i} = g v^T / |v| tanh(W s + U h_i + b) (weight normalisation: Salimans and Kingma 2016, eq. 2; Raffel et al.
    2017, eq. 16), with g starting at 1 / sqrt(D)."""

    def build(self, *_) -> None:
        super().build()
        self.gain = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.d_model**-0.5), name="gain")
        self.bias = self.add_weight(shape=(self.d_model,), initializer="zeros", name="bias")

    def energies(self, compared: tf.Tensor) -> tf.Tensor:
        direction = tf.math.l2_normalize(tf.convert_to_tensor(self.energy))
        return self.gain * tf.reduce_sum(tf.tanh(compared + self.bias) * direction, -1)
