"""Pretrained word vectors: text files of word2vec, GloVe and fastText, mapped onto a vocabulary.

A line is a word and its numbers, separated by spaces; word2vec and fastText begin with a line of two counts, GloVe
does not, and some of its words hold spaces.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nmt_keras.errors import UserError
from nmt_keras.tokenizers.sentencepiece import WORD_START

_FEW = 0.2


class Coverage(NamedTuple):
    """How much of a vocabulary has a vector."""

    found: int
    pieces: int

    def __str__(self) -> str:
        share = self.found / max(self.pieces, 1)
        few = ", few: the vectors are of words, as `data.tokenizer` word makes them" if share < _FEW else ""
        return f"{self.found:,} of {self.pieces:,} pieces ({share:.1%}){few}"


def load_vectors(path: str, pieces: Sequence[str], width: int) -> tuple[np.ndarray, np.ndarray, Coverage]:
    """Reads the vectors of a vocabulary.

    A piece takes the vector of its own text, without the sign that it begins a word, or else of its text in lower case.

    Args:
        path: a text file; `.gz` is unpacked.
        pieces: the vocabulary's, by id; "" for one that has no text and takes no vector.
        width: D of the embeddings.

    Returns:
        Vectors, float32 [V, width], zero where there is none; bool [V], where there is one; and the coverage.

    Raises:
        UserError: the file cannot be read, is no file of vectors, or has another width.
    """
    wanted: dict[str, list[tuple[int, bool]]] = {}  # text -> ids, and whether the text is exact
    for number, piece in enumerate(pieces):
        text = piece.removeprefix(WORD_START)
        if text:
            wanted.setdefault(text, []).append((number, True))
            if text.lower() != text:
                wanted.setdefault(text.lower(), []).append((number, False))
    table = np.zeros((len(pieces), width), np.float32)
    found, exact = np.zeros(len(pieces), bool), np.zeros(len(pieces), bool)
    for line_number, fields in _read(path, width):
        word = " ".join(fields[:-width])
        if word not in wanted:
            continue
        try:
            vector = np.array(fields[-width:], np.float32)
        except ValueError as error:
            raise UserError(f"{path}, line {line_number}: not a word and its numbers ({error})") from error
        if not np.isfinite(vector).all():
            raise UserError(f"{path}, line {line_number}: a number is not finite; remove the line")
        for number, is_exact in wanted[word]:
            if is_exact or not exact[number]:
                table[number], found[number], exact[number] = vector, True, is_exact
    return table, found, Coverage(int(found.sum()), sum(map(bool, pieces)))


def _read(path: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields, at least one more than `width`; a first line of two counts is passed over."""
    read = False
    try:
        with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
            for line_number, line in enumerate(file, 1):
                fields = line.decode("utf-8", errors="replace").rstrip("\r\n ").split(" ")
                if line_number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                    continue
                if len(fields) < 2:
                    raise UserError(
                        f"{path}, line {line_number}: not a word and its numbers; give a text file of vectors"
                    )
                if read and len(fields) <= width:
                    raise UserError(
                        f"{path}, line {line_number} has {len(fields) - 1} numbers where the lines before have {width}"
                        ": mend or remove it"
                    )
                if len(fields) <= width or len(fields) > width + 1 and _is_number(fields[-width - 1]):
                    raise UserError(
                        f"{path}, line {line_number} has {len(fields) - 1} numbers, and the embeddings are {width} "
                        f"wide: give other vectors, or `model.d_embedding` {len(fields) - 1}"
                    )
                read = True
                yield line_number, fields
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"Cannot read the vectors {path}: {reason}; check the path") from error


def _is_number(field: str) -> bool:
    """Whether a field that should end a word is a number instead, as in a file of wider vectors."""
    try:
        float(field)
    except ValueError:
        return False
    return "." in field
