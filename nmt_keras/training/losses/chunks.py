"""Sums over the logits of a batch, which are made a chunk of rows at a time."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.layers.fusion import fused

_ROW_MULTIPLE = 128
CHUNK_ROWS = 2048


class Projected(NamedTuple):
    """Rows that are projected to logits a chunk at a time, through which no gradient flows: those of a teacher."""

    hidden: tf.Tensor  # float32 [N, D]
    project: Callable[[tf.Tensor], tf.Tensor]  # float32 [n, D] to [n, V]


def sums_over_chunks(
    values_of: Callable[..., tuple[tf.Tensor, ...]],
    inputs: Sequence[tf.Tensor],
    kernel: tf.Tensor,
    bias: tf.Tensor,
    rows: Sequence[tf.Tensor | Projected],
    gradient_scale: tf.Tensor | float = 1.0,
    *,
    transpose_kernel: bool = False,
    dtype: str = "float32",
    chunk_rows: int = CHUNK_ROWS,
) -> tuple[tf.Tensor, ...]:
    """Scalars of logits `inputs` times `kernel` plus `bias`, summed over all rows.

    The logits, a training step's largest array, are made a chunk of rows at a time. The gradient of the first scalar is
    taken with each chunk, in the same kernel, and so are those of the chunk's factors: the backward pass only
    multiplies them by a number (as in the Liger Kernel of Hsu et al. 2024).

    Args:
        values_of: the scalars of some rows, from a list of their logits, float32 [n, V] for each of `inputs`, and their
            part of each of `rows`.
        inputs: float32 [N, I], of one pass of the model or of several.
        kernel: float32 [I, V], or [V, I], transposed.
        bias: float32 [V].
        rows: tensors [N, ...], or what becomes [N, V]; zeros are added at their end, and must add nothing to the
            scalars. No gradient flows into them.
        gradient_scale: what the gradient of the first scalar is multiplied by, so that float16 can hold it.
        transpose_kernel: whether `kernel` is [V, I].
        dtype: of the products; what is between them is float32.
        chunk_rows: rows at a time, rounded up to a multiple of 128.

    Returns:
        The scalars, float32 []. A gradient flows from the first alone.
    """
    count = len(inputs)

    def values_and_gradients(bias: tf.Tensor, scale: tf.Tensor, *chunk: tf.Tensor) -> tuple[Any, Any, Any]:
        logits, rest = list(chunk[:count]), chunk[count:]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([bias, *logits])
            sums = values_of([tf.cast(each, bias.dtype) + bias for each in logits], *rest)
            scaled = sums[0] * scale
        d_bias, *d_logits = tape.gradient(scaled, [bias, *logits], unconnected_gradients="zero")
        return sums, d_logits, d_bias

    compiled = fused(values_and_gradients, bias.shape[0])
    tensors = [row.hidden if isinstance(row, Projected) else row for row in rows]

    def made(chunk: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The part of `rows` that a chunk of `tensors` gives."""
        return [row.project(x) if isinstance(row, Projected) else x for row, x in zip(rows, chunk, strict=True)]

    @tf.custom_gradient
    def run(kernel: tf.Tensor, bias: tf.Tensor, *inputs: tf.Tensor) -> tuple[Any, Callable]:
        columns = tf.cast(kernel, dtype)
        scale = tf.cast(gradient_scale, bias.dtype)

        def of_chunk(*chunk: tf.Tensor) -> tuple[Any, list[tf.Tensor]]:
            operands, rest = chunk[:count], made(chunk[count:])
            logits = [tf.matmul(each, columns, transpose_b=transpose_kernel) for each in operands]
            sums, d_logits, d_bias = compiled(bias, scale, *logits, *rest)
            d_inputs = [tf.cast(tf.matmul(d, columns, transpose_b=not transpose_kernel), bias.dtype) for d in d_logits]
            pairs = [(d, each) if transpose_kernel else (each, d) for each, d in zip(operands, d_logits)]
            d_kernels = [tf.cast(tf.matmul(*pair, transpose_a=True), kernel.dtype) for pair in pairs]
            return (sums, tf.add_n(d_kernels), d_bias), d_inputs

        operands = [tf.cast(each, dtype) for each in inputs]
        (sums, d_kernel, d_bias), d_inputs = _by_chunks(of_chunk, (*operands, *tensors), chunk_rows)

        def gradient(d_loss: tf.Tensor, *_: tf.Tensor, variables: Sequence[tf.Variable] = ()) -> Any:
            found = d_kernel * d_loss, d_bias * d_loss, *(d * d_loss for d in d_inputs)
            return (found, [None] * len(variables)) if variables else found  # those that project further rows

        return sums, gradient

    return run(kernel, bias, *inputs)


def _by_chunks(of_chunk: Callable, rows: Sequence[tf.Tensor], chunk_rows: int) -> tuple[Any, list[tf.Tensor]]:
    """Applies a function to chunks of the rows of tensors [N, ...]; sums its first results, and joins its second
    results, lists of tensors of these rows.

    The rows are cut into as few chunks as `chunk_rows`, rounded up to a multiple of 128, allows, all of one size: zeros
    fill the last one. A chunk ends before the next begins, so that the logits of only one exist at a time.
    """
    number = rows[0].shape[0] or tf.shape(rows[0])[0]
    at_once = rounded(chunk_rows)
    chunks = -(-number // at_once)
    chunks = max(chunks, 1) if isinstance(chunks, int) else tf.maximum(chunks, 1)
    size = rounded(-(-number // chunks))
    fill = chunks * size - number
    cut = [
        tf.reshape(tf.pad(x, [[0, fill], *[[0, 0]] * (x.shape.rank - 1)]), [chunks, size, *x.shape[1:]]) for x in rows
    ]
    first, joined = of_chunk(*(x[0] for x in cut))
    arrays = tuple(tf.TensorArray(x.dtype, chunks, element_shape=x.shape).write(0, x) for x in joined)
    with tf.control_dependencies(tf.nest.flatten(first)):
        place = tf.constant(1)

    def body(place: tf.Tensor, total: Any, arrays: tuple[tf.TensorArray, ...]) -> tuple[Any, ...]:
        term, parts = of_chunk(*(x[place] for x in cut))
        arrays = tuple(array.write(place, part) for array, part in zip(arrays, parts))
        return place + 1, tf.nest.map_structure(tf.add, total, term), arrays

    _, total, arrays = tf.while_loop(
        lambda place, *_: place < chunks, body, (place, first, arrays), parallel_iterations=1
    )
    stacked = [array.stack() for array in arrays]
    return total, [tf.reshape(x, [chunks * size, *x.shape[2:]])[:number] for x in stacked]


def rounded(number: int | tf.Tensor) -> int | tf.Tensor:
    """The next multiple of 128, so that what is compiled sees few shapes."""
    return number + -number % _ROW_MULTIPLE
