"""What the lines of a text show about how it was made."""

from collections.abc import Callable, Sequence

from nmt_keras.doctor import line_checks
from nmt_keras.doctor.findings import Finding, LineNumbers
from nmt_keras.tokenizers.white_space import has_invisible, has_odd_space

_MOSTLY = 0.5  # of the lines that can tell, from which a text is taken to be tokenized
_HARDLY = 0.01  # of the lines with letters that have two forms, up to which a text has no capitals
_TELLING = 50  # lines that must tell


class Style:
    """What the lines of one side show about how the text was made.

    Args:
        place: what people call the line of a 0-based number.
        symbols: texts that look like tags of markup and are meant, `data.user_symbols`.
    """

    def __init__(self, place: Callable[[int], str] = lambda index: str(index + 1), symbols: Sequence[str] = ()) -> None:
        self._symbols = symbols
        self._spaces, self._invisible, self._entities, self._markup, self._tags, self._rows = (
            LineNumbers(place) for _ in range(6)
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
            (self._tags, lambda line: line_checks.has_tag(self._without_symbols(line))),
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

    def _without_symbols(self, line: str) -> str:
        for symbol in self._symbols:
            line = line.replace(symbol, "")
        return line

    def kinds(self) -> list[tuple[str, LineNumbers, str, str]]:
        """Each kind, its lines, what it is, and the remedy."""
        return [
            ("white space", self._spaces, "white space other than the space", "each run of it is read as one space"),
            ("white space", self._invisible, "characters that show nothing", "they are removed"),
            ("entity", self._entities, "character references of HTML, such as &apos;", "unescape them"),
            ("markup", self._markup, "markup around text, or records", "take the text out of it"),
            (
                "tag",
                self._tags,
                "tags of markup, such as <b>",
                "take the tags out; those that both sides have alike can stay, data.placeholders=('tag',) learns them",
            ),
            ("table row", self._rows, "cells with tabs or bars between them", "a table, or columns that were not cut?"),
        ]

    def findings(self, path: str) -> list[Finding]:
        """What holds of the text as a whole."""
        found = []
        if self._is_header:
            text = (
                f"{path}: line 1 names a column, and is no text: take it out on both sides, or name a table's columns "
                "as it does, as in pairs.tsv#English"
            )
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
