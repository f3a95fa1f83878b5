"""Parallel text as memory-mapped lines.

A line ends at `\n` and only there: U+2028, U+0085, VT and FF are ordinary characters of a line. One pass over a file
finds the byte offset of every line, its SHA-256 and its oddities (BOM, CR LF, NUL, U+2028, invalid UTF-8); all are
cached by path, size, modification time and inode. A BOM and the CR of a CR LF are not part of a line; invalid UTF-8 is
read as U+FFFD. Nothing is ever dropped here, so line i of the source stays beside line i of the target.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nmt_keras import files
from nmt_keras.data.unpacking import file_key, plain_name, unpacked
from nmt_keras.errors import UserError
from nmt_keras.pipes import kept
from nmt_keras.reports import counted
from nmt_keras.tokenizers.white_space import is_blank

_BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 24
_KEPT_LINES = 100_000  # of a kind of oddity
_ODDITIES = (
    ("CR LF line ends", "the CR is removed"),
    ("byte order marks inside the text", "removed: files were joined"),
    ("NUL characters", "removed"),
    ("U+2028 line separators", "read as spaces"),
    ("invalid UTF-8", "read as U+FFFD"),
)


class Finding(NamedTuple):
    """One kind of oddity in a text file; `lines` are 1-based, at most the first 100,000.

    `places` are these lines in the user's file, where that is another than the text.
    """

    kind: str
    num_lines: int
    lines: list[int]
    treatment: str
    places: Sequence[str] = ()

    def __str__(self) -> str:
        lines = ", ".join(map(str, (self.places or self.lines)[:10])) + (", ..." if self.num_lines > 10 else "")
        return f"{self.kind} in {counted(self.num_lines, 'line')} ({lines}): {self.treatment}"


class Oddities:
    """Collects what is odd about the lines of a text, by line number."""

    def __init__(self) -> None:
        self._found: list[tuple[int, list[int]]] = [(0, []) for _ in _ODDITIES]
        self._has_bom = False

    def note_bom(self) -> None:
        """The text starts with a byte order mark."""
        self._has_bom = True

    def note(self, number: int, line: bytes) -> None:
        """Looks at line `number` (1-based), given without its line feed."""
        after_bom = line[1:] if number == 1 else line  # one at the very beginning has a note of its own
        odd = (line.endswith(b"\r"), _BOM in after_bom, b"\0" in line, b"\xe2\x80\xa8" in line, not _is_utf8(line))
        for kind, is_odd in enumerate(odd):
            if is_odd:
                count, lines = self._found[kind]
                if count < _KEPT_LINES:
                    lines.append(number)
                self._found[kind] = (count + 1, lines)

    def findings(self) -> list[Finding]:
        """What was found so far."""
        found = [Finding("a byte order mark", 1, [1], "removed")] if self._has_bom else []
        return found + [
            Finding(kind, count, lines, treatment)
            for (kind, treatment), (count, lines) in zip(_ODDITIES, self._found)
            if count
        ]


class Origin(NamedTuple):
    """Where a text was taken from.

    Attributes:
        name: what messages call it.
        files: the names of the user's files.
        places: of each line the number of its file and its line there, from 1, int64 [lines, 2]; None: it is the file.
        remarks: for the user, such as what was left out.
        copy_name: of a file for a copy of the text.
    """

    name: str
    files: tuple[str, ...]
    places: np.ndarray | None = None
    remarks: tuple[str, ...] = ()
    copy_name: str = ""


class TextFile:
    """One text file as a sequence of lines, by a cached index of byte offsets (8 bytes a line, memory-mapped).

    Attributes:
        path: the file that was asked for.
        origin: of a text that was made of another file, else None.
        findings: the oddities of the file, most serious last.
        sha256: of the (unpacked) content.
    """

    def __init__(self, path: str, cache_dir: str, origin: "Origin | None" = None):
        """Indexes `path`, or maps the index that an earlier call left in `cache_dir`.

        Args:
            path: a text file, or one packed as `unpacking` knows.
            cache_dir: takes the index and what is unpacked.
            origin: where the text was taken from, if `path` was made of another file.

        Raises:
            UserError: there is no such file, it is a directory, or it cannot be read.
        """
        self.path = origin.name if origin else path
        self.origin = origin
        self._cache_dir = pathlib.Path(cache_dir)
        text = unpacked(kept(path, self._cache_dir), self._cache_dir)
        self._key = file_key(text)
        offsets = self.cached(
            self._key + ".offsets.npy", lambda out: _build_index(text, out, self._cache_dir, self._key)
        )
        with open(self._cache_dir / (self._key + ".json"), encoding="utf-8", newline="\n") as file:
            card = json.load(file)
        self.sha256: str = card["sha256"]
        self._bom: bool = card["bom"]
        self.findings = [self._placed(Finding(*finding)) for finding in card["findings"]]
        self._offsets = np.load(offsets, mmap_mode="r")
        self._bytes = np.memmap(text, mode="r", dtype=np.uint8) if os.path.getsize(text) else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def copy_name(self) -> str:
        """The name of a file for a copy of lines of this text."""
        return (
            self.origin.copy_name if self.origin and self.origin.copy_name else os.path.basename(plain_name(self.path))
        )

    def place(self, index: int) -> str:
        """The number, from 1, of the line of 0-based `index` in the user's file; of several, with the file's name."""
        places = self.origin.places if self.origin else None
        if self.origin is None or places is None:
            return str(index + 1)
        if not 0 <= index < len(places):
            return "the end"
        part, line = places[index]
        return str(line) if len(self.origin.files) == 1 else f"{self.origin.files[part]}:{line}"

    def _placed(self, finding: "Finding") -> "Finding":
        if self.origin is None or self.origin.places is None:
            return finding
        return finding._replace(places=[self.place(line - 1) for line in finding.lines])

    def lines(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """The lines at `indices`, without their line ends."""
        result = []
        for index, line in zip(indices, self.raw_lines(indices)):
            line = line.removesuffix(b"\n")
            if index == 0 and self._bom:
                line = line.removeprefix(_BOM)
            result.append(line.removesuffix(b"\r").decode("utf-8", errors="replace"))
        return result

    def raw_lines(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The bytes of the lines at `indices`, with their line ends, and a byte order mark at the start."""
        return [self._bytes[self._offsets[index] : self._offsets[index + 1]].tobytes() for index in indices]

    def beginning(self, size: int) -> bytes:
        """The first bytes of the text."""
        return self._bytes[:size].tobytes()

    def byte_lengths(self) -> np.ndarray:
        """int64 [lines]: bytes of each line, its line end included."""
        return np.diff(self._offsets)

    def cached(self, name: str, write: Callable[[pathlib.Path], None]) -> pathlib.Path:
        """The path of the cache entry `name`, which `write(path)` makes (through a rename) if it is missing."""
        path = self.cache_path(name)
        if not path.exists():
            with files.atomic_write(path) as temporary:
                write(temporary)
        return path

    def cache_path(self, name: str) -> pathlib.Path:
        """Where the cache entry `name` is."""
        return self._cache_dir / name

    def cache_name(self, what: str) -> str:
        """A cache name for something derived from this file's content."""
        return f"{self._key}.{what}"


def example_weights(text: TextFile) -> np.ndarray:
    """float32 [lines]: a text of one number a line, read once and memory-mapped from the cache.

    Raises:
        UserError: a line is no number, or a negative or infinite one.
    """

    def write(path: pathlib.Path) -> None:
        weights = np.empty(len(text), np.float32)
        for number, line in enumerate(text.lines(range(len(text)))):
            try:
                weights[number] = float(line)
            except ValueError:
                weights[number] = np.nan
            if not 0 <= weights[number] < np.inf:
                raise UserError(
                    f"{text.path}, line {number + 1:,}: {line!r} is no weight of an example; give a number that is not "
                    "negative, 0 to leave the pair out"
                )
        np.save(path, weights)

    return np.load(text.cached(text.cache_name("weights.npy"), write), mmap_mode="r")


class ParallelCorpus:
    """Aligned source and target text of one or several corpora, addressed by one running line number.

    Attributes:
        weights: of the pairs in the loss, a float32 [lines] for each corpus, or None where all are 1.
        weight_texts: the file they come from, for each corpus, or None.
        alignments: a file of word alignments for each corpus, or None.
        references: further translations of each corpus, as files with a line for each of its lines.

    Raises:
        UserError: a corpus has another number of lines on either side; the message says where lengths drift.
    """

    def __init__(
        self,
        sources: Sequence[TextFile],
        targets: Sequence[TextFile],
        weights: Sequence[TextFile | None] = (),
        alignments: Sequence[TextFile | None] = (),
    ):
        for source, target in zip(sources, targets, strict=True):
            if len(source) != len(target):
                raise UserError(
                    f"{source.path} has {len(source):,} lines and {target.path} has {len(target):,}; they must be "
                    f"aligned line by line. {_where_they_part(source, target)}"
                )
            if not len(source):
                raise UserError(f"{source.path} is empty: a parallel text needs at least one line; check the path")
        for texts, what in ((weights, "one weight a line"), (alignments, "the alignment of each line, on a line")):
            for source, text in zip(sources, texts):
                if text is not None and len(text) != len(source):
                    raise UserError(
                        f"{text.path} has {len(text):,} lines and {source.path} has {len(source):,}; give {what}"
                    )
        self.sources, self.targets = list(sources), list(targets)
        self.references: list[list[TextFile]] = [[] for _ in sources]
        self.alignments, self.weight_texts = (list(each) or [None] * len(sources) for each in (alignments, weights))
        self.weights = [None if text is None else example_weights(text) for text in self.weight_texts]
        self.starts = np.cumsum([0] + [len(source) for source in sources])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def require_text(self) -> None:
        """Checks that there is something to measure.

        Raises:
            UserError: no pair has text on both sides.
        """
        if all(is_blank(source) or is_blank(target) for source, target in zip(*self.text())):
            raise UserError(f"{self.sources[0].path} and {self.targets[0].path} have no pair with text on both sides")

    def text(self) -> tuple[list[str], list[str]]:
        """All source and target text."""
        return self.fetch(np.arange(len(self)))

    def part(self, number: int) -> "ParallelCorpus":
        """One of the corpora by itself, with its references."""
        part = ParallelCorpus([self.sources[number]], [self.targets[number]])
        part.references = [self.references[number]]
        return part

    def reference_streams(self, count: int | None = None) -> list[list[str]]:
        """The lines of each reference of the first corpus: all lines, or the first `count`."""
        lines = range(len(self.sources[0]) if count is None else count)
        return [text.lines(lines) for text in (self.targets[0], *self.references[0])]

    def corpora_of(self, lines: np.ndarray) -> np.ndarray:
        """The number of the corpus, integer [N], that each of the running line numbers `lines`, integer [N], is in."""
        return np.searchsorted(self.starts, lines, side="right") - 1

    def weights_of(self, lines: np.ndarray) -> np.ndarray:
        """float32 [N]: the weights of the running line numbers `lines`, integer [N]."""
        result = np.ones(len(lines), np.float32)
        corpora = self.corpora_of(lines)
        for corpus, weights in enumerate(self.weights):
            if weights is not None:
                mine = corpora == corpus
                result[mine] = weights[lines[mine] - self.starts[corpus]]
        return result

    def fetch(self, lines: np.ndarray) -> tuple[list[str], list[str]]:
        """Source and target text of the running line numbers `lines`, integer [N]."""
        corpora = self.corpora_of(lines)
        source, target = [""] * len(lines), [""] * len(lines)
        for corpus in np.unique(corpora):
            rows = np.flatnonzero(corpora == corpus)
            local = lines[rows] - self.starts[corpus]
            for row, s, t in zip(rows, self.sources[corpus].lines(local), self.targets[corpus].lines(local)):
                source[row], target[row] = s, t
        return source, target


def _where_they_part(source: TextFile, target: TextFile) -> str:
    """Says where two texts of other numbers of lines belong together no more."""
    shorter, longer = sorted((source, target), key=len)
    if len(shorter) and len(longer) > 2 * len(shorter):
        return f"{shorter.path} ends at line {len(shorter):,}: is it of the same text as {longer.path}?"
    drift = first_drift(source.byte_lengths(), target.byte_lengths())
    return f"Lengths drift from line {drift + 1:,} on: mend the files there"


def first_drift(source_lengths: np.ndarray, target_lengths: np.ndarray) -> int:
    """The line (0-based) from which a source and a target of different line counts are shifted against each other.

    Fits one change point: the pairs before it are aligned as they stand, those after it by the difference of the two
    counts; the cost of a pair is how far its log length ratio is from the corpus's median.
    """
    shift = len(source_lengths) - len(target_lengths)
    if shift < 0:
        return first_drift(target_lengths, source_lengths)
    size = len(target_lengths)
    log_source, log_target = np.log(source_lengths + 1.0), np.log(target_lengths + 1.0)
    straight, shifted = log_source[:size] - log_target, log_source[shift:] - log_target
    if not size:
        return 0
    centre = np.median(np.concatenate([straight, shifted]))
    before = np.concatenate([[0.0], np.cumsum(np.abs(straight - centre))])
    after = np.concatenate([[0.0], np.cumsum(np.abs(shifted - centre))])
    return int(np.argmin(before + after[-1] - after))


def _build_index(path: str, out: pathlib.Path, cache_dir: pathlib.Path, key: str) -> None:
    ends, digest, position, bom = [np.zeros(1, np.int64)], hashlib.sha256(), 0, False
    oddities, line = Oddities(), 0
    rest = b""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            bom = bom or (position == 0 and chunk.startswith(_BOM))
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 0x0A) + position + 1)
            position += len(chunk)
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                _note_oddities(whole + newline, line, oddities)
            line += len(ends[-1])
    _note_oddities(rest, line, oddities)
    offsets = np.concatenate(ends)
    if position > offsets[-1]:
        offsets = np.append(offsets, position)  # a last line without a line end
    if bom:
        oddities.note_bom()
    card = {"sha256": digest.hexdigest(), "bom": bom, "findings": oddities.findings()}
    files.write_json(cache_dir / (key + ".json"), card)
    np.save(out, offsets.astype(np.int64))


def _note_oddities(block: bytes, first_line: int, oddities: Oddities) -> None:
    if b"\r" in block or _BOM in block or b"\0" in block or b"\xe2\x80\xa8" in block or not _is_utf8(block):
        for number, line in enumerate(block.split(b"\n"), first_line + 1):
            oddities.note(number, line)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
