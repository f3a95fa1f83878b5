"""Parallel text as memory-mapped lines.

A line ends at `\n` and only there: U+2028, U+0085, VT and FF are ordinary characters of a line. One pass over a file
finds the byte offset of every line, its SHA-256 and its oddities (BOM, CR LF, NUL, U+2028, invalid UTF-8); all are
cached by path, size, modification time and inode. A BOM and the CR of a CR LF are not part of a line; invalid UTF-8 is
read as U+FFFD. Nothing is ever dropped here, so line i of the source stays beside line i of the target.
"""

import gzip
import hashlib
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt_keras import files
from nmt_keras.errors import UserError
from nmt_keras.pipes import kept
from nmt_keras.tokenizers.white_space import is_blank

_BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 24
_KEPT_LINES = 100_000  # of a kind of oddity
_VERSION = 2  # of the index and of what is noted in it
_ODDITIES = (
    ("CR LF line ends", "the CR is removed"),
    ("byte order marks inside the text", "removed: files were joined"),
    ("NUL characters", "removed"),
    ("U+2028 line separators", "read as spaces"),
    ("invalid UTF-8", "read as U+FFFD"),
)


class Finding(NamedTuple):
    """One kind of oddity in a text file; `lines` are 1-based, at most the first 100,000."""

    kind: str
    num_lines: int
    lines: list[int]
    treatment: str

    def __str__(self) -> str:
        lines = ", ".join(map(str, self.lines[:10])) + (", ..." if self.num_lines > 10 else "")
        return f"{self.kind} in {self.num_lines} line(s) ({lines}): {self.treatment}"


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


class TextFile:
    """One text file as a sequence of lines, by a cached index of byte offsets (8 bytes a line, memory-mapped).

    Attributes:
        path: the file that was asked for.
        findings: the oddities of the file, most serious last.
        sha256: of the (unpacked) content.
    """

    def __init__(self, path: str, cache_dir: str):
        """Indexes `path`, or maps the index that an earlier call left in `cache_dir`.

        Raises:
            UserError: there is no such file, it is a directory, or it cannot be read.
        """
        self.path = path
        self._cache_dir = pathlib.Path(cache_dir)
        path = text = kept(path, self._cache_dir)
        if path.endswith(".gz"):
            text = str(self.cached(_file_key(path) + ".txt", lambda out: _unpack(path, out)))
        self._key = _file_key(text)
        offsets = self.cached(
            self._key + ".offsets.npy", lambda out: _build_index(text, out, self._cache_dir, self._key)
        )
        with open(self._cache_dir / (self._key + ".json"), encoding="utf-8", newline="\n") as file:
            card = json.load(file)
        self.sha256: str = card["sha256"]
        self._bom: bool = card["bom"]
        self.findings = [Finding(*finding) for finding in card["findings"]]
        self._offsets = np.load(offsets, mmap_mode="r")
        self._bytes = np.memmap(text, mode="r", dtype=np.uint8) if os.path.getsize(text) else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._offsets) - 1

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


def open_text(path: str, cache_dir: str, language: str, tfds_dir: str | None = None) -> TextFile:
    """Opens a source of text: a file, a `.gz` file, or `tfds:<name>[#split]` (split `train` unless given).

    Of a TFDS translation data set, the feature named like `language` is written once to `cache_dir` as a text file.

    Raises:
        UserError: the file or data set cannot be read, or has no such language or split.
    """
    if path.startswith("tfds:"):
        path = _materialise_tfds(path.removeprefix("tfds:"), cache_dir, language, tfds_dir)
    return TextFile(path, cache_dir)


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
        weight_texts: the files they come from.
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
                shift = first_drift(source.byte_lengths(), target.byte_lengths())
                raise UserError(
                    f"{source.path} has {len(source):,} lines and {target.path} has {len(target):,}; they must be "
                    f"aligned line by line. Lengths drift from line {shift + 1:,} on: mend the files there"
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
        self.alignments = list(alignments)
        self.weight_texts = [text for text in weights if text is not None]
        self.weights = [None if text is None else example_weights(text) for text in weights] or [None] * len(sources)
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


def _file_key(path: str) -> str:
    try:
        if os.path.isdir(path):
            raise UserError(f"{path} is a directory; give a text file")
        with open(path, "rb"):
            status = os.stat(path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; check the path (and data_dir)") from error
    identity = f"{os.path.abspath(path)}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}:{_VERSION}"
    return f"{os.path.basename(path)}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _unpack(path: str, out: pathlib.Path) -> None:
    try:
        with gzip.open(path, "rb") as packed, open(out, "wb") as text:
            shutil.copyfileobj(packed, text, _CHUNK_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"Cannot unpack {path}: {error}; it is truncated or no gzip file, make it again") from error


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


def _materialise_tfds(name: str, cache_dir: str, language: str, tfds_dir: str | None) -> str:
    name, _, split = name.partition("#")
    split = split or "train"
    import tensorflow_datasets as tfds  # heavy, and most runs read files

    try:
        builder = tfds.builder(name, data_dir=tfds_dir and os.path.abspath(tfds_dir))
        builder.download_and_prepare()  # its files are part of the key
        key = hashlib.sha256(json.dumps([_fingerprint_of(builder), split, language]).encode()).hexdigest()[:16]
        path = pathlib.Path(cache_dir) / f"tfds-{name.replace('/', '-').replace(':', '-')}-{key}.{language}"
        if path.exists():
            return str(path)
        examples = tfds.load(name, split=split, data_dir=tfds_dir, shuffle_files=False)
    except Exception as error:  # TFDS raises many kinds; the user needs the name and its word on it
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"Cannot load the TFDS data set {name!r}, split {split!r}: {reason}") from error
    if language not in examples.element_spec:
        raise UserError(
            f"The TFDS data set {name!r} has no feature {language!r}; its features: "
            f"{', '.join(sorted(examples.element_spec))}"
        )

    with files.atomic_write(path) as temporary, open(temporary, "wb") as file:
        for example in examples.as_numpy_iterator():
            file.write(example[language].replace(b"\n", b" ") + b"\n")
    return str(path)


def _fingerprint_of(builder: Any) -> list[Any]:
    """The identity of a TFDS builder's prepared data: name, configuration, version, folder and files."""
    folder = pathlib.Path(builder.data_path)
    found = [(path.name, path.stat()) for path in sorted(folder.glob("*")) if path.is_file()]
    return [
        builder.info.full_name,
        str(folder.resolve()),
        [(name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found],
    ]
