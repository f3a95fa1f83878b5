"""Recurrent cells: element-wise functions of two projections, W x_t + b and U h_{t-1} + b', and the previous states."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

States = tuple[tf.Tensor, ...]


class Cell(NamedTuple):
    """A recurrent cell.

    Attributes:
        num_gates: G, so that both projections have width G * units.
        num_states: of how many tensors [B, U] the state consists; the first is h, the output.
        update: (input projection [B, G*U], recurrent projection [B, G*U], states, *parameters) -> new states.
        biases: initial values, a number a gate, of the bias of the input projection and, if there are two, of that of
            the recurrent projection. With one bias, the cell only adds the projections, so they share a gradient.
        parameters: names and first values of the other vectors, a number for each `units` of their width.
    """

    num_gates: int
    num_states: int
    update: Callable[..., States]
    biases: tuple[tuple[float, ...], ...]
    parameters: tuple[tuple[str, tuple[float, ...]], ...] = ()


def _lstm(x: tf.Tensor, h: tf.Tensor, states: States) -> States:
    """Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; gates i, f, o, g."""
    units = states[1].shape[-1]
    gates = x + h
    i, f, o = tf.split(tf.sigmoid(gates[..., : 3 * units]), 3, axis=-1)
    c = f * states[1] + i * tf.tanh(gates[..., 3 * units :])
    return o * tf.tanh(c), c


def _gru(x: tf.Tensor, h: tf.Tensor, states: States) -> States:
    """Cho et al. 2014, with the reset gate after the product as cuDNN has it; gates z, r, n."""
    xz, xr, xn = tf.split(x, 3, axis=-1)
    hz, hr, hn = tf.split(h, 3, axis=-1)
    z = tf.sigmoid(xz + hz)
    n = tf.tanh(xn + tf.sigmoid(xr + hr) * hn)
    return (z * states[0] + (1.0 - z) * n,)


def _simple(x: tf.Tensor, h: tf.Tensor, states: States) -> States:
    """Elman 1990: h_t = tanh(W x_t + U h_{t-1} + b)."""
    del states
    return (tf.tanh(x + h),)


def _normed_lstm(x: tf.Tensor, h: tf.Tensor, states: States, *parameters: tf.Tensor) -> States:
    """LSTM(LN(W x_t) + LN(U h_{t-1}) + b), h = o tanh(LN(c)) (Ba et al. 2016, eqs. 20 to 22)."""
    bias, input_gain, recurrent_gain, cell_gain, cell_bias = parameters
    gates = _normed(x) * input_gain + _normed(h) * recurrent_gain + bias
    i, f, o, g = tf.split(gates, 4, axis=-1)
    c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(_normed(c) * cell_gain + cell_bias), c


def _normed(x: tf.Tensor) -> tf.Tensor:
    x -= tf.reduce_mean(x, -1, keepdims=True)
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-5)


_OPEN_FORGET_GATE = (0.0, 1.0, 0.0, 0.0)  # Jozefowicz et al. 2015
CELLS = {
    "lstm": Cell(4, 2, _lstm, biases=(_OPEN_FORGET_GATE,)),
    "gru": Cell(3, 1, _gru, biases=((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))),
    "rnn": Cell(1, 1, _simple, biases=((0.0,),)),
    "normed_lstm": Cell(
        4,
        2,
        _normed_lstm,
        biases=(),
        parameters=(
            ("bias", _OPEN_FORGET_GATE),
            ("input_gain", (1.0,) * 4),
            ("recurrent_gain", (1.0,) * 4),
            ("cell_gain", (1.0,)),
            ("cell_bias", (0.0,)),
        ),
    ),
}
