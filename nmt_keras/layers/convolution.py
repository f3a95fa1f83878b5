"""Gated convolutions of ConvS2S (Gehring et al. 2017), as products over windows."""

import math

import keras
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer
from nmt_keras.layers.dropout import dropout

SCALE = math.sqrt(0.5)  # of a sum of two, so that its variance stays (3.4)


class NormedDense(Layer):
    """y = x W + b with columns w = g v / |v| (Salimans and Kingma 2016, eq. 2), [..., I] to [..., units].

    v starts from N(0, gain / I) and g at |v|, so that the variance of the output is `gain` times that of the input
    (Gehring et al. 2017, 3.5).

    Args:
        units: width of the output.
        gain: of the variance: 4 under a gated linear unit, (1 - dropout) times that with dropout.
    """

    def __init__(self, units: int, gain: float = 1.0, name: str | None = None):
        super().__init__(name=name)
        self.units = units
        self.gain = gain

    def build(self, shape) -> None:
        self.direction = self.add_weight(
            shape=(shape[-1], self.units),
            initializer=keras.initializers.RandomNormal(stddev=math.sqrt(self.gain / shape[-1])),
            name="direction",
        )
        self.magnitude = self.add_weight(shape=(self.units,), initializer="ones", name="magnitude")
        self.magnitude.assign(tf.norm(tf.convert_to_tensor(self.direction), axis=0))
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[..., I] to [..., units]."""
        kernel = tf.math.l2_normalize(tf.convert_to_tensor(self.direction), axis=0) * self.magnitude
        return dense.product(x, kernel, self.compute_dtype) + self.bias


class GatedConvolution(Layer):
    """v(Y) = A * sigmoid(B), [A; B] = W Y + b over windows of k positions (Gehring et al. 2017, 3.2).

    Args:
        d_model: D, of input and output.
        kernel_size: k.
        causal: a window ends at its position; otherwise it is centred, and k is odd.
        dropout_rate: of the input.
    """

    def __init__(self, d_model: int, kernel_size: int, causal: bool, dropout_rate: float, name: str | None = None):
        super().__init__(name=name)
        self.d_model = d_model
        self.kernel_size = kernel_size
        self.before = kernel_size - 1 if causal else kernel_size // 2
        self.dropout_rate = dropout_rate
        self.dense = NormedDense(2 * d_model, gain=4.0 * (1.0 - dropout_rate), name="dense")

    def build(self, *_) -> None:
        self.dense.build((None, None, self.kernel_size * self.d_model))

    def initial_state(self, batch: tf.Tensor) -> tf.Tensor:
        """The positions before the first: zeros [B, 1, k - 1, D]."""
        return tf.zeros([batch, 1, self.kernel_size - 1, self.d_model])

    def call(
        self, x: tf.Tensor, sequence_mask: tf.Tensor | None = None, dropout_seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """[B, T, D] to [B, T, D]; padding, where `sequence_mask` [B, T] is False, counts as zeros."""
        if sequence_mask is not None:
            x = tf.where(sequence_mask[:, :, None], x, 0.0)
        x = dropout(x, self.dropout_rate, dropout_seed)
        length = tf.shape(x)[1]
        padded = tf.pad(x, [[0, 0], [self.before, self.kernel_size - 1 - self.before], [0, 0]])
        return self._gated(tf.concat([padded[:, i : i + length] for i in range(self.kernel_size)], -1))

    def step(self, x: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One position of a causal one: x [B, Q, D] and the k - 1 before it, [B, Q, k - 1, D], to [B, Q, D]."""
        window = tf.concat([state, x[:, :, None]], 2)
        shape = tf.shape(x)
        flat = tf.reshape(window, [shape[0], shape[1], self.kernel_size * self.d_model])
        return self._gated(flat), window[:, :, 1:]

    def _gated(self, windows: tf.Tensor) -> tf.Tensor:
        a, b = tf.split(self.dense(windows), 2, axis=-1)
        return a * tf.sigmoid(b)
