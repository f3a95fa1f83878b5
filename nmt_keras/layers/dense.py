"""The products of the network: the one place where the compute precision applies.

Activations are float32 between products, whatever the policy: under a mixed policy the operands of a product are cast,
its result is cast back, and gates, softmax and losses stay in float32. On a CPU with bfloat16 units this is also the
fast way round: bfloat16 products are two to five times faster than float32, element-wise bfloat16 is slower.
"""

import contextvars
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from nmt_keras.layers.base import Layer

_constants: contextvars.ContextVar[Mapping[int, tf.Tensor]] = contextvars.ContextVar("_constants", default={})


class CastOnce:
    """Operands of products, weights or tensors, cast where this is made; products within it take them so.

    For a loop that does not change them: cast inside, each of them would be cast at every step.

    Example:
        cast = CastOnce(model.variables, "bfloat16")

        def body(x):
            with cast:
                return layer(x)
    """

    def __init__(self, operands: Iterable[Any], dtype: str):
        self._operands = [o for o in operands if dtype != "float32" and o.dtype in (tf.float32, "float32")]
        self._cast = {id(operand): tf.cast(operand, dtype) for operand in self._operands}

    def __enter__(self) -> None:
        self._token = _constants.set(self._cast)

    def __exit__(self, *_) -> None:
        _constants.reset(self._token)


def _operand(value: Any, dtype: str) -> tf.Tensor:
    constant = _constants.get().get(id(value))
    return tf.cast(value, dtype) if constant is None else constant


def product(
    x: tf.Tensor, kernel: tf.Tensor, dtype: str, *, transpose_kernel: bool = False, result_dtype: str = "float32"
) -> tf.Tensor:
    """x [..., I] times kernel [I, O] (or [O, I], transposed), computed in `dtype`; [..., O] of `result_dtype`."""
    shape = tf.shape(x)
    flat = tf.reshape(tf.cast(x, dtype), [-1, x.shape[-1]])
    result = tf.cast(tf.matmul(flat, _operand(kernel, dtype), transpose_b=transpose_kernel), result_dtype)
    result = tf.reshape(result, tf.concat([shape[:-1], tf.shape(result)[1:]], 0))
    return tf.ensure_shape(result, [*x.shape[:-1], kernel.shape[0 if transpose_kernel else 1]])


def batched_product(x: tf.Tensor, y: tf.Tensor, dtype: str, *, transpose_y: bool = False) -> tf.Tensor:
    """x [B, M, I] times y [B, I, N] (or [B, N, I], transposed), computed in `dtype`; float32 [B, M, N]."""
    return tf.cast(tf.matmul(_operand(x, dtype), _operand(y, dtype), transpose_b=transpose_y), tf.float32)


class Dense(Layer):
    """An affine map of the last axis, [..., I] to [..., units], float32 in and out.

    Args:
        units: width of the output.
        use_bias: add a bias.
        activation: a function of the result.
    """

    def __init__(self, units: int, use_bias: bool = True, activation=None, name: str | None = None):
        super().__init__(name=name)
        self.units = units
        self.use_bias = use_bias
        self.activation = activation

    def build(self, shape) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), initializer="glorot_uniform", name="kernel")
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x [..., I] to [..., units]."""
        result = product(x, self.kernel, self.compute_dtype)
        if self.use_bias:
            result += self.bias
        return result if self.activation is None else self.activation(result)
