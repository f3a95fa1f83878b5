"""The corpus doctor: what is wrong with parallel text, by line, before anything is trained on it.

Lines are read in blocks. Of each pair a hash and two lengths stay in memory, 16 bytes; sorting and comparing them takes
about three times as much. The numbers of lines with findings stay in memory too.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nmt_keras.data.corpus import TextFile
from nmt_keras.data.scripts import ScriptCheck
from nmt_keras.data.split import sentence_key
from nmt_keras.doctor import line_checks
from nmt_keras.doctor.alignment import MAX_SHIFT, Segment, segments
from nmt_keras.doctor.encoding import encoding_findings
from nmt_keras.doctor.findings import LISTED, SEVERITIES, Finding, LineNumbers, severity_of
from nmt_keras.doctor.style import Style
from nmt_keras.reports import counted
from nmt_keras.tokenizers.white_space import fold

_BLOCK = 10_000
_OUTLYING = 8.0  # standard deviations of a pair's length, as Gale and Church (1993) reckon it
_FACTOR = 4.0  # by which the length ratio of a long pair may differ from the usual one
_LONG = 20  # source characters from which a pair is long
_FEW = 1_000  # pairs


class HeldOut(NamedTuple):
    """Text to measure on, none of which should be in the training text."""

    name: str
    source: TextFile
    target: TextFile


class Doctor:
    """Examines parallel text.

    Args:
        source_language: its code; the script of lines is compared with it.
        target_language: the same of the target.
        progress: takes the number of lines read since it was last called.
        symbols: texts that look like tags of markup and are meant, such as that of synthetic text.
    """

    def __init__(
        self,
        source_language: str,
        target_language: str,
        progress: Callable[[int], None] = lambda lines: None,
        symbols: Sequence[str] = (),
    ):
        self._languages = (source_language, target_language)
        self._symbols = symbols
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
        scan = _Scan(size, self._languages, held_out, self._symbols, source.place)
        for start in range(0, size, _BLOCK):
            lines = range(start, min(start + _BLOCK, size))
            scan.read(start, source.lines(lines), target.lines(lines))
            self._progress(len(lines))
        if size < _FEW:
            text = f"{source.path} and {target.path}: {size:,} pairs are too few to learn a language from"
            findings.append(Finding("size", "warning", text, size, []))
        findings += scan.findings(source.path, target.path)
        findings += self._shifts(source, target, scan)
        findings = _with_places(findings, source)
        return sorted(findings, key=lambda finding: -SEVERITIES.index(finding.severity))

    def _shifts(self, source: TextFile, target: TextFile, scan: "_Scan") -> list[Finding]:
        def fetch(lines: np.ndarray, partners: np.ndarray) -> tuple[list[str], list[str]]:
            texts = ((source, lines), (target, partners))
            return tuple(_lines_or_blanks(text, numbers) for text, numbers in texts)  # type: ignore[return-value]

        lengths = scan.characters
        if len(source) != len(target):  # lines beyond the shorter side may have a partner by a shift
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

    def __init__(
        self,
        size: int,
        languages: tuple[str, str],
        held_out: Sequence[HeldOut],
        symbols: Sequence[str],
        place: Callable[[int], str],
    ):
        self.size = size
        self._place = place
        self.characters = [np.zeros(size, np.float32) for _ in range(2)]
        self._hashes = np.zeros(size, np.uint64)
        self._empty, self._blank, self._copies, self._names = (LineNumbers(place) for _ in range(4))
        self._styles = [Style(place, symbols) for _ in range(2)]
        self._scripts = [(ScriptCheck(language), LineNumbers(place)) for language in languages]
        self._overlaps = _Overlaps(held_out, place)

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
                (self._empty if mine or yours else self._blank).add(number)
                self._hashes[number] = number  # no duplicate of another
                continue
            self._hashes[number] = _hash(f"{mine}\n{yours}")
            if mine == yours and sum(map(str.isalpha, mine)) > 1:
                (self._names if line_checks.is_name_or_code(mine) else self._copies).add(number)
            self._overlaps.read(number, source)

    def findings(self, source: str, target: str) -> list[Finding]:
        """What was found in the files of these names."""
        both = source if source == target else f"{source} and {target}"
        found = [
            self._of("empty side", self._empty, f"{both}: a side is empty or blank", "they are left out of training"),
            self._of("blank pair", self._blank, f"{both}: both sides are empty or blank", "left out of training"),
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
        return [finding for finding in found if finding is not None] + self._overlaps.findings(source)

    def _of(self, kind: str, lines: "LineNumbers", what: str, remedy: str) -> Finding | None:
        if not lines.count:
            return None
        text = f"{what} in {counted(lines.count, 'line')} ({lines}): {remedy}"
        return Finding(kind, severity_of(kind, lines.count / self.size), text, lines.count, lines.numbers)

    def _duplicates(self, both: str) -> Finding | None:
        order = np.argsort(self._hashes, kind="stable")
        ordered = self._hashes[order]
        again = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
        if not len(again):
            return None
        firsts = order[np.searchsorted(ordered, ordered[again])]
        lines = order[again]
        shown = np.argsort(lines)[:LISTED]
        pairs = ", ".join(f"{self._place(lines[i])} repeats {self._place(firsts[i])}" for i in shown)
        pairs += ", ..." if len(again) > LISTED else ""
        text = f"{both}: {counted(len(again), 'duplicate pair')} ({pairs}): what repeats weighs more in training"
        severity = severity_of("duplicate", len(again) / self.size)
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
        lines = LineNumbers(self._place, [int(line) + 1 for line in far])
        what = f"{both}: lengths far from {ratio:.2f} target characters for one of the source"
        return self._of("length ratio", lines, what, "wrong pairs, or parts of them are missing")


class _Overlaps:
    """Which lines of a text to train on are in text to measure on."""

    def __init__(self, held_out: Sequence[HeldOut], place: Callable[[int], str]):
        self._held_out = held_out
        self._place = place
        self._known = [_line_of_each(text.source) for text in held_out]
        self._found: list[dict[int, list[int]]] = [{} for _ in held_out]  # held-out line: lines of this text

    def read(self, number: int, source: str) -> None:
        """Takes in the source line with this 0-based number."""
        if not self._held_out:
            return
        key = sentence_key(source)
        for known, found in zip(self._known, self._found):
            if key is not None and key in known:
                found.setdefault(known[key], []).append(number + 1)

    def findings(self, source: str) -> list[Finding]:
        """What was found in the file of this name."""
        pairs = zip(self._held_out, self._found)
        return [self._finding(text, found, source) for text, found in pairs if found]

    def _finding(self, text: HeldOut, overlaps: dict[int, list[int]], source: str) -> Finding:
        shown = sorted(overlaps.items())[:LISTED]
        pairs = ", ".join(f"{text.source.place(held - 1)} is line {self._place(lines[0] - 1)}" for held, lines in shown)
        pairs += ", ..." if len(overlaps) > LISTED else ""
        what = (
            f"{text.name} {text.source.path}: {counted(len(overlaps), 'source line')} also in {source}, but for case "
            f"and punctuation ({pairs}): its scores will be too good, take them out of the training text"
        )
        severity = severity_of("overlap", len(overlaps) / max(len(text.source), 1))
        lines = [line for _, lines in sorted(overlaps.items()) for line in lines]
        return Finding("overlap", severity, what, len(overlaps), lines)


def overlaps(source: TextFile, held_out: Sequence[HeldOut]) -> list[Finding]:
    """The lines of a source text that are in text to measure on, but for case and punctuation."""
    found = _Overlaps(held_out, source.place)
    for start in range(0, len(source), _BLOCK):
        for number, line in enumerate(source.lines(range(start, min(start + _BLOCK, len(source)))), start):
            found.read(number, line)
    return _with_places(found.findings(source.path), source)


def _with_places(findings: list[Finding], source: TextFile) -> list[Finding]:
    """Findings with the places of their lines in the file that the text was taken out of."""
    if source.origin is None or source.origin.places is None:
        return findings
    return [
        found._replace(places=[source.place(line - 1) for line in found.lines]) if not found.places else found
        for found in findings
    ]


def _describe_shift(segment: Segment, following: Segment | None, source: TextFile, target: TextFile) -> Finding:
    first, last = segment.start + 1, segment.stop

    def at(line: int) -> str:
        place = source.place(line - 1)
        return f"{int(place):,}" if place.isdecimal() else place

    until = "to the end" if following is None else f"to line {at(last)}"
    until += f" (perhaps {at(last + segment.after)})" if following is not None and segment.after else ""
    maybe = f" (perhaps {at(first - segment.before)})" if segment.before else ""
    where = f"{source.path} and {target.path}: from line {at(first)}{maybe} {until}"
    if segment.shift is None:
        text = f"{where} they do not belong together, nor to lines up to {MAX_SHIFT} away: mend the files there"
    else:
        count = abs(segment.shift)
        side, other = ("source", "target") if segment.shift > 0 else ("target", "source")
        text = (
            f"{where} the {other} is shifted by {counted(count, 'line')} against the {side}: the {side} lacks {count} "
            f"that the {other} has about line {at(first)}, or the {other} has {count} too many"
        )
    return Finding("shift", "serious", text, last - segment.start, list(range(first, last + 1)))


def _lines_or_blanks(text: TextFile, numbers: np.ndarray) -> list[str]:
    """Lines of a text, "" where there is none."""
    inside = (numbers >= 0) & (numbers < len(text))
    lines = iter(text.lines(numbers[inside]))
    return [next(lines) if there else "" for there in inside]


def _line_of_each(text: TextFile) -> dict[int, int]:
    """The 1-based number of each line that is not blank, by its key."""
    keys = ((sentence_key(line), number) for number, line in enumerate(text.lines(range(len(text))), 1))
    return {key: number for key, number in keys if key is not None}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
