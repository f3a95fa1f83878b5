"""The products of the network: the one place where the compute precision applies.

Activations are float32 between products, whatever the policy: under a mixed policy the operands of a product are cast,
its result is cast back, and gates, softmax and losses stay in float32. On a CPU with bfloat16 units this is also the
fast way round: bfloat16 products are two to five times faster than float32, element-wise bfloat16 is slower.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import keras
import tensorflow as tf

from nmt_keras.layers.base import Layer, with_weights
from nmt_keras.layers.int8 import Int8Gathered, Int8Kernel, Quantizer

_Layer = TypeVar("_Layer", bound=keras.layers.Layer)
_Record = TypeVar("_Record", bound=NamedTuple)


class _Weight:
    """A weight in a form that products take; all other operations read the weight itself.

    Args:
        weight: float32.
    """

    def __init__(self, weight: Any):
        self.weight = weight
        self.shape = weight.shape

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        return tf.convert_to_tensor(self.weight, dtype, name=name)

    def operand(self, dtype: str) -> tf.Tensor:
        """What is multiplied with."""
        return tf.cast(self.weight, dtype)

    def product(self, x: tf.Tensor, dtype: str, transpose_kernel: bool) -> tf.Tensor:
        """x [rows, I] times the weight; [rows, O] in `dtype`."""
        return tf.matmul(tf.cast(x, dtype), self.operand(dtype), transpose_b=transpose_kernel)

    def affine(self, x: tf.Tensor, dtype: str, transpose_kernel: bool, bias: Any, is_rectified: bool) -> tf.Tensor:
        """x [..., I] times the weight, with a bias or None, and a ReLU or none; [rows, O] in `dtype` or float32."""
        result = self.product(tf.reshape(x, [-1, x.shape[-1]]), dtype, transpose_kernel)
        of_its_type = bias if result.dtype == tf.float32 else bias.cast if isinstance(bias, _CastWeight) else None
        if of_its_type is not None:
            result = tf.nn.bias_add(result, of_its_type)
        elif bias is not None:
            result = tf.cast(result, tf.float32) + bias
        return tf.nn.relu(result) if is_rectified else result

    def columns(self, ids: tf.Tensor, dtype: str, transpose_kernel: bool) -> Any:
        """See `columns`."""
        axis = 0 if transpose_kernel else 1
        return tf.cast(tf.gather(tf.convert_to_tensor(self.weight), ids, axis=axis), dtype)


class _CastWeight(_Weight):
    """A weight with its cast."""

    def __init__(self, weight: keras.Variable, dtype: str):
        super().__init__(weight)
        self.cast = tf.cast(weight, dtype)

    def operand(self, dtype: str) -> tf.Tensor:
        del dtype
        return self.cast


class _Int8Weight(_CastWeight):
    """A weight whose products are in int8, where they take it as it was quantized, transposed or not."""

    def __init__(self, weight: keras.Variable, dtype: str, kernel: Int8Kernel, quantize: Quantizer):
        super().__init__(weight, dtype)
        self._kernel = kernel
        self._quantize = quantize

    def affine(self, x: tf.Tensor, dtype: str, transpose_kernel: bool, bias: Any, is_rectified: bool) -> tf.Tensor:
        if transpose_kernel != self._kernel.is_transposed:
            return super().affine(x, dtype, transpose_kernel, bias, is_rectified)
        return self._kernel.columns().affine(self._quantize(x), bias, is_rectified)

    def columns(self, ids: tf.Tensor, dtype: str, transpose_kernel: bool) -> Any:
        if transpose_kernel != self._kernel.is_transposed:
            return super().columns(ids, dtype, transpose_kernel)
        return _Int8Gathered(self._kernel.gather(ids), transpose_kernel, self._quantize)


class _Int8Gathered(_Weight):
    """Some columns of a weight whose products are in int8."""

    def __init__(self, columns: Int8Gathered, is_transposed: bool, quantize: Quantizer):
        super().__init__(columns.shifted)
        self.shape = self.shape if is_transposed else self.shape[::-1]
        self._columns = columns
        self._quantize = quantize

    def affine(self, x: tf.Tensor, dtype: str, transpose_kernel: bool, bias: Any, is_rectified: bool) -> tf.Tensor:
        return self._columns.affine(self._quantize(x, is_shifted=True), bias, is_rectified)


def cast_once(layer: _Layer, int8: Mapping[str, Int8Kernel] = MappingProxyType({})) -> _Layer:
    """A layer whose weights are cast to the type of its products here, once: for a loop, which would otherwise cast
    them at every step.

    Example:
        cast = cast_once(layer)
        tf.while_loop(lambda t, x: t < length, lambda t, x: (t + 1, cast(x)), (0, x))

    Args:
        layer: built.
        int8: the weights, by their paths, whose products are in int8.
    """
    dtype, quantize = layer.compute_dtype, Quantizer()

    def form(weight: keras.Variable) -> Any:
        if weight.path in int8:
            return _Int8Weight(weight, dtype, int8[weight.path], quantize)
        return weight if dtype == "float32" else _CastWeight(weight, dtype)

    return layer if dtype == "float32" and not int8 else with_weights(layer, form)


def with_int8(layer: _Layer, int8: Mapping[str, Int8Kernel]) -> _Layer:
    """A layer some of whose products are in int8, for one pass and not for a loop: its other weights stay as they are.

    Args:
        layer: built.
        int8: the weights, by their paths, whose products are in int8.
    """
    dtype, quantize = layer.compute_dtype, Quantizer()
    return with_weights(layer, lambda w: _Int8Weight(w, dtype, int8[w.path], quantize) if w.path in int8 else w)


class ProductCall(NamedTuple):
    """A product, as `product` was asked for it."""

    rows: int
    input_width: int  # I
    output_width: int  # O
    has_bias: bool
    activation: Callable[[tf.Tensor], tf.Tensor] | None
    is_operand: bool
    transpose_kernel: bool
    is_gathered: bool  # of some columns of a weight, such as a shortlist's
    sharing: int = 1  # products of the same x


class _WatchedWeight(_Weight):
    """A weight that tells of the products with it."""

    def __init__(self, weight: Any, seen: Callable[[tf.Tensor, ProductCall], None], is_gathered: bool = False):
        super().__init__(weight)
        self.seen = seen
        self.is_gathered = is_gathered

    def columns(self, ids: tf.Tensor, dtype: str, transpose_kernel: bool) -> Any:
        return _WatchedWeight(super().columns(ids, dtype, transpose_kernel), self.seen, is_gathered=True)


def watched(layer: _Layer, seen: Callable[[str, tf.Tensor, ProductCall], None]) -> _Layer:
    """A layer that tells of its products: the path of the weight, x and the call. It is to be called eagerly."""
    return with_weights(layer, lambda weight: _WatchedWeight(weight, functools.partial(seen, weight.path)))


def cast_fields(record: _Record, names: Iterable[str], dtype: str) -> _Record:
    """A record with some of its fields cast."""
    return record._replace(**{name: tf.cast(getattr(record, name), dtype) for name in names})


class LateGradients:
    """Delays the gradients of kernels that are used in a loop over positions until after the loop.

    The gradient of a kernel is then one product over all positions, not a sum of T small ones, and the kernel is cast
    once. Only the first product with a kernel at each position is delayed; others keep their usual gradient.

    Example:
        late = LateGradients(layer.trainable_variables, "bfloat16", length, rows)

        def body(t, x, arrays):
            here = late.at(t, arrays)
            return t + 1, here.layer(layer)(x), here.arrays

        _, x, arrays = tf.while_loop(lambda t, *_: t < length, body, (0, x, late.arrays()))
        late.end(arrays)

    Args:
        weights: matrices [I, O] among them are the kernels.
        dtype: of the products.
        length: T.
        rows: of each product: all leading axes of x, flattened.
    """

    def __init__(self, weights: Iterable[keras.Variable], dtype: str, length: tf.Tensor, rows: int | tf.Tensor):
        self._dtype = dtype
        self._length = length
        self._rows = rows
        self.kernels = [weight for weight in weights if len(weight.shape) == 2]
        self._inputs: dict[int, tf.Tensor] = {}
        self.used: set[int] = set()
        self.constants = [tf.cast(tf.stop_gradient(tf.convert_to_tensor(k)), dtype) for k in self.kernels]
        self.slots = [self._slots(number) for number in range(len(self.kernels))]

    def _slots(self, number: int) -> tf.TensorArray:
        """An array with zeros [rows, O] for each position, which receive the gradient of the product there."""

        # The trick: the product at a position is x K + slot, with K held constant and a slot of zeros. The loop's own
        # gradient then brings d(x K) of each position to its slot, and all slots together, as [T, rows, O], come back
        # here, where the gradient of the kernel is one product with all inputs.
        @tf.custom_gradient
        def slots(kernel):
            def gradient(d_outputs):
                return weight_gradient(self._inputs[number], d_outputs)

            return tf.zeros([self._length, self._rows, kernel.shape[1]], self._dtype), gradient

        kernel = self.kernels[number]
        return self._array(kernel.shape[1]).unstack(slots(tf.convert_to_tensor(kernel)))

    def arrays(self) -> tuple[tf.TensorArray, ...]:
        """Empty arrays for the inputs of the products at all positions; the loop carries them."""
        return tuple(self._array(kernel.shape[0]) for kernel in self.kernels)

    def _array(self, width: int) -> tf.TensorArray:
        rows = self._rows if isinstance(self._rows, int) else None
        return tf.TensorArray(self._dtype, self._length, element_shape=[rows, width], clear_after_read=False)

    def at(self, position: tf.Tensor, arrays: Sequence[tf.TensorArray]) -> "LatePosition":
        """The loop at `position`, int32 []."""
        return LatePosition(self, position, arrays)

    def end(self, arrays: Sequence[tf.TensorArray]) -> None:
        """Takes the arrays that the loop ends with; the gradients of the kernels are computed from them."""
        self._inputs = {number: arrays[number].stack() for number in self.used}


class LatePosition:
    """A position of a loop with late gradients.

    Attributes:
        arrays: what the loop carries to the next position, once the products of this one are made.
    """

    def __init__(self, late: LateGradients, position: tf.Tensor, arrays: Sequence[tf.TensorArray]):
        self._late = late
        self._position = position
        self.arrays = tuple(arrays)
        self._used: set[int] = set()

    def layer(self, layer: _Layer) -> _Layer:
        """A layer whose kernels have late gradients."""
        return with_weights(layer, self.weight) if self._late.kernels else layer

    def weight(self, weight: keras.Variable) -> Any:
        """A weight as products at this position take it."""
        numbers = [number for number, kernel in enumerate(self._late.kernels) if kernel is weight]
        return _LateKernel(weight, self, numbers[0]) if numbers else weight

    def product(self, x: tf.Tensor, number: int) -> tf.Tensor | None:
        """x [rows, I] times the kernel [I, O] of this number; None after the first time."""
        if number in self._used:
            return None
        self._used.add(number)
        self._late.used.add(number)
        written = self.arrays[number].write(self._position, tf.stop_gradient(x))
        self.arrays = (*self.arrays[:number], written, *self.arrays[number + 1 :])
        constant = self._late.constants[number]

        @tf.custom_gradient
        def run(x, slot):
            del slot  # takes the gradient

            def gradient(d_output):
                return tf.matmul(d_output, constant, transpose_b=True), d_output

            return tf.matmul(x, constant), gradient

        return run(x, self._late.slots[number].read(self._position))


class _LateKernel(_Weight):
    """A kernel at a position of a loop with late gradients."""

    def __init__(self, weight: keras.Variable, position: LatePosition, number: int):
        super().__init__(weight)
        self._position = position
        self._number = number

    def product(self, x: tf.Tensor, dtype: str, transpose_kernel: bool) -> tf.Tensor:
        """See `_Weight.product`; its gradient is delayed, if it is the first at its position."""
        late = None if transpose_kernel else self._position.product(tf.cast(x, dtype), self._number)
        return super().product(x, dtype, transpose_kernel) if late is None else late


def weight_gradient(inputs: tf.Tensor, d_outputs: tf.Tensor) -> tf.Tensor:
    """The gradient of a kernel over all positions: inputs [T, B, I], d_outputs [T, B, O]; float32 [I, O]."""
    flat = (tf.reshape(operand, [-1, operand.shape[-1]]) for operand in (inputs, d_outputs))
    return tf.cast(tf.matmul(*flat, transpose_a=True), tf.float32)


def product(
    x: tf.Tensor,
    kernel: Any,
    dtype: str,
    *,
    bias: Any = None,
    activation: Callable[[tf.Tensor], tf.Tensor] | None = None,
    transpose_kernel: bool = False,
    is_operand: bool = False,
) -> tf.Tensor:
    """x [..., I] times kernel [I, O] (or [O, I], transposed), computed in `dtype`; float32 [..., O].

    If the bias has the product's type (in float32, or cast by `cast_once`), TensorFlow makes one operation of the
    product, the bias and a ReLU.

    Args:
        x: float32, or of `dtype`.
        kernel: a weight or a tensor, float32, or of `dtype`.
        dtype: of the product.
        bias: float32 [O], added to it.
        activation: a function of the result.
        transpose_kernel: whether `kernel` is [O, I].
        is_operand: the result is read by other products alone, and may stay in `dtype`.
    """
    shape = tf.shape(x)
    form = kernel if isinstance(kernel, _Weight) else _Weight(kernel)
    is_rectified = activation is tf.nn.relu
    result = form.affine(x, dtype, transpose_kernel, bias, is_rectified)
    if isinstance(form, _WatchedWeight):
        options = bias is not None, activation, is_operand, transpose_kernel, form.is_gathered
        form.seen(x, ProductCall(result.shape[0], x.shape[-1], result.shape[1], *options))
    if not (is_operand and (is_rectified or activation is None)):
        result = tf.cast(result, tf.float32)
    result = tf.reshape(result, tf.concat([shape[:-1], tf.shape(result)[1:]], 0))
    result = tf.ensure_shape(result, [*x.shape[:-1], kernel.shape[0 if transpose_kernel else 1]])
    return result if activation is None or is_rectified else activation(result)


def columns(kernel: Any, ids: tf.Tensor, dtype: str, *, transpose_kernel: bool = False) -> Any:
    """The columns of ids, int32 [U], of a kernel, in a form that products of `dtype` take.

    Args:
        kernel: a weight or a tensor, float32 [I, O], or [O, I], transposed.
        ids: in [0, O).
        dtype: of the products.
        transpose_kernel: whether `kernel` is [O, I].
    """
    form = kernel if isinstance(kernel, _Weight) else _Weight(kernel)
    return form.columns(ids, dtype, transpose_kernel)


def batched_product(x: tf.Tensor, y: tf.Tensor, dtype: str, *, transpose_y: bool = False) -> tf.Tensor:
    """x [B, M, I] times y [B, I, N] (or [B, N, I], transposed), computed in `dtype`; float32 [B, M, N]."""
    return tf.cast(tf.matmul(tf.cast(x, dtype), tf.cast(y, dtype), transpose_b=transpose_y), tf.float32)


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

    def call(self, x: tf.Tensor, is_operand: bool = False) -> tf.Tensor:
        """x [..., I] to [..., units]; `is_operand` as in `product`."""
        bias = self.bias if self.use_bias else None
        options = {"bias": bias, "activation": self.activation, "is_operand": is_operand}
        return product(x, self.kernel, self.compute_dtype, **options)
