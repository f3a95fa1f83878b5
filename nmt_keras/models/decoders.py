"""Decoders: s_t = f(s_{t-1}, c_t), in sequence mode for training and in step mode for search.

A decoder has four methods; `Q` is 1 or the number of beams.

    prepare(encoder_output) -> Memory                                  what stays constant, every leaf [B, ...]
    init_state(memory) -> State                                        before the first position, every leaf [B, 1, ...]
    call(embedded [B,T,D], memory, dropout_seed) -> (hidden [B,T,D], attention_weights [B,T,S])
    step(embedded [B,Q,D], position, state, memory) -> (hidden [B,Q,D], attention_weights [B,Q,S], State)

Both modes share their body, and T steps equal one call. Embedding and output projection belong to `Seq2Seq`.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.layers.attention import Attention, AttentionMemory, BahdanauAttention
from nmt_keras.layers.base import Layer
from nmt_keras.layers.dense import Dense
from nmt_keras.layers.dropout import dropout, fold_in
from nmt_keras.layers.recurrent import CELLS, RecurrentStack, States
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


class RNNDecoder(Layer):
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
        super().__init__(name=name)
        self.config = config
        self.attention = attention
        self.reads_first = config.input_feeding and isinstance(attention, BahdanauAttention)
        self.stack = RecurrentStack(
            config.cell,
            config.num_decoder_layers,
            config.d_model,
            False,
            config.residual,
            config.state_dropout_rate,
            config.output_dropout_rate,
            name="stack",
        )
        self.combine = Dense(config.d_model, use_bias=False, activation=tf.tanh, name="combine")
        self.bridges: list[list[Dense]] = []
        if config.bridge == "dense":
            self.bridges = [
                [
                    Dense(config.d_model, activation=tf.tanh if not i else None, name=f"bridge_{n}_{i}")
                    for i in range(CELLS[config.cell].num_states)
                ]
                for n in range(config.num_decoder_layers)
            ]

    def build(self, *_) -> None:
        d_model = self.config.d_model
        fed = d_model if self.config.input_feeding else 0
        self.stack.build((None, None, d_model + fed))
        self.combine.build((None, None, d_model * (2 if self.attention.has_context else 1)))
        self.attention.build((None, None, d_model))
        for layers in self.bridges:
            for layer in layers:
                layer.build((None, d_model))

    def prepare(self, encoder_output: EncoderOutput) -> RNNMemory:
        """Projects what attention compares with, and the decoder's first states."""
        return RNNMemory(
            self.attention.prepare(encoder_output.states, encoder_output.mask), self._first_states(encoder_output)
        )

    def init_state(self, memory: RNNMemory) -> RNNState:
        """The state before BOS, with Q = 1."""
        layers = tf.nest.map_structure(lambda s: s[:, None], memory.first_states)
        fed = tf.zeros_like(layers[0][0]) if self.config.input_feeding else layers[0][0][:, :, :0]
        return RNNState(layers, fed, self.attention.initial_state(memory.attention))

    def call(
        self, embedded: tf.Tensor, memory: RNNMemory, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Teacher forcing: see the module's docstring."""
        x = dropout(embedded, self.config.input_dropout_rate, fold_in(dropout_seed, 0))
        if self.config.input_feeding:
            return self._unroll(x, memory, dropout_seed)
        states, _ = self.stack(x, initial_states=memory.first_states, dropout_seed=fold_in(dropout_seed, 1))
        hidden, weights, _ = self._attend(states, memory, (), fold_in(dropout_seed, 2))
        return hidden, weights

    def step(
        self, embedded: tf.Tensor, position: tf.Tensor, state: RNNState, memory: RNNMemory
    ) -> tuple[tf.Tensor, tf.Tensor, RNNState]:
        """One position of a search: see the module's docstring."""
        del position
        return self._advance(embedded, state, memory)

    def _advance(self, embedded, state, memory, state_masks=None, dropout_seed=None):
        """One position, [B, Q, D], for search and for training with input feeding."""
        if self.reads_first:
            context, weights, attention = self.attention(state.layers[-1][0], memory.attention, state.attention)
            output, layers = self.stack.step(
                tf.concat([embedded, context], -1), state.layers, state_masks, fold_in(dropout_seed, 0)
            )
            hidden = self._hidden(output, context, fold_in(dropout_seed, 1))
            return hidden, weights, RNNState(layers, context, attention)
        if self.config.input_feeding:
            embedded = tf.concat([embedded, state.fed], -1)
        output, layers = self.stack.step(embedded, state.layers, state_masks, fold_in(dropout_seed, 0))
        hidden, weights, attention = self._attend(output, memory, state.attention, fold_in(dropout_seed, 1))
        return hidden, weights, RNNState(layers, hidden if self.config.input_feeding else state.fed, attention)

    def _attend(self, states, memory, attention_state, dropout_seed):
        """Reads with the new states s_t, [B, Q, D]: hidden [B, Q, D], weights [B, Q, S] and the attention's state."""
        context, weights, attention_state = self.attention(states, memory.attention, attention_state)
        return self._hidden(states, context, dropout_seed), weights, attention_state

    def _hidden(self, states, context, dropout_seed):
        hidden = self.combine(tf.concat([context, states], -1))
        return dropout(hidden, self.config.output_dropout_rate, dropout_seed)

    def _unroll(self, x, memory, dropout_seed):
        length = tf.shape(x)[1]
        state_masks = self.stack.state_masks(tf.shape(x)[0], fold_in(dropout_seed, 1))

        def body(t, state, hiddens, weights):
            seed = fold_in(fold_in(dropout_seed, 2), t)
            hidden, weight, state = self._advance(tf.gather(x, [t], axis=1), state, memory, state_masks, seed)
            return t + 1, state, hiddens.write(t, hidden[:, 0]), weights.write(t, weight[:, 0])

        arrays = [tf.TensorArray(tf.float32, length) for _ in range(2)]
        _, _, hiddens, weights = tf.while_loop(
            lambda t, *_: t < length, body, (0, self.init_state(memory), *arrays), maximum_iterations=length
        )
        hidden, weights = (tf.transpose(array.stack(), [1, 0, 2]) for array in (hiddens, weights))
        return tf.ensure_shape(hidden, x.shape), weights

    def _first_states(self, encoder_output: EncoderOutput) -> tuple[States, ...]:
        """Layer n starts from the encoder's layer n, counted from the top."""
        last, depth = encoder_output.last_states, self.config.num_decoder_layers
        aligned = [last[max(len(last) - depth + n, 0)] for n in range(depth)]
        num_states = CELLS[self.config.cell].num_states
        if self.config.bridge == "dense":
            return tuple(
                tuple(layer(states[min(i, len(states) - 1)]) for i, layer in enumerate(layers))
                for layers, states in zip(self.bridges, aligned)
            )
        if self.config.bridge == "zeros":
            return ((tf.zeros_like(last[-1][0]),) * num_states,) * depth
        return tuple(aligned)
