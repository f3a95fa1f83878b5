"""What is converted, what proves a conversion, and the files of tokenizers, which conversions share."""

import collections
import importlib
import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nmt_keras.config import DecodingConfig, ExperimentConfig
from nmt_keras.errors import UserError
from nmt_keras.inference.translation import Hypothesis
from nmt_keras.inference.translator import Translator
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer


class Source(NamedTuple):
    """A trained model with what belongs to it."""

    name: str  # of the run
    config: ExperimentConfig
    tokenizers: Tokenizers
    model: Seq2Seq


class DevLines(NamedTuple):
    """Lines of a dev set, none blank, and the ids of tags before each: those of its target language."""

    tags: list[int]
    texts: list[str]


class Converter(NamedTuple):
    """A way to convert."""

    takes: str  # which runs, for a message
    packages: tuple[str, ...]  # what it needs beside what this project does; an extra of its name installs them
    imported: tuple[str, ...]  # those that this process imports
    reasons_against: Callable[[ExperimentConfig, Tokenizers], list[str]]  # what of a run it cannot take
    write: Callable[[Source, pathlib.Path, str], None]  # to an empty folder; the text is an example for its reader
    prove: Callable[[Source, pathlib.Path, Sequence[DevLines]], dict[str, Any]]  # `different`: by more than rounding


def require_packages(name: str, converter: Converter) -> None:
    """Checks that what a converter of that name needs is installed.

    Raises:
        UserError: a package is missing.
    """
    missing = [package for package in converter.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"--to={name} needs {' and '.join(missing)}: pip install 'nmt_keras[{name}]'")


def import_packages(name: str, converter: Converter) -> None:
    """Imports what a converter of that name needs in this process, before anything is loaded.

    Raises:
        UserError: a package is broken.
    """
    for package in converter.imported:
        try:
            importlib.import_module(package)
        except Exception as error:  # whatever a package's own code raises, a library that lacks another foremost
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise UserError(
                f"--to={name} cannot import {package}: {reason}; install it anew: pip install --force-reinstall "
                f"'nmt_keras[{name}]'"
            ) from error


def search_of(decoding: DecodingConfig, beam_size: int) -> DecodingConfig:
    """A search that other programs have too: by the mean log probability of an id, EOS included, within the recipe's
    limits. The most ids of a translation do not depend on its source.
    """
    return DecodingConfig(
        beam_size=beam_size,
        length_penalty=1.0,
        length_penalty_kind="average",
        max_length=decoding.max_length,
        max_length_ratio=float(decoding.max_length),
        max_source_length=decoding.max_source_length,
        max_source_characters=decoding.max_source_characters,
        batch_sentences=decoding.batch_sentences,
    )


def translated(source: Source, dev: Sequence[DevLines], beam_size: int) -> list[tuple[list[int], Hypothesis]]:
    """The ids of each dev line, with tags and EOS, and its translation by `search_of`."""
    translator = Translator(source.model, *source.tokenizers, search_of(source.config.decoding, beam_size))
    return [
        (list(translation.source_ids), translation.best)
        for part in dev
        for translation in translator.with_tags(part.tags).translate(part.texts)
    ]


def vocabularies(tokenizers: Tokenizers) -> list[list[str]]:
    """The pieces of the source and of the target by their ids."""
    return [[tokenizer.piece(i) for i in range(tokenizer.vocab_size)] for tokenizer in tokenizers]


def repeated_pieces(tokenizers: Tokenizers) -> list[str]:
    """Pieces that have several ids, which a table by pieces cannot tell apart."""
    counts = [collections.Counter(pieces) for pieces in vocabularies(tokenizers)]
    return sorted({piece for count in counts for piece, number in count.items() if number > 1})


def write_sentencepiece(tokenizers: Tokenizers, folder: pathlib.Path) -> bool:
    """Writes `source.model` and `target.model`; False, and nothing is written, where one is not SentencePiece's."""
    models = [tokenizer.quiet_model for tokenizer in tokenizers if isinstance(tokenizer, SentencePieceTokenizer)]
    if len(models) < 2:
        return False
    for side, model in zip(("source", "target"), models):
        (folder / f"{side}.model").write_bytes(model)
    return True
