"""A recurrent model with attention, or a Transformer, as one file of plain PyTorch and its weights."""

import json
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from nmt_keras import files
from nmt_keras.config import ExperimentConfig, ModelConfig
from nmt_keras.conversion import source as sources
from nmt_keras.conversion.options import decided
from nmt_keras.conversion.source import Source
from nmt_keras.layers.dense import Dense
from nmt_keras.layers.embeddings import TokenEmbedding
from nmt_keras.layers.multihead_attention import MultiHeadAttention
from nmt_keras.layers.recurrent import RecurrentLayer
from nmt_keras.layers.transformer import NORM_EPSILON, FeedForward, LayerNorm, Residual
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.target_tags import tag_ids

_PROGRAM = pathlib.Path(__file__).with_name("pytorch_program.py")
_DOCSTRING = '''"""{name}, {languages}, as PyTorch modules.

{use}

The encoder's states are h_i, the decoder's s_t; attention's scores e_{{t,i}}, its weights a_t, what it reads c_t.
Shapes: B sentences, S positions of the source, T of the target, V ids, D channels.
"""
'''
_README = """# {name}, as PyTorch

    pip install {packages}
    python model.py {call}

Or from Python, in this folder:

{code}

{notes}
"""
# What the attentions of recurrent decoders are here; where a factor is learned, it is multiplied into the weights.
_ATTENTIONS = {
    "bahdanau": "additive",
    "bahdanau_normed": "additive",
    "luong_dot": "dot",
    "luong_general": "general",
    "luong_scaled": "general",
}
_GATES = {"lstm": (0, 1, 3, 2), "gru": (1, 0, 2), "rnn": (0,)}  # PyTorch's order: i, f, g, o and r, z, n

Weights = dict[str, np.ndarray]


def reasons_against(config: ExperimentConfig, tokenizers: Tokenizers) -> list[str]:
    """Why a run has no PyTorch file, each as a field with its value; none where it has one."""
    del tokenizers
    model, reasons = config.model, []
    if (model.encoder, model.decoder) == ("rnn", "rnn"):
        if model.cell not in _GATES:
            reasons.append(f"model.cell {model.cell}")
        if model.attention not in _ATTENTIONS:
            reasons.append(f"model.attention {model.attention}")
    elif (model.encoder, model.decoder) == ("transformer", "transformer"):
        if model.positions == "relative":
            reasons.append(f"model.positions {model.positions}")
    else:
        reasons.append(f"model.encoder {model.encoder} with model.decoder {model.decoder}")
    return reasons


def write(source: Source, folder: pathlib.Path, example: str) -> None:
    """Writes `model.py` and `model.safetensors`, the pieces of both vocabularies, the models of SentencePiece, and a
    README.

    Args:
        source: what is converted.
        folder: empty.
        example: a text to translate, for the program's docstring.
    """
    has_text = sources.write_sentencepiece(source.tokenizers, folder)
    for side, pieces in zip(("source", "target"), sources.vocabularies(source.tokenizers)):
        files.write_text(folder / f"{side}_vocabulary.json", json.dumps(pieces, ensure_ascii=False) + "\n")
    files.write_text(folder / "model.py", program(source, has_text, example))
    files.write_text(folder / "README.md", readme(source, has_text, example))
    import safetensors.numpy  # of an extra

    state = {name: np.ascontiguousarray(value, np.float32) for name, value in weights(source.model).items()}
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(state))


def program(source: Source, has_text: bool, example: str) -> str:
    """The PyTorch file of a model: its modules alone, with its shapes.

    Args:
        source: what is converted.
        has_text: whether the program translates texts, by SentencePiece; else ids.
        example: such a text.
    """
    config, data = source.config.model, source.config.data
    tags = _tags(source)
    if has_text:
        use = f"    python model.py {shlex.quote(example[:60])}"
    else:
        ids = " ".join(map(str, source.tokenizers.source.encode(example)[:8]))
        use = f"It translates ids, whose pieces are in the vocabularies beside it:\n\n    python model.py {ids}"
    if tags:
        named = ", ".join(f"{number} {source.tokenizers.source.piece(number)}" for number in tags.values())
        use += f"\n\nThe first id of a source is the tag of the language to translate into: {named}."
    constants = {
        "SOURCE_VOCAB": source.tokenizers.source.vocab_size,
        "TARGET_VOCAB": source.tokenizers.target.vocab_size,
        "D_EMBEDDING": config.d_embedding or config.d_model,
        "D_MODEL": config.d_model,
        "ENCODER_LAYERS": config.num_encoder_layers,
        "DECODER_LAYERS": config.num_decoder_layers,
        "BIDIRECTIONAL": config.bidirectional,
        "DIRECTIONS": 1 + config.bidirectional,
        "FIRST_RESIDUAL": config.first_residual_layer - 1,
        "KEY_BIAS": config.attention == "bahdanau_normed",
        "NUM_HEADS": config.num_heads,
        "D_FF": config.d_ff,
        "NORM_EPSILON": NORM_EPSILON,
        "MAX_POSITIONS": config.max_positions,
        "MAX_LENGTH": source.config.decoding.max_length,
        "MAX_SOURCE": source.config.decoding.max_source_length,
        "TAGS": (tags[data.target_language],) if tags else (),
    }
    languages = f"{data.source_language} to {' or '.join(data.target_languages or [data.target_language])}"
    docstring = _DOCSTRING.format(name=_in_docstring(source.name), languages=languages, use=_in_docstring(use))
    return decided(_PROGRAM.read_text(encoding="utf-8"), _options(config, has_text), constants, docstring)


def readme(source: Source, has_text: bool, example: str) -> str:
    """How to use the folder, and what it does not have.

    Args:
        source: what was converted.
        has_text: as for `program`.
        example: a text to translate.
    """
    decoding, tags = source.config.decoding, _tags(source)
    if has_text:
        packages, call = "torch safetensors sentencepiece", shlex.quote(example[:60])
        lines = ["from model import Translator", "translator = Translator()"]
        lines.append(f"print(translator([{json.dumps(example[:60], ensure_ascii=False)}]))")
    else:
        ids = source.tokenizers.source.encode(example)[:8]
        packages, call = "torch safetensors", " ".join(map(str, ids))
        lines = ["import torch", "from model import EOS, TAGS, load"]
        lines.append(f"print(load().translate(torch.tensor([[*TAGS, *{ids}, EOS]])))")
    notes = [
        "It is greedy: the most probable piece at each position. Beam search, length penalties, prefixes, terms of a "
        "glossary, protected spans and other options of the search are not in it.",
        f"A row is one sentence of at most {decoding.max_source_length:,} ids with its `</s>`, as in the recipe; what "
        "is longer, or has several lines, raises a ValueError of one line. A translation has at most "
        f"{decoding.max_length:,} ids (`max_length`). A blank text has an empty translation.",
        "`Model.forward(source, target)` is teacher forcing, to train on; dropout is not in it.",
        "White space becomes single spaces; characters that show nothing stay, which were removed in training.",
        "`conversion.json` has the hash of the run's weights, and how these translations compare with the run's.",
    ]
    if not has_text:
        notes.insert(
            0, "It translates ids: what they stand for is in source_vocabulary.json and target_vocabulary.json."
        )
    if tags:
        named = ", ".join(f"{number} `{source.tokenizers.source.piece(number)}`" for number in tags.values())
        notes.insert(0, f"`TAGS` in model.py, the first id of a source, says the language to translate into: {named}.")
    return _README.format(
        name=source.name,
        packages=packages,
        call=call,
        code="\n".join(f"    {line}" for line in lines),
        notes="\n".join(f"- {note}" for note in notes),
    )


def _in_docstring(text: str) -> str:
    """A text as it stands in a docstring: names of folders and lines of a corpus may hold anything."""
    printable = "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)
    return printable.replace("\\", "\\\\").replace('"', '\\"')


def _tags(source: Source) -> dict[str, int]:
    """The tags of a model of several target languages by their codes; none of a model of one."""
    codes = source.config.data.target_languages
    return dict(zip(codes, tag_ids(source.config.data, source.tokenizers.source, codes)))


def _options(config: ModelConfig, has_text: bool) -> dict[str, Any]:
    """The options of the program that is written."""
    feeding = ""
    if config.input_feeding:  # the additive scores read before the step, as in Bahdanau's; Luong's after it
        feeding = "context" if _ATTENTIONS.get(config.attention) == "additive" else "hidden"
    return {
        "FAMILY": "recurrent" if config.decoder == "rnn" else "transformer",
        "CELL": config.cell,
        "ATTENTION": _ATTENTIONS.get(config.attention, ""),
        "INPUT_FEEDING": feeding,
        "BRIDGE": config.bridge,
        "RESIDUAL": config.residual,
        "PRE_NORM": config.pre_norm,
        "ACTIVATION": config.activation,
        "POSITIONS": config.positions,
        "FACTORED": config.d_embedding not in (0, config.d_model),
        "SHARE_EMBEDDINGS": config.share_embeddings,
        "TIE_OUTPUT": config.tie_output,
        "SENTENCEPIECE": has_text,
    }


def weights(model: Seq2Seq) -> Weights:
    """The weights of a model by the names of the written modules."""
    found: Weights = {}

    def put(name: str, values: Mapping[str, np.ndarray]) -> None:
        found.update({f"{name}.{key}": value for key, value in values.items()})

    put("target_embedding", _embedding(model.target_embedding))
    if model.source_embedding is not model.target_embedding:
        put("source_embedding", _embedding(model.source_embedding))
    bias = np.array(model.output_projection.bias)
    if model.output_projection.is_tied:
        found["output_bias"] = bias
    else:
        put("output", {"weight": np.array(model.output_projection.kernel).T, "bias": bias})
    if model.config.decoder == "rnn":
        put("encoder", _recurrent_encoder(model.encoder, model.config.cell))
        put("decoder", _recurrent_decoder(model.decoder))
    else:
        put("encoder", _transformer_encoder(model.encoder))
        put("decoder", _transformer_decoder(model.decoder))
    return found


def _embedding(embedding: TokenEmbedding) -> Weights:
    found = {"table.weight": np.array(embedding.table)}
    if embedding.d_embedding != embedding.d_model:
        found["map.weight"] = np.array(embedding.kernel).T
    return found


def _dense(layer: Dense) -> Weights:
    return {"weight": np.array(layer.kernel).T} | ({"bias": np.array(layer.bias)} if layer.use_bias else {})


def _norm(norm: LayerNorm) -> Weights:
    return {"weight": np.array(norm.gamma), "bias": np.array(norm.beta)}


def _below(**parts: Weights) -> Weights:
    """The weights of parts, by names below theirs; `__` in a part's name stands for a dot."""
    return {
        f"{part.replace('__', '.')}.{name}": value for part, values in parts.items() for name, value in values.items()
    }


def _numbered(name: str, layers: list[Weights]) -> Weights:
    return _below(**{f"{name}__{number}": values for number, values in enumerate(layers)})


def _cell(layer: RecurrentLayer, cell: str, suffix: str = "") -> Weights:
    """A recurrent layer: gates in PyTorch's order, and a second bias of zeros where there is one."""
    gates = _GATES[cell]

    def ordered(weight: Any) -> np.ndarray:
        parts = np.split(np.array(weight), len(gates), axis=-1)
        return np.concatenate([parts[gate] for gate in gates], -1).T

    biases = [ordered(bias) for bias in layer.biases]
    return {
        f"weight_ih{suffix}": ordered(layer.kernel),
        f"weight_hh{suffix}": ordered(layer.recurrent_kernel),
        f"bias_ih{suffix}": biases[0],
        f"bias_hh{suffix}": biases[1] if len(biases) > 1 else np.zeros_like(biases[0]),
    }


def _recurrent_encoder(encoder: Any, cell: str) -> Weights:
    suffixes = ("_l0", "_l0_reverse")
    layers = [
        {name: value for layer, suffix in zip(both, suffixes) for name, value in _cell(layer, cell, suffix).items()}
        for both in encoder.stack.layers
    ]
    return _numbered("layers", layers)


def _recurrent_decoder(decoder: Any) -> Weights:
    found = _numbered("cells", [_cell(layer, decoder.config.cell) for [layer] in decoder.stack.layers])
    found |= _below(combine=_dense(decoder.combine), attention=_attention(decoder.attention, decoder.config.attention))
    for n, maps in enumerate(decoder.bridge.maps):
        found |= _numbered(f"bridge__{n}", [_dense(layer) for layer in maps])
    return found


def _attention(attention: Any, name: str) -> Weights:
    """The attention of a recurrent decoder; gains are multiplied in."""
    if name == "luong_dot":
        return {}
    if name in ("luong_general", "luong_scaled"):
        scale = np.array(attention.scale) if name == "luong_scaled" else 1.0
        return {"W.weight": np.array(attention.kernel).T * scale}
    found = {"W.weight": np.array(attention.query_kernel).T, "U.weight": np.array(attention.key_kernel).T}
    energy = np.array(attention.energy)
    if name == "bahdanau_normed":
        found["U.bias"] = np.array(attention.bias)
        energy = np.array(attention.gain) * energy / np.linalg.norm(energy)
    return found | {"v.weight": energy[None]}


def _heads(attention: MultiHeadAttention) -> Weights:
    return _below(
        query=_dense(attention.query_projection),
        key=_dense(attention.key_projection),
        value=_dense(attention.value_projection),
        output=_dense(attention.output_projection),
    )


def _feed_forward(feed_forward: FeedForward) -> Weights:
    gate = {} if feed_forward.gate is None else _below(gate=_dense(feed_forward.gate))
    return _below(inner=_dense(feed_forward.inner), outer=_dense(feed_forward.outer)) | gate


def _residual(residual: Residual) -> Weights:
    return _below(norm=_norm(residual.norm))


def _transformer(side: Any, layers: list[Weights]) -> Weights:
    """An encoder or a decoder of these layers."""
    found = _numbered("layers", layers)
    if side.norm is not None:
        found |= _below(norm=_norm(side.norm))
    if side.positions.kind == "learned":
        found["positions.table.weight"] = np.array(side.positions.table)
    return found


def _transformer_encoder(encoder: Any) -> Weights:
    layers = [
        _below(
            attention=_heads(layer.attention),
            around_attention=_residual(layer.around_attention),
            feed_forward=_feed_forward(layer.feed_forward),
            around_feed_forward=_residual(layer.around_feed_forward),
        )
        for layer in encoder.layers
    ]
    return _transformer(encoder, layers)


def _transformer_decoder(decoder: Any) -> Weights:
    layers = [
        _below(
            self_attention=_heads(layer.mixer.attention),
            around_self_attention=_residual(layer.around_mixer),
            attention=_heads(layer.cross_attention),
            around_attention=_residual(layer.around_attention),
            feed_forward=_feed_forward(layer.feed_forward),
            around_feed_forward=_residual(layer.around_feed_forward),
        )
        for layer in decoder.layers
    ]
    return _transformer(decoder, layers)
