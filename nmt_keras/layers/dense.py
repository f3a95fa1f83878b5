"""The products of the network: the one place where the compute precision applies.

Activations are float32 between products, whatever the policy: under a mixed policy the operands of a product are cast,
its result is cast back, and gates, softmax and losses stay in float32. On a CPU with bfloat16 units this is also the
fast way round: bfloat16 products are two to five times faster than float32, element-wise bfloat16 is slower.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from nmt_keras.layers.base import Layer

_constants: contextvars.ContextVar[Mapping[int, tf.Tensor]] = contextvars.ContextVar("_constants", default={})
_position: contextvars.ContextVar["_Position | None"] = contextvars.ContextVar("_position", default=None)


class CastOnce:
    """Casts operands of products, weights or tensors, once, when it is made; products within its block use the casts.

    It is for operands that a loop does not change, and that would otherwise be cast at every step.

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


class LateGradients:
    """Delays the gradients of kernels that are used in a loop over positions until after the loop.

    The gradient of a kernel is then one product over all positions, not a sum of T small ones, and the kernel is cast
    once. Only the first product with a kernel at each position is delayed; others keep their usual gradient.

    Example:
        late = LateGradients(layer.trainable_variables, "bfloat16", length, rows)

        def body(t, x, arrays):
            with late.at(t, arrays) as position:
                return t + 1, layer(x), position.arrays

        _, x, arrays = tf.while_loop(lambda t, *_: t < length, body, (0, x, late.arrays()))
        late.end(arrays)

    Args:
        weights: matrices [I, O] among them are the kernels.
        dtype: of the products.
        length: T.
        rows: of each product: all leading axes of x, flattened.
    """

    def __init__(self, weights: Iterable[Any], dtype: str, length: tf.Tensor, rows: int | tf.Tensor):
        self._dtype = dtype
        self._length = length
        self._rows = rows
        self._kernels = [weight for weight in weights if len(weight.shape) == 2]
        self._inputs: dict[int, tf.Tensor] = {}
        self._used: set[int] = set()
        self.numbers = {id(kernel): number for number, kernel in enumerate(self._kernels)}
        self.constants = [tf.cast(tf.stop_gradient(tf.convert_to_tensor(k)), dtype) for k in self._kernels]
        self.slots = [self._slots(number) for number in range(len(self._kernels))]

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

        kernel = self._kernels[number]
        return self._array(kernel.shape[1]).unstack(slots(tf.convert_to_tensor(kernel)))

    def arrays(self) -> tuple[tf.TensorArray, ...]:
        """Empty arrays for the inputs of the products at all positions; the loop carries them."""
        return tuple(self._array(kernel.shape[0]) for kernel in self._kernels)

    def _array(self, width: int) -> tf.TensorArray:
        rows = self._rows if isinstance(self._rows, int) else None
        return tf.TensorArray(self._dtype, self._length, element_shape=[rows, width], clear_after_read=False)

    @contextlib.contextmanager
    def at(self, position: tf.Tensor, arrays: Sequence[tf.TensorArray]) -> Iterator["_Position"]:
        """Within its block, products are those at `position`, int32 []."""
        here = _Position(self, position, arrays)
        token = _position.set(here)
        try:
            yield here
        finally:
            _position.reset(token)
            self._used |= here.used

    def end(self, arrays: Sequence[tf.TensorArray]) -> None:
        """Takes the arrays that the loop ends with; the gradients of the kernels are computed from them."""
        self._inputs = {number: arrays[number].stack() for number in self._used}


class _Position:
    """A position of a loop with late gradients; the loop carries `arrays` to the next position."""

    def __init__(self, late: LateGradients, position: tf.Tensor, arrays: Sequence[tf.TensorArray]):
        self._late = late
        self._position = position
        self.arrays = tuple(arrays)
        self.used: set[int] = set()

    def product(self, x: tf.Tensor, kernel: Any) -> tf.Tensor | None:
        """x [rows, I] times the kernel [I, O]; None if the kernel's gradient is not delayed."""
        number = self._late.numbers.get(id(kernel))
        if number is None or number in self.used:
            return None
        self.used.add(number)
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


def weight_gradient(inputs: tf.Tensor, d_outputs: tf.Tensor) -> tf.Tensor:
    """The gradient of a kernel over all positions: inputs [T, B, I], d_outputs [T, B, O]; float32 [I, O]."""
    flat = (tf.reshape(operand, [-1, operand.shape[-1]]) for operand in (inputs, d_outputs))
    return tf.cast(tf.matmul(*flat, transpose_a=True), tf.float32)


def product(
    x: tf.Tensor,
    kernel: tf.Tensor,
    dtype: str,
    *,
    bias: Any = None,
    activation: Callable[[tf.Tensor], tf.Tensor] | None = None,
    transpose_kernel: bool = False,
    is_operand: bool = False,
) -> tf.Tensor:
    """x [..., I] times kernel [I, O] (or [O, I], transposed), computed in `dtype`; float32 [..., O].

    If the bias has the product's type (in float32, or cast by `CastOnce`), TensorFlow makes one operation of the
    product, the bias and a ReLU.

    Args:
        x: float32, or of `dtype`.
        kernel: float32, or of `dtype`.
        dtype: of the product.
        bias: float32 [O], added to it.
        activation: a function of the result.
        transpose_kernel: whether `kernel` is [O, I].
        is_operand: the result is read by other products alone, and may stay in `dtype`.
    """
    shape = tf.shape(x)
    flat = tf.reshape(tf.cast(x, dtype), [-1, x.shape[-1]])
    position, result = _position.get(), None
    if position is not None and not transpose_kernel:
        result = position.product(flat, kernel)
    if result is None:
        result = tf.matmul(flat, _operand(kernel, dtype), transpose_b=transpose_kernel)
    of_its_type = bias if dtype == "float32" else _constants.get().get(id(bias))
    if of_its_type is not None:
        result, bias = tf.nn.bias_add(result, of_its_type), None
    is_rectified = bias is None and activation is tf.nn.relu
    if is_rectified:
        result = tf.nn.relu(result)
    is_whole = bias is None and (is_rectified or activation is None)
    if not (is_operand and is_whole):
        result = tf.cast(result, tf.float32)
    if bias is not None:
        result += bias
    result = tf.reshape(result, tf.concat([shape[:-1], tf.shape(result)[1:]], 0))
    result = tf.ensure_shape(result, [*x.shape[:-1], kernel.shape[0 if transpose_kernel else 1]])
    return result if activation is None or is_rectified else activation(result)


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

    def call(self, x: tf.Tensor, is_operand: bool = False) -> tf.Tensor:
        """x [..., I] to [..., units]; `is_operand` as in `product`."""
        bias = self.bias if self.use_bias else None
        options = {"bias": bias, "activation": self.activation, "is_operand": is_operand}
        return product(x, self.kernel, self.compute_dtype, **options)
