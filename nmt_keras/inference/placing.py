"""Where in a translation goes what was taken out of its source: by what the model reads.

A pair of tags goes around the words that read most of what it was around, anything else after the word that reads the
one before it. Pairs that were in each other stay so, and two that were beside each other do not cross, whatever the
alignment; those that cross in the source may cross here. Nothing goes into a term that the translation must contain.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import regex

from nmt_keras.data.scripts import TOKEN, WITHOUT_SPACES, is_letter

_MAX_DEPTH = 50  # of tags in tags; those in these come back, but may be around other words
_BREAK = regex.compile(r"[\n\v\f\r\x85\u2028\u2029]")  # between sentences; it stays as it is
_TAG = regex.compile(
    r"<(?P<end>/)?(?P<name>[\p{L}_][\w.:-]*)(?:(?:[^<>\"']|\"[^\"]*\"|'[^']*')*?|[^<>]*?)(?P<empty>/)?>"
)
_BLOCKS = frozenset(  # elements of HTML that end a word; any other name may stand within one
    "address article aside blockquote body br button caption center col colgroup dd details dialog div dl dt fieldset "
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html iframe img input legend li link main "
    "menu meta nav object ol optgroup option p pre section select source style summary table tbody td template "
    "textarea tfoot th thead title tr track ul video".split()
)
TAKEN_OUT = "\t"  # in a translation, which has none of its own: a byte of what was taken out of it
ENCLOSING = frozenset(("()", "[]", '""', "''", "„“", "“”", "‘’", "«»", "»«", "「」", "『』", "（）", "《》"))
_OPENING = "([{„‘«¿¡（「『"  # what has no space after it
_NEVER_AFTER_A_SPACE = ".,)]}"  # in any language
_FULL_WIDTH = "，。、；：！？"
CLOSING = ".,;:!?)]}»…%”’）」』" + _FULL_WIDTH  # what has no space before it


class Reading(NamedTuple):
    """What a translation reads of its text: bytes are those of the texts in UTF-8."""

    starts: Sequence[int]  # of each piece of the translation, its first byte
    ends: Sequence[int]
    alignment: Sequence[int]  # of each piece, the number of the source piece that it reads most; -1 for none
    source_starts: Sequence[int]  # of each source piece
    source_ends: Sequence[int]


class Side(NamedTuple):
    """What is beside a span in its text."""

    character: str  # the nearest one that is no white space; "" where there is none
    is_apart: bool  # whether there is white space between, or nothing
    is_span: bool  # whether the character is of another span

    @property
    def is_glued(self) -> bool:
        """Whether a letter or another span touches the span."""
        return not self.is_apart and (self.is_span or is_letter(self.character))


class Span(NamedTuple):
    """What was taken out of a text."""

    text: str
    start: int  # in the text, in characters
    place: int  # in the text without what is protected, in bytes
    left: Side
    right: Side
    is_open: bool = False  # of a tag: it stands before the translation already

    @property
    def written(self) -> str:
        """What is written for it."""
        return "" if self.is_open else self.text

    @property
    def is_tag(self) -> bool:
        """Whether it is one, or what looks like one."""
        return self.text.startswith("<")


class Pair(NamedTuple):
    """A tag that opens and the one that closes it, by their numbers among the spans."""

    first: int
    last: int


class Token(NamedTuple):
    """A word of a translation, or a character between words."""

    gap: str  # the white space before it
    text: str
    read: range | None  # the bytes of the source that it reads

    @property
    def at(self) -> int | None:
        """The byte in the midst of what it reads."""
        return None if self.read is None else (self.read.start + self.read.stop) // 2


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
        whole: tokens that stay together, such as those of a term of several words.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        pairs: Sequence[Pair],
        tokens: list[Token],
        source: bytes,
        whole: Iterable[range] = (),
    ):
        self._spans = spans
        self._source = source
        self._tokens = tokens
        if tokens and all(token.read is None for token in tokens):  # a model that reads nothing: as if in order
            words = [range(*match.span()) for match in regex.finditer(rb"\S+", source)]
            self._tokens = [
                token._replace(read=words[number * len(words) // len(tokens)]) for number, token in enumerate(tokens)
            ]
        crossing = _crossing(pairs)
        deep = set(pairs) - crossing - set(_shallow([pair for pair in pairs if pair not in crossing]))
        self._pairs = {pair.first: pair for pair in pairs if pair not in crossing | deep}
        self._loose = {number: pair for pair in crossing | deep for number in pair}
        self._opened: set[int] = set()  # of loose tags, those that are written
        self._around = _joined(whole)
        self._gaps = [token.gap for token in tokens]  # the white space before each that is still to be written
        self._out = ""
        self._last: int | None = None  # the number of a span that nothing is written after yet

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
                self._write_point(node.number, cursor, high)
            else:
                end = max(node.end, start)
                self._write_pair(node.pair, start, end, high)
                cursor = end
        self._write_tokens(cursor, high)

    def _nodes(self, low: int, high: int, first: int, last: int) -> list[_Node]:
        nodes = []
        begin = self._spans[first - 1].place if first else 0  # of what the pair around these spans was around
        end = self._spans[last].place if last < len(self._spans) else len(self._source)
        number = first
        while number < last:
            pair = self._pairs.get(number)
            if pair is None:
                place = self._nearest_border(self._place_of(number, low, high))
                nodes.append(_Node(place, place, number, None))
                number += 1
                continue
            inside = self._inside(pair, low, high)
            if self._spans[number].is_open:
                nodes.append(_Node(low, self._around_of(inside[-1] + 1).stop if inside else low, number, pair))
                number = pair.last + 1
                continue
            place = inside[0] if inside else self._place_of(number, low, high)
            stop = inside[-1] + 1 if inside else place
            # Where nothing was before or behind it, no sign is here: the full stop of a paragraph is in it.
            if inside and not self._source[begin : self._spans[pair.first].place].strip():
                while place > low and self._is_sign(place - 1):
                    place -= 1
            if inside and not self._source[self._spans[pair.last].place : end].strip():
                while stop < high and self._is_sign(stop):
                    stop += 1
            if inside:
                place, stop = self._around_of(place).start, self._around_of(stop).stop
            else:
                place = stop = self._nearest_border(place)
            nodes.append(_Node(place, stop, number, pair))
            number = pair.last + 1
        return nodes

    def _place_of(self, number: int, low: int, high: int) -> int:
        """The token before which a span goes that is no pair, or a pair around none."""
        span = self._spans[number]
        place = span.place
        if span.is_open:
            return low
        loose = self._loose.get(number)
        inside = self._inside(loose, low, high) if loose else []
        if loose and inside:
            return self._around_of(inside[0]).start if number == loose.first else self._around_of(inside[-1] + 1).stop
        if not self._source[:place].strip():
            return low
        if not self._source[place:].strip():
            return high
        at = self._place_by_reading(number, place, low, high)
        rest = self._source[place:].decode().strip()
        if at == high and rest and all(character in CLOSING for character in rest):
            while at > low and self._tokens[at - 1].text in rest:  # what is before the full stop stays there
                at -= 1
        return at

    def _place_by_reading(self, number: int, place: int, low: int, high: int) -> int:
        """The token before which goes what is at a place of the source: after the one that reads what is before it."""
        span = self._spans[number]
        before = [(read, at) for at in range(low, high) if (read := self._tokens[at].at) is not None and read < place]
        following = self._next(place, low, high)
        goes_before = span.right.is_glued and not span.left.is_glued or self._begins_line(number)
        if before and (not goes_before or following is None):
            nearest = max(read for read, _ in before)
            return max(at for read, at in before if read == nearest) + 1
        return low if following is None else following

    def _around_of(self, place: int) -> range:
        """The tokens that stay together and would be cut at a place; none, there, where nothing would be."""
        return next((each for each in self._around if each.start < place < each.stop), range(place, place))

    def _nearest_border(self, place: int) -> int:
        """The nearest place at which no tokens are cut that stay together, the later one of two."""
        around = self._around_of(place)
        return around.start if place - around.start < around.stop - place else around.stop

    def _is_sign(self, at: int) -> bool:
        """Whether a token is no word, or reads nothing, and so belongs to what is beside it."""
        text = self._tokens[at].text
        is_word = is_letter(text[0]) or WITHOUT_SPACES.match(text) is not None
        return not is_word or self._tokens[at].read is None

    def _begins_line(self, number: int) -> bool:
        """Whether a line break is right before a span in the source."""
        before = self._source[: self._spans[number].place].decode()
        return has_break(before[len(before.rstrip()) :])

    def _inside(self, pair: Pair, low: int, high: int) -> list[int]:
        """The tokens that read what a pair was around; where words do, no signs that are away from them."""
        begin, end = (self._spans[each].place for each in pair)
        reads = ((at, self._tokens[at].read) for at in range(low, high))
        found = [at for at, read in reads if read is not None and read.start < end and begin < read.stop]
        words = [at for at in found if not self._is_sign(at)]
        if not words:
            return found
        first, last = words[0], words[-1]
        while first - 1 in found:
            first -= 1
        while last + 1 in found:
            last += 1
        return [at for at in found if first <= at <= last]

    def _next(self, place: int, low: int, high: int) -> int | None:
        """The token that reads what is next after a place of the source."""
        after = [(read, at) for at in range(low, high) if (read := self._tokens[at].at) is not None and read >= place]
        return min(after)[1] if after else None

    def _write_tokens(self, start: int, end: int) -> None:
        for at in range(start, end):
            text = self._tokens[at].text
            self._write_gap(
                self._gaps[at] or " " * (self._last is not None and needs_space(self._spans[self._last], text))
            )
            self._out += text
            self._last = None

    def _write_gap(self, gap: str) -> None:
        """Writes white space: a line break as it is, else one space where none is yet."""
        if has_break(gap):
            self._out += gap
        elif gap and self._out and not self._out[-1].isspace():
            self._out += " "

    def _write_pair(self, pair: Pair, start: int, end: int, high: int) -> None:
        """Writes a pair of tags around tokens; around none, with what is between them in the source. See `_write`."""
        left, right = self._spans[pair.first].left, self._spans[pair.last].right
        gap = self._gaps[start] if start < end else " " * self._takes_space_before(pair.first)
        if left.is_glued and not is_inline(self._spans[pair.first].text) and not has_break(gap):
            gap = ""  # of one block to the next
        is_open = self._spans[pair.first].is_open
        if not is_open:
            self._write_gap(gap)
            self._out += self._spans[pair.first].text
            self._last = pair.first
        if start < end:
            self._gaps[start] = self._gaps[start] if is_open else ""
            self._write(start, end, pair.first + 1, pair.last)
        else:
            for number in range(pair.first + 1, pair.last):
                is_beside = self._spans[number].left.is_span and not self._spans[number].left.is_apart
                self._write_gap(" " * (number > pair.first + 1 and not is_beside and not self._spans[number].is_tag))
                self._write_span(number)
            if end < high:
                self._set_gap_behind(right, end)
        self._out += self._spans[pair.last].text
        self._last = pair.last

    def _write_point(self, number: int, at: int, high: int) -> None:
        """Writes a span before a token: with the word that it stood at, before or after it, or by itself; with a space
        where the source has one, but for what stands beside it here and not there. At `high` a tag comes next, which
        closes what is around it, or nothing."""
        left, right = self._spans[number].left, self._spans[number].right
        gap = " " * self._takes_space_before(number)
        if at < high:
            if right.is_glued and not left.is_glued:
                own = "" if number in self._loose else gap  # where a sign follows, with no gap of its own
                gap, self._gaps[at] = self._gaps[at] or own, ""
            elif has_break(self._gaps[at]) and self._begins_line(number):
                gap, self._gaps[at] = self._gaps[at], " "
            elif right.is_glued and not is_inline(self._spans[number].text) and not has_break(self._gaps[at]):
                self._gaps[at] = ""
            else:
                self._set_gap_behind(right, at)
        self._write_gap(gap)
        self._write_span(number)

    def _takes_space_before(self, number: int) -> bool:
        """Whether a space belongs between what is written and a span, by what is to its left in the source."""
        span, last = self._spans[number], self._out[-1:]
        left = span.left
        is_away = left.is_span and not span.is_tag and self._last != number - 1  # the span that it touched
        if self._last is not None and not left.is_span and not (span.is_tag or self._spans[self._last].is_tag):
            return True  # they are apart in the source
        if not last or left.is_glued and not is_away or last in _OPENING + _FULL_WIDTH:
            return False
        if last == "“":  # it opens in English, and closes in German what „ has opened
            return self._out.count("„") >= self._out.count("“")
        if WITHOUT_SPACES.match(last):
            return left.is_apart and _are_without_spaces(left.character)
        return left.is_apart or is_letter(last) or (last != left.character and last in CLOSING)

    def _set_gap_behind(self, right: Side, at: int) -> None:
        """Sets the white space of the token that follows a span that has this to its right in the source."""
        following = self._tokens[at].text[0]
        if right.is_glued or has_break(self._gaps[at]):
            return
        if is_letter(following):
            self._gaps[at] = " "
        elif right.is_apart:
            closes = following in CLOSING or following == '"' and self._out.count('"') % 2 == 1
            is_between_words = right.character and not closes and not WITHOUT_SPACES.match(following)
            self._gaps[at] = self._gaps[at] or " " * bool(is_between_words)
        elif following in (right.character, *CLOSING) or _are_without_spaces(following, right.character):
            self._gaps[at] = ""

    def _write_span(self, number: int) -> None:
        """Writes a span; a loose tag that closes waits for the one that opens."""
        self._last = number
        pair = self._loose.get(number)
        if pair is None:
            self._out += self._spans[number].written
        elif number == pair.first:
            self._out += self._spans[number].written
            self._opened.add(number)
            if pair.last in self._opened:
                self._out += self._spans[pair.last].text
        else:
            if pair.first in self._opened:
                self._out += self._spans[number].text
            self._opened.add(number)


def _joined(ranges: Iterable[range]) -> list[range]:
    """Ranges in order, those that overlap as one."""
    joined: list[range] = []
    for each in sorted(ranges, key=lambda each: each.start):
        if joined and each.start < joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, each.stop))
        else:
            joined.append(each)
    return joined


def needs_space(span: Span, text: str) -> bool:
    """Whether what follows a span right away would become one with it, as nothing is in the source."""
    right, following = span.right, text[0]
    touches = not right.is_apart and not right.is_span and (is_letter(right.character) or right.character == following)
    return not span.is_tag and (is_letter(following) or following in "-/") and not touches


def _are_without_spaces(*characters: str) -> bool:
    """Whether characters are all of scripts without spaces."""
    return all(WITHOUT_SPACES.match(each) for each in characters)


def _crossing(pairs: Iterable[Pair]) -> set[Pair]:
    """The pairs that begin inside another and end outside of it, and those others."""
    by_end = {pair.last: pair for pair in pairs}
    by_beginning = {pair.first: pair for pair in pairs}
    begun: list[Pair] = []
    found: set[Pair] = set()
    for number in sorted({*by_beginning, *by_end}):
        if number in by_beginning:
            begun.append(by_beginning[number])
            continue
        at = len(begun) - 1 - begun[::-1].index(by_end[number])
        if at < len(begun) - 1:  # what began after it is not over
            found |= set(begun[at:])
        del begun[at]
    return found


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


def enclosed(text: str) -> str:
    """A text without the brackets or quotation marks that are around all of it."""
    while len(text) > 2 and text[0] + text[-1] in ENCLOSING:
        text = text[1:-1]
    return text


def is_inline(span: str) -> bool:
    """Whether a span is a tag that may stand within a word: it opens or closes an element that ends none."""
    match = _TAG.fullmatch(span)
    return match is not None and not match["empty"] and match["name"].lower() not in _BLOCKS


def has_break(text: str) -> bool:
    """Whether there is a line break."""
    return _BREAK.search(text) is not None


def pairs_of(spans: Sequence[str]) -> list[Pair]:
    """The pairs among tags: each that closes, with the nearest open one of its name, as it is written or else in other
    capitals, which HTML takes for the same."""
    pairs, waiting = [], []
    for number, span in enumerate(spans):
        match = _TAG.fullmatch(span)
        if match is None or match["empty"]:
            continue
        if not match["end"]:
            waiting.append((match["name"], number))
            continue
        name = match["name"]
        own = [place for place, (other, _) in enumerate(waiting) if other == name] or [
            place for place, (other, _) in enumerate(waiting) if other.lower() == name.lower()
        ]
        if own:
            pairs.append(Pair(waiting.pop(own[-1])[1], number))
    return pairs


def tokens_of(text: str, reading: Reading, source: bytes) -> list[Token]:
    """The tokens of a translation with what each reads: what the first of its pieces does that reads anything.

    A token that is part of a piece reads the same part of what the piece does: of "Hund." that reads "dog.", the point
    reads the point.
    """
    tokens, end, byte = [], 0, 0
    translated = text.encode()
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
            piece = _without_space(translated, piece_start, piece_end)
            if piece.start < byte and piece.stop > start_byte:
                whole = _without_space(source, reading.source_starts[aligned], reading.source_ends[aligned])
                part = range(max(start_byte, piece.start), min(byte, piece.stop))
                read = _scaled(part, piece, whole)
                break
        before, following = text[: match.start() - len(gap)][-1:], text[match.start() : match.start() + 2]
        gap = gap.replace(TAKEN_OUT, "") if has_break(gap) else folded_gap(gap, before, following)
        tokens.append(Token(gap, match[0], read))
    return tokens


def folded_gap(gap: str, before: str, following: str) -> str:
    """A space or nothing for the white space between `before` and `following`, the characters beside it.

    What was taken out leaves no space that was not beside it, but between words, and none before a full stop or the
    like: it was the word that stood there.
    """
    if TAKEN_OUT not in gap:
        return " " * bool(gap)
    if following[:1] in _NEVER_AFTER_A_SPACE and not is_letter(following[1:2]):
        return ""
    return " " * (gap.strip(TAKEN_OUT) != "" or (is_letter(before) and is_letter(following[:1])))


def _without_space(text: bytes, start: int, end: int) -> range:
    """A piece of a text without the white space that it begins with."""
    return range(end - len(text[start:end].lstrip()), end) if text[start:end].strip() else range(start, end)


def _scaled(part: range, piece: range, whole: range) -> range:
    """What is as far in `whole` as `part` is in `piece`, a byte at least where there is one; of a piece without bytes,
    as some of a character's are, all of it."""
    if not piece:
        return whole
    start, stop = (whole.start + (each - piece.start) * len(whole) / len(piece) for each in (part.start, part.stop))
    return range(math.floor(start), max(math.ceil(stop), math.floor(start) + bool(whole)))
