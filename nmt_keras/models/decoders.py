"""Decoders: s_t = f(s_{t-1}, c_t), in sequence mode for training and in step mode for search. Here, the recurrent ones.

A decoder has five methods; `Q` is 1 or the number of beams.

    prepare(encoder_output) -> Memory                                  what stays constant, every leaf [B, ...]
    cast(memory) -> Memory                                             for a search: operands of products are cast once
    init_state(memory) -> State                                        before the first position: `decoding.hypotheses`
    call(embedded [B,T,D], memory, dropout_seed) -> (hidden [B,T,D], attention_weights [B,T,S])
    step(embedded [B,Q,D], position, state, memory) -> (hidden [B,Q,D], attention_weights [B,Q,S], State)

Both modes share their body, and T steps equal one call. A step may lengthen an axis of the state that is 0 at first.
Embedding and output projection belong to `Seq2Seq`.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.layers import dense
from nmt_keras.layers.attention import Attention, AttentionMemory, BahdanauAttention
from nmt_keras.layers.base import Layer
from nmt_keras.layers.cells import CELLS, States
from nmt_keras.layers.dense import Dense
from nmt_keras.layers.dropout import dropout, dropout_mask, fold_in
from nmt_keras.layers.recurrent import RecurrentLayer, RecurrentStack
from nmt_keras.models.encoders import EncoderOutput


class RNNMemory(NamedTuple):
    """What a recurrent decoder reads."""

    attention: AttentionMemory
    first_states: tuple[States, ...]  # of each layer, float32 [B, D] each


class RNNState(NamedTuple):
    """What a recurrent decoder hands from position to position."""

    layers: tuple[States, ...]  # of each layer, float32 [B, Q, D] each
    fed: tf.Tensor  # float32 [B, Q, D] with input feeding, else [B, Q, 0]: what attention gave the position before
    attention: Any  # of the attention mechanism


class Bridge(Layer):
    """The decoder's first states, from the encoder's last: layer n starts from the encoder's layer n, counted from the
    top.

    Args:
        kind: `dense` (a learned map), `copy` or `zeros`.
        cell: of the decoder, a key of `CELLS`.
        num_layers: of the decoder.
        d_model: D.
    """

    def __init__(self, kind: str, cell: str, num_layers: int, d_model: int, name: str | None = None):
        super().__init__(name=name)
        self.kind = kind
        self.num_layers = num_layers
        self.num_states = CELLS[cell].num_states
        self.d_model = d_model
        self.maps: list[list[Dense]] = []
        if kind == "dense":
            self.maps = [
                [
                    Dense(d_model, activation=tf.tanh if not i else None, name=f"map_{n}_{i}")
                    for i in range(self.num_states)
                ]
                for n in range(num_layers)
            ]

    def build(self, *_) -> None:
        for layers in self.maps:
            for layer in layers:
                layer.build((None, self.d_model))

    def call(self, last: tuple[States, ...]) -> tuple[States, ...]:
        """The encoder's last states, each [B, D], to the decoder's first."""
        aligned = [last[max(len(last) - self.num_layers + n, 0)] for n in range(self.num_layers)]
        if self.kind == "dense":
            return tuple(
                tuple(layer(states[min(i, len(states) - 1)]) for i, layer in enumerate(layers))
                for layers, states in zip(self.maps, aligned)
            )
        if self.kind == "zeros":
            return ((tf.zeros_like(last[-1][0]),) * self.num_states,) * self.num_layers
        return tuple(aligned)


class RecurrentDecoder(Layer):
    """What recurrent decoders share; a subclass has `build`, `_advance` and `_state_masks`.

    Args:
        config: of the network.
        attention: what it reads the source with.
    """

    def __init__(self, config: ModelConfig, attention: Attention, name: str | None = None):
        super().__init__(name=name)
        self.config = config
        self.attention = attention
        self.bridge = Bridge(config.bridge, config.cell, config.num_decoder_layers, config.d_model, name="bridge")

    @property
    def context_width(self) -> int:
        """The width of the context: D, or 0 without attention."""
        return self.config.d_model if self.attention.has_context else 0

    def prepare(self, encoder_output: EncoderOutput) -> RNNMemory:
        """Makes the attention's memory and the decoder's first states."""
        return RNNMemory(
            self.attention.prepare(encoder_output.states, encoder_output.mask), self.bridge(encoder_output.last_states)
        )

    def cast(self, memory: RNNMemory) -> RNNMemory:
        """Memory for a search: see the module's docstring."""
        operands = dense.cast_fields(memory.attention, self.attention.operands, self.compute_dtype)
        return memory._replace(attention=operands)

    def init_state(self, memory: RNNMemory) -> RNNState:
        """The state before BOS, with Q = 1."""
        layers = tf.nest.map_structure(lambda s: s[:, None], memory.first_states)
        fed = tf.zeros_like(layers[0][0]) if self.config.input_feeding else layers[0][0][:, :, :0]
        return RNNState(layers, fed, self.attention.initial_state(memory.attention))

    def step(
        self, embedded: tf.Tensor, position: tf.Tensor, state: RNNState, memory: RNNMemory
    ) -> tuple[tf.Tensor, tf.Tensor, RNNState]:
        """One position of a search: see the module's docstring."""
        return self._advance(embedded, tf.reshape(position, [1]), state, memory, None, None)

    def _advance(self, embedded, positions, state, memory, state_masks, dropout_seed):
        """One position, [B, Q, D]: a step of a search, or of a recurrence with attention inside it."""
        raise NotImplementedError

    def _state_masks(self, batch, dropout_seed):
        """The dropout masks of a sentence's recurrent states, as `_advance` takes them."""
        raise NotImplementedError

    def _unroll(self, x, memory, dropout_seed):
        """Teacher forcing, one position after the other."""
        batch, length = tf.shape(x)[0], tf.shape(x)[1]
        state_masks = self._state_masks(batch, fold_in(dropout_seed, 1))
        # Late gradients pay where kernels are cast, under a mixed policy; an export holds no custom gradient.
        is_late = dropout_seed is not None and self.compute_dtype != "float32"
        kernels = self.trainable_variables if is_late else ()
        late = dense.LateGradients(kernels, self.compute_dtype, length, x.shape[0] or batch)
        inputs = tf.TensorArray(tf.float32, length).unstack(tf.transpose(x, [1, 0, 2]))

        def body(t, state, hiddens, weights, arrays):
            seed = fold_in(fold_in(dropout_seed, 2), t)
            here = late.at(t, arrays)
            hidden, weight, state = here.layer(self)._advance(
                tf.expand_dims(inputs.read(t), 1), tf.reshape(t, [1]), state, memory, state_masks, seed
            )
            hidden, weight = (tf.squeeze(result, 1) for result in (hidden, weight))
            return t + 1, state, hiddens.write(t, hidden), weights.write(t, weight), here.arrays

        outputs = [tf.TensorArray(tf.float32, length) for _ in range(2)]
        _, _, hiddens, weights, arrays = tf.while_loop(
            lambda t, *_: t < length,
            body,
            (0, self.init_state(memory), *outputs, late.arrays()),
            maximum_iterations=length,
        )
        late.end(arrays)
        hidden, weights = (tf.transpose(array.stack(), [1, 0, 2]) for array in (hiddens, weights))
        return tf.ensure_shape(hidden, x.shape), weights


class RNNDecoder(RecurrentDecoder):
    """A recurrent decoder with attention.

    Without input feeding the recurrence s_t = f(s_{t-1}, y_{t-1}) runs over all positions first, and attention is one
    product over all of them: e_{t,i} = a(s_t, h_i), a_t = softmax(e_t), c_t = sum_i a_{t,i} h_i, and the hidden state
    that y_t is read from is tanh(W [c_t; s_t]) (Luong et al. 2015, eq. 5).

    With input feeding, attention enters the recurrence. The Luong scores feed the previous position's hidden state
    (3.3): s_t = f(s_{t-1}, [y_{t-1}; hidden_{t-1}]). Bahdanau's (2015, A.2.2) reads before it steps, so the article's
    s_t = f(s_{t-1}, c_t) holds to the letter: e_{t,i} = a(s_{t-1}, h_i), s_t = f(s_{t-1}, [y_{t-1}; c_t]). Without
    input feeding c_t is no input, and the additive score compares the new state s_t, as the others do.
    """

    def __init__(self, config: ModelConfig, attention: Attention, name: str | None = None):
        super().__init__(config, attention, name=name)
        self.reads_first = config.input_feeding and isinstance(attention, BahdanauAttention)
        self.stack = RecurrentStack(
            config.cell,
            config.num_decoder_layers,
            config.d_model,
            False,
            config.residual,
            config.state_dropout_rate,
            config.output_dropout_rate,
            config.first_residual_layer - 1,
            name="stack",
        )
        self.combine = Dense(config.d_model, use_bias=False, activation=tf.tanh, name="combine")

    def build(self, *_) -> None:
        d_model = self.config.d_model
        fed = d_model if self.config.input_feeding else 0
        self.stack.build((None, None, d_model + fed))
        self.combine.build((None, None, d_model + self.context_width))
        self.attention.build((None, None, d_model))
        self.bridge.build()

    def call(
        self, embedded: tf.Tensor, memory: RNNMemory, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Teacher forcing: see the module's docstring."""
        x = dropout(embedded, self.config.input_dropout_rate, fold_in(dropout_seed, 0))
        if self.config.input_feeding:
            return self._unroll(x, memory, dropout_seed)
        states, _ = self.stack(x, initial_states=memory.first_states, dropout_seed=fold_in(dropout_seed, 1))
        context, weights = self.attention.read_sequence(states, memory.attention, fold_in(dropout_seed, 3))
        return self._hidden(states, context, fold_in(dropout_seed, 2)), weights

    def _state_masks(self, batch, dropout_seed):
        return self.stack.state_masks(batch, dropout_seed)

    def _advance(self, embedded, positions, state, memory, state_masks, dropout_seed):
        read_seed = fold_in(dropout_seed, 2)
        if self.reads_first:
            context, weights, attention = self.attention(
                state.layers[-1][0], memory.attention, state.attention, positions, read_seed
            )
            embedded = tf.concat([embedded, context], -1)
        elif self.config.input_feeding:
            embedded = tf.concat([embedded, state.fed], -1)
        output, layers = self.stack.step(embedded, state.layers, state_masks, fold_in(dropout_seed, 0))
        if not self.reads_first:
            context, weights, attention = self.attention(
                output, memory.attention, state.attention, positions, read_seed
            )
        hidden = self._hidden(output, context, fold_in(dropout_seed, 1))
        if self.reads_first:
            fed = context
        else:
            fed = hidden if self.config.input_feeding else state.fed
        return hidden, weights, RNNState(layers, fed, attention)

    def _hidden(self, states, context, dropout_seed):
        hidden = self.combine(tf.concat([context, states], -1))
        return dropout(hidden, self.config.output_dropout_rate, dropout_seed)


class GNMTDecoder(RecurrentDecoder):
    """The first layer's states attend to the source, and every other layer reads their context, with residuals from the
    third layer on (Wu et al. 2016, 3; as in `gnmt_v2` of tensorflow/nmt and in Luong's, the new state attends).

    With input feeding the first layer reads the previous position's context, as the paper has it; without, it runs
    over all positions before attention does. y_t is read from the last layer.
    """

    def __init__(self, config: ModelConfig, attention: Attention, name: str | None = None):
        super().__init__(config, attention, name=name)
        rates = (config.state_dropout_rate, config.output_dropout_rate)
        self.bottom = RecurrentStack(config.cell, 1, config.d_model, False, False, *rates, name="bottom")
        self.second = RecurrentStack(config.cell, 1, config.d_model, False, False, *rates, name="second")
        num_others = config.num_decoder_layers - 2
        self.others = RecurrentStack(config.cell, num_others, config.d_model, False, True, *rates, name="others")

    def build(self, *_) -> None:
        d_model = self.config.d_model
        self.bottom.build((None, None, d_model), d_model if self.config.input_feeding else 0)
        self.second.build((None, None, d_model), d_model)
        self.others.build((None, None, d_model), d_model)
        self.attention.build((None, None, d_model))
        self.bridge.build()

    def call(
        self, embedded: tf.Tensor, memory: RNNMemory, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Teacher forcing: see the module's docstring."""
        x = dropout(embedded, self.config.input_dropout_rate, fold_in(dropout_seed, 0))
        if self.config.input_feeding:
            return self._unroll(x, memory, dropout_seed)
        seeds = [fold_in(dropout_seed, number) for number in range(1, 6)]
        first = memory.first_states
        x, _ = self.bottom(x, initial_states=first[:1], dropout_seed=seeds[0])
        context, weights = self.attention.read_sequence(x, memory.attention, seeds[3])
        x, _ = self.second(x, initial_states=first[1:2], dropout_seed=seeds[1], context=context)
        x, _ = self.others(x, initial_states=first[2:], dropout_seed=seeds[2], context=context)
        return self._hidden(x, context, seeds[4]), weights

    def _state_masks(self, batch, dropout_seed):
        stacks = (self.bottom, self.second, self.others)
        return [stack.state_masks(batch, fold_in(dropout_seed, number)) for number, stack in enumerate(stacks)]

    def _advance(self, embedded, positions, state, memory, state_masks, dropout_seed):
        seeds = [fold_in(dropout_seed, number) for number in range(5)]
        masks = state_masks or [None] * 3
        fed = state.fed if self.config.input_feeding else None
        x, bottom = self.bottom.step(embedded, state.layers[:1], masks[0], seeds[0], context=fed)
        context, weights, attention = self.attention(x, memory.attention, state.attention, positions, seeds[3])
        x, second = self.second.step(x, state.layers[1:2], masks[1], seeds[1], context=context)
        x, others = self.others.step(x, state.layers[2:], masks[2], seeds[2], context=context)
        fed = context if self.config.input_feeding else state.fed
        return self._hidden(x, context, seeds[4]), weights, RNNState(bottom + second + others, fed, attention)

    def _hidden(self, states, context, dropout_seed):
        del context, dropout_seed  # dropped already, by the last layer
        return states


class RNMTPlusDecoder(GNMTDecoder):
    """GNMT's decoder, but y_t is read from the last layer and from what was read of the source (Chen et al. 2018,
    4.1)."""

    def __init__(self, config: ModelConfig, attention: Attention, name: str | None = None):
        super().__init__(config, attention, name=name)
        self.combine = Dense(config.d_model, use_bias=False, name="combine")

    def build(self, *_) -> None:
        super().build()
        self.combine.build((None, None, 2 * self.config.d_model))

    def _hidden(self, states, context, dropout_seed):
        hidden = self.combine(tf.concat([context, states], -1))
        return dropout(hidden, self.config.output_dropout_rate, dropout_seed)


class ConditionalGRUDecoder(RecurrentDecoder):
    """s'_t = GRU_1(s_{t-1}, y_{t-1}), c_t read with s'_t, s_t = GRU_2(s'_t, c_t), and y_t is read from tanh(W [s_t;
    y_{t-1}; c_t]) (Sennrich et al. 2017, 2: the decoder of Nematus, which starts from the mean of the encoder's states
    where this one has a `Bridge`). One layer; attention is part of the recurrence.
    """

    def __init__(self, config: ModelConfig, attention: Attention, name: str | None = None):
        super().__init__(config, attention, name=name)
        self.first = RecurrentLayer("gru", config.d_model, name="first")
        self.second = RecurrentLayer("gru", config.d_model, name="second")
        self.combine = Dense(config.d_model, activation=tf.tanh, name="combine")

    def build(self, *_) -> None:
        d_model = self.config.d_model
        for layer in (self.first, self.second, self.attention):
            layer.build((None, None, d_model))
        self.combine.build((None, None, 3 * d_model))
        self.bridge.build()

    def call(
        self, embedded: tf.Tensor, memory: RNNMemory, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Teacher forcing: see the module's docstring."""
        x = dropout(embedded, self.config.input_dropout_rate, fold_in(dropout_seed, 0))
        return self._unroll(x, memory, dropout_seed)

    def _state_masks(self, batch, dropout_seed):
        rate, shape = self.config.state_dropout_rate, [batch, 1, self.config.d_model]
        return [dropout_mask(shape, rate, fold_in(dropout_seed, number)) for number in range(2)]

    def _advance(self, embedded, positions, state, memory, state_masks, dropout_seed):
        masks = state_masks or [None] * 2
        between = self.first.step(embedded, state.layers[0], masks[0])
        context, weights, attention = self.attention(
            between[0], memory.attention, state.attention, positions, fold_in(dropout_seed, 0)
        )
        new = self.second.step(context, between, masks[1])
        hidden = self.combine(tf.concat([new[0], embedded, context], -1))
        hidden = dropout(hidden, self.config.output_dropout_rate, fold_in(dropout_seed, 1))
        return hidden, weights, RNNState((new,), state.fed, attention)
