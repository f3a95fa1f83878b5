"""The words of the quickstart's corpus, in both languages; they are read from words.tsv."""

import pathlib
from functools import lru_cache
from typing import NamedTuple


class Word(NamedTuple):
    rank: int
    forms: tuple[str, ...]
    zh: str
    tag: str
    kind: str

    @property
    def en(self) -> str:
        return self.forms[0]


WORDS: list[Word] = []
KINDS: dict[str, list[Word]] = {}
_DOUBLED = {"swim": "swimm", "run": "runn", "cut": "cutt", "chat": "chatt"}


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeou" else noun + "s"


def _verb_forms(forms: list[str]) -> tuple[str, ...]:
    """Base, past, participle, -ing and third person; words after the last form given follow all of them."""
    last, _, rest = forms[-1].partition(" ")
    forms = [*forms[:-1], last]
    base = forms[0]
    stem = _DOUBLED.get(base, base[:-1] if base.endswith("e") and not base.endswith("ee") else base)
    regular = base[:-1] + "ied" if base.endswith("y") and base[-2] not in "aeou" else stem + "ed"
    past = forms[1] if len(forms) > 1 else regular
    third = {"have": "has", "do": "does", "go": "goes"}.get(base) or _plural(base)
    found = (base, past, forms[2] if len(forms) > 2 else past, stem + "ing", third)
    return tuple(f"{form} {rest}".strip() for form in found)


def _load(kind: str, english: str, zh: str, tag: str) -> None:
    """Adds a word; its other forms stand behind plus signs, or follow the rules of its kind."""
    forms = tuple(english.split("+"))
    if kind in ("verb", "act", "hand", "say", "come", "meal", "modal"):
        forms = _verb_forms(list(forms))
    elif kind == "place":
        forms = (forms[1], forms[0])
    elif "/" in english:  # a unit and what it holds: cup/tea
        unit, head = english.split("/")
        forms = (head, f"{_plural(unit)} of ~{head}", f"{unit} of ~{head}")
    elif tag and len(forms) == 1 and kind not in ("name", "adj", "city", "by", "state"):
        forms = (english, _plural(english))
    word = Word(len(WORDS), forms, zh, tag, kind)
    WORDS.append(word)
    KINDS.setdefault(kind, []).append(word)


def _load_all() -> None:
    """Reads words.tsv: kind, English, Chinese, and a tag whose meaning is that of the kind. The order of the lines is
    that of the words' ranks, which decide what is held out."""
    text = pathlib.Path(__file__).with_name("words.tsv").read_text(encoding="utf-8")
    for line in text.removesuffix("\n").split("\n")[1:]:
        kind, english, zh, tag = line.split("\t")
        _load(kind, english, zh, tag)


@lru_cache(maxsize=None)
def words_of(kinds: tuple[str, ...]) -> tuple[Word, ...]:
    return tuple(word for kind in kinds for word in KINDS[kind])


def bare(noun: Word) -> str:
    return noun.en if "~" in noun.forms[-1] or len(noun.forms) == 1 else noun.forms[1]


def single(noun: Word, adjective: str) -> str:
    return noun.forms[2].replace("~", adjective) if "~" in noun.forms[-1] else adjective + noun.en


def attributive(word: Word) -> str:
    return word.zh if "1" in word.tag else f"很{word.zh}的" if "H" in word.tag else word.zh + "的"


@lru_cache(maxsize=None)
def adjectives(groups: str) -> tuple[Word, ...]:
    return tuple(word for word in KINDS["adj"] if set(groups) & set(word.tag))


@lru_cache(maxsize=None)
def places(group: str) -> tuple[Word, ...]:
    return tuple(word for word in KINDS["place"] if set(group) & set(word.tag))


@lru_cache(maxsize=None)
def find(english: str, kind: str = "") -> Word:
    return next(word for word in WORDS if word.en == english and kind in ("", word.kind))


_load_all()
