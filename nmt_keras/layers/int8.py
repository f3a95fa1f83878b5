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
    """A kernel, or some columns of it, as the operation takes it."""

    values: Any  # int8 [I, O], from -127 to 127
    offsets: Any  # int32 [O], what takes the shift of x out
    scales: Any  # float32 [O]

    def sums(self, x: "QuantizedRows") -> tf.Tensor:
        """x [rows, I] times the kernel before either has its scale: whole numbers, as float32 [rows, O]."""
        # The ranges are those that the operation makes the scale 1 of: it knows one for all rows and columns.
        return tf.raw_ops.QuantizedMatMulWithBiasAndDequantize(
            a=tf.bitcast(x.shifted, tf.quint8),
            b=tf.bitcast(self.values, tf.qint8),
            bias=tf.bitcast(self.offsets, tf.qint32),
            min_a=0.0,
            max_a=255.0,
            min_b=-_LIMIT,
            max_b=_LIMIT,
            min_freezed_output=0.0,
            max_freezed_output=0.0,
            Toutput=tf.float32,
            input_quant_mode="SCALED",
        )

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

    def gather(self, ids: tf.Tensor) -> "Int8Columns":
        """The columns of ids, int32 [U]."""
        return Int8Columns(
            tf.gather(self.values, ids, axis=1), tf.gather(self.offsets, ids), tf.gather(self.scales, ids)
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


class QuantizedRows(NamedTuple):
    """Rows in 8 bits, each by itself."""

    shifted: tf.Tensor  # uint8 [rows, I], 128 for 0
    scales: tf.Tensor  # float32 [rows, 1]


def quantized(x: tf.Tensor) -> QuantizedRows:
    """Rows x, float32 [rows, I]; what is not finite makes its row NaN or nonsense, and no other."""
    most, least = tf.reduce_max(x, -1, keepdims=True), tf.reduce_min(x, -1, keepdims=True)
    largest = tf.maximum(tf.maximum(most, -least), _LEAST)
    # Cutting off a fraction after adding 0.5 rounds to the nearest, since all are positive: one pass fewer.
    return QuantizedRows(tf.cast(x * (_LIMIT / largest) + (_SHIFT + 0.5), tf.uint8), largest * (1.0 / _LIMIT))


class Quantizer:
    """Quantizes what products read, once for all of them that read the same tensor."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Any, ...]] = {}

    def __call__(self, x: tf.Tensor) -> QuantizedRows:
        """x float32 or bfloat16 [..., I], all leading axes flattened."""
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        key = id(x), id(graph)
        if key not in self._known:  # x and the graph are kept too, so that their ids stay theirs
            flat = tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]])
            self._known[key] = x, graph, quantized(flat)
        return self._known[key][-1]


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
    rows = QuantizedRows(tf.fill([2, 512], tf.constant(255, tf.uint8)), tf.ones([2, 1]))
    sums = kernel.sums(rows)  # of no numbers where oneDNN is off and this is not a graph
    return (tf.size(sums) == 2 * 16) & tf.reduce_all(sums == float(127 * 127 * 512))
