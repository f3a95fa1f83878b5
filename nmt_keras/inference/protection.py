"""Text that a translation must have as its source has it: tags, addresses, numbers, placeholders.

What is protected is taken out of the text before it is translated, and put back by the alignment: a pair of tags around
the words that read most of what it was around, anything else after the word that reads the one before it. So none of
it is lost, none is changed, none comes twice, and tags that were nested are nested, whatever a model does.

It needs no more of a model than what every export answers, and no TensorFlow.
"""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import regex

from nmt_keras.data.scripts import TOKEN, WITHOUT_SPACES, is_letter
from nmt_keras.errors import UserError
from nmt_keras.inference.strings import to_bytes
from nmt_keras.inference.translation import Hypothesis, Translation

_INSIDE = rf"(?:(?!{WITHOUT_SPACES.pattern})[^\s<>\"，。；：！？）」』])"  # of an address
_ATTRIBUTES = r"(?:[^<>\"']|\"[^\"]*\"|'[^']*')*"
PATTERNS = {
    # Elements whose content is code are one span: those of XLIFF 1.2, scripts; then comments and single tags.
    "tag": rf"<(?P<code>bpt|ept|ph|it|script|style)\b{_ATTRIBUTES}(?<!/)>.*?</(?P=code)\s*>"
    r"|<!--.*?-->|<!\[CDATA\[.*?\]\]>"
    rf"|<[/!?]?\p{{L}}{_ATTRIBUTES}>|<[/!?]?\p{{L}}[^<>]*>",
    "entity": r"&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);",
    # A bracket that closes belongs to an address where the one that opens does.
    "url": r"(?<![A-Za-z0-9])(?:(?:https?|ftp)://|www\.)"
    rf"(?:\((?:(?![()]){_INSIDE})*\)|(?![()]){_INSIDE})+(?<![.,;:!?\]}}'])",
    "email": r"(?<![A-Za-z0-9.+-])[A-Za-z0-9_.+%-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    "number": r"(?<![A-Za-z0-9_])[+-]?\d+(?:[.,:/]\d+)*%?(?![A-Za-z0-9_])",
    "placeholder": r"\{\{[^{}]*\}\}|\$?\{[^{}]*\}|(?<![\d%])%(?:\(\w+\)|\d+\$)?[-+#0]*\d*(?:\.\d+)?[sdifgexXc]"
    r"|(?<![\d%])%\d+(?!\d)|\$\d+(?![.,]?\d)|__\w+__",
}
_SECONDS = 1.0  # for the regular expressions on one text
_MAX_PATTERN, _MAX_REPEATS = 1_000, 10_000  # characters of a regular expression; counts in braces, multiplied
_MAX_DEPTH = 50  # of tags in tags; those in these come back, but may be around other words
_TAG = regex.compile(r"<(?P<end>/)?(?P<name>[\p{L}_][\w.:-]*)(?:[^<>\"']|\"[^\"]*\"|'[^']*')*?(?P<empty>/)?>")
_TAG_LIKE = regex.compile(PATTERNS["tag"], regex.DOTALL)


class Reading(NamedTuple):
    """What a translation reads of its text: bytes are those of the texts in UTF-8."""

    starts: Sequence[int]  # of each piece of the translation, its first byte
    ends: Sequence[int]
    alignment: Sequence[int]  # of each piece, the number of the source piece that it reads most; -1 for none
    source_starts: Sequence[int]  # of each source piece
    source_ends: Sequence[int]


class _Span(NamedTuple):
    text: str
    start: int  # in the text, in characters
    place: int  # in the text without what is protected, in bytes
    is_glued: tuple[bool, bool]  # whether a letter or another span is right before and right after it


class _Pair(NamedTuple):
    """A tag that opens and the one that closes it, by their numbers among the spans."""

    first: int
    last: int


class _Token(NamedTuple):
    gap: str  # the white space before it
    text: str
    read: int | None  # the byte of the source that it reads


class Protection:
    """Finds what is protected.

    Example:
        [translation] = client.translate(["A <b>man</b> at https://a.b"], protect=Protection(["tag", "url"]))

    Args:
        patterns: names of `PATTERNS`, or regular expressions.

    Raises:
        UserError: a pattern is no regular expression, or finds the empty string.
    """

    def __init__(self, patterns: Iterable[str]):
        if isinstance(patterns, str) or not isinstance(patterns, Iterable):
            raise UserError(f'protect is a list of patterns, as in ["tag"]. Received: {patterns!r:.40}')
        self._patterns = [_compiled(pattern) for pattern in patterns]

    def take_out(self, text: str) -> "ProtectedText":
        """A text without what is protected; where the regular expressions take too long on it, nothing is."""
        text = to_bytes(text).decode("utf-8", errors="replace")
        try:
            found = self._found(text)
        except TimeoutError:
            return ProtectedText(text, text, (), is_protected=False)
        starts, ends = {start for start, _ in found}, {end for _, end in found}
        plain, spans, done = "", [], 0
        for start, end in found:
            plain += text[done:start]
            before, after = text[:start][-1:], text[end : end + 1]
            is_glued = is_letter(before) or start in ends, is_letter(after) or end in starts
            spans.append(_Span(text[start:end], start, len(plain.encode()), is_glued))
            if not _is_inline(text[start:end]) and is_letter(plain[-1:]) and is_letter(after):
                plain += " "  # two words are not to become one
            done = end
        return ProtectedText(text, plain + text[done:], spans)

    def _found(self, text: str) -> list[tuple[int, int]]:
        """Where what is protected starts and ends: the first of all patterns, of several the longest, and so on."""
        deadline = time.monotonic() + _SECONDS
        found: list[tuple[int, int, int]] = []
        for number, pattern in enumerate(self._patterns):
            left = max(deadline - time.monotonic(), 1e-3)
            found += [(*match.span(), number) for match in pattern.finditer(text, timeout=left) if match[0].strip()]
        kept: list[tuple[int, int]] = []
        for start, end, _ in sorted(found, key=lambda each: (each[0], -each[1], each[2])):
            if not kept or start >= kept[-1][1]:
                kept.append((start, end))
        return kept


def named(values: Iterable[str]) -> list[str]:
    """Patterns as a command line has them: each value is names with commas between them, or one regular expression."""
    patterns: list[str] = []
    for value in values:
        names = [name.strip() for name in value.split(",")]
        patterns += names if all(name in PATTERNS for name in names) else [value]
    return patterns


class ProtectedText:
    """A text, and what was taken out of it.

    Attributes:
        plain: the text without what is protected.
        is_protected: whether what is to be protected was found in time; if not, it is all in `plain`.
    """

    def __init__(self, text: str, plain: str, spans: Sequence[_Span], is_protected: bool = True):
        self._text = text
        self.is_protected = is_protected
        self.plain = plain
        self._spans = spans
        self._pairs = _pairs_of([span.text for span in spans])

    def put_back(self, translation: str, reading: Reading) -> str:
        """A translation of `plain` with what is protected; the text itself where nothing else is in it."""
        if not self._spans:
            return translation
        translation = to_bytes(translation).decode("utf-8", errors="replace")
        if not self.plain.strip():
            return self._folded()
        if any(span.text.startswith("<") for span in self._spans):
            translation, reading = _without_tags(translation, reading)
        return _Placing(self._spans, self._pairs, _tokens_of(translation, reading), self.plain.encode()).text()

    def _folded(self) -> str:
        """The text, white space folded but in the spans."""
        out, done = "", 0
        for span in self._spans:
            between = self._text[done : span.start]
            out += " " * bool(between and out) + span.text
            done = span.start + len(span.text)
        return out


class _Node(NamedTuple):
    """A span, or a pair of tags, in the order of the source, and where it goes: before which token, up to which."""

    start: int
    end: int
    number: int  # of its span
    pair: _Pair | None


class _Placing:
    """Puts spans among the tokens of a translation.

    Args:
        spans: in the order of the source.
        pairs: of tags.
        tokens: of the translation.
        source: without the spans.
    """

    def __init__(self, spans: Sequence[_Span], pairs: Sequence[_Pair], tokens: list[_Token], source: bytes):
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
                nodes.append(_Node(*self._place_of(number, low, high), number, None))
                number += 1
                continue
            begin, end = (self._spans[each].place for each in pair)
            inside = [at for at in range(low, high) if self._reads(at, begin, end)]
            if inside:
                nodes.append(_Node(inside[0], inside[-1] + 1, number, pair))
            else:
                nodes.append(_Node(*self._place_of(number, low, high), number, pair))
            number = pair.last + 1
        return nodes

    def _place_of(self, number: int, low: int, high: int) -> tuple[int, int]:
        """The place before which a span that is no pair goes, twice."""
        place = self._spans[number].place
        if number in self._loose:
            begin, end = (self._spans[each].place for each in self._loose[number])
            inside = [at for at in range(low, high) if self._reads(at, begin, end)]
            if inside:
                at = inside[0] if number == self._loose[number].first else inside[-1] + 1
                return at, at
        if not self._source[:place].strip() or not self._source[place:].strip():  # the beginning, or the end
            at = high if self._source[:place].strip() else low
            return at, at
        is_glued = self._spans[number].is_glued
        if is_glued == (False, True) and (following := self._next(place, low, high)) is not None:
            return following, following
        before = [(read, at) for at in range(low, high) if (read := self._tokens[at].read) is not None and read < place]
        if before:
            nearest = max(read for read, _ in before)
            at = max(at for read, at in before if read == nearest) + 1
            return at, at
        following = self._next(place, low, high)
        return (low, low) if following is None else (following, following)

    def _next(self, place: int, low: int, high: int) -> int | None:
        """The token that reads what is next after a place of the source."""
        after = [(read, at) for at in range(low, high) if (read := self._tokens[at].read) is not None and read >= place]
        return min(after)[1] if after else None

    def _reads(self, at: int, begin: int, end: int) -> bool:
        read = self._tokens[at].read
        return read is not None and begin <= read < end

    def _write_tokens(self, start: int, end: int) -> None:
        for at in range(start, end):
            is_apart = self._gaps[at] and self._out and not self._out.endswith(" ")
            self._out += " " * bool(is_apart) + self._tokens[at].text

    def _write_pair(self, pair: _Pair, start: int, end: int) -> None:
        """Writes a pair of tags around tokens; around none, with what is between them in the source."""
        is_apart = self._gaps[start] if start < end else not self._spans[pair.first].is_glued[0]
        if is_apart and self._out and not self._out.endswith(" "):
            self._out += " "
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
        is_apart = not is_after and _takes_space(self._out[-1:])
        if is_before and not is_after and at < len(self._tokens):
            is_apart, self._gaps[at] = bool(self._gaps[at]), ""
        elif not is_before and at < len(self._tokens) and is_letter(self._tokens[at].text[0]):
            self._gaps[at] = self._gaps[at] or " " * _takes_space(self._tokens[at].text[0])
        if is_apart and self._out and not self._out.endswith(" "):
            self._out += " "
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


def _shallow(pairs: Sequence[_Pair]) -> list[_Pair]:
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


def _compiled(pattern: str) -> Any:
    """A pattern by its name, or a regular expression.

    Raises:
        UserError: it is none, finds the empty string, or is too large.
    """
    if pattern not in PATTERNS and regex.fullmatch(r"[\w\s,-]*", pattern):
        raise UserError(
            f"{pattern!r:.60} is no name of a pattern: give some of {', '.join(PATTERNS)}, or a regular expression; "
            f"one of letters alone is written as (?:{pattern:.20})"
        )
    text = PATTERNS.get(pattern, pattern)
    counts = [max(map(int, filter(None, pair))) for pair in regex.findall(r"\{(\d*),?(\d*)\}", text) if any(pair)]
    if pattern not in PATTERNS and (len(text) > _MAX_PATTERN or math.prod(counts) > _MAX_REPEATS):
        raise UserError(
            f"The regular expression {text!r:.60} is too large: it may have {_MAX_PATTERN:,} characters, and its "
            f"counts in braces may be {_MAX_REPEATS:,} multiplied with each other"
        )
    try:
        compiled = regex.compile(text, regex.DOTALL)
        empty = any(not match[0] for sample in ("", "a b") for match in compiled.finditer(sample, timeout=_SECONDS))
    except (regex.error, OverflowError) as error:
        raise UserError(
            f"{text!r:.60} is neither the name of a pattern ({', '.join(PATTERNS)}) nor a regular expression: {error}"
        ) from error
    except TimeoutError:
        empty = False
    if empty:
        raise UserError(f"The regular expression {text!r:.60} finds the empty string: give one that does not")
    return compiled


def _is_inline(span: str) -> bool:
    """Whether a span is a tag that may stand within a word."""
    match = _TAG.fullmatch(span)
    return match is not None and not match["empty"] and match["name"].lower() not in ("br", "hr")


def _pairs_of(spans: Sequence[str]) -> list[_Pair]:
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
            pairs.append(_Pair(waiting.pop(own[-1])[1], number))
    return pairs


def _without_tags(text: str, reading: Reading) -> tuple[str, Reading]:
    """A translation without tags that a model made up; what they were made of reads nothing."""
    data = bytearray(text.encode())
    for match in _TAG_LIKE.finditer(text):
        start, end = len(text[: match.start()].encode()), len(text[: match.end()].encode())
        data[start:end] = b" " * (end - start)
    return data.decode("utf-8"), reading


def _tokens_of(text: str, reading: Reading) -> list[_Token]:
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
            if piece_start < byte and piece_end > start_byte and 0 <= aligned < len(reading.source_starts):
                read = (reading.source_starts[aligned] + reading.source_ends[aligned]) // 2
                read = max(read, reading.source_ends[aligned] - 1) if read == reading.source_starts[aligned] else read
                break
        tokens.append(_Token(" " * bool(gap), match[0], read))
    return tokens


def protected_again(translation: Translation, text: ProtectedText) -> Translation:
    """A translation of `text.plain`, as a client has it of the signature `translate`, with what was taken out.

    What else it says of its pieces stays that of the translation without, which is the output `plain` of a hypothesis.
    The output `is_protected` says whether what is to be protected was found in time.
    """

    def again(hypothesis: Hypothesis) -> Hypothesis:
        reading = Reading(
            hypothesis.outputs.get("piece_starts", ()),
            hypothesis.outputs.get("piece_ends", ()),
            hypothesis.alignment,
            translation.outputs.get("source_piece_starts", ()),
            translation.outputs.get("source_piece_ends", ()),
        )
        outputs = {**hypothesis.outputs, "plain": hypothesis.text}
        return hypothesis._replace(text=text.put_back(hypothesis.text, reading), outputs=outputs)

    outputs = {**translation.outputs, "is_protected": text.is_protected}
    return translation._replace(hypotheses=[again(each) for each in translation.hypotheses], outputs=outputs)
