"""A glossary: which terms of a text have to be said how in its translation.

A file has a source term, a tab and a target term on each line, and may have a third column: `case` where the source
term is found only as it is written, with its capitals. Several lines of one source term are several ways to say it.
Blank lines, and lines that begin with `#`, say nothing.
"""

import pathlib
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from nmt_keras.data.scripts import TOKEN
from nmt_keras.errors import UserError
from nmt_keras.tokenizers.white_space import fold

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
            UserError: the file cannot be read, is no UTF-8, or a line is no entry.
        """
        try:
            text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise UserError(f"Cannot read the glossary {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"The glossary {path} is no UTF-8, at byte {error.start:,}: save it as UTF-8") from error
        entries, mistakes = [], []
        for number, line in enumerate(text.split("\n"), 1):
            line = line.rstrip("\r")
            if not line.strip() or line.startswith("#"):
                continue
            try:
                entries.append(_entry(line))
            except UserError as error:
                mistakes.append(f"Line {number:,} of the glossary {path}, {line!r:.60}: {error}")
        if mistakes:
            more = f"; {len(mistakes) - 1:,} more lines are no entries" if len(mistakes) > 1 else ""
            raise UserError(mistakes[0] + more)
        return cls(entries)

    def __len__(self) -> int:
        """The number of source terms."""
        return sum(map(len, self._entries.values()))

    def terms_of(self, text: str) -> list[tuple[str, ...]]:
        """The ways to say each source term of a text, once each, in the order of the text.

        A longer term is taken before a shorter one that begins at the same word, and words belong to one term alone.
        """
        text = unicodedata.normalize("NFC", fold(text))
        tokens = [(match[0], match.start(), match.end()) for match in TOKEN.finditer(text)]
        folded = [token.casefold() for token, *_ in tokens]
        found: dict[tuple[str, ...], None] = {}
        place = 0
        while place < len(tokens):
            length, targets = self._longest_at(text, tokens, folded, place)
            if targets:
                found[targets] = None
            place += max(length, 1)
        return list(found)

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
