"""Where a token stands: sinusoidal, learned, rotary and relative positions."""

import math

import keras
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer

_MAX_PERIOD = 10_000.0
_MAX_DISTANCE = 16  # k of Shaw et al. 2018


def sinusoids(positions: tf.Tensor, width: int) -> tf.Tensor:
    """sin(p / 10000^(2i/D)) and cos of the same (Vaswani et al. 2017, 3.5), int32 [T] to float32 [T, width].

    Sines come first and cosines second, as in tensor2tensor; the paper interleaves them, which is a permutation.
    """
    angles = _angles(positions, width // 2)
    return tf.concat([tf.sin(angles), tf.cos(angles)], -1)


def rotate(x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Turns pairs of channels by an angle that grows with the position (Su et al. 2021, eq. 34).

    A product of two rotated vectors depends on the distance of their positions alone.

    Args:
        x: float32 [B, H, T, C], C even.
        positions: int32 [T] or [1].
    """
    angles = _angles(positions, x.shape[-1] // 2)
    sin, cos = tf.sin(angles), tf.cos(angles)
    first, second = tf.split(x, 2, axis=-1)
    return tf.concat([first * cos - second * sin, first * sin + second * cos], -1)


def _angles(positions: tf.Tensor, count: int) -> tf.Tensor:
    speeds = tf.exp(tf.range(count, dtype=tf.float32) * (-math.log(_MAX_PERIOD) / count))
    return tf.cast(positions, tf.float32)[:, None] * speeds


class PositionEmbedding(Layer):
    """Adds vectors of their positions to embeddings.

    Args:
        kind: `sinusoidal`, or `learned` (Gehring et al. 2017, 3.1); anything else adds nothing.
        max_positions: how many are learned. The positions beyond share the last one's vector.
        stddev: of those that are learned, at the start.
    """

    def __init__(self, kind: str, d_model: int, max_positions: int, stddev: float = 0.1, name: str | None = None):
        super().__init__(name=name)
        self.stddev = stddev
        self.kind = kind
        self.d_model = d_model
        self.max_positions = max_positions

    def build(self, *_) -> None:
        if self.kind == "learned":
            self.table = self.add_weight(
                shape=(self.max_positions, self.d_model),
                initializer=keras.initializers.RandomNormal(stddev=self.stddev),
                name="table",
            )

    def call(self, x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """x [B, T, D] at positions [T] or [1], int32."""
        if self.kind == "sinusoidal":
            return x + sinusoids(positions, self.d_model)
        if self.kind == "learned":
            return x + tf.gather(tf.convert_to_tensor(self.table), tf.minimum(positions, self.max_positions - 1))
        return x


class RelativePositions(Layer):
    """q_t . a_{i-t}: scores of keys by distance from the query, clipped to 16 (Shaw et al. 2018, eq. 4, keys alone).

    Args:
        channels: C.
    """

    def __init__(self, channels: int, name: str | None = None):
        super().__init__(name=name)
        self.channels = channels

    def build(self, *_) -> None:
        self.table = self.add_weight(
            shape=(2 * _MAX_DISTANCE + 1, self.channels),
            initializer=keras.initializers.RandomNormal(stddev=self.channels**-0.5),
            name="table",
        )

    def call(self, query: tf.Tensor, positions: tf.Tensor, key_positions: tf.Tensor) -> tf.Tensor:
        """query [B, H, Q, C] at positions [Q], and keys at [S] or [B, S], to scores [B, H, Q, S]."""
        said = dense.product(query, self.table, self.compute_dtype, transpose_kernel=True)  # [B, H, Q, 2k+1]
        distances = key_positions[..., None, :] - positions[:, None]
        index = tf.clip_by_value(distances, -_MAX_DISTANCE, _MAX_DISTANCE) + _MAX_DISTANCE  # [Q, S] or [B, Q, S]
        keys = "qsk" if len(key_positions.shape) == 1 else "bqsk"
        return tf.einsum(f"bhqk,{keys}->bhqs", said, tf.one_hot(index, 2 * _MAX_DISTANCE + 1))
