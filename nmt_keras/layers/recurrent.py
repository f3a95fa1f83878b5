"""Recurrence: h_t = f(h_{t-1}, x_t) for a whole sequence, or one step.

What is shared by all cells (`nmt_keras.layers.cells`) is done once here: the input projection of all positions is one
product before the loop, and in the backward pass the gradient of U is one product over all positions after the loop,
instead of a sum of T small ones.

On a GPU, layers that cuDNN can compute are computed by it, once `use_cudnn` was called for a model. What is exported
is traced without: a server may have no GPU.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from nmt_keras.layers import cudnn, dense
from nmt_keras.layers.base import Layer, layers_of
from nmt_keras.layers.cells import CELLS, Cell, States
from nmt_keras.layers.dropout import dropout, dropout_mask, fold_in
from nmt_keras.layers.fusion import fused


class _Kernels(NamedTuple):
    """The element-wise part of one position.

    Attributes:
        update: (input projection [B, G*U], recurrent projection [B, G*U], keep [B, 1] or None, biases, parameters, old
            states) -> new states.
        fused_update: the same, compiled for training.
        fused_gradient: (the same arguments, gradients of the new states, gradient of the output) -> gradients of the
            projections (one, if they share it), of the parameters and of the old states.
    """

    update: Callable
    fused_update: Callable
    fused_gradient: Callable


@functools.cache  # layers of one shape share what is compiled
def _kernels(cell: Cell, width: int) -> _Kernels:
    def update(x, h, keep, biases, parameters, old):
        x, h = _biased((tf.cast(x, tf.float32), tf.cast(h, tf.float32)), biases)
        new = cell.update(x, h, old, *parameters)
        return new if keep is None else tuple(tf.where(keep, n, o) for n, o in zip(new, old))

    def gradient(x, h, keep, biases, parameters, old, d_new, d_output):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch((x, h, parameters, old))
            new = update(x, h, keep, biases, parameters, old)
        d_new = (d_new[0] + d_output, *d_new[1:])
        projections = (x,) if len(cell.biases) == 1 else (x, h)
        return tape.gradient(new, (projections, parameters, old), output_gradients=d_new, unconnected_gradients="zero")

    return _Kernels(update, fused(update, width), fused(gradient, width))


def _biased(projections, biases) -> list[tf.Tensor]:
    """Adds the biases to the first projections; there may be fewer biases than projections."""
    return [p + b for p, b in zip(projections, biases)] + list(projections[len(biases) :])


def _array(size: tf.Tensor, like: tf.Tensor) -> tf.TensorArray:
    """A TensorArray for `size` tensors [B, width] with the type and the last two dimensions of `like`."""
    return tf.TensorArray(like.dtype, size, element_shape=like.shape[-2:], clear_after_read=False)


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

    Attributes:
        uses_cudnn: compute sequences by cuDNN; set by `use_cudnn`.
        ways: how what was traced computes the layer: "cuDNN", "loop", or "step" by step in a decoder's own loop.
    """

    def __init__(
        self, cell: str, units: int, reverse: bool = False, state_dropout_rate: float = 0.0, name: str | None = None
    ):
        super().__init__(name=name)
        self.cell = CELLS[cell]
        self.units = units
        self.reverse = reverse
        self.state_dropout_rate = state_dropout_rate
        self.uses_cudnn = False
        self.ways: set[str] = set()

    def build(self, shape) -> None:
        width = self.cell.num_gates * self.units
        self.kernel = self.add_weight(shape=(shape[-1], width), initializer="glorot_uniform", name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, width), initializer="orthogonal", name="recurrent_kernel"
        )
        named = zip(("bias", "recurrent_bias"), self.cell.biases)
        self.biases = [self._vector(name, first) for name, first in named]
        self.parameters = [self._vector(name, first) for name, first in self.cell.parameters]

    def _vector(self, name: str, first: tuple[float, ...]) -> keras.Variable:
        weight = self.add_weight(shape=(len(first) * self.units,), initializer="zeros", name=name)
        weight.assign(tf.repeat(first, self.units))
        return weight

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
                zero. None where no position is padding, or nothing from the first padded position on is used.
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
        time_major = tf.transpose(inputs, [1, 0, 2])
        self.ways.add("cuDNN" if self.uses_cudnn else "loop")
        if self.uses_cudnn:
            outputs, last_states = self._by_cudnn(time_major, lengths, initial_states, dropout_seed is not None)
        else:
            keep = None if sequence_mask is None else tf.transpose(sequence_mask)[:, :, None]
            state_mask = self.state_mask(batch, dropout_seed)
            outputs, last_states = self._recurrence(time_major, keep, initial_states, state_mask, dropout_seed)
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
        self.ways.add("step")
        h = states[0] if state_mask is None else states[0] * state_mask
        operands = zip((x, h), (self.kernel, self.recurrent_kernel), (*self.biases, None, None))
        projections = [dense.product(y, kernel, self.compute_dtype, bias=bias) for y, kernel, bias in operands]
        return self.cell.update(*projections, states, *self.parameters)

    def _by_cudnn(
        self, x: tf.Tensor, lengths: tf.Tensor, initial: States, is_training: bool
    ) -> tuple[tf.Tensor, States]:
        """Runs as `_recurrence` does, of sequences of these lengths."""
        kernel, recurrent_kernel, *biases = map(
            tf.convert_to_tensor, (self.kernel, self.recurrent_kernel, *self.biases)
        )
        weights = cudnn.packed(self.cell, kernel, recurrent_kernel, biases)
        x, weights = (tf.cast(operand, self.compute_dtype) for operand in (x, weights))
        outputs, last = cudnn.recurrence(self.cell, x, lengths, weights, initial, is_training)
        return tf.cast(outputs, tf.float32), last

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
        kernels = (tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.recurrent_kernel))
        vectors = (tuple(map(tf.convert_to_tensor, weights)) for weights in (self.biases, self.parameters))
        arguments = x, *kernels, *vectors, initial
        if dropout_seed is None:  # no custom gradient gets into an export
            (outputs, *last), _ = run(*arguments)
        else:
            outputs, *last = tf.custom_gradient(run)(*arguments)
        return outputs, tuple(tf.ensure_shape(state, [None, self.units]) for state in last)


class _Recurrence:
    """A loop over time, time-major; its backward pass computes the gradients of the kernels after the loop.

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

    def run(self, x, kernel, recurrent_kernel, biases, parameters, initial):
        """What `tf.custom_gradient` wants: (outputs [T, B, U], *last states) and the function of their gradients."""
        inputs, kernel, recurrent_kernel = (tf.cast(operand, self._dtype) for operand in (x, kernel, recurrent_kernel))
        projected = tf.matmul(inputs, kernel)
        kernels = _kernels(self._cell, projected.shape[-1])
        vectors = (biases, parameters)
        last, history, recurrent = self._forward(projected, kernels, recurrent_kernel, vectors, initial)

        def gradient(d_outputs, *d_last):
            d_initial, d_projections, d_parameters = self._backward(
                projected, recurrent, history, kernels, recurrent_kernel, vectors, d_outputs, d_last
            )
            d_projected, d_recurrent = d_projections[0], d_projections[-1]
            read = tf.cast(self._drop(history[0][:-1]), self._dtype)
            return (
                tf.cast(tf.matmul(d_projected, kernel, transpose_b=True), tf.float32),
                dense.weight_gradient(inputs, d_projected),
                dense.weight_gradient(read, d_recurrent),
                tuple(tf.reduce_sum(tf.cast(d, tf.float32), [0, 1]) for d, _ in zip(d_projections, biases)),
                d_parameters,
                d_initial,
            )

        return (history[0][1:], *last), gradient

    def _forward(self, projected, kernels, recurrent_kernel, vectors, initial):
        """The last states, those before and after every position [T+1, B, U], and U h_{t-1} of every position."""
        length = tf.shape(projected)[0]
        update = kernels.fused_update if self._training else kernels.update

        def body(t, states, history, recurrent):
            h = tf.matmul(tf.cast(self._drop(states[0]), self._dtype), recurrent_kernel)
            states = update(projected[t], h, self._keep_at(t), *vectors, states)
            history = tuple(array.write(t + 1, state) for array, state in zip(history, states))
            return t + 1, states, history, recurrent.write(t, h)

        history = tuple(_array(length + 1, s).write(0, s) for s in initial)
        _, last, history, recurrent = tf.while_loop(
            lambda t, *_: t < length, body, (0, initial, history, _array(length, projected)), maximum_iterations=length
        )
        return last, tuple(array.stack() for array in history), recurrent.stack()

    def _backward(self, projected, recurrent, history, kernels, recurrent_kernel, vectors, d_outputs, d_last):
        """Gradients of the states before the first position, of the projections at all positions, of the parameters."""
        length = tf.shape(projected)[0]

        def body(t, d_states, d_parameters, d_projections):
            old = tuple(states[t] for states in history)
            d_here, d_vectors, d_old = kernels.fused_gradient(
                projected[t], recurrent[t], self._keep_at(t), *vectors, old, d_states, d_outputs[t]
            )
            through = self._drop(tf.cast(tf.matmul(d_here[-1], recurrent_kernel, transpose_b=True), tf.float32))
            return (
                t - 1,
                (d_old[0] + through, *d_old[1:]),
                tuple(total + d for total, d in zip(d_parameters, d_vectors)),
                tuple(array.write(t, d) for array, d in zip(d_projections, d_here)),
            )

        arrays = tuple(_array(length, projected) for _ in range(1 if len(self._cell.biases) == 1 else 2))
        _, d_initial, d_parameters, arrays = tf.while_loop(
            lambda t, *_: t >= 0,
            body,
            (length - 1, d_last, tuple(map(tf.zeros_like, vectors[1])), arrays),
            maximum_iterations=length,
        )
        return d_initial, [array.stack() for array in arrays], d_parameters

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
        first_residual: the first layer, from 0, that `residual` holds for.
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
        first_residual: int = 0,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.residual = residual
        self.first_residual = first_residual
        self.output_dropout_rate = output_dropout_rate
        directions = ("forward", "backward") if bidirectional else ("forward",)
        self.layers = [
            [
                RecurrentLayer(cell, units // len(directions), d == "backward", state_dropout_rate, name=f"{d}_{n}")
                for d in directions
            ]
            for n in range(num_layers)
        ]

    def build(self, shape, context_width: int = 0) -> None:
        for directions in self.layers:
            for layer in directions:
                layer.build((*shape[:-1], shape[-1] + context_width))
            shape = (*shape[:-1], sum(layer.units for layer in directions))

    def call(
        self,
        x: tf.Tensor,
        sequence_mask: tf.Tensor | None = None,
        initial_states: tuple[States, ...] | None = None,
        dropout_seed: tf.Tensor | None = None,
        context: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tuple[States, ...]]:
        """float32 [B, T, I] to [B, T, units] and the last states of each layer, each [B, units].

        `initial_states` (one-directional stacks only) are those of each layer before the first position; `context`
        [B, T, C] is read by every layer beside its input.
        """
        last = []
        for number, directions in enumerate(self.layers):
            seeds = [fold_in(dropout_seed, 4 * number + i) for i in range(3)]
            first = None if initial_states is None else initial_states[number]
            runs = [
                layer(_beside(x, context), sequence_mask=sequence_mask, initial_states=first, dropout_seed=seed)
                for layer, seed in zip(directions, seeds)
            ]
            last.append(tuple(tf.concat(states, -1) for states in zip(*(states for _, states in runs))))
            x = self._combine(number, x, tf.concat([outputs for outputs, _ in runs], -1), seeds[2])
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
        context: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tuple[States, ...]]:
        """One position of a one-directional stack: x [..., I] to [..., units] and new states.

        Training gives `state_masks` (one for all positions) and a seed of this position for the outputs.
        """
        result = []
        for number, ((layer,), old) in enumerate(zip(self.layers, states)):
            mask = None if state_masks is None else state_masks[number]
            new = layer.step(_beside(x, context), old, mask if mask is None else mask[:, None])
            result.append(new)
            x = self._combine(number, x, new[0], fold_in(dropout_seed, 4 * number + 2))
        return x, tuple(result)

    def _combine(self, number: int, x: tf.Tensor, outputs: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        outputs = dropout(outputs, self.output_dropout_rate, dropout_seed)
        has_residual = self.residual and number >= self.first_residual and x.shape[-1] == outputs.shape[-1]
        return x + outputs if has_residual else outputs


def use_cudnn(model: keras.layers.Layer, is_used: bool) -> None:
    """Says whether what is traced from now on computes a model's recurrences by cuDNN, where it can.

    Args:
        model: with recurrent layers, or without.
        is_used: whether there is a GPU, and what is traced stays in this process.
    """
    for layer in layers_of(model).values():
        if isinstance(layer, RecurrentLayer):
            layer.uses_cudnn = is_used and not cudnn.obstacle(layer.cell, layer.state_dropout_rate, layer.compute_dtype)


def ways_of(model: keras.layers.Layer) -> str:
    """How what was traced computes each recurrent layer of a model, a line for people; "" where nothing was."""
    found: dict[str, list[str]] = {}
    for path, layer in layers_of(model).items():
        if isinstance(layer, RecurrentLayer):
            for way in sorted(layer.ways):
                why = cudnn.obstacle(layer.cell, layer.state_dropout_rate, layer.compute_dtype)
                found.setdefault(f"{way} ({why})" if why and way == "loop" else way, []).append(path)
    return "; ".join(f"{way}: {', '.join(paths)}" for way, paths in found.items())


def _beside(x: tf.Tensor, context: tf.Tensor | None) -> tf.Tensor:
    return x if context is None else tf.concat([x, context], -1)
