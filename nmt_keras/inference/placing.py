"""Where in a translation goes what was taken out of its source: by what the model reads.

A pair of tags goes around the words that read most of what it was around, anything else after the word that reads the
one before it. Pairs that were in each other stay so, and two that were beside each other do not cross, whatever the
alignment; those that cross in the source may cross here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import regex

from nmt_keras.data.scripts import TOKEN, WITHOUT_SPACES, is_letter

_MAX_DEPTH = 50  # of tags in tags; those in these come back, but may be around other words
_BREAK = regex.compile(r"[\n\v\f\r\x85\u2028\u2029]")  # between sentences; it stays as it is
_TAG = regex.compile(r"<(?P<end>/)?(?P<name>[\p{L}_][\w.:-]*)(?:[^<>\"']|\"[^\"]*\"|'[^']*')*?(?P<empty>/)?>")


class Reading(NamedTuple):
    """What a translation reads of its text: bytes are those of the texts in UTF-8."""

    starts: Sequence[int]  # of each piece of the translation, its first byte
    ends: Sequence[int]
    alignment: Sequence[int]  # of each piece, the number of the source piece that it reads most; -1 for none
    source_starts: Sequence[int]  # of each source piece
    source_ends: Sequence[int]


class Span(NamedTuple):
    """What was taken out of a text."""

    text: str
    start: int  # in the text, in characters
    place: int  # in the text without what is protected, in bytes
    is_glued: tuple[bool, bool]  # whether a letter or another span is right before and right after it


class Pair(NamedTuple):
    """A tag that opens and the one that closes it, by their numbers among the spans."""

    first: int
    last: int


class Token(NamedTuple):
    """A word of a translation, or a character between words."""

    gap: str  # the white space before it
    text: str
    read: int | None  # the byte of the source that it reads


class _Node(NamedTuple):
    """A span, or a pair of tags, in the order of the source, and where it goes: before which token, up to which."""

    start: int
    end: int
    number: int  # of its span
    pair: Pair | None


class Placing:
    """Puts spans among the tokens of a translation.

    Args:
        spans: in the order of the source.
        pairs: of tags.
        tokens: of the translation.
        source: without the spans.
    """

    def __init__(self, spans: Sequence[Span], pairs: Sequence[Pair], tokens: list[Token], source: bytes):
        self._spans = spans
        self._source = source
        self._tokens = tokens
        if tokens and all(token.read is None for token in tokens):  # a model that reads nothing: as if in order
            words = [match.start() for match in regex.finditer(rb"\S+", source)]
            self._tokens = [
                token._replace(read=words[number * len(words) // len(tokens)]) for number, token in enumerate(tokens)
            ]
        crossing = {b for a in pairs for b in pairs if a.first < b.first < a.last < b.last}
        deep = set(pairs) - crossing - set(_shallow([pair for pair in pairs if pair not in crossing]))
        self._pairs = {pair.first: pair for pair in pairs if pair not in crossing | deep}
        self._loose = {number: pair for pair in crossing | deep for number in pair}
        self._opened: set[int] = set()  # of loose tags, those that are written
        self._gaps = [token.gap for token in tokens]  # the white space before each that is still to be written
        self._out = ""

    def text(self) -> str:
        """The translation with the spans."""
        self._write(0, len(self._tokens), 0, len(self._spans))
        return self._out

    def _write(self, low: int, high: int, first: int, last: int) -> None:
        """Writes tokens from `low` to before `high`, with the spans from `first` to before `last` among them."""
        cursor = low
        for node in sorted(self._nodes(low, high, first, last)):
            start = max(node.start, cursor)  # two pairs whose words are mixed do not cross
            self._write_tokens(cursor, start)
            cursor = start
            if node.pair is None:
                self._write_point(node.number, cursor)
            else:
                end = max(node.end, start)
                self._write_pair(node.pair, start, end)
                cursor = end
        self._write_tokens(cursor, high)

    def _nodes(self, low: int, high: int, first: int, last: int) -> list[_Node]:
        nodes = []
        number = first
        while number < last:
            pair = self._pairs.get(number)
            if pair is None:
                place = self._place_of(number, low, high)
                nodes.append(_Node(place, place, number, None))
                number += 1
                continue
            inside = self._inside(pair, low, high)
            place = inside[0] if inside else self._place_of(number, low, high)
            nodes.append(_Node(place, inside[-1] + 1 if inside else place, number, pair))
            number = pair.last + 1
        return nodes

    def _place_of(self, number: int, low: int, high: int) -> int:
        """The token before which a span goes that is no pair, or a pair around none."""
        place, is_glued = self._spans[number].place, self._spans[number].is_glued
        loose = self._loose.get(number)
        inside = self._inside(loose, low, high) if loose else []
        if loose and inside:
            return inside[0] if number == loose.first else inside[-1] + 1
        if not self._source[:place].strip():
            return low
        if not self._source[place:].strip():
            return high
        before = [(read, at) for at in range(low, high) if (read := self._tokens[at].read) is not None and read < place]
        following = self._next(place, low, high)
        goes_before = is_glued == (False, True) or self._begins_line(number)
        if before and (not goes_before or following is None):
            nearest = max(read for read, _ in before)
            return max(at for read, at in before if read == nearest) + 1
        return low if following is None else following

    def _begins_line(self, number: int) -> bool:
        """Whether a line break is right before a span in the source."""
        before = self._source[: self._spans[number].place].decode()
        return has_break(before[len(before.rstrip()) :])

    def _inside(self, pair: Pair, low: int, high: int) -> list[int]:
        """The tokens that read what a pair was around."""
        begin, end = (self._spans[each].place for each in pair)
        reads = ((at, self._tokens[at].read) for at in range(low, high))
        return [at for at, read in reads if read is not None and begin <= read < end]

    def _next(self, place: int, low: int, high: int) -> int | None:
        """The token that reads what is next after a place of the source."""
        after = [(read, at) for at in range(low, high) if (read := self._tokens[at].read) is not None and read >= place]
        return min(after)[1] if after else None

    def _write_tokens(self, start: int, end: int) -> None:
        for at in range(start, end):
            self._write_gap(self._gaps[at])
            self._out += self._tokens[at].text

    def _write_gap(self, gap: str) -> None:
        """Writes white space: a line break as it is, else one space where none is yet."""
        if has_break(gap):
            self._out += gap
        elif gap and self._out and not self._out[-1].isspace():
            self._out += " "

    def _write_pair(self, pair: Pair, start: int, end: int) -> None:
        """Writes a pair of tags around tokens; around none, with what is between them in the source."""
        self._write_gap(self._gaps[start] if start < end else " " * (not self._spans[pair.first].is_glued[0]))
        self._out += self._spans[pair.first].text
        if start < end:
            self._gaps[start] = ""
            self._write(start, end, pair.first + 1, pair.last)
        else:
            for number in range(pair.first + 1, pair.last):
                self._write_span(number)
        self._out += self._spans[pair.last].text

    def _write_point(self, number: int, at: int) -> None:
        """Writes a span before a token: with the word that it stood at, before or after it, or by itself."""
        span = self._spans[number]
        is_after, is_before = span.is_glued
        gap = " " * (not is_after and _takes_space(self._out[-1:]))
        if is_before and not is_after and at < len(self._tokens):
            gap, self._gaps[at] = self._gaps[at], ""
        elif at < len(self._tokens) and has_break(self._gaps[at]) and self._begins_line(number):
            gap, self._gaps[at] = self._gaps[at], " "
        elif not is_before and at < len(self._tokens) and is_letter(self._tokens[at].text[0]):
            self._gaps[at] = self._gaps[at] or " " * _takes_space(self._tokens[at].text[0])
        self._write_gap(gap)
        self._write_span(number)

    def _write_span(self, number: int) -> None:
        """Writes a span; a loose tag that closes waits for the one that opens."""
        pair = self._loose.get(number)
        if pair is None:
            self._out += self._spans[number].text
        elif number == pair.first:
            self._out += self._spans[number].text
            self._opened.add(number)
            if pair.last in self._opened:
                self._out += self._spans[pair.last].text
        else:
            if pair.first in self._opened:
                self._out += self._spans[number].text
            self._opened.add(number)


def _takes_space(neighbour: str) -> bool:
    """Whether a space belongs between a character and what is not its own word."""
    return bool(neighbour) and not WITHOUT_SPACES.match(neighbour) and neighbour not in "([{„“‘«¿¡，。、；：！？（「『"


def _shallow(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, none of which cross, that are in fewer than `_MAX_DEPTH` others."""
    around: list[int] = []
    kept = []
    for pair in sorted(pairs):
        while around and around[-1] < pair.first:
            around.pop()
        if len(around) < _MAX_DEPTH:
            kept.append(pair)
        around.append(pair.last)
    return kept


def is_inline(span: str) -> bool:
    """Whether a span is a tag that may stand within a word."""
    match = _TAG.fullmatch(span)
    return match is not None and not match["empty"] and match["name"].lower() not in ("br", "hr")


def has_break(text: str) -> bool:
    """Whether there is a line break."""
    return _BREAK.search(text) is not None


def pairs_of(spans: Sequence[str]) -> list[Pair]:
    """The pairs among tags: each that closes, with the nearest open one of its name."""
    pairs, waiting = [], []
    for number, span in enumerate(spans):
        match = _TAG.fullmatch(span)
        if match is None or match["empty"]:
            continue
        if not match["end"]:
            waiting.append((match["name"], number))
            continue
        own = [place for place, (name, _) in enumerate(waiting) if name == match["name"]]
        if own:
            pairs.append(Pair(waiting.pop(own[-1])[1], number))
    return pairs


def tokens_of(text: str, reading: Reading) -> list[Token]:
    """The tokens of a translation with what each reads: what the first of its pieces does that reads anything."""
    tokens, end, byte = [], 0, 0
    pieces = sorted(zip(reading.starts, reading.ends, reading.alignment))
    for match in TOKEN.finditer(text):
        gap = text[end : match.start()]
        start_byte = byte + len(gap.encode())
        byte = start_byte + len(match[0].encode())
        end = match.end()
        read = None
        for piece_start, piece_end, aligned in pieces:
            if not 0 <= aligned < len(reading.source_ends) or not reading.source_ends[aligned]:
                continue  # what reads </s>, or the tag of a language, reads no word
            if piece_start < byte and piece_end > start_byte:
                read = (reading.source_starts[aligned] + reading.source_ends[aligned]) // 2
                read = max(read, reading.source_ends[aligned] - 1) if read == reading.source_starts[aligned] else read
                break
        tokens.append(Token(gap if has_break(gap) else " " * bool(gap), match[0], read))
    return tokens
