"""ConvS2S, both sides: gated convolutions, and attention in every layer of the decoder (Gehring et al. 2017)."""

from typing import NamedTuple

import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer
from nmt_keras.layers.convolution import SCALE, GatedConvolution, NormedDense
from nmt_keras.layers.dropout import dropout, fold_in
from nmt_keras.layers.masks import masked_softmax
from nmt_keras.layers.positions import PositionEmbedding
from nmt_keras.models.encoders import EncoderOutput, mean_state

EMBEDDED_SIZE = 0.1  # standard deviation of words and of positions at the start (3.5); dot products are not scaled


def _convolutions(config: ModelConfig, num_layers: int, causal: bool) -> list[GatedConvolution]:
    return [
        GatedConvolution(
            config.d_model, config.kernel_size, causal, config.output_dropout_rate, name=f"convolution_{n}"
        )
        for n in range(num_layers)
    ]


class ConvEncoder(Layer):
    """Gated convolutions with residuals over the embedded source and its positions (3.2)."""

    def __init__(self, config: ModelConfig, name: str | None = None):
        super().__init__(name=name)
        self.d_model = config.d_model
        self.input_dropout_rate = config.input_dropout_rate
        self.positions = PositionEmbedding(
            config.positions, config.d_model, config.max_positions, 1.0, name="positions"
        )
        self.inward = NormedDense(config.d_model, 1.0 - config.input_dropout_rate, name="inward")
        self.convolutions = _convolutions(config, config.num_encoder_layers, causal=False)
        self.outward = NormedDense(config.d_model, name="outward")

    def build(self, *_) -> None:
        self.positions.build()
        for layer in (self.inward, *self.convolutions, self.outward):
            layer.build((None, None, self.d_model))

    def call(self, embedded: tf.Tensor, source_mask: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> EncoderOutput:
        """Embedded source, float32 [B, S, D], and its mask, bool [B, S], to the states."""
        embedded = self.positions(embedded, tf.range(tf.shape(embedded)[1])) * EMBEDDED_SIZE
        embedded = dropout(embedded, self.input_dropout_rate, fold_in(dropout_seed, 0))
        x = self.inward(embedded)
        for number, convolution in enumerate(self.convolutions, 1):
            x = (convolution(x, source_mask, fold_in(dropout_seed, number)) + x) * SCALE
        states = tf.where(source_mask[:, :, None], self.outward(x), 0.0)
        return EncoderOutput(states, embedded, source_mask, mean_state(states, source_mask))


class ConvMemory(NamedTuple):
    """What a convolutional decoder reads."""

    keys: tf.Tensor  # float32 [B, S, D], z: the encoder's states
    values: tf.Tensor  # float32 [B, S, D], z + e: with the embedded source
    mask: tf.Tensor  # bool [B, S]


class ConvDecoder(Layer):
    """Causal gated convolutions with attention in every layer (3.3).

    d_l = W h_l + b + g, a_l = softmax(d_l . z), c_l = sum_i a_{l,i} (z_i + e_i), and h_l + c_l goes on, g being the
    embedded previous word. As in fairseq, sums of two are scaled by sqrt(0.5) and c by sqrt(S), S real positions; the
    encoder's gradient is not divided by the number of layers that read it (3.5), which Adam would undo. The weights
    returned are the layers' mean. The state is, of each layer, the k - 1 positions before.
    """

    def __init__(self, config: ModelConfig, name: str | None = None):
        super().__init__(name=name)
        self.d_model = config.d_model
        self.input_dropout_rate = config.input_dropout_rate
        self.output_dropout_rate = config.output_dropout_rate
        self.positions = PositionEmbedding(
            config.positions, config.d_model, config.max_positions, 1.0, name="positions"
        )
        self.inward = NormedDense(config.d_model, 1.0 - config.input_dropout_rate, name="inward")
        self.convolutions = _convolutions(config, config.num_decoder_layers, causal=True)
        self.queries = [NormedDense(config.d_model, name=f"query_{n}") for n in range(config.num_decoder_layers)]
        self.contexts = [NormedDense(config.d_model, name=f"context_{n}") for n in range(config.num_decoder_layers)]
        self.outward = NormedDense(config.d_model, name="outward")

    def build(self, *_) -> None:
        self.positions.build()
        for layer in (self.inward, *self.convolutions, *self.queries, *self.contexts, self.outward):
            layer.build((None, None, self.d_model))

    def prepare(self, encoder_output: EncoderOutput) -> ConvMemory:
        """Keys and values are the same for all layers."""
        states, embedded = encoder_output.states, encoder_output.embedded
        return ConvMemory(states, (states + embedded) * SCALE, encoder_output.mask)

    def cast(self, memory: ConvMemory) -> ConvMemory:
        """Memory for a search: see `nmt_keras.models.decoders`."""
        return dense.cast_fields(memory, ("keys", "values"), self.compute_dtype)

    def init_state(self, memory: ConvMemory) -> tuple[tf.Tensor, ...]:
        """Zeros before BOS, each [B, 1, k - 1, D]."""
        return tuple(layer.initial_state(tf.shape(memory.mask)[0]) for layer in self.convolutions)

    def call(
        self, embedded: tf.Tensor, memory: ConvMemory, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Teacher forcing: see `nmt_keras.models.decoders`."""
        seeds = [fold_in(dropout_seed, number) for number in range(len(self.convolutions) + 2)]
        embedded = self.positions(embedded, tf.range(tf.shape(embedded)[1])) * EMBEDDED_SIZE
        embedded = dropout(embedded, self.input_dropout_rate, seeds[0])
        x, weights = self.inward(embedded), []
        for number, convolution in enumerate(self.convolutions):
            x, layer_weights = self._attend(number, x, convolution(x, None, seeds[number + 2]), embedded, memory)
            weights.append(layer_weights)
        return self._finish(x, weights, seeds[1])

    def step(
        self, embedded: tf.Tensor, position: tf.Tensor, state: tuple[tf.Tensor, ...], memory: ConvMemory
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, ...]]:
        """One position of a search: see `nmt_keras.models.decoders`."""
        embedded = self.positions(embedded, position[None]) * EMBEDDED_SIZE
        x, weights, new = self.inward(embedded), [], []
        for number, (convolution, old) in enumerate(zip(self.convolutions, state)):
            y, layer_state = convolution.step(x, old)
            x, layer_weights = self._attend(number, x, y, embedded, memory)
            weights.append(layer_weights)
            new.append(layer_state)
        return *self._finish(x, weights, None), tuple(new)

    def _attend(self, number, x, y, embedded, memory):
        """The layer's input x and its convolved y, each [B, Q, D], to its output and the weights [B, Q, S]."""
        query = (self.queries[number](y) + embedded) * SCALE
        scores = dense.batched_product(query, memory.keys, self.compute_dtype, transpose_y=True)
        weights = masked_softmax(scores, memory.mask[:, None, :])
        length = tf.reduce_sum(tf.cast(memory.mask, tf.float32), -1)[:, None, None]
        context = dense.batched_product(weights, memory.values, self.compute_dtype) * tf.sqrt(length)
        y = (self.contexts[number](context) + y) * SCALE
        return (y + x) * SCALE, weights

    def _finish(self, x, weights, dropout_seed):
        hidden = dropout(self.outward(x), self.output_dropout_rate, dropout_seed)
        return hidden, tf.add_n(weights) / len(weights)
