"""Encoders: an embedded source sentence to the states h_1..h_S.

An encoder is a Keras layer `call(embedded [B,S,D], source_mask [B,S], dropout_seed) -> EncoderOutput`. Padded
positions never change the states at real ones. (The argument is not called `mask`, because Keras fills an argument of
that name itself.)
"""

from typing import NamedTuple

import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.layers.base import Layer
from nmt_keras.layers.cells import States
from nmt_keras.layers.dropout import dropout, fold_in
from nmt_keras.layers.recurrent import RecurrentStack


class EncoderOutput(NamedTuple):
    """What an encoder knows of a batch of sentences."""

    states: tf.Tensor  # float32 [B, S, D], h_1..h_S; zero at padding
    embedded: tf.Tensor  # float32 [B, S, D], what the first layer read: with positions where there are any
    mask: tf.Tensor  # bool [B, S]
    last_states: tuple[States, ...]  # of each layer, float32 [B, D] each: what a decoder may start from


def mean_state(states: tf.Tensor, mask: tf.Tensor) -> tuple[States, ...]:
    """The last states of an encoder that has none: the mean of its real states, as the one state of one layer.

    Args:
        states: float32 [B, S, D], zero at padding.
        mask: bool [B, S].
    """
    return ((tf.reduce_sum(states, 1) / tf.reduce_sum(tf.cast(mask, tf.float32), 1, keepdims=True),),)


class RNNEncoder(Layer):
    """h_t = f(h_{t-1}, x_t), in one or both directions, one layer or several (Bahdanau et al. 2015, 3.2)."""

    def __init__(self, config: ModelConfig, name: str | None = None):
        super().__init__(name=name)
        self.input_dropout_rate = config.input_dropout_rate
        self.stack = RecurrentStack(
            config.cell,
            config.num_encoder_layers,
            config.d_model,
            config.bidirectional,
            config.residual,
            config.state_dropout_rate,
            config.output_dropout_rate,
            config.first_residual_layer - 1,
            name="stack",
        )

    def build(self, shape) -> None:
        self.stack.build(shape)

    def call(self, embedded: tf.Tensor, source_mask: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> EncoderOutput:
        """Embedded source, float32 [B, S, D], and its mask, bool [B, S], to the states."""
        x = dropout(embedded, self.input_dropout_rate, fold_in(dropout_seed, 0))
        states, last = self.stack(x, sequence_mask=source_mask, dropout_seed=fold_in(dropout_seed, 1))
        states = tf.where(source_mask[:, :, None], states, 0.0)  # a residual connection adds the embedding of padding
        return EncoderOutput(states, x, source_mask, last)


class GNMTEncoder(Layer):
    """A first layer in both directions, then layers in one, with residuals from the third on (Wu et al. 2016, 3.2)."""

    def __init__(self, config: ModelConfig, name: str | None = None):
        super().__init__(name=name)
        self.input_dropout_rate = config.input_dropout_rate
        rates = (config.state_dropout_rate, config.output_dropout_rate)
        self.first = RecurrentStack(config.cell, 1, config.d_model, True, False, *rates, name="first")
        self.second = RecurrentStack(config.cell, 1, config.d_model, False, False, *rates, name="second")
        num_others = config.num_encoder_layers - 2
        self.others = RecurrentStack(config.cell, num_others, config.d_model, False, True, *rates, name="others")

    def build(self, shape) -> None:
        for stack in (self.first, self.second, self.others):
            stack.build(shape)

    def call(self, embedded: tf.Tensor, source_mask: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> EncoderOutput:
        """Embedded source, float32 [B, S, D], and its mask, bool [B, S], to the states."""
        x = read = dropout(embedded, self.input_dropout_rate, fold_in(dropout_seed, 0))
        last: tuple[States, ...] = ()
        for number, stack in enumerate((self.first, self.second, self.others), 1):
            x, states = stack(x, sequence_mask=source_mask, dropout_seed=fold_in(dropout_seed, number))
            last += states
        return EncoderOutput(tf.where(source_mask[:, :, None], x, 0.0), read, source_mask, last)
