"""Text as ids, encoded once into mapped files beside the line index.

A text and a tokenizer have three raw files: `.ids` holds the ids of all lines one after the other, without special ids;
`.offsets` holds where each line begins; `.lengths` holds how many ids each line has with EOS. They are named by the
text's identity and the tokenizer's hash. A process that is stopped leaves what it has encoded, and the next one goes on
from there. Several processes make parts of them (`encode_part`), which are joined to the same files (`join_parts`).
"""

import fcntl
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

import numpy as np

from nmt_keras import files
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.padding import Rows, with_first
from nmt_keras.tokenizers.base import Tokenizer
from nmt_keras.tokenizers.white_space import is_blank

PART = 200_000  # lines that a process encodes by itself
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
        kept = _Files(text, tokenizer)
        if kept.are_whole():
            progress(len(text))
        else:
            kept.make(text, tokenizer, progress)
        self.lengths = kept.mapped(kept.lengths, np.int32)
        self._offsets = kept.mapped(kept.offsets, np.int64)
        self._ids = kept.mapped(kept.ids, kept.dtype)

    def rows(self, lines: np.ndarray) -> Rows:
        """The ids of lines, integer [N]."""
        return _ranges(self._ids, self._offsets[lines], self.lengths[lines].astype(np.int64) - 1)


def parts_of(text: TextFile, tokenizer: Tokenizer) -> list[range]:
    """The lines of each part that a process encodes by itself; none where a text's ids are there."""
    if _Files(text, tokenizer).are_whole():
        return []
    return [range(start, min(start + PART, len(text))) for start in range(0, len(text), PART)]


def encode_part(text: TextFile, tokenizer: Tokenizer, lines: range) -> int:
    """Encodes a part of a text into files of its own, unless they are there; returns the number of its ids."""
    ids_path, counts_path = _Files(text, tokenizer).of_part(lines.start)
    if not counts_path.exists():  # it is put in its place last
        encoded = _encoded(text, tokenizer, lines)
        with files.atomic_write(ids_path) as temporary:
            np.fromiter(itertools.chain.from_iterable(encoded), _Files(text, tokenizer).dtype).tofile(temporary)
        with files.atomic_write(counts_path) as temporary:
            np.fromiter(map(len, encoded), np.int32).tofile(temporary)
    return int(np.fromfile(counts_path, np.int32).sum())


def join_parts(text: TextFile, tokenizer: Tokenizer) -> None:
    """Joins the parts of a text, all of which were encoded."""
    _Files(text, tokenizer).join(range(0, len(text), PART))


def _encoded(text: TextFile, tokenizer: Tokenizer, lines: range) -> list[list[int]]:
    return [[] if is_blank(line) else tokenizer.encode(line) for line in text.lines(lines)]


class EncodedCorpus:
    """The ids of a parallel corpus.

    Args:
        corpus: its text.
        tokenizers: of source and target.
        progress: takes how many more lines have been encoded.
        tags: the id before each source of a corpus, one a corpus, of a model of several target languages; else none.

    Attributes:
        num_tags: ids before the pieces of a source, 0 or 1.
        lengths: for source and target a list with one int32 [lines] a corpus: the ids of each line, the tag and EOS
            included.
    """

    def __init__(
        self,
        corpus: ParallelCorpus,
        tokenizers: Sequence[Tokenizer],
        progress: Progress = lambda lines: None,
        tags: Sequence[int] = (),
    ):
        self._corpus = corpus
        self._tags = np.array(tags, np.int32)
        self.num_tags = 1 if tags else 0
        self._sides = [
            [EncodedText(text, tokenizer, progress) for text in texts]
            for texts, tokenizer in zip((corpus.sources, corpus.targets), tokenizers)
        ]
        self.lengths = [[text.lengths for text in side] for side in self._sides]
        if tags:  # an empty source stays empty
            self.lengths[0] = [np.where(lengths > 1, lengths + np.int32(1), lengths) for lengths in self.lengths[0]]

    def tagged(self, rows: Rows, lines: np.ndarray) -> Rows:
        """Source ids of running line numbers, integer [N], with the tags of their corpora before them, if there are
        tags."""
        return with_first(rows, self._tags[self._corpus.corpora_of(lines)]) if len(self._tags) else rows

    def rows(self, side: int, lines: np.ndarray) -> Rows:
        """The ids of running line numbers, integer [N], of the source (0), with its tag, or the target (1)."""
        rows = self._pieces(self._sides[side], lines)
        return rows if side else self.tagged(rows, lines)

    def _pieces(self, texts: Sequence[EncodedText], lines: np.ndarray) -> Rows:
        if len(texts) == 1 or not len(lines):
            return texts[0].rows(lines)
        corpora, starts = self._corpus.corpora_of(lines), self._corpus.starts
        order = np.argsort(corpora, kind="stable")
        parts = [texts[corpus].rows(lines[corpora == corpus] - starts[corpus]) for corpus in np.unique(corpora)]
        joined = Rows(*(np.concatenate(arrays) for arrays in zip(*parts)))
        back = np.argsort(order)
        starts = np.cumsum(joined.lengths) - joined.lengths
        return _ranges(joined.ids, starts[back], joined.lengths[back])


def _ranges(ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Rows:
    """Rows that lie anywhere in an array of ids: row i is the `lengths[i]` ids from `starts[i]` on."""
    first = np.cumsum(lengths) - lengths
    return Rows(ids[np.repeat(starts - first, lengths) + np.arange(lengths.sum())], lengths)


def lines_to_encode(corpus: ParallelCorpus) -> int:
    """Lines of both sides of a corpus, the total of a progress bar."""
    return 2 * len(corpus)


class _Files:
    """The files of a text's ids, and those of ids that are being made."""

    def __init__(self, text: TextFile, tokenizer: Tokenizer):
        self.dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
        stem = f"{tokenizer.sha256[:16]}.{_VERSION}.{np.dtype(self.dtype).name}"
        place = text.cache_path(text.cache_name(stem))
        self._size = len(text)
        self.ids, self.offsets, self.lengths, self._new_ids, self._new_counts, self._lock = (
            place.with_name(f"{place.name}.{name}")
            for name in ("ids", "offsets", "lengths", "unfinished.ids", "unfinished.counts", "lock")
        )

    def mapped(self, path: pathlib.Path, dtype: type) -> np.ndarray:
        """A file as an array that is read where it lies."""
        return np.memmap(path, dtype, "r") if os.path.getsize(path) else np.empty(0, dtype)

    def are_whole(self) -> bool:
        """Whether all three are there, and as long as they say: someone may have tidied up, or a disk lost a part."""
        try:
            lengths, offsets = self.mapped(self.lengths, np.int32), self.mapped(self.offsets, np.int64)
            if not len(lengths) == len(offsets) == self._size:
                return False
            wanted = int(offsets[-1]) + int(lengths[-1]) - 1 if self._size else 0
            return os.path.getsize(self.ids) == wanted * np.dtype(self.dtype).itemsize
        except (OSError, ValueError):
            return False

    def make(self, text: TextFile, tokenizer: Tokenizer, progress: Progress) -> None:
        """Encodes a text, from where an earlier process stopped, and puts the files in their places."""
        with open(self._lock, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.are_whole():  # another process has made them in the meantime
                progress(len(text))
                return
            if not self._new_ids.exists() and self._new_counts.exists() and self.ids.exists():
                os.replace(self.ids, self._new_ids)  # a process was stopped while it put the files in their places
            done = self._whole_lines()
            progress(done)
            with open(self._new_ids, "ab") as ids_file, open(self._new_counts, "ab") as counts_file:
                for start in range(done, len(text), _BLOCK):
                    encoded = _encoded(text, tokenizer, range(start, min(start + _BLOCK, len(text))))
                    _append(ids_file, itertools.chain.from_iterable(encoded), self.dtype)
                    _append(counts_file, map(len, encoded), np.int32)
                    progress(len(encoded))
                os.fsync(ids_file.fileno())
            self._finish()

    def of_part(self, start: int) -> tuple[pathlib.Path, pathlib.Path]:
        """The ids and the counts of a part that begins at a line."""
        ids, counts = (self.ids.with_name(f"{self.ids.name}.part-{start}.{name}") for name in ("ids", "counts"))
        return ids, counts

    def join(self, starts: Sequence[int]) -> None:
        """Makes the files of parts that begin at these lines."""
        with open(self._lock, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.are_whole():
                for place, target in enumerate((self._new_ids, self._new_counts)):
                    with files.atomic_write(target) as temporary, open(temporary, "wb") as file:
                        for start in starts:
                            with open(self.of_part(start)[place], "rb") as part:
                                shutil.copyfileobj(part, file, 1 << 24)
                self._finish()
        for start in starts:
            for path in self.of_part(start):
                path.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Puts new files, which are whole, in their places."""
        counts = np.fromfile(self._new_counts, np.int32)
        os.replace(self._new_ids, self.ids)
        for path, array in (
            (self.offsets, np.cumsum(counts, dtype=np.int64) - counts),
            (self.lengths, counts + np.int32(1)),
        ):
            with files.atomic_write(path) as temporary:
                array.tofile(temporary)
        self._new_counts.unlink()

    def _whole_lines(self) -> int:
        """Counts the lines that an earlier process has encoded completely, and cuts both files off after them."""
        size = np.dtype(self.dtype).itemsize
        try:
            counts = np.fromfile(self._new_counts, np.int32, os.path.getsize(self._new_counts) // 4)[: self._size]
            there = os.path.getsize(self._new_ids) // size
        except OSError:
            counts, there = np.empty(0, np.int32), 0
        ends = np.cumsum(counts, dtype=np.int64)
        done = int(np.searchsorted(ends, there, side="right"))
        for path, length in (
            (self._new_counts, 4 * done),
            (self._new_ids, size * (int(ends[done - 1]) if done else 0)),
        ):
            with open(path, "ab") as file:
                file.truncate(length)
        return done


def _append(file: BinaryIO, numbers: Iterable[int], dtype: type) -> None:
    file.write(np.fromiter(numbers, dtype).tobytes())
    file.flush()
