"""Products in int8: a kernel with a scale a column times x with a scale a row, summed in int32 (Jacob et al. 2018, 2.2;
scales of rows that are found as they come, as of Zafrir et al. 2019).

The operation is oneDNN's, for processors that multiply 8 bits (VNNI, AMX). It takes unsigned numbers times signed ones,
so x is shifted by 128, and an int32 bias, -128 times the sum of each column, takes the shift out again. Sums are exact
where the processor has VNNI. One without it adds pairs of products in 16 bits, which hold less than two of the largest:
there sums may be wrong, so it is found out by such sums (`is_available`, `require`), not asked of the processor.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

_LIMIT = 127.0  # of int8 about 0
_SHIFT = 128
_HIGHEST = 255.0  # of uint8
_LEAST = 1e-30  # of the largest number of a row: a row of zeros has a scale too
NEEDS = (
    "TensorFlow's oneDNN operations on an x86-64 processor that multiplies int8 (AVX-512 VNNI, AVX-VNNI or AMX), "
    "without TF_ENABLE_ONEDNN_OPTS=0"
)


class GraphConstant:
    """An array that graphs hold as a constant, once in a SavedModel, whatever number of its functions read it.

    oneDNN brings a kernel into the order that it multiplies in, and keeps that only of a constant: read from a variable
    a kernel of 512 x 2,048 is reordered at each product, for two thirds of the time that 320 rows take. A constant that
    is written where it is read would be saved with each function, so it is a function of its own, which TensorFlow puts
    in its place when a graph is loaded.

    Args:
        array: of numbers.
    """

    def __init__(self, array: np.ndarray):
        self.array = array
        self.shape = tf.TensorShape(array.shape)
        self._function = tf.function(lambda: tf.constant(array), autograph=False).get_concrete_function()

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        return tf.convert_to_tensor(self._function(), dtype, name=name)


class Int8Columns(NamedTuple):
    """A kernel as the operation takes it."""

    values: Any  # int8 [I, O], from -127 to 127
    offsets: Any  # int32 [O], what takes the shift of x out
    scales: Any  # float32 [O]

    def sums(self, x: "QuantizedRows") -> tf.Tensor:
        """x [rows, I] times the kernel before either has its scale: whole numbers, as float32 [rows, O]."""
        return _sums(x.values, self.values, self.offsets if x.is_shifted else tf.zeros_like(self.offsets))

    def affine(self, x: "QuantizedRows", bias: Any = None, is_rectified: bool = False) -> tf.Tensor:
        """x [rows, I] times the kernel, with a bias, float32 [O], and a ReLU or none; float32 [rows, O]."""
        # A pass over the sums costs a fifth of the product. Scale, bias and ReLU of a column are one pass as a
        # normalisation with the mean 0 and the variance 1.
        width = tf.shape(self.scales)[:1]
        scaled = tf.raw_ops.FusedBatchNormV3(
            x=(self.sums(x) * x.scales)[:, None, None],
            scale=self.scales,
            offset=tf.zeros(width) if bias is None else bias,
            mean=tf.zeros(width),
            variance=tf.ones(width),
            epsilon=0.0,
            is_training=False,
        ).y
        return tf.squeeze(tf.nn.relu(scaled) if is_rectified else scaled, [1, 2])


class Int8Gathered(NamedTuple):
    """Some columns of a kernel, other ones for each batch, as the operation takes them.

    oneDNN would reorder them at each product as the right operand, which takes longer than the product with the few
    rows of a search. So they are the left one, which is taken as it is, and what is reordered is the rows, of which
    there must be one at least.
    """

    shifted: Any  # uint8 [O, I], 128 for 0
    scales: Any  # float32 [O]

    def sums(self, x: "QuantizedRows") -> tf.Tensor:
        """See `Int8Columns.sums`."""
        assert x.is_shifted
        values = tf.bitcast(tf.bitwise.bitwise_xor(x.values, tf.constant(_SHIFT, tf.uint8)), tf.int8)
        offsets = -_SHIFT * tf.reduce_sum(tf.cast(values, tf.int32), 1)
        return tf.transpose(_sums(self.shifted, tf.transpose(values), offsets))

    def affine(self, x: "QuantizedRows", bias: Any = None, is_rectified: bool = False) -> tf.Tensor:
        """See `Int8Columns.affine`."""
        # A normalisation of 64 rows and a number of columns that the graph does not know took as long as 15 passes.
        scaled = self.sums(x) * x.scales * self.scales
        scaled = scaled if bias is None else scaled + bias
        return tf.nn.relu(scaled) if is_rectified else scaled


def _sums(shifted: Any, values: Any, offsets: Any) -> tf.Tensor:
    """uint8 [A, I] times int8 [I, B], with offsets, int32 [B], added; float32 [A, B]."""
    # The ranges are those that the operation makes the scale 1 of: it knows one for all rows and columns.
    return tf.raw_ops.QuantizedMatMulWithBiasAndDequantize(
        a=tf.bitcast(shifted, tf.quint8),
        b=tf.bitcast(values, tf.qint8),
        bias=tf.bitcast(offsets, tf.qint32),
        min_a=0.0,
        max_a=_HIGHEST,
        min_b=-_LIMIT,
        max_b=_LIMIT,
        min_freezed_output=0.0,
        max_freezed_output=0.0,
        Toutput=tf.float32,
        input_quant_mode="SCALED",
    )


class Int8Kernel:
    """A weight in int8.

    Args:
        values: int8 [I, O], or [O, I] of a weight that products take transposed.
        scales: float32 [O].
        is_transposed: whether they do.
    """

    def __init__(self, values: np.ndarray, scales: np.ndarray, is_transposed: bool = False):
        self.is_transposed = is_transposed
        self.values = GraphConstant(values)
        sums = values.sum(1 if is_transposed else 0, dtype=np.int32)
        self._offsets = GraphConstant(np.int32(-_SHIFT) * sums)
        self._scales = GraphConstant(scales)

    def columns(self) -> Int8Columns:
        """All columns, where they are called for: in the body of a loop, not before it, they stay constants."""
        values, offsets, scales = map(tf.convert_to_tensor, (self.values, self._offsets, self._scales))
        return Int8Columns(tf.transpose(values) if self.is_transposed else values, offsets, scales)

    @functools.cached_property
    def _shifted(self) -> GraphConstant:
        """uint8 [O, I]: a row is a piece of memory, which is gathered 30 times as fast as a column."""
        rows = self.values.array if self.is_transposed else self.values.array.T
        return GraphConstant((rows.astype(np.int16) + _SHIFT).astype(np.uint8))

    def gather(self, ids: tf.Tensor) -> Int8Gathered:
        """The columns of ids, int32 [U]."""
        return Int8Gathered(*(tf.gather(tf.convert_to_tensor(each), ids) for each in (self._shifted, self._scales)))


class QuantizedRows(NamedTuple):
    """Rows in 8 bits, each by itself."""

    values: tf.Tensor  # uint8 [rows, I]
    scales: tf.Tensor  # float32 [rows, 1]
    is_shifted: bool = True  # whether 128 stands for 0, or 0


def quantized(x: tf.Tensor, is_rectified: bool = False) -> QuantizedRows:
    """Rows x, float32 [rows, I]; what is not finite makes its row NaN or nonsense, and no other.

    Args:
        x: the rows.
        is_rectified: none is negative: then all 8 bits are for what is positive.
    """
    # Cutting off a fraction after adding 0.5 rounds to the nearest, since all are positive: one pass fewer.
    most = tf.reduce_max(x, -1, keepdims=True)
    if is_rectified:
        largest = tf.maximum(most, _LEAST)
        return QuantizedRows(tf.cast(x * (_HIGHEST / largest) + 0.5, tf.uint8), largest * (1.0 / _HIGHEST), False)
    largest = tf.maximum(tf.maximum(most, -tf.reduce_min(x, -1, keepdims=True)), _LEAST)
    return QuantizedRows(tf.cast(x * (_LIMIT / largest) + (_SHIFT + 0.5), tf.uint8), largest * (1.0 / _LIMIT))


class Quantizer:
    """Quantizes what products read, once for all of them that read the same tensor."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, bool], tuple[Any, ...]] = {}

    def __call__(self, x: tf.Tensor, is_shifted: bool = False) -> QuantizedRows:
        """Quantizes x, float32 or bfloat16 [..., I], all leading axes flattened.

        Args:
            x: what a product reads.
            is_shifted: whether the product needs 128 for 0.
        """
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        key = id(x), id(graph), is_shifted
        if key not in self._known:  # x and the graph are kept too, so that their ids stay theirs
            flat = tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]])
            self._known[key] = x, graph, quantized(flat, is_rectified=_is_rectified(x) and not is_shifted)
        return self._known[key][-1]


def _is_rectified(x: tf.Tensor) -> bool:
    """Whether a tensor of a graph is what a ReLU gives, perhaps in another shape."""
    if tf.executing_eagerly():
        return False
    operation = x.op
    while operation.type in ("Reshape", "EnsureShape", "Squeeze", "Identity", "Cast"):
        operation = operation.inputs[0].op
    return operation.type == "Relu"


def rounded(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """An array as int8 and the scale of each place of an axis, float32, broadcast to it: symmetric about 0."""
    others = tuple(each for each in range(values.ndim) if each != axis)
    scales = np.maximum(np.abs(values).max(others, keepdims=True) / _LIMIT, np.finfo(np.float32).tiny)
    return np.clip(np.rint(values / scales), -_LIMIT, _LIMIT).astype(np.int8), scales.astype(np.float32)


@functools.cache
def is_available() -> bool:
    """Whether this process multiplies in int8, and exactly; found by doing it."""
    try:
        with tf.device("CPU"):
            return bool(_is_exact())
    except tf.errors.OpError:
        return False


def require() -> None:
    """Makes a graph fail, when it runs, on a processor whose sums are not exact."""
    tf.debugging.Assert(_is_exact(), [f"This export needs {NEEDS}"])


def _is_exact() -> tf.Tensor:
    """bool []: whether the largest sums of 512 products are right."""
    kernel = Int8Columns(
        tf.fill([512, 16], tf.constant(127, tf.int8)), tf.fill([16], -_SHIFT * 127 * 512), tf.ones([16])
    )
    rows = QuantizedRows(tf.fill([2, 512], tf.constant(int(_HIGHEST), tf.uint8)), tf.ones([2, 1]))
    sums = kernel.sums(rows)  # of no numbers where oneDNN is off and this is not a graph
    return (tf.size(sums) == 2 * 16) & tf.reduce_all(sums == float(127 * 127 * 512))
