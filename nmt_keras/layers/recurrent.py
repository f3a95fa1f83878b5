"""Recurrence: h_t = f(h_{t-1}, x_t) for a whole sequence, or one step.

A cell is an element-wise function of two projections, W x_t + b and U h_{t-1} + b', and its previous states. What is
shared by all cells is done once here: the input projection of all positions is one product before the loop, and in the
backward pass the gradient of U is one product over all positions after the loop, instead of a sum of T small ones.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer
from nmt_keras.layers.dropout import dropout, dropout_mask, fold_in
from nmt_keras.layers.fusion import fused

States = tuple[tf.Tensor, ...]


class Cell(NamedTuple):
    """A recurrent cell.

    Attributes:
        num_gates: G, so that both projections have width G * units.
        num_states: of how many tensors [B, U] the state consists; the first is h, the output.
        update: (input projection [B, G*U], recurrent projection [B, G*U], states) -> new states.
    """

    num_gates: int
    num_states: int
    update: Callable[[tf.Tensor, tf.Tensor, States], States]


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


CELLS = {"lstm": Cell(4, 2, _lstm), "gru": Cell(3, 1, _gru), "rnn": Cell(1, 1, _simple)}


class _Kernels(NamedTuple):
    """The element-wise part of one position.

    Attributes:
        update: (input projection [B, G*U], recurrent projection [B, G*U], keep [B, 1] or None, biases [G*U], old
            states) -> new states.
        fused_update: the same, compiled for training.
        fused_gradient: (the same arguments, gradients of the new states, gradient of the output) -> gradients of the
            projections and of the old states. One bias says that the projections are added: then they share a gradient.
    """

    update: Callable
    fused_update: Callable
    fused_gradient: Callable


@functools.cache  # layers of one shape share what is compiled
def _kernels(cell: Cell, width: int) -> _Kernels:
    def update(x, h, keep, biases, old):
        x, h = tf.cast(x, tf.float32) + biases[0], tf.cast(h, tf.float32)
        new = cell.update(x, h + biases[1] if biases[1:] else h, old)
        return new if keep is None else tuple(tf.where(keep, n, o) for n, o in zip(new, old))

    def gradient(x, h, keep, biases, old, d_new, d_output):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch((x, h, old))
            new = update(x, h, keep, biases, old)
        d_new = (d_new[0] + d_output, *d_new[1:])
        projections = (x, h) if biases[1:] else (x,)
        return tape.gradient(new, (*projections, old), output_gradients=d_new, unconnected_gradients="zero")

    return _Kernels(update, fused(update, width), fused(gradient, width))


def _array(size: tf.Tensor, like: tf.Tensor) -> tf.TensorArray:
    """For `size` arrays [B, width] of the last two dimensions and type of another."""
    return tf.TensorArray(like.dtype, size, element_shape=like.shape[-2:], clear_after_read=False)


def _weight_gradient(inputs: tf.Tensor, d_outputs: tf.Tensor) -> tf.Tensor:
    """Of the kernel of a product of all positions: [T, B, I] and [T, B, O] to float32 [I, O]."""
    flat = (tf.reshape(operand, [-1, operand.shape[-1]]) for operand in (inputs, d_outputs))
    return tf.cast(tf.matmul(*flat, transpose_a=True), tf.float32)


class RecurrentLayer(Layer):
    """One recurrent layer in one direction.

    Example:
        layer = RecurrentLayer("lstm", units=256)
        outputs, last_states = layer(x, mask)          # a sequence
        states = layer.step(x[:, 0], states)           # one position

    Args:
        cell: a key of `CELLS`.
        units: U.
        reverse: read each sequence from its last real position to its first.
        state_dropout_rate: on h_{t-1} where it enters the product, one mask a sentence (Gal and Ghahramani 2016).
    """

    def __init__(
        self, cell: str, units: int, reverse: bool = False, state_dropout_rate: float = 0.0, name: str | None = None
    ):
        super().__init__(name=name)
        self.cell = CELLS[cell]
        self.units = units
        self.reverse = reverse
        self.state_dropout_rate = state_dropout_rate

    def build(self, shape) -> None:
        width = self.cell.num_gates * self.units
        self.kernel = self.add_weight(shape=(shape[-1], width), initializer="glorot_uniform", name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, width), initializer="orthogonal", name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(width,), initializer="zeros", name="bias")
        # Two biases are one where the projections are added; only the GRU keeps them apart (in its third gate).
        self.recurrent_bias = None
        if self.cell.update is _gru:
            self.recurrent_bias = self.add_weight(shape=(width,), initializer="zeros", name="recurrent_bias")
        if self.cell.update is _lstm:  # a forget gate that starts open (Jozefowicz et al. 2015)
            self.bias.assign(tf.repeat([0.0, 1.0, 0.0, 0.0], self.units))

    def zero_states(self, batch_shape) -> States:
        """States of zeros, each [*batch_shape, U]."""
        return (tf.zeros(tf.concat([batch_shape, [self.units]], 0)),) * self.cell.num_states

    def call(
        self,
        x: tf.Tensor,
        sequence_mask: tf.Tensor | None = None,
        initial_states: States | None = None,
        dropout_seed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, States]:
        """Runs over a sequence.

        Args:
            x: float32 [B, T, I].
            sequence_mask: bool [B, T], padding on the right; at a padded position the states stay and the output is
                zero. None where no position is padding, or what comes after the first is of no use.
            initial_states: before the first position, each [B, U]; zeros if None.
            dropout_seed: int32 [2], or None at inference.

        Returns:
            The outputs h_1..h_T, float32 [B, T, U], and the last states, each [B, U].
        """
        batch, length = tf.shape(x)[0], tf.shape(x)[1]
        if initial_states is None:
            initial_states = self.zero_states([batch])
        lengths = (
            tf.fill([batch], length) if sequence_mask is None else tf.reduce_sum(tf.cast(sequence_mask, tf.int32), 1)
        )
        inputs = tf.reverse_sequence(x, lengths, seq_axis=1, batch_axis=0) if self.reverse else x
        keep = None if sequence_mask is None else tf.transpose(sequence_mask)[:, :, None]
        outputs, last_states = self._recurrence(
            tf.transpose(inputs, [1, 0, 2]), keep, initial_states, self.state_mask(batch, dropout_seed), dropout_seed
        )
        outputs = tf.transpose(outputs, [1, 0, 2])
        if sequence_mask is not None:
            outputs *= tf.cast(sequence_mask, tf.float32)[:, :, None]
        if self.reverse:
            outputs = tf.reverse_sequence(outputs, lengths, seq_axis=1, batch_axis=0)
        return tf.ensure_shape(outputs, [*x.shape[:-1], self.units]), last_states

    def state_mask(self, batch: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor | None:
        """The dropout mask of h_{t-1}, float32 [batch, U], one for all positions; None where nothing is dropped."""
        return dropout_mask([batch, self.units], self.state_dropout_rate, dropout_seed)

    def step(self, x: tf.Tensor, states: States, state_mask: tf.Tensor | None = None) -> States:
        """One position: x [..., I] and states [..., U] to new states, the first of which is the output.

        `state_mask` is that of `state_mask()`, broadcast to the states.
        """
        projected = dense.product(x, self.kernel, self.compute_dtype) + self.bias
        h = states[0] if state_mask is None else states[0] * state_mask
        return self.cell.update(projected, self._recurrent_projection(h), states)

    def _recurrent_projection(self, h: tf.Tensor) -> tf.Tensor:
        projected = dense.product(h, self.recurrent_kernel, self.compute_dtype)
        return projected if self.recurrent_bias is None else projected + self.recurrent_bias

    def _recurrence(
        self,
        x: tf.Tensor,
        keep: tf.Tensor | None,
        initial: States,
        state_mask: tf.Tensor | None,
        dropout_seed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, States]:
        """Time-major: inputs [T, B, I] and `keep` [T, B, 1] to outputs [T, B, U] and the last states."""
        run = _Recurrence(self.cell, self.compute_dtype, keep, state_mask, training=dropout_seed is not None).run
        biases = tuple(tf.convert_to_tensor(b) for b in (self.bias, self.recurrent_bias) if b is not None)
        arguments = x, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.recurrent_kernel), biases, initial
        if dropout_seed is None:  # no custom gradient gets into an export
            (outputs, *last), _ = run(*arguments)
        else:
            outputs, *last = tf.custom_gradient(run)(*arguments)
        return outputs, tuple(tf.ensure_shape(state, [None, self.units]) for state in last)


class _Recurrence:
    """A loop over time, time-major, whose backward pass leaves all products over positions for after the loop.

    Args:
        cell: what happens at a position.
        dtype: of the products.
        keep: bool [T, B, 1], false where the states stay; None where they never do.
        state_mask: [B, U], what h_{t-1} is multiplied by before its product, or None.
        training: compile the element-wise part.
    """

    def __init__(self, cell: Cell, dtype: str, keep: tf.Tensor | None, state_mask: tf.Tensor | None, training: bool):
        self._cell = cell
        self._dtype = dtype
        self._keep = keep
        self._state_mask = state_mask
        self._training = training

    def run(self, x, kernel, recurrent_kernel, biases, initial):
        """As `tf.custom_gradient` wants it: (outputs [T, B, U], *last states) and the function of their gradients."""
        inputs, kernel, recurrent_kernel = (tf.cast(operand, self._dtype) for operand in (x, kernel, recurrent_kernel))
        projected = tf.matmul(inputs, kernel)
        kernels = _kernels(self._cell, projected.shape[-1])
        last, history, recurrent = self._forward(projected, kernels, recurrent_kernel, biases, initial)

        def gradient(d_outputs, *d_last):
            d_initial, d_projected, d_recurrent = self._backward(
                projected, recurrent, history, kernels, recurrent_kernel, biases, d_outputs, d_last
            )
            read = tf.cast(self._drop(history[0][:-1]), self._dtype)
            return (
                tf.cast(tf.matmul(d_projected, kernel, transpose_b=True), tf.float32),
                _weight_gradient(inputs, d_projected),
                _weight_gradient(read, d_recurrent),
                tuple(
                    tf.reduce_sum(tf.cast(d, tf.float32), [0, 1]) for d, _ in zip((d_projected, d_recurrent), biases)
                ),
                d_initial,
            )

        return (history[0][1:], *last), gradient

    def _forward(self, projected, kernels, recurrent_kernel, biases, initial):
        """The last states, those before and after every position [T+1, B, U], and U h_{t-1} of every position."""
        length = tf.shape(projected)[0]
        update = kernels.fused_update if self._training else kernels.update

        def body(t, states, history, recurrent):
            h = tf.matmul(tf.cast(self._drop(states[0]), self._dtype), recurrent_kernel)
            states = update(projected[t], h, self._keep_at(t), biases, states)
            history = tuple(array.write(t + 1, state) for array, state in zip(history, states))
            return t + 1, states, history, recurrent.write(t, h)

        history = tuple(_array(length + 1, s).write(0, s) for s in initial)
        _, last, history, recurrent = tf.while_loop(
            lambda t, *_: t < length, body, (0, initial, history, _array(length, projected)), maximum_iterations=length
        )
        return last, tuple(array.stack() for array in history), recurrent.stack()

    def _backward(self, projected, recurrent, history, kernels, recurrent_kernel, biases, d_outputs, d_last):
        """Gradients of the states before the first position and of both projections at all positions."""
        length = tf.shape(projected)[0]

        def body(t, d_states, d_projections):
            old = tuple(states[t] for states in history)
            *d_new_projections, d_old = kernels.fused_gradient(
                projected[t], recurrent[t], self._keep_at(t), biases, old, d_states, d_outputs[t]
            )
            through = self._drop(
                tf.cast(tf.matmul(d_new_projections[-1], recurrent_kernel, transpose_b=True), tf.float32)
            )
            written = tuple(array.write(t, d) for array, d in zip(d_projections, d_new_projections))
            return t - 1, (d_old[0] + through, *d_old[1:]), written

        arrays = tuple(_array(length, projected) for _ in biases)
        _, d_initial, arrays = tf.while_loop(
            lambda t, *_: t >= 0, body, (length - 1, d_last, arrays), maximum_iterations=length
        )
        d_projections = [array.stack() for array in arrays]
        return d_initial, d_projections[0], d_projections[-1]

    def _drop(self, h: tf.Tensor) -> tf.Tensor:
        return h if self._state_mask is None else h * self._state_mask

    def _keep_at(self, t: tf.Tensor) -> tf.Tensor | None:
        return None if self._keep is None else self._keep[t]


class RecurrentStack(Layer):
    """Recurrent layers on top of each other, each in one or both directions, with residuals and dropout.

    Args:
        cell: a key of `CELLS`.
        num_layers: how many.
        units: width of each layer's output; with `bidirectional`, half of it a direction.
        bidirectional: every layer reads both ways (Schuster and Paliwal 1997), outputs concatenated.
        residual: add a layer's input to its output, where the widths are equal (He et al. 2016).
        state_dropout_rate: see `RecurrentLayer`.
        output_dropout_rate: on each layer's output.
    """

    def __init__(
        self,
        cell: str,
        num_layers: int,
        units: int,
        bidirectional: bool = False,
        residual: bool = False,
        state_dropout_rate: float = 0.0,
        output_dropout_rate: float = 0.0,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.residual = residual
        self.output_dropout_rate = output_dropout_rate
        directions = ("forward", "backward") if bidirectional else ("forward",)
        self.layers = [
            [
                RecurrentLayer(cell, units // len(directions), d == "backward", state_dropout_rate, name=f"{d}_{n}")
                for d in directions
            ]
            for n in range(num_layers)
        ]

    def build(self, shape) -> None:
        for directions in self.layers:
            for layer in directions:
                layer.build(shape)
            shape = (*shape[:-1], sum(layer.units for layer in directions))

    def call(
        self,
        x: tf.Tensor,
        sequence_mask: tf.Tensor | None = None,
        initial_states: tuple[States, ...] | None = None,
        dropout_seed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tuple[States, ...]]:
        """float32 [B, T, I] to [B, T, units] and the last states of each layer, each [B, units].

        `initial_states` (one-directional stacks only) are those of each layer before the first position.
        """
        last = []
        for number, directions in enumerate(self.layers):
            seeds = [fold_in(dropout_seed, 4 * number + i) for i in range(3)]
            first = None if initial_states is None else initial_states[number]
            runs = [
                layer(x, sequence_mask=sequence_mask, initial_states=first, dropout_seed=seed)
                for layer, seed in zip(directions, seeds)
            ]
            last.append(tuple(tf.concat(states, -1) for states in zip(*(states for _, states in runs))))
            x = self._combine(x, tf.concat([outputs for outputs, _ in runs], -1), seeds[2])
        return x, tuple(last)

    def state_masks(self, batch: tf.Tensor, dropout_seed: tf.Tensor | None) -> list[tf.Tensor | None]:
        """The masks that `step` takes, one a layer: those that `call` would draw from the same seed."""
        return [layer.state_mask(batch, fold_in(dropout_seed, 4 * n)) for n, (layer,) in enumerate(self.layers)]

    def step(
        self,
        x: tf.Tensor,
        states: tuple[States, ...],
        state_masks: list[tf.Tensor | None] | None = None,
        dropout_seed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tuple[States, ...]]:
        """One position of a one-directional stack: x [..., I] to [..., units] and new states.

        Training gives `state_masks` (one for all positions) and a seed of this position for the outputs.
        """
        result = []
        for number, ((layer,), old) in enumerate(zip(self.layers, states)):
            mask = None if state_masks is None else state_masks[number]
            new = layer.step(x, old, mask if mask is None else mask[:, None])
            result.append(new)
            x = self._combine(x, new[0], fold_in(dropout_seed, 4 * number + 2))
        return x, tuple(result)

    def _combine(self, x: tf.Tensor, outputs: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        outputs = dropout(outputs, self.output_dropout_rate, dropout_seed)
        return x + outputs if self.residual and x.shape[-1] == outputs.shape[-1] else outputs
