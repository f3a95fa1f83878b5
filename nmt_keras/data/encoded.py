"""Text as ids, encoded once into mapped files beside the line index.

A text and a tokenizer have three raw files: `.ids` holds the ids of all lines one after the other, without special ids;
`.offsets` holds where each line begins; `.lengths` holds how many ids each line has with EOS. They are named by the
text's identity and the tokenizer's hash. A process that is stopped leaves what it has encoded, and the next one goes on
from there.
"""

import fcntl
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

import numpy as np

from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.padding import Rows
from nmt_keras.tokenizers.base import Tokenizer
from nmt_keras.tokenizers.white_space import is_blank

_BLOCK = 10_000  # lines that are written at a time
_VERSION = 1  # of these files

Progress = Callable[[int], None]  # takes how many more lines have been encoded


class EncodedText:
    """The ids of a text's lines.

    Attributes:
        lengths: int32 [lines], ids of each line with EOS; 1 of an empty or blank line, however the tokenizer treats it.
    """

    def __init__(self, text: TextFile, tokenizer: Tokenizer, progress: Progress = lambda lines: None):
        """Maps the ids of a text, which are made if they are not there.

        Args:
            text: its lines.
            tokenizer: makes ids of them.
            progress: takes how many more lines have been encoded.
        """
        dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
        stem = f"{tokenizer.sha256[:16]}.{_VERSION}.{np.dtype(dtype).name}"
        name = text.cache_name(f"{stem}.lengths")
        if text.cache_path(name).exists():
            progress(len(text))
        text.cached(name, lambda path: _encode(text, tokenizer, path, stem, dtype, progress))
        self.lengths = _mapped(text, f"{stem}.lengths", np.int32)
        self._offsets = _mapped(text, f"{stem}.offsets", np.int64)
        self._ids = _mapped(text, f"{stem}.ids", dtype)

    def rows(self, lines: np.ndarray) -> Rows:
        """The ids of lines, integer [N]."""
        starts = self._offsets[lines]
        lengths = self.lengths[lines].astype(np.int64) - 1
        first = np.cumsum(lengths) - lengths
        places = np.repeat(starts - first, lengths) + np.arange(lengths.sum())
        return Rows(self._ids[places], lengths)


class EncodedCorpus:
    """The ids of a parallel corpus.

    Args:
        corpus: its text.
        tokenizers: of source and target.
        progress: takes how many more lines have been encoded.

    Attributes:
        lengths: for source and target a list with one int32 [lines] a corpus: the ids of each line, EOS included.
    """

    def __init__(
        self, corpus: ParallelCorpus, tokenizers: Sequence[Tokenizer], progress: Progress = lambda lines: None
    ):
        self._starts = corpus.starts
        self._sides = [
            [EncodedText(text, tokenizer, progress) for text in texts]
            for texts, tokenizer in zip((corpus.sources, corpus.targets), tokenizers)
        ]
        self.lengths = [[text.lengths for text in side] for side in self._sides]

    def rows(self, side: int, lines: np.ndarray) -> Rows:
        """The ids of running line numbers, integer [N], of the source (0) or the target (1)."""
        texts = self._sides[side]
        if len(texts) == 1 or not len(lines):
            return texts[0].rows(lines)
        corpora = np.searchsorted(self._starts, lines, side="right") - 1
        order = np.argsort(corpora, kind="stable")
        parts = [texts[corpus].rows(lines[corpora == corpus] - self._starts[corpus]) for corpus in np.unique(corpora)]
        joined = Rows(*(np.concatenate(arrays) for arrays in zip(*parts)))
        return _reordered(joined, np.argsort(order))


def _reordered(rows: Rows, order: np.ndarray) -> Rows:
    """Rows in another order: row i of the result is row `order[i]`."""
    lengths = rows.lengths[order]
    starts = (np.cumsum(rows.lengths) - rows.lengths)[order]
    places = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    return Rows(rows.ids[places], lengths)


def lines_to_encode(corpus: ParallelCorpus) -> int:
    """Lines of both sides of a corpus, the total of a progress bar."""
    return 2 * len(corpus)


def _mapped(text: TextFile, name: str, dtype: type) -> np.ndarray:
    path = text.cache_path(text.cache_name(name))
    return np.memmap(path, dtype, "r") if os.path.getsize(path) else np.empty(0, dtype)


def _encode(
    text: TextFile, tokenizer: Tokenizer, lengths_path: pathlib.Path, stem: str, dtype: type, progress: Progress
) -> None:
    """Writes the ids and the offsets of a text, and at last its lengths to `lengths_path`."""
    unfinished = text.cache_path(text.cache_name(f"{stem}.unfinished"))
    ids_path, counts_path = unfinished.with_name(unfinished.name + ".ids"), unfinished.with_name(unfinished.name + ".n")
    with open(unfinished.with_name(unfinished.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        final = [text.cache_path(text.cache_name(f"{stem}.{name}")) for name in ("ids", "offsets")]
        if all(path.exists() for path in final):  # another process has done it in the meantime, or was stopped here
            ends = np.append(np.fromfile(final[1], np.int64)[1:], os.path.getsize(final[0]) // np.dtype(dtype).itemsize)
            (np.diff(ends, prepend=0) + 1).astype(np.int32).tofile(lengths_path)
            progress(len(text))
            return
        done = _whole_lines(ids_path, counts_path, np.dtype(dtype).itemsize)
        progress(done)
        with open(ids_path, "ab") as ids_file, open(counts_path, "ab") as counts_file:
            for start in range(done, len(text), _BLOCK):
                lines = text.lines(range(start, min(start + _BLOCK, len(text))))
                encoded = [[] if is_blank(line) else tokenizer.encode(line) for line in lines]
                _append(ids_file, itertools.chain.from_iterable(encoded), dtype)
                _append(counts_file, map(len, encoded), np.int32)
                progress(len(lines))
        counts = np.fromfile(counts_path, np.int32)
        (np.cumsum(counts, dtype=np.int64) - counts).tofile(unfinished)
        (counts + 1).tofile(lengths_path)
        os.replace(ids_path, final[0])
        os.replace(unfinished, final[1])
        counts_path.unlink()


def _append(file: BinaryIO, numbers: Iterable[int], dtype: type) -> None:
    file.write(np.fromiter(numbers, dtype).tobytes())
    file.flush()


def _whole_lines(ids_path: pathlib.Path, counts_path: pathlib.Path, size: int) -> int:
    """Counts the lines that an earlier process has encoded completely, and cuts both files off after them."""
    try:
        counts = np.fromfile(counts_path, np.int32, os.path.getsize(counts_path) // 4)
        there = os.path.getsize(ids_path) // size
    except OSError:
        counts, there = np.empty(0, np.int32), 0
    ends = np.cumsum(counts, dtype=np.int64)
    done = int(np.searchsorted(ends, there, side="right"))
    for path, length in ((counts_path, 4 * done), (ids_path, size * (int(ends[done - 1]) if done else 0))):
        with open(path, "ab") as file:
            file.truncate(length)
    return done
