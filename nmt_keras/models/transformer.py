"""The Transformer (Vaswani et al. 2017), and its decoder with SSRU (Kim et al. 2019)."""

from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer
from nmt_keras.layers.dropout import dropout, fold_in
from nmt_keras.layers.multihead_attention import KeyValues, MultiHeadAttention
from nmt_keras.layers.positions import PositionEmbedding
from nmt_keras.layers.transformer import (
    SSRU,
    Cache,
    CausalSelfAttention,
    CellStates,
    FeedForward,
    LayerNorm,
    Residual,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)
from nmt_keras.models.encoders import EncoderOutput, mean_state


def _attention_options(config: ModelConfig) -> dict[str, Any]:
    return {
        "rotary": config.positions == "rotary",
        "relative": config.positions == "relative",
        "dropout_rate": config.attention_dropout_rate,
    }


def _feed_forward(config: ModelConfig) -> FeedForward:
    return FeedForward(
        config.d_model, config.d_ff, config.activation, config.attention_dropout_rate, name="feed_forward"
    )


def _residual(config: ModelConfig):
    return lambda name: Residual(config.d_model, config.pre_norm, config.output_dropout_rate, name=name)


class TransformerEncoder(Layer):
    """Layers of self-attention and feed-forward over the embedded source and its positions."""

    def __init__(self, config: ModelConfig, name: str | None = None):
        super().__init__(name=name)
        self.input_dropout_rate = config.input_dropout_rate
        self.d_model = config.d_model
        self.positions = PositionEmbedding(config.positions, config.d_model, config.max_positions, name="positions")
        self.layers = [
            TransformerEncoderLayer(
                MultiHeadAttention(config.d_model, config.num_heads, name="attention", **_attention_options(config)),
                _feed_forward(config),
                _residual(config),
                name=f"layer_{n}",
            )
            for n in range(config.num_encoder_layers)
        ]
        self.norm = LayerNorm(name="norm") if config.pre_norm else None

    def build(self, *_) -> None:
        self.positions.build()
        for layer in self.layers:
            layer.build()
        if self.norm is not None:
            self.norm.build((None, None, self.d_model))

    def call(self, embedded: tf.Tensor, source_mask: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> EncoderOutput:
        """Embedded source, float32 [B, S, D], and its mask, bool [B, S], to the states."""
        embedded = self.positions(embedded, tf.range(tf.shape(embedded)[1]))
        x = embedded = dropout(embedded, self.input_dropout_rate, fold_in(dropout_seed, 0))
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, source_mask, fold_in(dropout_seed, number))
        if self.norm is not None:
            x = self.norm(x)
        states = tf.where(source_mask[:, :, None], x, 0.0)
        return EncoderOutput(states, embedded, source_mask, mean_state(states, source_mask))


class TransformerMemory(NamedTuple):
    """What a Transformer decoder reads."""

    source: tuple[KeyValues, ...]  # of each layer
    mask: tf.Tensor  # bool [B, S]


class TransformerDecoder(Layer):
    """Layers of self-attention, attention to the source and feed-forward.

    The weights returned are those of the last layer's attention to the source, averaged over heads.
    """

    def __init__(self, config: ModelConfig, name: str | None = None):
        super().__init__(name=name)
        self.input_dropout_rate = config.input_dropout_rate
        self.d_model = config.d_model
        self.positions = PositionEmbedding(
            self._positions(config), config.d_model, config.max_positions, name="positions"
        )
        self.layers = [
            TransformerDecoderLayer(
                self._mixer(config),
                MultiHeadAttention(
                    config.d_model, config.num_heads, dropout_rate=config.attention_dropout_rate, name="cross_attention"
                ),
                _feed_forward(config),
                _residual(config),
                name=f"layer_{n}",
            )
            for n in range(config.num_decoder_layers)
        ]
        self.norm = LayerNorm(name="norm") if config.pre_norm else None

    def _positions(self, config: ModelConfig) -> str:
        return config.positions

    def _mixer(self, config: ModelConfig):
        return CausalSelfAttention(config.d_model, config.num_heads, name="mixer", **_attention_options(config))

    def build(self, *_) -> None:
        self.positions.build()
        for layer in self.layers:
            layer.build()
        if self.norm is not None:
            self.norm.build((None, None, self.d_model))

    def prepare(self, encoder_output: EncoderOutput) -> TransformerMemory:
        """Projects what each layer reads of the source."""
        source = tuple(layer.cross_attention.project(encoder_output.states) for layer in self.layers)
        return TransformerMemory(source, encoder_output.mask)

    def cast(self, memory: TransformerMemory) -> TransformerMemory:
        """Memory for a search: see `nmt_keras.models.decoders`."""
        return memory._replace(
            source=tuple(dense.cast_fields(own, KeyValues._fields, self.compute_dtype) for own in memory.source)
        )

    def init_state(self, memory: TransformerMemory) -> Cache | CellStates:
        """The mixers' state before BOS."""
        return self.layers[0].mixer.initial_state(tf.shape(memory.mask)[0], len(self.layers))

    def call(
        self, embedded: tf.Tensor, memory: TransformerMemory, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Teacher forcing: see `nmt_keras.models.decoders`."""
        x, weights = self._run(embedded, memory, dropout_seed)
        return self._finish(x, weights[-1])

    def attention_by_head(self, embedded: tf.Tensor, memory: TransformerMemory) -> list[tf.Tensor]:
        """What each head of each layer reads of the source, in teacher forcing: of each layer float32 [B, H, T, S]."""
        return self._run(embedded, memory, None)[1]

    def _run(
        self, embedded: tf.Tensor, memory: TransformerMemory, dropout_seed: tf.Tensor | None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """All layers: x [B, T, D], and the weights of each."""
        x = self.positions(embedded, tf.range(tf.shape(embedded)[1]))
        x = dropout(x, self.input_dropout_rate, fold_in(dropout_seed, 0))
        read = []
        for number, (layer, source) in enumerate(zip(self.layers, memory.source), 1):
            x, weights = layer(x, source, memory.mask, fold_in(dropout_seed, number))
            read.append(weights)
        return x, read

    def step(
        self, embedded: tf.Tensor, position: tf.Tensor, state: Cache | CellStates, memory: TransformerMemory
    ) -> tuple[tf.Tensor, tf.Tensor, Cache | CellStates]:
        """One position of a search: see `nmt_keras.models.decoders`."""
        x, here, kept = self.positions(embedded, position[None]), state.at(position), []
        for layer, own, source in zip(self.layers, state.layers, memory.source):
            x, weights, own = layer.step(x, position, own, here, source, memory.mask)
            kept.append(own)
        return *self._finish(x, weights), here._replace(layers=tuple(kept))

    def _finish(self, x, weights):
        return x if self.norm is None else self.norm(x), tf.reduce_mean(weights, 1)


class SSRUDecoder(TransformerDecoder):
    """A Transformer decoder whose self-attention is an SSRU: steps cost the same at any position (Kim et al. 2019).

    The recurrence knows where it is, so that no positions are added.
    """

    def _positions(self, config: ModelConfig) -> str:
        del config
        return "none"

    def _mixer(self, config: ModelConfig):
        return SSRU(config.d_model, name="mixer")
