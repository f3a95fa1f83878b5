"""The corpus doctor: what is wrong with parallel text, by line, before anything is trained on it.

A finding is a note (listed), a warning, or serious: what would cost a training. Lines are read in blocks, and of each
pair a hash and two lengths are kept, 16 bytes; sorting and comparing them takes some three times as much. Numbers of
lines that something is found in are kept too.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt_keras.data import encodings, line_checks
from nmt_keras.data.alignment import MAX_SHIFT, Segment, segments
from nmt_keras.data.batch_plan import LARGEST_WORTHY_BUDGET, MIN_WORTHY_BATCHES
from nmt_keras.data.corpus import TextFile
from nmt_keras.data.scripts import ScriptCheck
from nmt_keras.data.white_space import fold, has_invisible, has_odd_space

VERSION = 2  # of what is found, for caches
SEVERITIES = ("note", "warning", "serious")
_BLOCK = 10_000
_LISTED = 10
_OUTLYING = 8.0  # standard deviations of a pair's length, as Gale and Church (1993) reckon it
_FACTOR = 4.0  # by which lengths of a pair may differ from the usual, where one side is
_LONG = 20  # characters of the source or more
_SERIOUS_ODDITIES = ("invalid UTF-8",)
_FEW = 1_000  # pairs
_SAMPLE = 50_000  # pairs whose lengths in ids are counted

_IGNORED = dict.fromkeys(code for code in range(0x20000) if unicodedata.category(chr(code))[0] in "PSZC")
# Shares of a corpus from which a kind is a warning, and serious.
_LIMITS = {
    "empty side": (0.02, 0.2),
    "duplicate": (0.1, 0.5),
    "copy": (0.01, 0.1),
    "length ratio": (0.01, 0.1),
    "script": (0.01, 0.2),
    "overlap": (0.01, 0.1),
    "encoding": (0.0, 0.01),
    "unknown pieces": (0.01, 0.1),
    "name or code": (1.0, 1.0),
    "white space": (0.1, 1.0),
    "entity": (0.005, 1.0),
    "markup": (0.001, 0.2),
    "tag": (0.01, 1.0),
    "table row": (0.01, 1.0),
}
_MOSTLY = 0.5  # of the lines that can tell, from which a text is taken to be tokenized
_HARDLY = 0.01  # of the lines with letters that have two forms, up to which a text has no capitals
_TELLING = 50  # lines that must tell
_SAMPLED_BYTES = 1 << 16
_FEW_SOUND = 0.1  # lines of UTF-8 beyond ASCII for each that is not, in a text that is of another encoding as a whole
_SAMPLED_LINES = 500


class Finding(NamedTuple):
    """Something about a text."""

    kind: str
    severity: str  # of SEVERITIES
    text: str  # a line for people
    num_lines: int
    lines: list[int]  # 1-based, in order

    @property
    def first_lines(self) -> list[int]:
        """At most ten."""
        return self.lines[:_LISTED]

    def card(self) -> dict[str, Any]:
        """What is written where not every line is wanted."""
        values = {**self._asdict(), "first_lines": self.first_lines}
        del values["lines"]
        return values


class HeldOut(NamedTuple):
    """Text to measure on, which is to be in no training text."""

    name: str
    source: TextFile
    target: TextFile


class Doctor:
    """Examines parallel text.

    Args:
        source_language: its code; the script of lines is compared with it.
        target_language: the same of the target.
        progress: takes the number of lines read since it was last called.
    """

    def __init__(
        self, source_language: str, target_language: str, progress: Callable[[int], None] = lambda lines: None
    ):
        self._languages = (source_language, target_language)
        self._progress = progress

    def examine(self, source: TextFile, target: TextFile, held_out: Sequence[HeldOut] = ()) -> list[Finding]:
        """Reads a corpus once, and says what is wrong with it, the worst first."""
        sides = zip((source, target), self._languages)
        findings = [finding for text, language in sides for finding in encoding_findings(text, language)]
        size = min(len(source), len(target))
        if len(source) != len(target):
            text = (
                f"{source.path} has {len(source):,} lines and {target.path} has {len(target):,}: they are not aligned"
            )
            findings.append(Finding("line count", "serious", text, abs(len(source) - len(target)), []))
        scan = _Scan(size, self._languages, held_out)
        for start in range(0, size, _BLOCK):
            lines = range(start, min(start + _BLOCK, size))
            scan.read(start, source.lines(lines), target.lines(lines))
            self._progress(len(lines))
        if size < _FEW:
            text = f"{source.path} and {target.path}: {size:,} pairs are too few to learn a language from"
            findings.append(Finding("size", "warning", text, size, []))
        findings += scan.findings(source.path, target.path)
        findings += self._shifts(source, target, scan)
        return sorted(findings, key=lambda finding: -SEVERITIES.index(finding.severity))

    def _shifts(self, source: TextFile, target: TextFile, scan: "_Scan") -> list[Finding]:
        def fetch(lines: np.ndarray, partners: np.ndarray) -> tuple[list[str], list[str]]:
            texts = ((source, lines), (target, partners))
            return tuple(_lines_or_blanks(text, numbers) for text, numbers in texts)  # type: ignore[return-value]

        lengths = scan.characters
        if len(source) != len(target):  # what has no partner by its number has one by a shift
            sizes = (slice(scan.size, len(text)) for text in (source, target))
            more = [
                np.array([len(line) for line in text.lines(range(part.start, part.stop))], np.float32)
                for text, part in zip((source, target), sizes)
            ]
            lengths = [np.concatenate([known, rest]) for known, rest in zip(lengths, more)]
        found = segments(lengths[0], lengths[1], fetch)
        return [
            _describe_shift(segment, following, source, target)
            for segment, following in zip(found, [*found[1:], None])
            if segment.shift != 0
        ]


class _Scan:
    """What one pass over pairs of lines collects."""

    def __init__(self, size: int, languages: tuple[str, str], held_out: Sequence[HeldOut]):
        self.size = size
        self.characters = [np.zeros(size, np.float32) for _ in range(2)]
        self._hashes = np.zeros(size, np.uint64)
        self._empty = _Lines()
        self._copies = _Lines()
        self._names = _Lines()
        self._styles = [_Style() for _ in range(2)]
        self._scripts = [(ScriptCheck(language), _Lines()) for language in languages]
        self._held_out = held_out
        self._held_lines = [_line_of_each(text.source) for text in held_out]
        self._overlaps: list[dict[int, list[int]]] = [{} for _ in held_out]  # held-out line: lines of this text

    def read(self, start: int, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Takes in a block of pairs, the first of which has the 0-based number `start`."""
        for number, (source, target) in enumerate(zip(sources, targets), start):
            for side, line in enumerate((source, target)):
                self._styles[side].read(number, line)
                check, foreign = self._scripts[side]
                if check.is_foreign(line):
                    foreign.add(number)
            mine, yours = fold(source), fold(target)
            for side, line in enumerate((mine, yours)):
                self.characters[side][number] = len(line)
            if not mine or not yours:
                self._empty.add(number)
                self._hashes[number] = number  # no duplicate of another
                continue
            self._hashes[number] = _hash(f"{mine}\n{yours}")
            if mine == yours and sum(map(str.isalpha, mine)) > 1:
                (self._names if line_checks.is_name_or_code(mine) else self._copies).add(number)
            if self._held_out:
                key = _key(source)
                for known, overlaps in zip(self._held_lines, self._overlaps):
                    if key is not None and key in known:
                        overlaps.setdefault(known[key], []).append(number + 1)

    def findings(self, source: str, target: str) -> list[Finding]:
        """What was found in the files of these names."""
        both = f"{source} and {target}"
        found = [
            self._of("empty side", self._empty, f"{both}: a side is empty or blank", "they are left out of training"),
            self._of("copy", self._copies, f"{both}: the target is the source, untranslated", "take them out"),
            self._of("name or code", self._names, f"{both}: names, numbers or code are the same on both sides", "kept"),
            self._duplicates(both),
            self._outliers(both),
        ]
        for path, (check, lines) in zip((source, target), self._scripts):
            scripts = " or ".join(check.scripts)
            found.append(
                self._of("script", lines, f"{path}: most letters are not {scripts}", "wrong language or file?")
            )
        for path, style in zip((source, target), self._styles):
            found += [self._of(kind, lines, f"{path}: {what}", remedy) for kind, lines, what, remedy in style.kinds()]
            found += style.findings(path)
        for text, overlaps in zip(self._held_out, self._overlaps):
            found.append(self._overlap(text, overlaps, source))
        return [finding for finding in found if finding is not None]

    def _of(self, kind: str, lines: "_Lines", what: str, remedy: str) -> Finding | None:
        if not lines.count:
            return None
        text = f"{what} in {lines.count:,} line(s) ({lines}): {remedy}"
        return Finding(kind, _severity(kind, lines.count / self.size), text, lines.count, lines.numbers)

    def _duplicates(self, both: str) -> Finding | None:
        order = np.argsort(self._hashes, kind="stable")
        ordered = self._hashes[order]
        again = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
        if not len(again):
            return None
        firsts = order[np.searchsorted(ordered, ordered[again])]
        lines = order[again]
        shown = np.argsort(lines)[:_LISTED]
        pairs = ", ".join(f"{lines[i] + 1} repeats {firsts[i] + 1}" for i in shown)
        pairs += ", ..." if len(again) > _LISTED else ""
        text = f"{both}: {len(again):,} pair(s) are there before ({pairs}): they weigh more in training"
        severity = _severity("duplicate", len(again) / self.size)
        return Finding("duplicate", severity, text, len(again), [int(line) + 1 for line in np.sort(lines)])

    def _outliers(self, both: str) -> Finding | None:
        source, target = self.characters
        real = np.flatnonzero((source > 0) & (target > 0))
        if not len(real):
            return None
        ratio = float(np.median(target[real] / source[real]))
        excess = target[real] - ratio * source[real]
        excess /= np.sqrt(ratio * source[real] + target[real])
        deviation = 1.4826 * float(np.median(np.abs(excess)))
        log_ratio = np.log(target[real] / source[real] / ratio)
        long = np.maximum(source[real], target[real] / ratio) >= _LONG
        far = real[(np.abs(excess) > _OUTLYING * max(deviation, 0.1)) | long & (np.abs(log_ratio) > np.log(_FACTOR))]
        lines = _Lines([int(line) + 1 for line in far])
        what = f"{both}: lengths far from {ratio:.2f} target characters for one of the source"
        return self._of("length ratio", lines, what, "wrong pairs, or parts of them are missing")

    def _overlap(self, text: HeldOut, overlaps: dict[int, list[int]], source: str) -> Finding | None:
        if not overlaps:
            return None
        shown = sorted(overlaps.items())[:_LISTED]
        pairs = ", ".join(f"{held} is line {lines[0]}" for held, lines in shown)
        pairs += ", ..." if len(overlaps) > _LISTED else ""
        what = (
            f"{text.name} {text.source.path}: {len(overlaps):,} source line(s) are in {source} too but for case and "
            f"punctuation ({pairs}): "
            "its scores will be too good, take them out of the training text"
        )
        severity = _severity("overlap", len(overlaps) / max(len(text.source), 1))
        lines = [line for _, lines in sorted(overlaps.items()) for line in lines]
        return Finding("overlap", severity, what, len(overlaps), lines)


class _Lines:
    """Numbers of lines, 1-based."""

    def __init__(self, numbers: Sequence[int] = ()):
        self.numbers = list(numbers)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.numbers)

    def add(self, number: int) -> None:
        """Counts the line of a 0-based number."""
        self.numbers.append(number + 1)

    def __str__(self) -> str:
        return ", ".join(map(str, self.numbers[:_LISTED])) + (", ..." if self.count > _LISTED else "")


class _Style:
    """What the lines of one side show about how the text was made."""

    def __init__(self) -> None:
        self._spaces, self._invisible, self._entities, self._markup, self._tags, self._rows = (
            _Lines() for _ in range(6)
        )
        self._is_header = False
        self._tokenized, self._lower_case = [0, 0], [0, 0]  # lines that are not, and that are

    def read(self, number: int, line: str) -> None:
        """Looks at a line of a 0-based number."""
        for lines, holds in (
            (self._spaces, has_odd_space),
            (self._invisible, has_invisible),
            (self._entities, line_checks.has_entity),
            (self._markup, line_checks.is_markup),
            (self._tags, line_checks.has_tag),
            (self._rows, line_checks.is_table_row),
        ):
            if holds(line):
                lines.add(number)
        if number == 0:
            self._is_header = line_checks.is_header(line)
        for counts, answer in (
            (self._tokenized, line_checks.is_tokenized(line)),
            (self._lower_case, line_checks.is_lower_case(line)),
        ):
            if answer is not None:
                counts[answer] += 1

    def kinds(self) -> list[tuple[str, _Lines, str, str]]:
        """Each kind, its lines, what it is, and the remedy."""
        return [
            ("white space", self._spaces, "white space other than the space", "each run of it is read as one space"),
            ("white space", self._invisible, "characters that show nothing", "they are removed"),
            ("entity", self._entities, "character references of HTML, such as &apos;", "unescape them"),
            ("markup", self._markup, "markup around text, or records", "take the text out of it"),
            ("tag", self._tags, "tags of markup, such as <b>", "take the tags out, or keep them on both sides alike"),
            ("table row", self._rows, "cells with tabs or bars between them", "a table, or columns that were not cut?"),
        ]

    def findings(self, path: str) -> list[Finding]:
        """What holds of the text as a whole."""
        found = []
        if self._is_header:
            text = f"{path}: line 1 names a column, and is no text: take it out on both sides"
            found.append(Finding("header", "warning", text, 1, [1]))
        apart, lower = (counts[1] / max(sum(counts), 1) for counts in (self._tokenized, self._lower_case))
        if sum(self._tokenized) >= _TELLING and apart > _MOSTLY:
            text = (
                f"{path}: the text is tokenized, full stops and commas stand apart in {apart:.0%} of the lines that "
                "have any: a model trained on it translates raw text badly; detokenize it (sacremoses detokenize)"
            )
            found.append(Finding("tokenized", "warning", text, self._tokenized[1], []))
        if sum(self._lower_case) >= _TELLING and lower >= 1 - _HARDLY:
            text = (
                f"{path}: the text is lower-cased, {lower:.0%} of its lines have no capital: a model trained on it "
                "has not seen those of raw text; take the text as it was written, or lower-case what is translated"
            )
            found.append(Finding("lower case", "warning", text, self._lower_case[1], []))
        return found


def unknown_pieces(name: str, rate: float, is_own: bool = True) -> Finding | None:
    """A finding where too many pieces of a text are unknown to its tokenizer; a warning at most if that is not the own
    one but trained on a sample."""
    severity = _severity("unknown pieces", rate)
    severity = "warning" if severity == "serious" and not is_own else severity
    if severity == "note":
        return None
    text = f"{name}: {rate:.2%} of its pieces are unknown: set data.byte_fallback=True, or train on such text"
    return Finding("unknown pieces", severity, text, 0, [])


def lengths_report(source_lengths: np.ndarray, target_lengths: np.ndarray, num_pairs: int) -> dict[str, Any]:
    """Percentiles of lengths in ids with EOS, and what they suggest for the recipe.

    Args:
        source_lengths: integer [N], of a sample.
        target_lengths: the same of the target.
        num_pairs: of the corpus.
    """
    quantiles = (50, 90, 99, 99.9, 100)
    table = {
        side: {f"p{q:g}": int(np.percentile(lengths, q, method="higher")) for q in quantiles}
        for side, lengths in (("source", source_lengths), ("target", target_lengths))
    }
    longest = [min(-(-table[side]["p99.9"] // 8) * 8, 512) for side in ("source", "target")]
    mean = float(target_lengths.mean())
    enough = max(200 * mean, 8 * max(longest))  # some 200 sentences, and some of the longest
    most = max(num_pairs * mean / MIN_WORTHY_BATCHES, 512, longest[1])
    budget = 1 << int(np.log2(min(2 * max(enough, 512) - 1, most, LARGEST_WORTHY_BUDGET)))
    budget = max(budget, longest[1])
    suggested = {"max_source_length": longest[0], "max_target_length": longest[1], "batch_tokens": budget}
    return {"lengths": table, "suggested": suggested}


def sample_of(size: int) -> np.ndarray:
    """Evenly spaced line numbers, at most `_SAMPLE` of them."""
    return np.arange(0, size, max(-(-size // _SAMPLE), 1))


def encoding_findings(text: TextFile, language: str) -> list[Finding]:
    """What is odd about the bytes of a text; first, where it looks like another encoding, which, and what to do."""
    findings, broken, is_serious = [], [], False
    for finding in text.findings:
        severity = "note"
        if finding.kind in _SERIOUS_ODDITIES:
            severity = _severity("encoding", finding.num_lines / len(text))
            is_serious = severity == "serious"
            broken = text.raw_lines([number - 1 for number in finding.lines[:_SAMPLED_LINES]])
        findings.append(Finding("encoding", severity, f"{text.path}: {finding}", finding.num_lines, finding.lines))
    broken = [line for line in broken if not encodings.is_cut_off(line.rstrip(b"\r\n"))]
    encoding = encodings.guess(text.beginning(_SAMPLED_BYTES), broken, language)
    if not encoding:
        return findings
    sound = sum(any(byte > 0x7F for byte in line) for line in text.raw_lines(range(min(len(text), _SAMPLED_LINES))))
    sound -= sum(line in set(broken) for line in text.raw_lines(range(min(len(text), _SAMPLED_LINES))))
    if broken and "UTF-" not in encoding and sound > _FEW_SOUND * len(broken):
        what = (
            f"{text.path}: some lines are no UTF-8, and look like {encoding} beside others that are UTF-8: convert "
            "these lines alone, those of invalid UTF-8"
        )
        return [Finding("encoding", "serious" if is_serious else "warning", what, len(broken), []), *findings]
    what = (
        f"{text.path}: it is no UTF-8, and looks like {encoding}: convert it, {encodings.command(text.path, encoding)}"
    )
    return [Finding("encoding", "serious", what, len(broken), []), *findings]


def _severity(kind: str, share: float) -> str:
    warning, serious = _LIMITS[kind]
    return "serious" if share > serious else "warning" if share > warning else "note"


def _describe_shift(segment: Segment, following: Segment | None, source: TextFile, target: TextFile) -> Finding:
    first, last = segment.start + 1, segment.stop
    until = "to the end" if following is None else f"to line {last:,}"
    until += f" (perhaps {last + segment.after:,})" if following is not None and segment.after else ""
    maybe = f" (perhaps {first - segment.before:,})" if segment.before else ""
    where = f"{source.path} and {target.path}: from line {first:,}{maybe} {until}"
    if segment.shift is None:
        text = f"{where} they do not belong together, nor to lines up to {MAX_SHIFT} away: mend the files there"
    else:
        count = abs(segment.shift)
        side, other = ("source", "target") if segment.shift > 0 else ("target", "source")
        text = (
            f"{where} the {other} is shifted by {count} line(s) against the {side}: the {side} lacks {count} that the "
            f"{other} has about line {first:,}, or the {other} has {count} too many"
        )
    return Finding("shift", "serious", text, last - segment.start, list(range(first, last + 1)))


def _lines_or_blanks(text: TextFile, numbers: np.ndarray) -> list[str]:
    """Lines of a text, "" where there is none."""
    inside = (numbers >= 0) & (numbers < len(text))
    lines = iter(text.lines(numbers[inside]))
    return [next(lines) if there else "" for there in inside]


def _line_of_each(text: TextFile) -> dict[int, int]:
    """The 1-based number of each line that is not blank, by its key."""
    keys = ((_key(line), number) for number, line in enumerate(text.lines(range(len(text))), 1))
    return {key: number for key, number in keys if key is not None}


def _key(line: str) -> int | None:
    """Of a line without case, spaces and punctuation, which make no other sentence; None if nothing is left."""
    rest = line.casefold().translate(_IGNORED)
    return _hash(rest) if rest else None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
