"""A Transformer as a model of CTranslate2, an engine in C++ for CPUs and GPUs.

What CTranslate2 computes otherwise is written down as weights: sines, learned positions beyond the last, and no
positions at all are a table of positions; a factored table of embeddings is multiplied out; relative positions, of keys
alone here, get values of zero.
"""

import inspect
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from nmt_keras import files
from nmt_keras.config import DecodingConfig, ExperimentConfig, ModelConfig
from nmt_keras.config.data import tag_of
from nmt_keras.constants import BOS_ID, EOS_ID, UNK_ID
from nmt_keras.conversion import source as sources
from nmt_keras.conversion.source import Source
from nmt_keras.layers.dense import Dense
from nmt_keras.layers.embeddings import TokenEmbedding
from nmt_keras.layers.multihead_attention import MultiHeadAttention
from nmt_keras.layers.positions import PositionEmbedding
from nmt_keras.layers.transformer import NORM_EPSILON, FeedForward, LayerNorm
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.tokenizers import white_space
from nmt_keras.tokenizers.base import SPECIALS, Tokenizers
from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer

PATIENCE = 2  # searches end when twice as many hypotheses have ended as there are beams
_LEAST_POSITIONS = 1024  # ids of a source that CTranslate2 reads unless it is told otherwise
_README = """# {name}, for CTranslate2

    pip install ctranslate2 sentencepiece

Run in this folder:

    import ctranslate2
    import sentencepiece
{folding}
    translator = ctranslate2.Translator(".", device="cpu", compute_type="float32")
    source = sentencepiece.SentencePieceProcessor(model_file="source.model")
    target = sentencepiece.SentencePieceProcessor(model_file="target.model")
    text = "{example}"
    pieces = {tag}source.encode({text}, out_type=str)
    [result] = translator.translate_batch(
        [pieces],
        beam_size={beam_size},
        patience={patience},
        length_penalty=1,
        min_decoding_length=0,
        max_decoding_length={longest},
        max_input_length={limit},
    )
    print(target.decode(result.hypotheses[0]))

{notes}
"""


def reasons_against(config: ExperimentConfig, tokenizers: Tokenizers) -> list[str]:
    """Why a run has no specification in CTranslate2, each as a field with its value; none where it has one."""
    reasons = [
        f"model.{part} {value}"
        for part, value in (("encoder", config.model.encoder), ("decoder", config.model.decoder))
        if value != "transformer"
    ]
    for side, tokenizer in zip(("source", "target"), tokenizers):
        if not isinstance(tokenizer, SentencePieceTokenizer):
            reasons.append(f"a {side} tokenizer that is not SentencePiece's (data.tokenizer {config.data.tokenizer})")
    repeated = sources.repeated_pieces(tokenizers)
    if repeated and not reasons:
        reasons.append(f"a vocabulary with several ids for {', '.join(map(repr, repeated[:3]))}")
    return reasons


def write(source: Source, folder: pathlib.Path, example: str) -> None:
    """Writes `model.bin` with its configuration and vocabularies, the SentencePiece models, and how to use them.

    Args:
        source: what is converted.
        folder: empty.
        example: a text to translate, for the README.
    """
    spec = specification(source.model, num_positions(source.config.decoding))
    pieces = sources.vocabularies(source.tokenizers)
    spec.register_source_vocabulary(pieces[0])
    spec.register_target_vocabulary(pieces[1])
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    sources.write_sentencepiece(source.tokenizers, folder)
    (folder / "white_space.py").write_text(inspect.getsource(white_space), encoding="utf-8")
    files.write_text(folder / "README.md", readme(source, example))


def num_positions(decoding: DecodingConfig) -> int:
    """How many positions a converted model has: those of the recipe's limits and of CTranslate2's own."""
    return max(_LEAST_POSITIONS, decoding.max_source_length, decoding.max_length)


def specification(model: Seq2Seq, num_positions: int) -> Any:
    """A Transformer as a `ctranslate2.specs.TransformerSpec`, without vocabularies.

    Args:
        model: whose encoder and decoder are Transformers.
        num_positions: of the table of positions, where there is one; CTranslate2 refuses what is longer.
    """
    from ctranslate2 import specs

    config = model.config
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(config.num_encoder_layers, **_options(config)),
        specs.TransformerDecoderSpec(
            config.num_decoder_layers, alignment_heads=config.num_heads, **_options(config)  # averaged, as ours are
        ),
    )
    spec.config.layer_norm_epsilon = NORM_EPSILON
    spec.config.add_source_eos = True
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = map(SPECIALS.get, (UNK_ID, BOS_ID, EOS_ID))
    spec.config.decoder_start_token = SPECIALS[BOS_ID]
    for side, own, embedding in (
        (spec.encoder, model.encoder, model.source_embedding),
        (spec.decoder, model.decoder, model.target_embedding),
    ):
        embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        embeddings.weight = _table(embedding)
        side.scale_embeddings = np.float32(embedding.d_embedding**0.5)
        if config.positions not in ("rotary", "relative"):
            side.position_encodings.encodings = _positions(own.positions, num_positions)
        if own.norm is not None:
            _set_norm(side.layer_norm, own.norm)
    for layer, own in zip(spec.encoder.layer, model.encoder.layers):
        _set_self_attention(layer.self_attention, own.attention, own.around_attention.norm)
        _set_feed_forward(layer.ffn, own.feed_forward, own.around_feed_forward.norm)
    for layer, own in zip(spec.decoder.layer, model.decoder.layers):
        _set_self_attention(layer.self_attention, own.mixer.attention, own.around_mixer.norm)
        _set_attention(layer.attention, own.cross_attention, own.around_attention.norm)
        _set_feed_forward(layer.ffn, own.feed_forward, own.around_feed_forward.norm)
    output = model.output_projection
    kernel = _table(model.target_embedding) if output.is_tied else np.array(output.kernel).T
    spec.decoder.projection.weight, spec.decoder.projection.bias = kernel, np.array(output.bias)
    return spec


def _options(config: ModelConfig) -> dict[str, Any]:
    """What both sides are told."""
    from ctranslate2.specs import common_spec

    activations = {
        "relu": common_spec.Activation.RELU,
        "gelu": common_spec.Activation.GELU,  # by the error function, as TensorFlow's
        "swiglu": common_spec.Activation.SWISH,
    }
    return {
        "num_heads": config.num_heads,
        "pre_norm": config.pre_norm,
        "activation": activations[config.activation],
        "ffn_glu": config.activation == "swiglu",
        "relative_position": config.positions == "relative",
        "rotary_dim": 0 if config.positions == "rotary" else None,  # 0: all channels of a head
        "rotary_interleave": False,
    }


def _table(embedding: TokenEmbedding) -> np.ndarray:
    """A table of embeddings, float32 [V, D], before it is scaled by sqrt(E)."""
    table = np.array(embedding.table)
    return table if embedding.d_embedding == embedding.d_model else table @ np.array(embedding.kernel)


def _positions(positions: PositionEmbedding, count: int) -> np.ndarray:
    """What is added at the first `count` positions, float32 [count, D]."""
    return positions(tf.zeros([1, count, positions.d_model]), tf.range(count))[0].numpy()


def _set_linear(spec: Any, *layers: Dense) -> None:
    """Affine maps of one input as one; CTranslate2's weights are [O, I]."""
    spec.weight = np.concatenate([np.array(layer.kernel).T for layer in layers])
    if layers[0].use_bias:
        spec.bias = np.concatenate([np.array(layer.bias) for layer in layers])


def _set_norm(spec: Any, norm: LayerNorm) -> None:
    spec.gamma, spec.beta = np.array(norm.gamma), np.array(norm.beta)


def _set_self_attention(spec: Any, attention: MultiHeadAttention, norm: LayerNorm) -> None:
    _set_norm(spec.layer_norm, norm)
    _set_linear(spec.linear[0], attention.query_projection, attention.key_projection, attention.value_projection)
    _set_linear(spec.linear[1], attention.output_projection)
    if attention.distances is not None:
        spec.relative_position_keys = np.array(attention.distances.table)
        spec.relative_position_values = np.zeros_like(spec.relative_position_keys)


def _set_attention(spec: Any, attention: MultiHeadAttention, norm: LayerNorm) -> None:
    """Attention to the source."""
    _set_norm(spec.layer_norm, norm)
    _set_linear(spec.linear[0], attention.query_projection)
    _set_linear(spec.linear[1], attention.key_projection, attention.value_projection)
    _set_linear(spec.linear[2], attention.output_projection)


def _set_feed_forward(spec: Any, feed_forward: FeedForward, norm: LayerNorm) -> None:
    _set_norm(spec.layer_norm, norm)
    _set_linear(spec.linear_0, feed_forward.inner)
    _set_linear(spec.linear_1, feed_forward.outer)
    if feed_forward.gate is not None:
        _set_linear(spec.linear_0_noact, feed_forward.gate)


def readme(source: Source, example: str) -> str:
    """How to use the folder: a program, and what there is to know.

    Args:
        source: what was converted.
        example: a text to translate.
    """
    tokenizer, data, decoding = source.tokenizers.source, source.config.data, source.config.decoding
    notes = [
        "CTranslate2 adds `</s>` to the source itself. A blank line has no translation: leave it out.",
        f"A source has at most {decoding.max_source_length:,} pieces with its `</s>`, as in the recipe; the rest of a "
        f"longer one is left out. Nothing may be longer than {num_positions(decoding):,} pieces.",
        "CTranslate2 ranks by log probability / length^`length_penalty`, `</s>` counts. The recipe ranks by log "
        f"probability / {_penalty(decoding)} Other options of its search are not in this folder.",
        '`compute_type="float32"` was proved; `int8` and `bfloat16` are faster, and translate some lines otherwise.',
        "`conversion.json` has the hash of the run's weights, and how these translations compare with the run's.",
    ]
    if data.target_languages:
        tags = ", ".join(f"`{tag_of(language)}`" for language in data.target_languages)
        notes.insert(0, f"The first piece is the tag of the language to translate into: {tags}.")
    if tokenizer.folds:
        fold = "`fold` makes each run of white space one space, and removes characters that show nothing"
        notes.insert(0, f"{fold}, as was done to the text of training.")
    return _README.format(
        name=source.name,
        folding="    from white_space import fold\n" if tokenizer.folds else "",
        example=example.replace("\\", "\\\\").replace('"', '\\"'),
        tag=f'["{tag_of(data.target_language)}"] + ' if data.target_languages else "",
        text="fold(text)" if tokenizer.folds else "text",
        beam_size=decoding.beam_size,
        patience=PATIENCE,
        longest=decoding.max_length - 1,
        limit=decoding.max_source_length,
        notes="\n".join(f"- {note}" for note in notes),
    )


def _penalty(decoding: DecodingConfig) -> str:
    """The length penalty of a recipe, and what stands for it in CTranslate2."""
    alpha = f"{decoding.length_penalty:g}"
    if decoding.length_penalty_kind == "gnmt" and decoding.length_penalty:
        return f"((5 + length) / 6)^{alpha}, which CTranslate2 has not; both were compared at `length_penalty=1`."
    return f"length^{alpha}: `length_penalty={alpha}`."
