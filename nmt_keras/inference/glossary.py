"""A glossary: which terms of a text have to be said how in its translation.

A file has a source term, a tab and a target term on each line, and may have a third column: `case` where the source
term is found only as it is written, with its capitals. Several lines of one source term are several ways to say it.
Blank lines, and lines that begin with `#`, say nothing.
"""

import collections
import itertools
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from nmt_keras.config import DecodingConfig
from nmt_keras.constants import TERM_MARKS
from nmt_keras.data.scripts import TOKEN
from nmt_keras.errors import UserError
from nmt_keras.reports import Report
from nmt_keras.tokenizers.white_space import fold

if TYPE_CHECKING:
    from nmt_keras.inference.translation import Translation

MAX_TERMS = 16  # of a text; those beyond are not placed
MAX_CHARACTERS = 200  # of a term


class _Entry(NamedTuple):
    source: str
    match_case: bool
    targets: tuple[str, ...]


class Glossary:
    """Finds the source terms of a text as whole words.

    Example:
        glossary = Glossary.read("terms.tsv")
        texts = ["The dog sleeps."]
        client.translate(texts, terms=[glossary.terms_of(text) for text in texts])

    Args:
        entries: of each a source term, a way to say it, and whether its capitals count.

    Raises:
        UserError: a term is empty or longer than 200 characters.
    """

    def __init__(self, entries: Iterable[tuple[str, str, bool]]):
        ways: dict[tuple[str, bool], dict[str, None]] = {}
        for source, target, match_case in entries:
            source, target = _term(source), _term(target)
            ways.setdefault((source if match_case else source.casefold(), match_case), {})[target] = None
        self._entries: dict[tuple[str, ...], list[_Entry]] = {}
        for (source, match_case), targets in ways.items():
            key = tuple(token.casefold() for token in TOKEN.findall(source))
            self._entries.setdefault(key, []).append(_Entry(source, match_case, tuple(targets)))
        self._longest = max(map(len, self._entries), default=0)

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "Glossary":
        """The glossary in a file.

        Raises:
            UserError: the file cannot be read, is no UTF-8, has no entry, or a line is none.
        """
        try:
            text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise UserError(f"Cannot read the glossary {path}: {error.strerror}; check its name") from error
        except UnicodeDecodeError as error:
            raise UserError(f"The glossary {path} is no UTF-8, at byte {error.start:,}: save it as UTF-8") from error
        entries, mistakes = _entries(text, f"the glossary {path}", _entry)
        if mistakes:
            more = f"; {len(mistakes) - 1:,} more lines are no entries" if len(mistakes) > 1 else ""
            raise UserError(mistakes[0] + more)
        if not entries:
            raise UserError(
                f"The glossary {path} has no terms: each line must be a source term, a tab and a target term"
            )
        return cls(entries)

    @classmethod
    def typed(cls, text: str) -> tuple["Glossary", list[str]]:
        """The glossary of a text that a person types: `source = target` a line, or a line as in a file.

        Returns:
            The glossary of the lines that are entries, and of each other line what is wrong with it.
        """
        entries, mistakes = _entries(text, "the glossary", _typed_entry)
        return cls(entries), mistakes

    def __len__(self) -> int:
        """The number of source terms."""
        return sum(map(len, self._entries.values()))

    def terms_of(self, text: str) -> list[tuple[str, ...]]:
        """The ways to say each source term of a text, once each, in the order of the text.

        A longer term is taken before a shorter one that begins at the same word, and words belong to one term alone.
        """
        return list({ways: None for *_, ways in self._found(_folded(text))})

    def annotated(self, text: str, choose: Callable[[tuple[str, ...]], str | None] = lambda ways: ways[0]) -> str:
        """A text with its terms as a model reads them that was trained with annotated terms: after each source term, in
        `TERM_MARKS`, what it is in the translation (Dinu et al. 2019, "append"). A text without terms stays as it is.

        Args:
            text: of the source language.
            choose: of the ways to say a term the one that is written; None leaves the term as it is.
        """
        begin, middle, end = TERM_MARKS
        folded, out, done = _folded(text), "", 0
        for start, stop, ways in self._found(folded):
            said = choose(ways)
            if said is not None:
                out += f"{folded[done:start]}{begin}{folded[start:stop]}{middle}{said}{end}"
                done = stop
        return out + folded[done:] if done else text

    def _found(self, text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Where each term of a folded text starts and ends, and the ways to say it."""
        tokens = [(match[0], match.start(), match.end()) for match in TOKEN.finditer(text)]
        folded = [token.casefold() for token, *_ in tokens]
        place = 0
        while place < len(tokens):
            length, ways = self._longest_at(text, tokens, folded, place)
            if ways:
                yield tokens[place][1], tokens[place + length - 1][2], ways
            place += max(length, 1)

    def _longest_at(
        self, text: str, tokens: list[tuple[str, int, int]], folded: list[str], place: int
    ) -> tuple[int, tuple[str, ...]]:
        """How many tokens the longest term at a place has, and the ways to say it; 0 and none where there is none."""
        for length in range(min(self._longest, len(tokens) - place), 0, -1):
            entries = self._entries.get(tuple(folded[place : place + length]))
            if entries is None:
                continue
            written = " ".join(text[tokens[place][1] : tokens[place + length - 1][2]].split())
            for entry in sorted(entries, key=lambda each: not each.match_case):  # the stricter one first
                if entry.source == (written if entry.match_case else written.casefold()):
                    return length, entry.targets
        return 0, ()


def stands_in(term: str, text: str) -> bool:
    """Whether a text has a term as whole words, in its capitals."""
    return bool(places_of(term, _folded(text)))


def places_of(term: str, text: str) -> list[range]:
    """Where a text has a term as whole words, in its capitals: by the numbers of the text's tokens."""
    written = " ".join(_folded(term).split())
    length = len(TOKEN.findall(written))
    tokens = [(match.start(), match.end()) for match in TOKEN.finditer(text)]
    return [
        range(number, number + length)
        for number, (first, last) in enumerate(zip(tokens, tokens[length - 1 :]) if length else ())
        if " ".join(unicodedata.normalize("NFC", text[first[0] : last[1]]).split()) == written
    ]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", fold(text))


def require_takes_terms(decoding: DecodingConfig) -> None:
    """Checks that a search places terms.

    Raises:
        UserError: it does not.
    """
    if decoding.recombine or decoding.beam_groups > 1 or not decoding.terms_beam_size:
        raise UserError(
            "--glossary goes with plain beam search: leave out decoding.recombine, .beam_groups and .terms_beam_size=0"
        )


class PlacedTerms:
    """The terms of lines, and which of them are in the translations.

    Args:
        glossary: finds them.
        report: takes a line for the user, where a line has more terms than are looked at.
        is_annotated: whether the model reads them in its text, in place of a search that places them.

    Attributes:
        num_found: terms of the lines that `placed` was told of.
        num_placed: those of them that are in the best translation.
    """

    _SHOWN = 5  # lines that lack a term, in the summary

    def __init__(self, glossary: Glossary, report: Report, is_annotated: bool = False):
        self.num_found = self.num_placed = 0
        self.is_annotated = is_annotated
        self._glossary = glossary
        self._report = report
        self._first = 0  # lines that came before
        self._waiting: collections.deque[list[tuple[str, ...]]] = collections.deque()
        self._lacking: list[str] = []

    def found(self, lines: Iterable[str], first: int = 0) -> Iterator[list[tuple[str, ...]]]:
        """The terms of each line; `first` lines came before."""
        self._first = first
        for number, line in enumerate(lines, first + 1):
            terms = self._glossary.terms_of(line)
            if len(terms) > MAX_TERMS and not self.is_annotated:
                self._report(
                    f"warning: line {number} has {len(terms)} terms of the glossary: {MAX_TERMS} are looked at"
                )
            self._waiting.append(terms)
            yield terms

    def annotated(self, lines: Iterable[str], first: int = 0) -> Iterator[str]:
        """Each line with its terms, as `Glossary.annotated` has it; `first` lines came before."""
        lines, again = itertools.tee(lines)
        for line, _ in zip(again, self.found(lines, first)):
            yield self._glossary.annotated(line)

    def placed(self, number: int, translation: "Translation") -> list[list[tuple[str, bool]]]:
        """The terms of each hypothesis of the next line, as the ways to say each, and whether they are placed."""
        terms = self._waiting.popleft()
        names = [" | ".join(ways) for ways in terms]
        known: Iterable[Iterable[bool]] = (each.outputs.get("is_term_placed", ()) for each in translation.hypotheses)
        if self.is_annotated:
            known = (
                [any(stands_in(way, each.text) for way in ways) for ways in terms] for each in translation.hypotheses
            )
        placed = [list(zip(names, itertools.chain(each, itertools.repeat(False)))) for each in known]
        lacking = [name for name, is_placed in placed[0] if not is_placed]
        self.num_found += len(names)
        self.num_placed += len(names) - len(lacking)
        if lacking:
            self._lacking.append(f"line {number} lacks {', '.join(map(repr, lacking))}")
        return placed

    def summary(self) -> str:
        """A line for the user."""
        shown = "; ".join(self._lacking[: self._SHOWN]) + "; ..." * (len(self._lacking) > self._SHOWN)
        since = f" after line {self._first:,}" if self._first else ""
        return f"glossary: {self.num_placed:,} of {self.num_found:,} terms placed{since}{'; ' if shown else ''}{shown}"


def _entries(
    text: str, name: str, read: Callable[[str], tuple[str, str, bool]]
) -> tuple[list[tuple[str, str, bool]], list[str]]:
    """The entries of a text, and of each line that is none what is wrong with it."""
    entries, mistakes = [], []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        try:
            entries.append(read(line))
        except UserError as error:
            mistakes.append(f"Line {number:,} of {name}, {line!r:.60}: {error}")
    return entries, mistakes


def _typed_entry(line: str) -> tuple[str, str, bool]:
    if "\t" in line:
        return _entry(line)
    source, equals, target = line.partition("=")
    if not (equals and source.strip() and target.strip()):
        raise UserError("an entry is a source term, = and a target term, as in dog = Hund")
    return _term(source), _term(target), False


def _entry(line: str) -> tuple[str, str, bool]:
    columns = line.split("\t")
    if len(columns) not in (2, 3):
        raise UserError("an entry is a source term, a tab and a target term, and may have a third column: case")
    option = columns[2].strip() if len(columns) == 3 else ""
    if option not in ("", "case"):
        raise UserError(f"the third column is empty or the word case. Received: {option!r:.30}")
    return _term(columns[0]), _term(columns[1]), option == "case"


def _term(text: str) -> str:
    """A term with its white space folded, without characters that show nothing."""
    folded = unicodedata.normalize("NFC", fold(text))
    if not folded:
        raise UserError("a term is empty: give a source term and a target term, with a tab between them")
    if len(folded) > MAX_CHARACTERS:
        raise UserError(f"a term has {len(folded):,} characters, at most {MAX_CHARACTERS} are allowed: {folded!r:.40}")
    return folded
