"""The model: embedding, encoder, decoder, output projection."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.config.rules import model_problems
from nmt_keras.errors import UserError
from nmt_keras.layers import dense, int8
from nmt_keras.layers.base import with_weights
from nmt_keras.layers.dropout import dropout_mask, fold_in
from nmt_keras.layers.embeddings import OutputColumns, OutputProjection, TokenEmbedding
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models import registry
from nmt_keras.models.decoders import RecurrentDecoder
from nmt_keras.models.encoders import EncoderOutput, mean_state

_WORD_DROPOUT = 1 << 20  # what its seed is folded with, beyond the numbers of layers


class Seq2Seq(keras.Model):
    """p(y_t | y_<t, x) for target ids y and source ids x.

    Example:
        model = build_seq2seq(ModelConfig(d_model=64), source_vocab_size=1000, target_vocab_size=1200)
        hidden, attention_weights = model(source_ids, target_input_ids)
        logits = model.project(hidden)

    Args:
        config: of the network.
        source_vocab_size: ids of the source.
        target_vocab_size: V, ids of the target.

    Raises:
        UserError: the configuration names an unknown component, joins what does not go together, or shares tables of
            different sizes.
    """

    int8_kernels: Mapping[str, int8.Int8Kernel] = MappingProxyType({})  # of `in_int8`

    def __init__(self, config: ModelConfig, source_vocab_size: int, target_vocab_size: int):
        super().__init__(name="seq2seq")
        for name, table in (
            ("encoder", registry.ENCODERS),
            ("decoder", registry.DECODERS),
            ("attention", registry.ATTENTIONS),
        ):
            if getattr(config, name) not in table:
                raise UserError(
                    f"`model.{name}` must be one of {', '.join(table)}. Received: {getattr(config, name)!r}"
                )
        problems = model_problems(config)
        if config.positions == "learned" and not config.max_positions:
            problems.append("`model.max_positions` must be positive when `model.positions` is learned. Received: 0")
        if problems:
            raise UserError("; ".join(problems))
        if config.share_embeddings and source_vocab_size != target_vocab_size:
            raise UserError(
                "`model.share_embeddings` needs one vocabulary for both sides. Received: "
                f"{source_vocab_size} source ids and {target_vocab_size} target ids"
            )
        self.config = config
        self.target_vocab_size = target_vocab_size

        def embedding(vocab_size: int, vectors: str, name: str) -> TokenEmbedding:
            frozen = config.freeze_vectors and bool(vectors)
            return TokenEmbedding(vocab_size, config.d_model, config.d_embedding, frozen, name=name)

        shared = config.share_embeddings
        self.target_embedding = embedding(
            target_vocab_size, config.source_vectors if shared else config.target_vectors, "target_embedding"
        )
        self.source_embedding = (
            self.target_embedding if shared else embedding(source_vocab_size, config.source_vectors, "source_embedding")
        )
        self.encoder = registry.ENCODERS[config.encoder](config, name="encoder")
        decoder, parts = registry.DECODERS[config.decoder], []
        if issubclass(decoder, RecurrentDecoder):
            parts = [registry.ATTENTIONS[config.attention](config.d_model, config.num_heads, name="attention")]
        self.decoder = decoder(config, *parts, name="decoder")
        self.output_projection = OutputProjection(
            target_vocab_size, self.target_embedding if config.tie_output else None, name="output_projection"
        )

    def build(self, *_) -> None:
        """Makes all weights; no input is needed, since every width is in the configuration."""
        shape = (None, None, self.config.d_model)
        for layer in (self.source_embedding, self.target_embedding, self.encoder, self.decoder, self.output_projection):
            if not layer.built:
                layer.build(shape)
        self.built = True

    def in_int8(self, kernels: Mapping[str, int8.Int8Kernel]) -> "Seq2Seq":
        """This model, some of whose products are in int8 in a search: in `prepare`, `columns` and the steps of
        `for_search`. All else is in the model's own precision.

        Args:
            kernels: the weights, by their paths, whose products these are.
        """
        model = with_weights(self, lambda weight: weight)
        object.__setattr__(model, "int8_kernels", kernels)  # what Keras would take for layers to track
        return model

    def _for_one_pass(self) -> "Seq2Seq":
        return dense.with_int8(self, self.int8_kernels) if self.int8_kernels else self

    def prepare(self, source_ids: tf.Tensor) -> Any:
        """Encodes source ids, int32 [B, S], into the memory of a search."""
        model = self._for_one_pass()
        if self.int8_kernels:
            int8.require()
        return model.decoder.cast(model.decoder.prepare(model.encode(source_ids)))

    def encode(self, source_ids: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> EncoderOutput:
        """What the encoder makes of source ids, int32 [B, S]."""
        embedded = self.source_embedding(source_ids)
        embedded = _drop_words(embedded, self.config.source_word_dropout_rate, dropout_seed)
        return self.encoder(embedded, padding_mask(source_ids), dropout_seed)

    def sentence_vectors(self, source_ids: tf.Tensor) -> tf.Tensor:
        """The mean of the encoder's states, float32 [B, D], of source ids, int32 [B, S]."""
        output = self.encode(source_ids)
        [[vectors]] = mean_state(output.states, output.mask)
        return vectors

    def call(
        self, source_ids: tf.Tensor, target_input_ids: tf.Tensor, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Teacher forcing.

        Args:
            source_ids: int32 [B, S].
            target_input_ids: int32 [B, T], starts with BOS.
            dropout_seed: int32 [2], or None for no dropout.

        Returns:
            Hidden states, float32 [B, T, D], for `project`, and attention weights, float32 [B, T, S].
        """
        encoder_seed, decoder_seed = fold_in(dropout_seed, 0), fold_in(dropout_seed, 1)
        memory = self.decoder.prepare(self.encode(source_ids, encoder_seed))
        embedded = self.target_embedding(target_input_ids)
        embedded = _drop_words(embedded, self.config.target_word_dropout_rate, decoder_seed)
        return self.decoder(embedded, memory, decoder_seed)

    def attention_by_head(self, source_ids: tf.Tensor, target_input_ids: tf.Tensor) -> list[tf.Tensor]:
        """What each head of each layer of a Transformer's decoder reads of the source, float32 [B, H, T, S] a layer;
        none of another decoder, whose attention `call` gives whole."""
        if not hasattr(self.decoder, "attention_by_head"):
            return []
        memory = self.decoder.prepare(self.encode(source_ids))
        return self.decoder.attention_by_head(self.target_embedding(target_input_ids), memory)

    def project(self, hidden: tf.Tensor, columns: OutputColumns | None = None) -> tf.Tensor:
        """Hidden states, float32 [..., D], to logits, float32 [..., V], or [..., U] of some ids' `columns`."""
        if columns is None:
            return self.output_projection(hidden)
        return self.output_projection.call(hidden, columns)  # Keras itself hands on tensors alone

    def columns(self, ids: tf.Tensor, penalty: tf.Tensor) -> OutputColumns:
        """What `project` needs for the logits of ids, int32 [U], alone, with a penalty, float32 [B, 1, U]."""
        return self._for_one_pass().output_projection.columns(ids, penalty)

    def init_state(self, memory: Any) -> Any:
        """The decoder's state before BOS, of one hypothesis a row: see `nmt_keras.decoding.hypotheses`."""
        return self.decoder.init_state(memory)

    def for_search(self) -> "Seq2Seq":
        """This model, whose `step` takes weights that are cast to the type of products here."""
        return dense.cast_once(self, self.int8_kernels)

    def step(
        self, ids: tf.Tensor, position: tf.Tensor, state: Any, memory: Any, columns: OutputColumns | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """One position of a search: ids [B, Q] to logits [B, Q, V], attention weights [B, Q, S] and the new state."""
        hidden, weights, state = self.decoder.step(self.target_embedding(ids), position, state, memory)
        return self.project(hidden, columns), weights, state


def _drop_words(embedded: tf.Tensor, rate: float, dropout_seed: tf.Tensor | None) -> tf.Tensor:
    """Embedded ids, [B, T, D], of which a share `rate` is zero, the others divided by 1 - rate (Sennrich and Zhang
    2019)."""
    shape = tf.shape(embedded)
    mask = dropout_mask([shape[0], shape[1], 1], rate, fold_in(dropout_seed, _WORD_DROPOUT) if rate else None)
    return embedded if mask is None else embedded * mask


def build_seq2seq(config: ModelConfig, source_vocab_size: int, target_vocab_size: int) -> Seq2Seq:
    """A `Seq2Seq` with all its weights made, ready to restore or to train. Arguments and errors as `Seq2Seq`."""
    model = Seq2Seq(config, source_vocab_size, target_vocab_size)
    model.build()
    return model
