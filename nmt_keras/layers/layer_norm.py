"""Layer normalisation (Ba et al. 2016)."""

from typing import Any

import tensorflow as tf

from nmt_keras.layers.base import Layer

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
        if isinstance(self.gamma, OneDnnGamma) and not tf.executing_eagerly():
            return self.gamma.normalised(x, self.beta)
        x -= tf.reduce_mean(x, -1, keepdims=True)
        x *= tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + NORM_EPSILON)
        return x * self.gamma + self.beta


class OneDnnGamma:
    """The gamma of a `LayerNorm` that is one operation of oneDNN in graphs: for searches that need oneDNN anyway.

    It is what TensorFlow's optimizer makes of Keras's layer where oneDNN is on; here nothing has to be recognised.
    It has no gradient, and runs on CPUs alone.

    Args:
        weight: gamma, float32 [D].
    """

    def __init__(self, weight: Any):
        self._weight = weight

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        return tf.convert_to_tensor(self._weight, dtype, name=name)

    def normalised(self, x: tf.Tensor, beta: Any) -> tf.Tensor:
        """x, float32 [..., D], normalised, times gamma and with beta, float32 [D]."""
        attributes = {
            "T": tf.compat.v1.AttrValue(type=tf.float32.as_datatype_enum),
            "epsilon": tf.compat.v1.AttrValue(f=NORM_EPSILON),
        }
        inputs = [x, *map(tf.convert_to_tensor, (self._weight, beta))]
        graph = tf.compat.v1.get_default_graph()
        return graph.create_op("_MklLayerNorm", inputs, [tf.float32], attrs=attributes, name="layer_norm").outputs[0]
