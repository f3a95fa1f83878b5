"""What is found in a corpus, and how bad it is.

A finding is a note (only listed), a warning, or serious: a fault that would waste a training.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

VERSION = 4  # of what is found, for caches
SEVERITIES = ("note", "warning", "serious")
LISTED = 10
# Shares of a corpus from which a kind is a warning, and serious.
_LIMITS = {
    "empty side": (0.02, 0.2),
    "blank pair": (1.0, 1.0),
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


class Finding(NamedTuple):
    """Something about a text."""

    kind: str
    severity: str  # of SEVERITIES
    text: str  # a line for people
    num_lines: int
    lines: list[int]  # 1-based, in order
    places: Sequence[str] = ()  # these lines in the user's file, where the text was made of another

    @property
    def first_lines(self) -> list[Any]:
        """At most ten, as people know them."""
        return list(self.places or self.lines)[:LISTED]

    def card(self, all_lines: bool = False) -> dict[str, Any]:
        """The finding as JSON values, with its first lines, or all."""
        values = {name: value for name, value in self._asdict().items() if name not in ("lines", "places")}
        values["first_lines"] = self.first_lines
        return {**values, "lines": list(self.places or self.lines)} if all_lines else values


class LineNumbers:
    """Numbers of lines, 1-based; `place` says what people call the line of a 0-based number."""

    def __init__(self, place: Callable[[int], str], numbers: Sequence[int] = ()):
        self._place = place
        self.numbers = list(numbers)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.numbers)

    def add(self, number: int) -> None:
        """Counts the line of a 0-based number."""
        self.numbers.append(number + 1)

    def __str__(self) -> str:
        shown = ", ".join(self._place(number - 1) for number in self.numbers[:LISTED])
        return shown + (", ..." if self.count > LISTED else "")


def unknown_pieces(name: str, rate: float, is_own: bool = True) -> Finding | None:
    """A finding if too many pieces of a text are unknown to its tokenizer, else None.

    Where the tokenizer is not the run's own (`is_own`) but trained on a sample, it is a warning at most.
    """
    severity = severity_of("unknown pieces", rate)
    severity = "warning" if severity == "serious" and not is_own else severity
    if severity == "note":
        return None
    text = f"{name}: {rate:.2%} of its pieces are unknown: set data.byte_fallback=True, or train on such text"
    return Finding("unknown pieces", severity, text, 0, [])


def severity_of(kind: str, share: float) -> str:
    """The severity, of `SEVERITIES`, of a kind of finding in this share of the lines."""
    warning, serious = _LIMITS[kind]
    return "serious" if share > serious else "warning" if share > warning else "note"
