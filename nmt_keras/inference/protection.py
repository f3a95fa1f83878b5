"""Text that a translation must have as its source has it: tags, addresses, numbers, placeholders.

What is protected is taken out of the text before it is translated, and put back by the alignment: a pair of tags around
the words that read most of what it was around, anything else after the word that reads the one before it. So none of
it is lost, none is changed, none comes twice, and tags that were nested are nested, whatever a model does.

It needs no more of a model than what every export answers, and no TensorFlow.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import regex

from nmt_keras.data.scripts import WITHOUT_SPACES
from nmt_keras.errors import UserError
from nmt_keras.inference.translation import Hypothesis, Translation

PATTERNS = {
    "tag": r"<!--.*?-->|<[/!?]?\p{L}[^<>]*>",
    "url": r"\b(?:https?|ftp)://[^\s<>\"]*[^\s<>\".,;:!?)\]}'，。；：！？）」』]|\bwww\.[^\s<>\"]*[^\s<>\".,;:!?)\]}']",
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "number": r"(?<!\w)[+-]?\d+(?:[.,:/]\d+)*%?(?!\w)",
    "placeholder": r"\{\{[^{}]*\}\}|\$?\{[^{}]*\}|%(?:\(\w+\))?[-+#0]*\d*(?:\.\d+)?[sdifgexXc]\b"
    r"|%\d+\$?[sd]?|\$\d+|__\w+__",
}
_SECONDS = 1.0  # for a regular expression on one text
_TAG = regex.compile(r"<(?P<end>/)?(?P<name>[\p{L}_][\w.:-]*)[^<>]*?(?P<empty>/)?>")
_TAG_LIKE = regex.compile(PATTERNS["tag"], regex.DOTALL)
# A word of a script with spaces, or any other character.
_TOKEN = regex.compile(rf"(?:(?!{WITHOUT_SPACES.pattern})[^\W_])+|\S")


class Reading(NamedTuple):
    """What a translation reads of its text: bytes are those of the texts in UTF-8."""

    starts: Sequence[int]  # of each piece of the translation, its first byte
    ends: Sequence[int]
    alignment: Sequence[int]  # of each piece, the number of the source piece that it reads most; -1 for none
    source_starts: Sequence[int]  # of each source piece
    source_ends: Sequence[int]


class _Span(NamedTuple):
    text: str
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
        parts = [PATTERNS.get(pattern, pattern) for pattern in patterns]
        for part in parts:
            try:
                finds_nothing = regex.compile(part, regex.DOTALL).match("") is not None
            except regex.error as error:
                names = ", ".join(PATTERNS)
                raise UserError(
                    f"{part!r:.60} is neither the name of a pattern ({names}) nor a regular expression: {error}"
                ) from error
            if finds_nothing:
                raise UserError(f"The regular expression {part!r:.60} finds the empty string: give one that does not")
        self._pattern = regex.compile("|".join(f"(?:{part})" for part in parts), regex.DOTALL) if parts else None

    def take_out(self, text: str) -> "ProtectedText":
        """A text without what is protected.

        Raises:
            UserError: a regular expression takes too long.
        """
        try:
            matches = list(self._pattern.finditer(text, timeout=_SECONDS)) if self._pattern else []
        except TimeoutError as error:
            raise UserError(
                f"A regular expression took over {_SECONDS:g} s on {text!r:.40}: give one that need not go back, as "
                "a+b and not (a+)+b"
            ) from error
        matches = [match for match in matches if match[0].strip()]
        starts, ends = {match.start() for match in matches}, {match.end() for match in matches}
        plain, spans, done = "", [], 0
        for match in matches:
            start, end = match.span()
            plain += text[done:start]
            before, after = text[:start][-1:], text[end : end + 1]
            is_glued = before.isalnum() or start in ends, after.isalnum() or end in starts
            spans.append(_Span(match[0], len(_utf8(plain)), is_glued))
            if not _is_inline(match[0]) and plain[-1:].isalnum() and after.isalnum():
                plain += " "  # two words are not to become one
            done = end
        return ProtectedText(text, plain + text[done:], spans)


class ProtectedText:
    """A text, and what was taken out of it.

    Attributes:
        plain: the text without what is protected.
    """

    def __init__(self, text: str, plain: str, spans: Sequence[_Span]):
        self._text = text
        self.plain = plain
        self._spans = spans
        self._pairs = _pairs_of([span.text for span in spans])

    def put_back(self, translation: str, reading: Reading) -> str:
        """A translation of `plain` with what is protected; the text itself where nothing else is in it."""
        if not self._spans:
            return translation
        if not self.plain.strip():
            return " ".join(self._text.split())
        if any(span.text.startswith("<") for span in self._spans):
            translation, reading = _without_tags(translation, reading)
        return _Placing(self._spans, self._pairs, _tokens_of(translation, reading), _utf8(self.plain)).text()


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
        self._pairs = {pair.first: pair for pair in pairs if pair not in crossing}
        self._loose = {number: pair for pair in crossing for number in pair}
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
            self._out += "".join(span.text for span in self._spans[pair.first + 1 : pair.last])
        self._out += self._spans[pair.last].text

    def _write_point(self, number: int, at: int) -> None:
        """Writes a span before a token: with the word that it stood at, before or after it, or by itself."""
        span = self._spans[number]
        is_after, is_before = span.is_glued
        is_apart = not is_after and _takes_space(self._out[-1:])
        if is_before and not is_after and at < len(self._tokens):
            is_apart, self._gaps[at] = bool(self._gaps[at]), ""
        elif not is_before and at < len(self._tokens) and self._tokens[at].text[0].isalnum():
            self._gaps[at] = self._gaps[at] or " " * _takes_space(self._tokens[at].text[0])
        if is_apart and self._out and not self._out.endswith(" "):
            self._out += " "
        self._out += span.text


def _takes_space(neighbour: str) -> bool:
    """Whether a space belongs between a character and what is not its own word."""
    return bool(neighbour) and not WITHOUT_SPACES.match(neighbour) and neighbour not in "([{„“‘«¿¡，。、；：！？（「『"


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
    data = bytearray(_utf8(text))
    for match in _TAG_LIKE.finditer(text):
        start, end = len(_utf8(text[: match.start()])), len(_utf8(text[: match.end()]))
        data[start:end] = b" " * (end - start)
    return data.decode("utf-8"), reading


def _tokens_of(text: str, reading: Reading) -> list[_Token]:
    """The tokens of a translation with what each reads: what the first of its pieces does that reads anything."""
    tokens, end, byte = [], 0, 0
    pieces = sorted(zip(reading.starts, reading.ends, reading.alignment))
    for match in _TOKEN.finditer(text):
        gap = text[end : match.start()]
        start_byte = byte + len(_utf8(gap))
        byte = start_byte + len(_utf8(match[0]))
        end = match.end()
        read = None
        for piece_start, piece_end, aligned in pieces:
            if piece_start < byte and piece_end > start_byte and 0 <= aligned < len(reading.source_starts):
                read = (reading.source_starts[aligned] + reading.source_ends[aligned]) // 2
                read = max(read, reading.source_ends[aligned] - 1) if read == reading.source_starts[aligned] else read
                break
        tokens.append(_Token(" " * bool(gap), match[0], read))
    return tokens


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")


def protected_again(translation: Translation, text: ProtectedText) -> Translation:
    """A translation of `text.plain`, as a client has it of the signature `translate`, with what was taken out.

    What else it says of its pieces stays that of the translation without; the output `plain` of a hypothesis is that.
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

    return translation._replace(hypotheses=[again(hypothesis) for hypothesis in translation.hypotheses])
