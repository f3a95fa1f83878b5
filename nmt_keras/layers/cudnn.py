"""cuDNN's recurrences, from the weights of `RecurrentLayer`.

cuDNN takes all weights of a layer as one vector: the matrices of the gates for the input, row by row as [units, input],
those for the previous output, [units, units], then the two biases of each gate. Its gates are i, f, g, o of an LSTM,
where the layer has i, f, o, g, and r, z, n of a GRU, where the layer has z, r, n; both have the same equations
(NVIDIA cuDNN, API reference of cudnnRNNMode_t). So a checkpoint, which holds the layer's weights, knows no device.
"""

from collections.abc import Sequence

import tensorflow as tf

from nmt_keras.layers.cells import CELLS, Cell, States

_GATES = {"lstm": (0, 1, 3, 2), "gru": (1, 0, 2)}  # the layer's gates in cuDNN's order
_DTYPES = ("float32", "float16", "bfloat16")


def obstacle(cell: Cell, state_dropout_rate: float, dtype: str) -> str:
    """Why cuDNN cannot compute a layer; "" if it can.

    Args:
        cell: of the layer.
        state_dropout_rate: of the layer.
        dtype: of its products.
    """
    if _name_of(cell) not in _GATES:
        return "its cell is not one of cuDNN's, lstm and gru"
    if state_dropout_rate:
        return "model.state_dropout_rate is inside of the recurrence"
    return "" if dtype in _DTYPES else f"its products are {dtype}"


def packed(cell: Cell, kernel: tf.Tensor, recurrent_kernel: tf.Tensor, biases: Sequence[tf.Tensor]) -> tf.Tensor:
    """The weights of a layer as cuDNN's vector.

    Args:
        cell: lstm or gru.
        kernel: [I, G*U].
        recurrent_kernel: [U, G*U].
        biases: [G*U] each, of the input projection, and of the recurrent one if there are two.
    """
    order = _GATES[_name_of(cell)]
    both = [*biases, tf.zeros_like(biases[0])][:2]
    matrices = [gates[g] for gates in (tf.split(k, len(order), 1) for k in (kernel, recurrent_kernel)) for g in order]
    vectors = [gates[g] for gates in (tf.split(bias, len(order)) for bias in both) for g in order]
    return tf.concat([tf.reshape(tf.transpose(matrix), [-1]) for matrix in matrices] + vectors, 0)


def recurrence(
    cell: Cell, x: tf.Tensor, lengths: tf.Tensor, weights: tf.Tensor, initial: States, is_training: bool
) -> tuple[tf.Tensor, States]:
    """Runs a layer over sequences, on a GPU.

    Args:
        cell: lstm or gru.
        x: [T, B, I], in the type of the products.
        lengths: int32 [B], real positions of each, at least 1; padding is on the right.
        weights: of `packed`, in the same type.
        initial: states before the first position, float32 [B, U] each.
        is_training: keep what the gradient needs.

    Returns:
        The outputs, [T, B, U] in the type of the products, zero at padded positions, and the last states, float32.
    """
    first = [tf.cast(state, x.dtype)[None] for state in initial]
    outputs, *last = tf.raw_ops.CudnnRNNV3(
        input=x,
        input_h=first[0],
        input_c=first[1] if len(first) > 1 else tf.zeros([], x.dtype),
        params=weights,
        sequence_lengths=lengths,
        rnn_mode=_name_of(cell),
        is_training=is_training,
        time_major=True,
    )[: 1 + len(first)]
    return outputs, tuple(tf.cast(state[0], tf.float32) for state in last)


def _name_of(cell: Cell) -> str:
    return next((name for name, each in CELLS.items() if each.update is cell.update), "")
