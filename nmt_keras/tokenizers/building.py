"""Makes tokenizers: trains them on text, takes the user's, and reads those that were saved."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from nmt_keras.config import DataConfig
from nmt_keras.config.data import tag_of
from nmt_keras.constants import PLACEHOLDERS, TERM_MARKS
from nmt_keras.errors import UserError
from nmt_keras.pipes import kept
from nmt_keras.reports import Report, silent
from nmt_keras.tokenizers.base import Tokenizer, Tokenizers
from nmt_keras.tokenizers.characters import ByteTokenizer, CharacterTokenizer
from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer
from nmt_keras.tokenizers.symbols import SymbolTokenizer
from nmt_keras.tokenizers.words import WordTokenizer

_SAMPLED_LINES = 10_000


class Text(Protocol):
    """Lines of text, such as `TextFile`."""

    def __len__(self) -> int: ...

    def lines(self, indices: range) -> list[str]:
        """The lines at `indices`."""


class Corpus(Protocol):
    """Aligned text, such as `ParallelCorpus`."""

    @property
    def sources(self) -> Sequence[Text]:
        """The source text of each corpus."""

    @property
    def targets(self) -> Sequence[Text]:
        """The target text of each corpus."""


def require_sampling(tokenizers: Tokenizers, data: DataConfig) -> None:
    """Checks that tokenizers can sample segmentations if `data.sampling_alpha` asks for it.

    Raises:
        UserError: one cannot.
    """
    for side, tokenizer, path in zip(
        ("source", "target"), tokenizers, (data.source_tokenizer_model, data.target_tokenizer_model)
    ):
        if data.sampling_alpha and not tokenizer.samples:
            raise UserError(
                f"data.sampling_alpha={data.sampling_alpha:g} needs a SentencePiece model of type unigram or bpe, "
                f"which the {side} tokenizer{f' {path}' * bool(path)} is not: set data.sampling_alpha=0, or give "
                "another"
            )


def own_tokenizers(data: DataConfig) -> Tokenizers:
    """The user's SentencePiece models.

    Raises:
        UserError: one cannot be read, or is none.
    """
    paths = (data.source_tokenizer_model, data.target_tokenizer_model)
    return Tokenizers(*(SentencePieceTokenizer(read_model(data, path)) for path in paths))


def place_of_model(data: DataConfig, path: str) -> str:
    """The path of a model: under `data_dir` if it is there, else `path` as it is."""
    place = os.path.join(data.data_dir, path)
    return place if os.path.exists(place) else path


def sample_tokenizers(data: DataConfig, corpus: Corpus) -> Tokenizers:
    """Tokenizers as `data` asks for them, the user's or trained on some of a corpus, to count ids with.

    Vocabularies that the text cannot fill become smaller; text too small for any is cut into bytes.
    """
    if data.source_tokenizer_model:
        return own_tokenizers(data)
    data = dataclasses.replace(data, tokenizer_lines=min(data.tokenizer_lines, _SAMPLED_LINES))
    try:
        made = train_tokenizers(data, corpus, silent, may_shrink=True)
    except UserError:  # too little text for its own characters
        made = train_tokenizers(dataclasses.replace(data, tokenizer="byte"), corpus, silent)
    return Tokenizers(made.get("joint") or made["source"], made.get("joint") or made["target"])


def train_tokenizers(
    data: DataConfig, corpus: Corpus, report: Report, may_shrink: bool = False
) -> dict[str, Tokenizer]:
    """Trains the tokenizers that `data` asks for, by name: `joint`, or `source` and `target`; vocabularies of the
    default size, or with `may_shrink` of any, become smaller where the text cannot fill them.

    Raises:
        UserError: the text cannot fill a vocabulary.
    """
    sides = {"source": [corpus.sources], "target": [corpus.targets]}
    if data.joint_vocabulary:
        sides = {"joint": [corpus.sources, corpus.targets]}
    made = {}
    for name, texts in sides.items():
        size = data.target_vocab_size if name == "target" else data.source_vocab_size
        made[name] = train_tokenizer(
            data.tokenizer,
            _Lines(list(itertools.chain(*texts)), data.tokenizer_lines * len(texts)),
            size,
            may_shrink=may_shrink or size == DataConfig.source_vocab_size,
            report=report,
            character_coverage=data.character_coverage,
            byte_fallback=data.byte_fallback,
            normalization=data.normalization,
            user_symbols=symbols_of(data),
            control_symbols=[] if name == "target" else [tag_of(language) for language in data.target_languages],
        )
        report(f"tokenizer: {name} {data.tokenizer} with {made[name].vocab_size:,} ids")
    return made


def symbols_of(data: DataConfig) -> list[str]:
    """The texts that are one piece each, whatever is around them."""
    placeholders = PLACEHOLDERS if data.placeholders else ()
    return [*data.user_symbols, *placeholders, *(TERM_MARKS if data.annotated_terms else ())]


class _Lines:
    """Every k-th line of each text, with k such that there are at most about `limit` lines in all."""

    def __init__(self, texts: Sequence[Text], limit: int):
        self._texts = texts
        self._stride = math.ceil(sum(len(text) for text in texts) / limit)

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            for start in range(0, len(text), 10_000 * self._stride):
                yield from text.lines(range(start, min(start + 10_000 * self._stride, len(text)), self._stride))


def read_model(data: DataConfig, path: str) -> bytes:
    """The content of a SentencePiece model of the user's.

    Raises:
        UserError: it cannot be read.
    """
    path = kept(place_of_model(data, path), data.cache_dir)
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read the SentencePiece model {path}: {error.strerror}; check the path") from error


_LIST_TOKENIZERS: dict[str, type[SymbolTokenizer]] = {"char": CharacterTokenizer, "word": WordTokenizer}


def train_tokenizer(
    kind: str,
    sentences: Iterable[str],
    vocab_size: int,
    *,
    character_coverage: float = DataConfig.character_coverage,
    byte_fallback: bool = DataConfig.byte_fallback,
    normalization: str = DataConfig.normalization,
    user_symbols: Sequence[str] = (),
    control_symbols: Sequence[str] = (),
    may_shrink: bool = False,
    report: Report = silent,
) -> Tokenizer:
    """Trains a tokenizer of `kind`: unigram, bpe, char, word, or byte (which needs no training).

    `sentences` can be gone through several times. The options are those of `SentencePieceTokenizer.train`.

    Raises:
        UserError: the text cannot give such a vocabulary.
    """
    if kind == "byte":
        return ByteTokenizer()
    if kind in _LIST_TOKENIZERS:
        return _LIST_TOKENIZERS[kind].train(sentences, vocab_size)
    return SentencePieceTokenizer.train(
        sentences,
        vocab_size,
        kind,
        character_coverage=character_coverage,
        byte_fallback=byte_fallback,
        normalization=normalization,
        user_symbols=user_symbols,
        control_symbols=control_symbols,
        may_shrink=may_shrink,
        report=report,
    )


def load_tokenizer(folder: pathlib.Path) -> Tokenizer:
    """Reads what a tokenizer's `save` wrote.

    Raises:
        UserError: `folder` holds no tokenizer.
    """
    try:
        card = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        kind, folds = card["kind"], card.get("folds_white_space", False)
        if kind == "byte":
            return ByteTokenizer(folds)
        if kind in _LIST_TOKENIZERS:
            return _LIST_TOKENIZERS[kind](card["symbols"], folds)
        return SentencePieceTokenizer((folder / "sentencepiece.model").read_bytes(), folds)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} holds no complete tokenizer ({error}); restore the run directory") from error
