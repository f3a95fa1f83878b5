"""Plants each fault that the corpus doctor knows in real text, and shows whether it is found, and at which line.

python -m benchmarks.doctor_faults --source=train.en.gz --target=train.de.gz --source_language=en --target_language=de

First the text is cleaned of what the doctor notes about it, and must then be silent. Faults are planted one at a time,
`--trials` times, at random lines. Prints a table and, as the last line, JSON. The status is 1 where something planted
was not found, or something was found that is not there.
"""

import gzip
import json
import pathlib
import random
import sys
import tempfile
from collections.abc import Callable, Sequence

from absl import flags

from pipelines import _cli, _process

_SHORT = 30  # bytes of a source
_MARGIN = 400  # lines from both ends of the text that nothing is planted in


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string("source", None, "Clean text, .gz or not.", flag_values=values)
    flags.DEFINE_string("target", None, "Its translation.", flag_values=values)
    flags.DEFINE_string("source_language", "en", "Its code.", flag_values=values)
    flags.DEFINE_string("target_language", "de", "Its code.", flag_values=values)
    flags.DEFINE_integer("trials", 10, "Of each fault.", flag_values=values)


class Text:
    """Lines of both sides as bytes, in which faults are planted by 0-based line."""

    def __init__(self, source: list[bytes], target: list[bytes], rng: random.Random):
        self.source, self.target = list(source), list(target)
        self._rng = rng

    def line(self) -> int:
        """A random line that is not short."""
        while True:
            line = self._rng.randrange(_MARGIN, len(self.source) - _MARGIN)
            if len(self.source[line]) >= _SHORT:
                return line

    def other(self, line: int) -> int:
        """Another line."""
        return (line + self._rng.randrange(100, len(self.source) - 100)) % len(self.source)


def _shift(text: Text, line: int) -> None:
    del text.target[line]
    text.target.append(text.target[text.other(line)])


def _late(text: Text, line: int) -> None:
    text.target.insert(line, text.target[text.other(line)])
    text.target.pop()


def _lost_lines(text: Text, line: int) -> None:
    del text.target[line : line + 3]


def _shift_for_a_while(text: Text, line: int) -> None:
    del text.source[line]
    text.source.insert(line + 200, text.source[text.other(line)])


def _unrelated(text: Text, line: int) -> None:
    text.target[line : line + 300] = text.target[line : line + 300][::-1]


def _edit(side: str, change: Callable[[Text, int], bytes]) -> Callable[[Text, int], None]:
    def plant(text: Text, line: int) -> None:
        getattr(text, side)[line] = change(text, line)

    return plant


def _again(text: Text, line: int) -> None:
    other = text.other(line)
    earlier, later = min(line, other), max(line, other)
    text.source[later], text.target[later] = text.source[earlier], text.target[earlier]


_OTHER_SCRIPT = "Это предложение написано на другом языке.".encode()
# The kind of finding, and how far from the line it may be reported.
FAULTS: dict[str, tuple[str, Callable[[Text, int], None], int]] = {
    "target lacks a line": ("shift", _shift, 0),
    "target has a line too many": ("shift", _late, 0),
    "target lacks three lines": ("shift", _lost_lines, 2),
    "shifted for 200 lines": ("shift", _shift_for_a_while, 0),
    "300 lines in reverse order": ("shift", _unrelated, 20),
    "empty source": ("empty side", _edit("source", lambda text, line: b""), 0),
    "blank target": ("empty side", _edit("target", lambda text, line: b" \t"), 0),
    "duplicate pair": ("duplicate", _again, 10**9),
    "untranslated": ("copy", _edit("target", lambda text, line: text.source[line]), 0),
    "cut to two characters": (
        "length ratio",
        _edit("target", lambda text, line: text.target[line].decode()[:2].encode()),
        0,
    ),
    "six lines in one": (
        "length ratio",
        _edit("source", lambda text, line: b" ".join(text.source[line : line + 6])),
        0,
    ),
    "other script, source": ("script", _edit("source", lambda text, line: _OTHER_SCRIPT), 0),
    "other script, target": ("script", _edit("target", lambda text, line: _OTHER_SCRIPT), 0),
    "CR LF": ("encoding", _edit("source", lambda text, line: text.source[line] + b"\r"), 0),
    "NUL": ("encoding", _edit("target", lambda text, line: text.target[line] + b"\0"), 0),
    "U+2028": ("encoding", _edit("target", lambda text, line: b"a\xe2\x80\xa8" + text.target[line]), 0),
    "invalid UTF-8": ("encoding", _edit("source", lambda text, line: text.source[line] + b"\xff"), 0),
}


def _job(values: flags.FlagValues) -> int:
    _process.load_tensorflow()
    languages = (values.source_language, values.target_language)
    rng = random.Random(1)
    source, target = (_read(path) for path in (values.source, values.target))
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        noted = {line for finding in _examine(place, source, target, languages, []) for line in finding.lines}
        while noted:
            kept = [line for line in range(len(source)) if line + 1 not in noted]
            source, target = [source[line] for line in kept], [target[line] for line in kept]
            noted = {line for finding in _examine(place, source, target, languages, []) for line in finding.lines}
        print(f"{len(source)} clean lines: nothing found", file=sys.stderr)
        rows = [_plant(place, name, source, target, languages, values.trials, rng) for name in FAULTS]
        rows.append(_plant_test_line(place, source, target, languages, values.trials, rng))
    print(
        "| planted | found at its line | within | largest distance | found besides |\n| --- | --- | --- | --- | --- |"
    )
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print(json.dumps(rows))
    good = all(row["found"] == f"{values.trials} of {values.trials}" and not row["others"] for row in rows)
    return 0 if good else _cli.STATUS_FINDINGS


def _plant(place, name, source, target, languages, trials, rng) -> dict:
    kind, plant, tolerance = FAULTS[name]
    exact, distances, others = 0, [], 0
    for _ in range(trials):
        text = Text(source, target, rng)
        line = text.line()
        plant(text, line)
        findings = _examine(place, text.source, text.target, languages, [])
        mine = [finding for finding in findings if finding.kind == kind]
        others += sum(
            finding.kind not in (kind, "line count", "length ratio", "copy", "script", "white space")
            for finding in findings
        )
        if mine:
            lines = [number for found in mine for number in (found.lines[:1] if kind == "shift" else found.lines)]
            distance = min(abs(number - 1 - line) for number in lines) if tolerance < 10**9 else 0
            exact += distance == 0
            distances.append(distance)
    found = sum(distance <= tolerance for distance in distances)
    return _row(name, exact, found, trials, max(distances, default=-1), others)


def _plant_test_line(place, source, target, languages, trials, rng) -> dict:
    held_out = [[b"Nothing of this is elsewhere."] * 3, [b"x"] * 3]
    exact = others = 0
    for _ in range(trials):
        line = Text(source, target, rng).line()
        tested = [[*held_out[0], source[line].upper()], [*held_out[1], b"y"]]
        findings = _examine(place, source, target, languages, tested)
        exact += any(finding.kind == "overlap" and finding.first_lines == [line + 1] for finding in findings)
        others += sum(finding.kind != "overlap" for finding in findings)
    return _row("test sentence in train", exact, exact, trials, 0, others)


def _row(name: str, exact: int, found: int, trials: int, distance: int, others: int) -> dict:
    found_of = {"exact": f"{exact} of {trials}", "found": f"{found} of {trials}"}
    return {"planted": name, **found_of, "distance": distance, "others": others}


def _examine(place: pathlib.Path, source, target, languages, held_out) -> list:
    from nmt_keras.data.corpus import TextFile
    from nmt_keras.doctor.examination import Doctor, HeldOut

    texts = []
    for number, lines in enumerate([source, target, *held_out]):
        path = place / f"text-{number}"
        path.unlink(missing_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        texts.append(TextFile(str(path), str(place / "cache")))
    return Doctor(*languages).examine(*texts[:2], [HeldOut("test", *texts[2:])] if held_out else [])


def _read(path: str) -> list[bytes]:
    content = gzip.open(path).read() if path.endswith(".gz") else pathlib.Path(path).read_bytes()
    return content.removesuffix(b"\n").split(b"\n")


if __name__ == "__main__":
    sys.exit(main())
