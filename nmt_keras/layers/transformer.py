"""The parts of a Transformer layer (Vaswani et al. 2017), and the SSRU that may replace its decoder's self-attention.

A mixer lets a target position see those before it, in two modes that agree:

    call(x [B,T,D], dropout_seed) -> [B,T,D]
    step(x [B,Q,D], position, own, here) -> ([B,Q,D], own)

Of a search, `own` is what one layer keeps of the positions before, and `here` what all layers share at this position:

    initial_state(batch, num_layers) -> state, which has
        state.layers, the `own` of each layer
        state.at(position) -> here, a state too
"""

from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.layers.base import Layer
from nmt_keras.layers.dense import Dense
from nmt_keras.layers.dropout import dropout, fold_in
from nmt_keras.layers.linear_recurrence import linear_recurrence
from nmt_keras.layers.multihead_attention import KeyValues, MultiHeadAttention

ACTIVATIONS = {"relu": tf.nn.relu, "gelu": tf.nn.gelu, "swiglu": tf.nn.silu}
NORM_EPSILON = 1e-6


class LayerNorm(Layer):
    """Layer normalisation of the last axis (Ba et al. 2016, eq. 3), in float32 under any policy.

    Keras's own layer first computes two arrays of factors, and takes one and a half times as long.
    """

    def build(self, shape) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """float32 [..., D] to [..., D]."""
        x -= tf.reduce_mean(x, -1, keepdims=True)
        x *= tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + NORM_EPSILON)
        return x * self.gamma + self.beta


class FeedForward(Layer):
    """W_2 f(W_1 x), applied to each position; with `swiglu` W_2 (silu(W_1 x) * V x) (Shazeer 2020, eq. 6, here
    with biases).

    Args:
        d_model: D.
        d_ff: F, the inner width.
        activation: a key of `ACTIVATIONS`.
        dropout_rate: of the inner activations.
    """

    def __init__(self, d_model: int, d_ff: int, activation: str, dropout_rate: float, name: str | None = None):
        super().__init__(name=name)
        self.d_model = d_model
        self.d_ff = d_ff
        self.dropout_rate = dropout_rate
        self.inner = Dense(d_ff, activation=ACTIVATIONS[activation], name="inner")
        self.gate = Dense(d_ff, use_bias=False, name="gate") if activation == "swiglu" else None
        self.outer = Dense(d_model, name="outer")

    def build(self, *_) -> None:
        self.inner.build((None, None, self.d_model))
        if self.gate is not None:
            self.gate.build((None, None, self.d_model))
        self.outer.build((None, None, self.d_ff))

    def call(self, x: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """[B, T, D] to [B, T, D]."""
        inner = self.inner(x, is_operand=self.gate is None and dropout_seed is None)
        if self.gate is not None:
            inner *= self.gate(x)
        return self.outer(dropout(inner, self.dropout_rate, dropout_seed))


class Residual(Layer):
    """What surrounds a sublayer: `after(x, sublayer(before(x)))`.

    Pre-norm is x + f(norm(x)) (Xiong et al. 2020), which trains without care; post-norm is norm(x + f(x)), the paper's.

    Args:
        d_model: D.
        pre_norm: which of the two.
        dropout_rate: of the sublayer's output.
    """

    def __init__(self, d_model: int, pre_norm: bool, dropout_rate: float, name: str | None = None):
        super().__init__(name=name)
        self.d_model = d_model
        self.pre_norm = pre_norm
        self.dropout_rate = dropout_rate
        self.norm = LayerNorm(name="norm")

    def build(self, *_) -> None:
        self.norm.build((None, None, self.d_model))

    def before(self, x: tf.Tensor) -> tf.Tensor:
        """What the sublayer reads."""
        return self.norm(x) if self.pre_norm else x

    def after(self, x: tf.Tensor, y: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        """x with the sublayer's output y."""
        y = x + dropout(y, self.dropout_rate, dropout_seed)
        return y if self.pre_norm else self.norm(y)


class Cache(NamedTuple):
    """What self-attention has projected in a search: of each layer keys and values of the hypotheses of a row at the
    positions so far, Z in all, and a mask that says which of them belong to each of Q hypotheses.

    Where hypotheses go on from others, as beams do at every position, keys and values stay where they are: what a
    hypothesis sees is reordered instead. A query is then compared with Z keys and not only with its own, which costs
    less than it would to move the keys, of all heads, layers and positions. Keys that no hypothesis sees any more are
    left out once they are more than the others. Hypotheses that never go on from one another, such as samples, have
    keys of their own: they are G groups of a row, otherwise G is 1.

    A cache with room reserved has Z places from the first position on, and puts new keys at the first that are free.
    """

    layers: tuple[KeyValues, ...]  # of the compute type, [B * G, H, Z, C]; Q / G fewer from `at` to the layer's step
    positions: tf.Tensor  # int32 [B * G, Z]
    is_own: tf.Tensor  # bool [B * G, Q / G, Z]
    place: tf.Tensor | tuple = ()  # int32 [], with room reserved: where the keys of this position go

    def at(self, position: tf.Tensor) -> "Cache":
        """The cache with a place more for each hypothesis, at a position, int32 []; a hypothesis sees its own new place
        and no other's. The steps of the layers add the keys and values."""
        groups, beams = tf.shape(self.is_own)[0], tf.shape(self.is_own)[1]
        here = tf.fill([groups, beams], position)
        itself = tf.eye(beams, batch_shape=[groups], dtype=tf.bool)
        cache = self._replace(place=self.place + beams) if isinstance(self.place, tf.Tensor) else self
        return cache._replace(
            positions=cache.joined(self.positions, here, 1), is_own=cache.joined(self.is_own, itself, 2)
        )

    def joined(self, before: tf.Tensor, new: tf.Tensor, axis: int) -> tf.Tensor:
        """What is kept of the positions before, and what is new at this one."""
        if not isinstance(self.place, tf.Tensor):
            return tf.concat([before, new], axis)
        number = tf.range(tf.shape(before)[axis]) - self.place
        count = tf.shape(new)[axis]
        is_new = tf.reshape((number >= 0) & (number < count), [-1] + [1] * (before.shape.rank - axis - 1))
        return tf.where(is_new, tf.gather(new, tf.clip_by_value(number, 0, count - 1), axis=axis), before)

    def reordered(self, parents: tf.Tensor) -> "Cache":
        """The cache of hypotheses that go on from `parents`, int32 [B, K]; G must be 1."""
        cache = self._replace(is_own=tf.gather(self.is_own, parents, batch_dims=1))
        if isinstance(self.place, tf.Tensor):
            return cache
        is_seen = tf.reduce_any(cache.is_own, 1)
        most = tf.reduce_max(tf.reduce_sum(tf.cast(is_seen, tf.int32), -1))  # keys that a row still needs
        most = tf.maximum(most, 0)  # of no rows it is the least integer
        return tf.cond(tf.shape(is_seen)[1] > 2 * most, lambda: cache._kept(_first_true(is_seen, most)), lambda: cache)

    def repeated(self, width: int | tf.Tensor) -> "Cache":
        """The cache of `width` groups that are the same so far."""
        own = self._replace(place=())
        return tf.nest.map_structure(lambda leaf: tf.repeat(leaf, width, axis=0), own)._replace(place=self.place)

    def reserved(self, width: int | tf.Tensor, positions: int) -> "Cache":
        """The cache of `width` hypotheses before the first position, with room for so many positions of each."""
        batch, size = tf.shape(self.is_own)[0], width * positions

        def with_room(leaf: tf.Tensor) -> tf.Tensor:  # [B, H, 0, C]
            return tf.zeros([batch, leaf.shape[1], size, leaf.shape[3]], leaf.dtype)

        return Cache(
            tf.nest.map_structure(with_room, self.layers),
            tf.zeros([batch, size], tf.int32),
            tf.zeros([batch, width, size], tf.bool),
            -tf.convert_to_tensor(width),
        )

    def _kept(self, places: tf.Tensor) -> "Cache":
        """The cache with the keys at `places` alone, int32 [B, Y]."""
        return Cache(
            tf.nest.map_structure(lambda leaf: tf.gather(leaf, places, axis=2, batch_dims=1), self.layers),
            tf.gather(self.positions, places, batch_dims=1),
            tf.gather(self.is_own, places, axis=2, batch_dims=1),
        )


def _first_true(mask: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """int32 [B, count]: where a mask, bool [B, Z], is true, in order, then other places of the row."""
    return tf.argsort(tf.cast(~mask, tf.int32), stable=True)[:, :count]


class CausalSelfAttention(Layer):
    """A mixer: self-attention that sees no later position. The state of a search is a `Cache`, which grows by a
    position of each hypothesis a step.

    The arguments are those of `MultiHeadAttention`.
    """

    def __init__(self, d_model: int, num_heads: int, name: str | None = None, **options):
        super().__init__(name=name)
        self.d_model = d_model
        self.attention = MultiHeadAttention(d_model, num_heads, name="attention", **options)

    def build(self, *_) -> None:
        self.attention.build()

    def initial_state(self, batch: tf.Tensor, num_layers: int) -> Cache:
        """No position yet."""
        heads = self.attention.num_heads
        nothing = tf.zeros([batch, heads, 0, self.d_model // heads], self.compute_dtype)
        layers = (KeyValues(nothing, nothing),) * num_layers
        return Cache(layers, tf.zeros([batch, 0], tf.int32), tf.zeros([batch, 1, 0], tf.bool))

    def call(self, x: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Teacher forcing: see the module's docstring."""
        positions = tf.range(tf.shape(x)[1])
        causal = positions[None, :] <= positions[:, None]
        read = self.attention.project(x, positions)
        return self.attention(x, read, causal, positions, positions, dropout_seed)[0]

    def step(self, x: tf.Tensor, position: tf.Tensor, own: KeyValues, here: Cache) -> tuple[tf.Tensor, KeyValues]:
        """One position: see the module's docstring."""
        shape = tf.shape(x)
        groups, beams = tf.shape(here.is_own)[0], tf.shape(here.is_own)[1]
        x = tf.reshape(x, [groups, beams, self.d_model])
        positions = tf.fill([beams], position)
        new = self.attention.project(x, positions)
        own = KeyValues(
            *(
                here.joined(before, tf.cast(added, self.compute_dtype), 2)
                for before, added in zip(own, new, strict=True)
            )
        )
        y, _ = self.attention(x, own, here.is_own[:, None], positions, here.positions)
        return tf.reshape(y, shape), own


class CellStates(NamedTuple):
    """What a recurrence over target positions keeps in a search: a state of each layer, whatever the position."""

    layers: tuple[tf.Tensor, ...]  # each float32 [B, Q, D]

    def at(self, position: tf.Tensor) -> "CellStates":
        """The same."""
        del position
        return self


class SSRU(Layer):
    """A mixer: c_t = f_t * c_{t-1} + (1 - f_t) * W x_t, relu(c_t), f_t = sigmoid(W_f x_t + b) (Kim et al. 2019, 3.1).

    No product depends on the position before, so that training has no loop and a step is cheap. A layer keeps c_t.

    Args:
        d_model: D.
    """

    def __init__(self, d_model: int, name: str | None = None):
        super().__init__(name=name)
        self.d_model = d_model
        self.forget = Dense(d_model, name="forget")
        self.candidate = Dense(d_model, use_bias=False, name="candidate")

    def build(self, *_) -> None:
        self.forget.build((None, None, self.d_model))
        self.candidate.build((None, None, self.d_model))

    def initial_state(self, batch: tf.Tensor, num_layers: int) -> CellStates:
        """Zeros [B, 1, D]."""
        return CellStates((tf.zeros([batch, 1, self.d_model]),) * num_layers)

    def call(self, x: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Teacher forcing: see the module's docstring."""
        del dropout_seed
        forget = tf.sigmoid(self.forget(x))
        return tf.nn.relu(linear_recurrence(forget, (1.0 - forget) * self.candidate(x), axis=1))

    def step(self, x: tf.Tensor, position: tf.Tensor, own: tf.Tensor, here: CellStates) -> tuple[tf.Tensor, tf.Tensor]:
        """One position: see the module's docstring."""
        del position, here
        forget = tf.sigmoid(self.forget(x))
        own = forget * own + (1.0 - forget) * self.candidate(x)
        return tf.nn.relu(own), own


class TransformerEncoderLayer(Layer):
    """Self-attention and feed-forward, each in a `Residual`.

    Args:
        attention: reads the sentence itself.
        feed_forward: of each position.
        residual: makes a `Residual` of a name.
    """

    def __init__(self, attention: MultiHeadAttention, feed_forward: FeedForward, residual, name: str | None = None):
        super().__init__(name=name)
        self.attention = attention
        self.feed_forward = feed_forward
        self.around_attention = residual("around_attention")
        self.around_feed_forward = residual("around_feed_forward")

    def build(self, *_) -> None:
        for layer in (self.attention, self.feed_forward, self.around_attention, self.around_feed_forward):
            layer.build()

    def call(self, x: tf.Tensor, source_mask: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """[B, S, D] and its mask, bool [B, S], to [B, S, D]."""
        positions = tf.range(tf.shape(x)[1])
        y = self.around_attention.before(x)
        y, _ = self.attention(
            y,
            self.attention.project(y, positions),
            source_mask[:, None, None, :],
            positions,
            positions,
            fold_in(dropout_seed, 0),
        )
        x = self.around_attention.after(x, y, fold_in(dropout_seed, 1))
        y = self.feed_forward(self.around_feed_forward.before(x), fold_in(dropout_seed, 2))
        return self.around_feed_forward.after(x, y, fold_in(dropout_seed, 3))


class TransformerDecoderLayer(Layer):
    """A mixer, attention to the source and feed-forward, each in a `Residual`.

    Args:
        mixer: see the module's docstring.
        cross_attention: reads the source.
        feed_forward: of each position.
        residual: makes a `Residual` of a name.
    """

    def __init__(
        self, mixer, cross_attention: MultiHeadAttention, feed_forward: FeedForward, residual, name: str | None = None
    ):
        super().__init__(name=name)
        self.mixer = mixer
        self.cross_attention = cross_attention
        self.feed_forward = feed_forward
        self.around_mixer = residual("around_mixer")
        self.around_attention = residual("around_attention")
        self.around_feed_forward = residual("around_feed_forward")

    def build(self, *_) -> None:
        for layer in (
            self.mixer,
            self.cross_attention,
            self.feed_forward,
            self.around_mixer,
            self.around_attention,
            self.around_feed_forward,
        ):
            layer.build()

    def call(
        self, x: tf.Tensor, source: KeyValues, source_mask: tf.Tensor, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """x [B, T, D] to [B, T, D] and the weights over the source, [B, H, T, S]."""
        y = self.mixer(self.around_mixer.before(x), fold_in(dropout_seed, 0))
        return self._rest(x, y, source, source_mask, dropout_seed)

    def step(
        self, x: tf.Tensor, position: tf.Tensor, own: Any, here: Any, source: KeyValues, source_mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """One position: x [B, Q, D] to [B, Q, D], weights [B, H, Q, S] and what the mixer keeps."""
        y, own = self.mixer.step(self.around_mixer.before(x), position, own, here)
        return *self._rest(x, y, source, source_mask, None), own

    def _rest(self, x, y, source, source_mask, dropout_seed):
        x = self.around_mixer.after(x, y, fold_in(dropout_seed, 1))
        y, weights = self.cross_attention(
            self.around_attention.before(x),
            source,
            source_mask[:, None, None, :],
            dropout_seed=fold_in(dropout_seed, 2),
        )
        x = self.around_attention.after(x, y, fold_in(dropout_seed, 3))
        y = self.feed_forward(self.around_feed_forward.before(x), fold_in(dropout_seed, 4))
        return self.around_feed_forward.after(x, y, fold_in(dropout_seed, 5)), weights
