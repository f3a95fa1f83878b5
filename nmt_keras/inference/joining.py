"""Translations of the sentences of a text, joined into one that still says what of the text each piece reads."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import regex

from nmt_keras.inference.strings import to_bytes
from nmt_keras.inference.translation import Hypothesis, Translation

# What ends a sentence of a script that has no space after it; a regular expression of RE2's too.
NO_SPACE_AFTER = r"[\p{Han}\p{Hiragana}\p{Katakana}。！？，、；：｡」』）》〉】][”’…]*"
_NO_SPACE = regex.compile(rf"{NO_SPACE_AFTER}\Z")


class Part(NamedTuple):
    """A sentence of a text, a part of one that is too long, or a line break between sentences."""

    text: str
    is_break: bool


def joined(text: str, parts: Sequence[Part], translations: Iterator[Translation], truncated: bool) -> Translation:
    """The translation of a text, made of those of its sentences.

    Bytes of pieces are those of the text and of the whole translation; a piece that reads only `</s>` reads nothing.

    Args:
        text: the whole.
        parts: of it, in order.
        translations: of those that are no line breaks; as many are taken.
        truncated: whether `parts` lack the end of the text.
    """
    out = _Joining(text)
    for part in parts:
        if part.is_break:
            out.add_break(part.text)
        else:
            translation = next(translations)
            truncated |= translation.truncated
            out.add(part.text, translation)
    return out.translation(truncated)


class _Joining:
    """A translation that grows, sentence by sentence."""

    def __init__(self, text: str):
        self._source = text
        self._at = 0  # the character of the source after what was joined
        self._at_byte = 0
        self._text = ""
        self._is_open = False  # whether a sentence came since the last line break
        self._log_prob = self._score = 0.0
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._alignment: list[int] = []
        self._source_starts: list[int] = []
        self._source_ends: list[int] = []

    def add_break(self, text: str) -> None:
        """Adds a line break as it came."""
        self._text += text
        self._is_open = False

    def add(self, part: str, translation: Translation) -> None:
        """Adds the translation of the next sentence, with a space before it unless the script has none there."""
        best, outputs = translation.best, translation.outputs
        self._log_prob += best.log_prob
        self._score += best.score
        places = self._places(part)
        if best.text:
            self._text += " " * bool(self._is_open and not _NO_SPACE.search(self._text))
            self._is_open = True
        start, before = len(to_bytes(self._text)), len(self._source_starts)
        self._text += best.text
        starts, ends = (outputs.get(f"source_piece_{side}", [])[:-1] for side in ("starts", "ends"))
        self._source_starts += [places[each] for each in starts]
        self._source_ends += [places[each - 1] + 1 if each else places[0] for each in ends]
        for first, last, aligned in zip(
            best.outputs.get("piece_starts", ()), best.outputs.get("piece_ends", ()), best.alignment
        ):
            self._starts.append(start + first)
            self._ends.append(start + last)
            reads = 0 <= aligned < len(starts) and ends[aligned] > 0  # no </s>, and no tag of a language
            self._alignment.append(before + aligned if reads else -1)

    def translation(self, truncated: bool) -> Translation:
        """What was joined. It says nothing of `</s>`."""
        outputs = {"piece_starts": self._starts, "piece_ends": self._ends}
        hypothesis = Hypothesis(self._text, self._log_prob, self._score, alignment=self._alignment, outputs=outputs)
        source = {"source_piece_starts": self._source_starts, "source_piece_ends": self._source_ends}
        return Translation([hypothesis], truncated, outputs=source)

    def _places(self, part: str) -> list[int]:
        """The byte of the text where each byte of a part of it is, and where the part ends.

        White space is folded in a part, and what shows nothing is not in it; all else is, in order.
        """
        places: list[int] = []
        for character in part:
            size = len(to_bytes(character))
            found = -1 if character == " " else self._source.find(character, self._at)
            if found >= 0:
                self._at_byte += len(to_bytes(self._source[self._at : found]))
                self._at = found + 1
                places += range(self._at_byte, self._at_byte + size)
                self._at_byte += size
            else:
                places += [self._at_byte] * size
        return [*places, self._at_byte]
