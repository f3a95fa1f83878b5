"""Word alignments of the training text, in Pharaoh's format, as fast_align and eflomal write it.

A line has a link for each pair of words that translate each other, `0-0 1-2`: the places of a source word and of a
target word, from 0. Words are what stands between spaces and tabs of the file, as those programs read it. A no-break
space, which they do not see, ends a word once text is folded, and links follow: those of words become links of all
their pieces.
"""

import hashlib
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nmt_keras.constants import EOS_ID, PAD_ID
from nmt_keras.data.batch_plan import PADDING_LINE
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.errors import UserError
from nmt_keras.reports import counted
from nmt_keras.tokenizers.base import Tokenizer
from nmt_keras.tokenizers.white_space import fold

_LINK = re.compile(r"(\d{1,6})-(\d{1,6})")
_WORD = re.compile(r"[^ \t\v\f\r]+")
_CHUNK = 10_000  # lines that are read at a time
_VERSION = 1  # of the cache's file


class Links(NamedTuple):
    """The alignments of a text."""

    words: np.ndarray  # int32 [lines, 2], words of source and target once text is folded
    links: np.ndarray  # int32 [links, 3], line, source word and target word, of these words


def read_links(text: TextFile, source: TextFile, target: TextFile) -> Links:
    """Reads a file of alignments, from the cache where it was read before.

    Args:
        text: the alignments.
        source: the text they are of.
        target: its translation.

    Raises:
        UserError: a line is no alignment, or has a link to a word that is not there.
    """

    def write(path: pathlib.Path) -> None:
        words = np.zeros([len(text), 2], np.int32)
        rows: list[tuple[int, int, int]] = []
        for start in range(0, len(text), _CHUNK):
            numbers = range(start, min(start + _CHUNK, len(text)))
            for number, line, *sides in zip(numbers, text.lines(numbers), source.lines(numbers), target.lines(numbers)):
                places = [_folded_words(side) for side in sides]
                words[number] = [sum(map(len, side)) for side in places]
                for link in line.split():
                    first, second = _places_of(link, places, text, number, (source, target))
                    rows += [(number, s, t) for s in places[0][first] for t in places[1][second]]
        with open(path, "wb") as file:
            np.save(file, np.concatenate([words.ravel(), np.array(rows, np.int32).ravel()]))

    of_texts = hashlib.sha256(f"{source.sha256} {target.sha256}".encode()).hexdigest()[:16]
    name = text.cache_name(f"links.{_VERSION}.{of_texts}.npy")
    numbers = np.load(text.cached(name, write), mmap_mode="r")
    size = 2 * len(text)
    return Links(numbers[:size].reshape(-1, 2), numbers[size:].reshape(-1, 3))


class Alignments:
    """The links of a corpus, for batches of its lines.

    Args:
        corpus: with a file of alignments for some of its texts, or all.
        tokenizers: of source and target.
        num_tags: ids before the pieces of a source.

    Attributes:
        num_unfit: rows without links because their pieces are not of the same words, as where a tokenizer normalises
            text so that it has more spaces.

    Raises:
        UserError: a file is no alignment, or has a link to a word that is not there.
    """

    def __init__(self, corpus: ParallelCorpus, tokenizers: Sequence[Tokenizer], num_tags: int = 0):
        self.num_unfit = 0
        self._corpus = corpus
        self._num_tags = num_tags
        self._begins = [
            np.array([tokenizer.begins_word(number) for number in range(tokenizer.vocab_size)])
            for tokenizer in tokenizers
        ]
        self._texts = links_of(corpus)

    def __call__(self, source_ids: np.ndarray, target_ids: np.ndarray, lines: np.ndarray) -> np.ndarray:
        """Which source piece translates which target piece, bool [B, T, S].

        Args:
            source_ids: int32 [B, S], each with EOS.
            target_ids: int32 [B, T], each with EOS.
            lines: integer [B], running line numbers; padding rows have no links.
        """
        found = np.zeros([len(lines), target_ids.shape[1], source_ids.shape[1]], bool)
        words = [
            _words_of(ids, begins, tags)
            for ids, begins, tags in zip((source_ids, target_ids), self._begins, (self._num_tags, 0))
        ]
        for row, (line, corpus) in enumerate(zip(lines, self._corpus.corpora_of(lines))):
            text = self._texts[corpus] if line != PADDING_LINE else None
            if text is None:
                continue
            own = line - self._corpus.starts[corpus]
            # in the type of the column, or NumPy copies all of it
            begin, end = np.searchsorted(text.links[:, 0], np.array([own, own + 1], text.links.dtype))
            if begin == end:
                continue
            sides = [side[row] for side in words]
            if [side.max() + 1 for side in sides] != text.words[own].tolist():
                self.num_unfit += 1
                continue
            table = np.zeros([side.max() + 2 for side in sides], bool)  # the last row and column: of no word
            _, first, second = text.links[begin:end].T
            table[first, second] = True
            found[row] = table[np.ix_(*sides)].T
        return found


def links_of(corpus: ParallelCorpus) -> list[Links | None]:
    """The links of each text of a corpus, None where it has none; raises as `read_links`."""
    texts = zip(corpus.alignments, corpus.sources, corpus.targets)
    return [None if text is None else read_links(text, source, target) for text, source, target in texts]


def _folded_words(line: str) -> list[range]:
    """The words between spaces and tabs of a line, each as the words that it is once the line is folded: none where all
    of it is invisible, several where it has a space of another kind."""
    found, count = [], 0
    for word in _WORD.findall(line):
        size = len(fold(word).split())
        found.append(range(count, count + size))
        count += size
    return found


def _places_of(
    link: str, places: Sequence[Sequence[range]], text: TextFile, number: int, sides: Sequence[TextFile]
) -> tuple[int, int]:
    """The source word and the target word of a link."""
    match = _LINK.fullmatch(link)
    if not match:
        raise UserError(
            f"{text.path}, line {number + 1:,}: {link!r} is no link of two words; Pharaoh's format, which fast_align "
            "writes, is 0-0 1-2"
        )
    found = int(match[1]), int(match[2])
    for name, place, words, side in zip(("source", "target"), found, places, sides):
        if place >= len(words):
            raise UserError(
                f"{text.path}, line {number + 1:,}: the link {link}, but the {name} in {side.path} has "
                f"{counted(len(words), 'word')} between spaces, counted from 0: align the text as it is in the "
                "training files"
            )
    return found


def _words_of(ids: np.ndarray, begins: np.ndarray, num_tags: int) -> np.ndarray:
    """The number of the word that each piece is of, integer [B, L]; -1 for tags, EOS and padding."""
    is_piece = (ids != PAD_ID) & (ids != EOS_ID)
    is_piece[:, :num_tags] = False
    starts = begins[ids] & is_piece
    if ids.shape[1] > num_tags:
        starts[:, num_tags] = is_piece[:, num_tags]  # the first piece begins a word, with or without a space
    return np.where(is_piece, np.cumsum(starts, 1) - 1, -1)
