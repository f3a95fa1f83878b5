"""Multi-head attention: of a recurrent decoder (additive), and of the Transformer (scaled dot product)."""

from typing import NamedTuple

import keras
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.attention import Attention, AttentionMemory
from nmt_keras.layers.base import Layer
from nmt_keras.layers.dense import Dense
from nmt_keras.layers.dropout import dropout
from nmt_keras.layers.masks import masked_softmax
from nmt_keras.layers.positions import RelativePositions, rotate


class MultiHeadAdditiveAttention(Attention):
    """H heads, each e_{t,i} = v^T tanh(W s + U h_i) on D/H channels, read values of their own, joined by a product: the
    attention of RNMT+ (Chen et al. 2018, 4.1). The weights returned are the heads' mean.
    """

    def __init__(self, d_model: int, num_heads: int = 1, name: str | None = None):
        super().__init__(d_model, num_heads, name=name)
        self.query_projection = Dense(d_model, use_bias=False, name="query")
        self.key_projection = Dense(d_model, use_bias=False, name="key")
        self.value_projection = Dense(d_model, use_bias=False, name="value")
        self.output_projection = Dense(d_model, use_bias=False, name="output")

    def build(self, *_) -> None:
        for layer in (self.query_projection, self.key_projection, self.value_projection, self.output_projection):
            layer.build((None, None, self.d_model))
        self.energy = self.add_weight(
            shape=(self.num_heads, 1, 1, self.d_model // self.num_heads),
            initializer=keras.initializers.RandomNormal(stddev=(self.d_model // self.num_heads) ** -0.5),
            name="energy",
        )

    def prepare(self, states: tf.Tensor, mask: tf.Tensor) -> AttentionMemory:
        return AttentionMemory(self.key_projection(states), self.value_projection(states), mask)

    def call(self, query, memory: AttentionMemory, attention_state=(), positions=None, dropout_seed=None):
        """Reads memory: see `nmt_keras.layers.attention`."""
        del positions, dropout_seed
        query, keys, values = (
            split_heads(x, self.num_heads) for x in (self.query_projection(query), memory.keys, memory.values)
        )
        compared = tf.tanh(query[:, :, :, None] + keys[:, :, None])  # [B, H, Q, S, C]
        weights = masked_softmax(tf.reduce_sum(compared * self.energy, -1), memory.mask[:, None, None, :])
        context = self.output_projection(join_heads(dense.batched_product(weights, values, self.compute_dtype)))
        return context, tf.reduce_mean(weights, 1), attention_state


class KeyValues(NamedTuple):
    """What scaled dot-product attention reads: the projections of S positions, split into heads."""

    keys: tf.Tensor  # float32 [B, H, S, C]
    values: tf.Tensor  # float32 [B, H, S, C]


class MultiHeadAttention(Layer):
    """softmax(q k^T / sqrt(C)) v for each of H heads (Vaswani et al. 2017, 3.2).

    Args:
        d_model: D.
        num_heads: H, divides D; C = D / H.
        rotary: turn queries and keys by their positions (Su et al. 2021).
        relative: add the product of the query and a learned vector of the distance (Shaw et al. 2018, keys alone).
        dropout_rate: of the weights.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        rotary: bool = False,
        relative: bool = False,
        dropout_rate: float = 0.0,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.d_model = d_model
        self.num_heads = num_heads
        self.rotary = rotary
        self.dropout_rate = dropout_rate
        self.query_projection = Dense(d_model, name="query")
        self.key_projection = Dense(d_model, name="key")
        self.value_projection = Dense(d_model, name="value")
        self.output_projection = Dense(d_model, name="output")
        self.distances = RelativePositions(d_model // num_heads, name="distances") if relative else None

    def build(self, *_) -> None:
        for layer in (self.query_projection, self.key_projection, self.value_projection, self.output_projection):
            layer.build((None, None, self.d_model))
        if self.distances is not None:
            self.distances.build()

    def project(self, x: tf.Tensor, positions: tf.Tensor | None = None) -> KeyValues:
        """Projects x [B, S, D] to keys and values; `positions` [S] are needed with `rotary`, to turn the keys."""
        keys, values = split_heads(self.key_projection(x), self.num_heads), split_heads(
            self.value_projection(x), self.num_heads
        )
        return KeyValues(rotate(keys, positions) if self.rotary else keys, values)

    def call(self, x, read: KeyValues, visible, positions=None, key_positions=None, dropout_seed=None):
        """Reads.

        Args:
            x: the queries, float32 [B, Q, D].
            read: of `project`.
            visible: bool, broadcast to [B, H, Q, S]; None if everything is.
            positions: int32 [Q] of the queries.
            key_positions: int32 [S] of what is read, or [B, S].
            dropout_seed: int32 [2] or None.

        Returns:
            float32 [B, Q, D], and the weights, float32 [B, H, Q, S].
        """
        query = split_heads(self.query_projection(x), self.num_heads)
        if self.rotary:
            query = rotate(query, positions)
        query *= (self.d_model // self.num_heads) ** -0.5
        scores = dense.batched_product(query, read.keys, self.compute_dtype, transpose_y=True)
        if self.distances is not None:
            scores += self.distances(query, positions, key_positions)
        weights = tf.nn.softmax(scores) if visible is None else masked_softmax(scores, visible)
        kept = dropout(weights, self.dropout_rate, dropout_seed)
        return self.output_projection(join_heads(dense.batched_product(kept, read.values, self.compute_dtype))), weights


def split_heads(x: tf.Tensor, num_heads: int) -> tf.Tensor:
    """[B, S, D] to [B, H, S, C]."""
    shape = tf.shape(x)
    return tf.transpose(tf.reshape(x, [shape[0], shape[1], num_heads, x.shape[-1] // num_heads]), [0, 2, 1, 3])


def join_heads(x: tf.Tensor) -> tf.Tensor:
    """[B, H, S, C] to [B, S, D]."""
    shape = tf.shape(x)
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [shape[0], shape[2], x.shape[1] * x.shape[3]])
