"""Whether a line is in the script of a language, its words, and what a word is made of."""

import re
import unicodedata

import regex

from nmt_keras.data.languages import language_of

_RANGES = {
    "Latin": "A-Za-z\u00aa\u00ba\u00c0-\u02af\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff\uff21-\uff3a\uff41-\uff5a",
    "Cyrillic": "\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff",
    "Hebrew": "\u0590-\u05ff\ufb1d-\ufb4f",
    "Devanagari": "\u0900-\u097f\ua8e0-\ua8ff",
    "Bengali": "\u0980-\u09ff",
    "Gurmukhi": "\u0a00-\u0a7f",
    "Gujarati": "\u0a80-\u0aff",
    "Tamil": "\u0b80-\u0bff",
    "Telugu": "\u0c00-\u0c7f",
    "Kannada": "\u0c80-\u0cff",
    "Malayalam": "\u0d00-\u0d7f",
    "Sinhala": "\u0d80-\u0dff",
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Myanmar": "\u1000-\u109f",
    "Georgian": "\u10a0-\u10ff\u1c90-\u1cbf\u2d00-\u2d2f",
    "Armenian": "\u0530-\u058f",
    "Ethiopic": "\u1200-\u139f",
    "Khmer": "\u1780-\u17ff\u19e0-\u19ff",
    "Tibetan": "\u0f00-\u0fff",
    "Oriya": "\u0b00-\u0b7f",
    "Ol Chiki": "\u1c50-\u1c7f",
    "Thaana": "\u0780-\u07bf",
    "Tifinagh": "\u2d30-\u2d7f",
    "Han": "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "Kana": "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Hangul": "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff",
}
WITHOUT_SPACES = re.compile(
    f"[{''.join(_RANGES[name] for name in ('Han', 'Kana', 'Thai', 'Lao', 'Khmer', 'Myanmar', 'Tibetan'))}]"
)
# A word of a script with spaces, its marks included, or any other character.
TOKEN = regex.compile(rf"(?:(?!{WITHOUT_SPACES.pattern})[\p{{L}}\p{{N}}\p{{M}}])+|\S")
_MIN_LETTERS = 6  # letters needed to judge a line; one of a script without spaces, almost a word, counts twice


class ScriptCheck:
    """Whether lines are written as a language is.

    Args:
        language: its tag, as `language_of` takes it. One that is not known is taken to be written in any way.
    """

    def __init__(self, language: str):
        self.scripts = language_of(language).scripts
        ranges = "".join(_RANGES[name] for name in self.scripts)
        self._letters = re.compile(f"[{ranges}]") if ranges else None

    def share(self, letters: str) -> float:
        """The share of letters that are of the language's script; 1 if the script is unknown, 0 without letters."""
        if self._letters is None:
            return 1.0
        return len(self._letters.findall(letters)) / max(len(letters), 1)

    def is_foreign(self, line: str) -> bool:
        """Whether the line has letters, and most of them are of another script; a few letters say nothing."""
        if self._letters is None:
            return False
        own = len(self._letters.findall(line))
        if 2 * own >= len(line):
            return False
        letters = sum(map(str.isalpha, line))
        return 2 * own < letters and letters + len(WITHOUT_SPACES.findall(line)) >= _MIN_LETTERS


def script_of(text: str) -> str:
    """Names the script of most letters of a text as people do: Japanese if there is any Kana, Chinese for Han, Korean
    for Hangul; "" where no letter is of a known script."""
    counts = {name: len(re.findall(f"[{ranges}]", text)) for name, ranges in _RANGES.items()}
    if counts["Kana"]:
        return "Japanese"
    name = max(counts, key=lambda name: counts[name])
    return {"Han": "Chinese", "Hangul": "Korean"}.get(name, name) if counts[name] else ""


def words(line: str) -> list[str]:
    """The words of a line, for statistics: between spaces, and single characters of scripts without spaces."""
    spaced = WITHOUT_SPACES.sub(lambda match: f" {match[0]} ", line.casefold())
    return [
        word for part in spaced.split() if (word := part.strip(".,;:!?\"'()[]\u3002\uff0c\uff1f\uff01\u201c\u201d"))
    ]


def is_letter(character: str) -> bool:
    """Whether a character goes on with a word of a script with spaces: a letter, a digit or a mark; False of none."""
    return bool(character) and unicodedata.category(character)[0] in "LNM" and not WITHOUT_SPACES.match(character)
