"""Text that a translation must have as its source has it: tags, addresses, numbers, placeholders.

What is protected is taken out of the text before it is translated, and put back by the alignment (`placing`). So none
of it is lost, none is changed, none comes twice, and tags that were nested are nested, whatever a model does. A model
that was trained with placeholders has these in its place, and says itself where they go; where it does not say of each
of them, the alignment does.

It needs no more of a model than what every export answers, and no TensorFlow.
"""

import copy
import itertools
import math
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import regex

from nmt_keras.config import DataConfig, ExperimentConfig
from nmt_keras.constants import PLACEHOLDERS
from nmt_keras.data.placeholders import symbols_for
from nmt_keras.data.scripts import TOKEN, WITHOUT_SPACES, is_letter
from nmt_keras.errors import UserError
from nmt_keras.inference.beginnings import (
    Beginning,
    as_read,
    beginning_of,
    end_in,
    gap_behind,
    order_behind,
    reading_behind,
)
from nmt_keras.inference.glossary import places_of
from nmt_keras.inference.placing import (
    ENCLOSING,
    TAKEN_OUT,
    Pair,
    Placing,
    Reading,
    Side,
    Span,
    folded_gap,
    has_break,
    is_inline,
    needs_space,
    pairs_of,
    tokens_of,
)
from nmt_keras.inference.strings import TermsOfText, to_bytes
from nmt_keras.inference.translation import Hypothesis, Translation
from nmt_keras.tokenizers.white_space import fold

_INSIDE = rf"(?:(?!{WITHOUT_SPACES.pattern})[^\s<>\"，。；：！？）」』])"  # of an address
_BRACKETS = "|".join(  # with what is in them, in each other three deep
    rf"\{a}(?:{{0}}|\{a}(?:{{0}}|\{a}{{0}}*+\{b})*+\{b})*+\{b}".replace("{0}", rf"(?:(?![\{a}\{b}]){_INSIDE})")
    for a, b in ("()", "[]", "{}")
)
_ATTRIBUTES = r"(?:[^<>\"']|\"[^\"]*\"|'[^']*')*"
_LETTER = rf"(?:(?!{WITHOUT_SPACES.pattern})[\p{{L}}\p{{N}}\p{{M}}_])"
_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*+\})*+\})*+\}"  # in each other three deep, as plurals of ICU have them
_TEMPLATE = (  # `100 %ige` is per cent, and a word
    rf"\$?{_BRACES}"
    r"|(?<![\d%])%(?!(?<=\d\s%)\p{L}{2})(?:\(\w+\)|\d+\$)?[-+#0]*\d*(?:\.\d+)?(?:hh?|ll?|[Lqzjt])?[sduifFgGeExXcp@]"
    r"|(?<![\d%])%\d+(?!\d)|__\w+__"
)
PATTERNS = {
    # Elements whose content is code are one span: those of XLIFF 1.2, scripts; then comments and single tags.
    "tag": rf"(?i:<(?P<code>bpt|ept|ph|it|script|style)\b{_ATTRIBUTES}(?<!/)>.*?</(?P=code)\s*>)"
    r"|<!--.*?-->|<!\[CDATA\[.*?\]\]>"
    rf"|<[/!?]?[\p{{L}}_]{_ATTRIBUTES}>|<[/!?]?[\p{{L}}_][^<>]*>",
    "entity": r"&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);",
    # A bracket that closes belongs to an address where the one that opens does. Of a host all but the last name may be
    # of any script; where an address in a script without spaces ends, nobody can say.
    "url": r"(?<![A-Za-z0-9])(?:(?:https?|ftp)://|www\.)(?:[\p{L}\p{N}-]++\.)*"
    rf"(?>{_BRACKETS}|(?![()]){_INSIDE})*(?:{_BRACKETS}|(?![.,;:!?()\]}}']){_INSIDE})",
    "email": r"(?<![A-Za-z0-9.+-])[A-Za-z0-9_.+%-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    # Dates and versions are one number; what touches a letter, also with a point or dash between, is none.
    "number": rf"(?<!{_LETTER})(?<!{_LETTER}[.,:/-])[+-]?\d++(?:[.,:/-]\d++)*+%?+(?![.,:/]?{_LETTER})",
    "placeholder": rf"{_TEMPLATE}|\$\d+(?![.,]?\d)",
}
_SECONDS = 1.0  # for the regular expressions on one text
_MAX_PATTERN, _MAX_REPEATS = 1_000, 10_000  # characters of a regular expression; counts in braces, multiplied
_GAP = regex.compile(f"[ {TAKEN_OUT}]+")
_TAG_LIKE = regex.compile(PATTERNS["tag"], regex.DOTALL)
_PLACEHOLDER = regex.compile("|".join(PLACEHOLDERS))
# What no model says by itself where the text has none, by the pattern that finds it there. Numbers and amounts it does.
_NEVER_SAID = {
    PATTERNS[name]: regex.compile(PATTERNS[name], regex.DOTALL) for name in ("tag", "entity", "url", "email")
}
_NEVER_SAID |= {PATTERNS["placeholder"]: regex.compile(_TEMPLATE)}


NO_READING = Reading((), (), (), (), ())  # of a model of which it is not known what it reads


class Protection:
    """Finds what is protected.

    Example:
        [translation] = client.translate(["A <b>man</b> at https://a.b"], protect=Protection(["tag", "url"]))

    Args:
        patterns: names of `PATTERNS`, or regular expressions.
        has_placeholders: whether the model was trained with placeholders (`data.placeholders`).

    Raises:
        UserError: a pattern is no regular expression, or finds the empty string.
    """

    def __init__(self, patterns: Iterable[str], has_placeholders: bool = False):
        if isinstance(patterns, str) or not isinstance(patterns, Iterable):
            raise UserError(f'protect is a list of patterns, as in ["tag"]. Received: {patterns!r:.40}')
        self._patterns = [_compiled(pattern) for pattern in patterns]
        self._has_placeholders = has_placeholders
        if has_placeholders:  # what looks like one, and is text
            self._patterns.append(_PLACEHOLDER)

    @property
    def has_placeholders(self) -> bool:
        """Whether the model was trained with placeholders, and so may make some up, which are taken out."""
        return self._has_placeholders

    @property
    def never_made_up(self) -> list[Any]:
        """What no model says by itself, of the patterns, compiled."""
        return [_NEVER_SAID[each.pattern] for each in self._patterns if each.pattern in _NEVER_SAID]

    @property
    def expressions(self) -> list[str]:
        """The regular expressions of all patterns."""
        return [pattern.pattern for pattern in self._patterns]

    def for_model(self, placeholders: Sequence[str]) -> "Protection":
        """The same for a model that was trained with placeholders for some patterns, which it protects too, or for
        none."""
        other = copy.copy(self)
        other._has_placeholders = bool(placeholders)
        other._patterns = [each for each in self._patterns if each is not _PLACEHOLDER]
        if placeholders:
            own = (_compiled(pattern) for pattern in placeholders)
            other._patterns += [each for each in own if each not in other._patterns]
            other._patterns.append(_PLACEHOLDER)
        return other

    def take_out(self, text: str) -> "ProtectedText":
        """A text without what is protected; where the regular expressions take too long on it, what those of `PATTERNS`
        find."""
        text = to_bytes(text).decode("utf-8", errors="replace")
        found, is_whole = self.find(text)
        if not self._has_placeholders:
            found = _with_what_encloses(text, found)
        symbols = symbols_for(text, len(found)) if self._has_placeholders else ()
        starts, ends = {start for start, _ in found}, {end for _, end in found}
        plain, spans, done, ends_word = "", [], 0, False  # of the spans right before, whether one ends a word
        for number, (start, end) in enumerate(found):
            plain += text[done:start]
            ends_word = not is_inline(text[start:end]) or (ends_word and start == done)
            spans.append(Span(text[start:end], start, len(plain.encode()), *_sides(text, start, end, starts, ends)))
            if symbols:
                plain += symbols[number]
            elif ends_word and is_letter(plain[-1:]) and is_letter(text[end : end + 1]):
                plain += " "  # two words are not to become one
            done = end
        return ProtectedText(text, plain + text[done:], spans, symbols, self, is_whole)

    def spans_of(self, text: str) -> list[tuple[int, int]]:
        """Where what is protected starts and ends: the first of all patterns, of several the longest, and so on.

        Raises:
            TimeoutError: the regular expressions take too long on the text.
            MemoryError: one of them calls itself without end.
        """
        return _found(self._patterns, text)

    def find(self, text: str) -> tuple[list[tuple[int, int]], bool]:
        """The spans of a text, and whether all patterns ended in time; if not, those of the patterns that always do."""
        try:
            return self.spans_of(text), True
        except (TimeoutError, MemoryError):  # one that calls itself without end takes memory
            known = [each for each in self._patterns if each is _PLACEHOLDER or each.pattern in PATTERNS.values()]
        try:
            return _found(known, text), False
        except (TimeoutError, MemoryError):
            return [], False


def placeholders_of(data: DataConfig) -> Protection | None:
    """What becomes placeholders in texts for a model that was trained with them; None of another model.

    Raises:
        UserError: one of `data.placeholders` is no pattern.
    """
    return Protection(data.placeholders, has_placeholders=True) if data.placeholders else None


def protection_of(config: ExperimentConfig) -> Protection | None:
    """What translations have as the text has it: by `decoding.protect`, and what the model has placeholders for; None
    where that is nothing.

    Raises:
        UserError: one of the patterns is none.
    """
    if not (config.decoding.protect or config.data.placeholders):
        return None
    return Protection(named(config.decoding.protect)).for_model(config.data.placeholders)


def named(values: Iterable[str]) -> list[str]:
    """Patterns as a command line has them: each value is names with commas between them, or one regular expression."""
    patterns: list[str] = []
    for value in filter(None, values):  # of `--protect=`, which is nothing
        names = [name.strip() for name in value.split(",")]
        known = [name for name in names if name in PATTERNS]
        if known and len(known) < len(names) and not regex.fullmatch(r"[\w\s,-]*", value):
            raise UserError(
                f"{value!r:.60} has the name {known[0]} and a regular expression: give them one by one, as in "
                f"--protect={known[0]} --protect='AB-\\d+'"
            )
        patterns += names if len(known) == len(names) else [value]
    return patterns


class ProtectedText:
    """A text, and what was taken out of it.

    Attributes:
        text: the whole text.
        plain: the text without what is protected, or with placeholders for it.
        is_protected: whether what is to be protected was found in time; if not, some of it is in `plain`.
    """

    def __init__(
        self,
        text: str,
        plain: str,
        spans: Sequence[Span],
        symbols: Sequence[str],
        protection: Protection,
        is_protected: bool = True,
    ):
        self.text = text
        self.is_protected = is_protected
        self.plain = plain
        self._spans = spans
        self._symbols = symbols
        self._protection = protection
        self._pairs = pairs_of([span.text for span in spans])
        self._beginnings: dict[str, Beginning] = {}

    def put_back(self, translation: str, reading: Reading, terms: Iterable[str] = (), prefix: str = "") -> str:
        """A translation of `plain` with what is protected; the text itself where nothing else is in it.

        Args:
            translation: of `plain`.
            reading: what the translation reads of `plain`.
            terms: texts into which nothing is put, where they stand in the translation as whole words.
            prefix: what it is to begin with: where it begins with `beginning(prefix)`, nothing is changed there.
        """
        translation = to_bytes(translation).decode("utf-8", errors="replace")
        terms = list(terms)
        begun = self._begun(prefix)
        if prefix and (places := end_in(translation, begun, terms)) is not None:
            return self._put_back_behind(begun, translation, *places, reading, terms)
        plain = _without(_PLACEHOLDER, self.plain) if self._symbols else self.plain
        if self._spans and not plain.strip():
            return self._folded()
        honest = self._without_made_up(translation, terms) if self.is_protected else translation
        if not self._spans:
            honest = _without(_PLACEHOLDER, honest) if self._protection.has_placeholders else honest
            return translation if honest == translation else _folded(honest)
        translation = _without(_PLACEHOLDER, honest, kept=self._symbols) if self._symbols else honest
        if self._symbols and self._has_every_symbol(translation):
            return self._with_spans_for_symbols(_folded(translation))
        if self._protection.has_placeholders:
            translation = _without(_PLACEHOLDER, translation)
        source = plain.encode()
        whole = itertools.chain.from_iterable(places_of(term, translation) for term in terms)
        placed = Placing(self._spans, self._pairs, tokens_of(translation, reading, source), source, whole).text()
        end = translation[len(translation.rstrip()) :]
        return placed + end.replace(TAKEN_OUT, "") if has_break(end) else placed

    def _without_made_up(self, translation: str, terms: Sequence[str]) -> str:
        """A translation of `plain` without tags, addresses and placeholders: what is protected is not in `plain`. Those
        in terms were asked for."""
        for pattern in self._protection.never_made_up:
            translation = _without(pattern, translation, terms)
        if any(span.is_tag for span in self._spans):
            translation = _without(_TAG_LIKE, translation, terms)
        return translation

    def _with_spans_for_symbols(self, translation: str) -> str:
        """A translation with the spans in the place of their symbols, and with a space where one would become one with
        a word beside it."""
        spans = dict(zip(self._symbols, zip([None, *self._spans], self._spans)))
        out, done, last = "", 0, None
        for match in _PLACEHOLDER.finditer(translation):
            out += translation[done : match.start()]
            before, span = spans[match[0]]
            beside = last if match.start() == done else None
            touched = beside is not None and beside is before if span.left.is_span else is_letter(span.left.character)
            is_glued = is_letter(out[-1:]) or (beside is not None and not beside.is_tag)
            out += " " * (is_glued and not span.is_tag and (span.left.is_apart or not touched))
            out += span.text
            done, last = match.end(), span
            following = translation[done : done + 1]
            is_word = following and not _PLACEHOLDER.match(translation, done)
            out += " " * bool(is_word and needs_space(span, following))
        return out + translation[done:]

    def _put_back_behind(
        self, begun: Beginning, translation: str, end: int, place: int, reading: Reading, terms: Sequence[str]
    ) -> str:
        """What `put_back` gives of a translation whose beginning ends at `end`: other spans go behind `place`."""
        tail, whole = translation[place:], begun.whole.rstrip(" ") + translation[end:place]
        order = order_behind(self._pairs, len(self._spans), begun)
        rest = ProtectedText(
            self.text,
            self.plain,
            [self._spans[number]._replace(is_open=is_open) for number, is_open in order],
            [self._symbols[number] for number, _ in order] if self._symbols else (),
            self._protection,
            self.is_protected,
        )
        back = rest.put_back(tail, reading_behind(reading, len(translation[:place].encode())), terms).lstrip()
        first = next((span for span in rest._spans if not span.is_open and back.startswith(span.text)), None)
        if first is not None and tail.lstrip().startswith(first.text):
            first = None
        so_far = begun._replace(whole=whole) if place > end else begun
        return whole + gap_behind(so_far, self._spans, first, tail, back) + back

    def beginning(self, prefix: str) -> str:
        """What a translation of `plain` begins with, where that of the whole text begins with `prefix`: without the
        spans that are in it, or that its end is the beginning of, or with their symbols."""
        return self._begun(prefix).plain

    def _begun(self, prefix: str) -> Beginning:
        """See `beginning`; once for all hypotheses of a text."""
        if prefix not in self._beginnings:
            self._beginnings[prefix] = beginning_of(prefix, self._spans, self._symbols, self._find_in)
        return self._beginnings[prefix]

    def _find_in(self, prefix: str) -> list[tuple[int, int]]:
        found = self._protection.find(prefix)[0]
        return found if self._symbols else _with_what_encloses(prefix, found)

    def _has_every_symbol(self, translation: str) -> bool:
        """Whether a translation has each symbol once, and pairs of tags in order: each around what it is around in the
        source, and nothing else that is protected."""
        places = {match[0]: match.start() for match in _PLACEHOLDER.finditer(translation)}
        is_open = [symbol for symbol, span in zip(self._symbols, self._spans) if span.is_open]
        if len(_PLACEHOLDER.findall(translation)) + len(is_open) != len(self._symbols):
            return False
        places |= {symbol: number - len(is_open) for number, symbol in enumerate(is_open)}  # before it
        if set(places) != set(self._symbols):
            return False
        place = [places[symbol] for symbol in self._symbols]
        of_pairs = set(itertools.chain.from_iterable(self._pairs))
        points = [Pair(number, number) for number in range(len(place)) if number not in of_pairs]
        return all(place[one.first] < place[one.last] for one in self._pairs) and all(
            _nesting(*one, *other) == _nesting(*(place[number] for number in (*one, *other)))
            for one, other in itertools.combinations([*self._pairs, *points], 2)
        )

    def _folded(self) -> str:
        """The text, white space folded but in the spans."""
        out, done = "", 0
        for span in self._spans:
            between = self.text[done : span.start]
            out += " " * bool(between and out) + span.written
            done = span.start + len(span.text)
        return out


def _with_what_encloses(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans, each but tags with the brackets and quotation marks that are around it alone: a model makes up words
    for brackets that it finds empty."""
    wider: list[tuple[int, int]] = []
    for number, (start, end) in enumerate(spans):
        low = wider[-1][1] if wider else 0
        high = spans[number + 1][0] if number + 1 < len(spans) else len(text)
        while text[start] != "<" and low < start and end < high and text[start - 1] + text[end] in ENCLOSING:
            start, end = start - 1, end + 1
        wider.append((start, end))
    return wider


def _found(patterns: Iterable[Any], text: str) -> list[tuple[int, int]]:
    """See `Protection.spans_of`."""
    deadline = time.monotonic() + _SECONDS
    found: list[tuple[int, int, int]] = []
    for number, pattern in enumerate(patterns):
        left = max(deadline - time.monotonic(), 1e-3)
        found += [(*match.span(), number) for match in pattern.finditer(text, timeout=left) if match[0].strip()]
    kept: list[tuple[int, int]] = []
    for start, end, _ in sorted(found, key=lambda each: (each[0], -each[1], each[2])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept


def _sides(text: str, start: int, end: int, starts: Collection[int], ends: Collection[int]) -> tuple[Side, Side]:
    """What is beside a span, given where all spans start and end."""
    before = len(text[:start].rstrip())
    after = len(text) - len(text[end:].lstrip())
    left = Side(text[:before][-1:], before < start or not before, before in ends)
    return left, Side(text[after : after + 1], after > end or after == len(text), after in starts)


def _compiled(pattern: str) -> Any:
    """A pattern by its name, or a regular expression.

    Raises:
        UserError: it is none, finds the empty string, or is too large.
    """
    if pattern not in PATTERNS and regex.fullmatch(r"[\w\s,-]*", pattern):
        wrong = next((name for name in pattern.split(",") if name.strip() not in PATTERNS), pattern)
        raise UserError(
            f"{wrong!r:.60} is no name of a pattern: give some of {', '.join(PATTERNS)}, or a regular expression"
            + f"; one of letters, digits and spaces is written as (?:{wrong:.20})" * bool(wrong.strip())
        )
    if regex.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", pattern):
        raise UserError(
            f"The regular expression {pattern!r:.60} has a control character, which is what Python makes of \\b: "
            "give it with an r before its quotation marks, as in (r'\\bAB-1\\b',)"
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
    except (TimeoutError, MemoryError) as error:  # such as (?R), which calls itself
        raise UserError(
            f"The regular expression {text!r:.60} does not end on three characters: give another"
        ) from error
    if empty:
        raise UserError(f"The regular expression {text!r:.60} finds the empty string: give one that does not")
    return compiled


def _folded(text: str) -> str:
    """A text without the gaps that made up tags and symbols leave."""

    def folded(gap: Any) -> str:
        return folded_gap(gap[0], text[: gap.start()][-1:], text[gap.end() : gap.end() + 2])

    return _GAP.sub(folded, text).strip(" ")


def _without(pattern: Any, text: str, terms: Iterable[str] = (), kept: Sequence[str] = ()) -> str:
    """A text without what a pattern finds outside of terms, but for what is in `kept`: `TAKEN_OUT` for each byte, so
    that places stay."""
    tokens = [match.span() for match in TOKEN.finditer(text)]
    places = [place for term in terms for place in places_of(term, text)]
    of_terms = [(tokens[place[0]][0], tokens[place[-1]][1]) for place in places]

    def nothing(match: Any) -> str:
        is_asked_for = any(start < match.end() and match.start() < end for start, end in of_terms)
        return match[0] if is_asked_for or match[0] in kept else TAKEN_OUT * len(match[0].encode())

    return pattern.sub(nothing, text)


def _nesting(first: int, last: int, other_first: int, other_last: int) -> str:
    """How two pairs of tags stand to each other."""
    if last < other_first or other_last < first:
        return "beside"
    if first < other_first and other_last < last:
        return "around"
    return "within" if other_first < first and last < other_last else "crossing"


def protected_again(
    translation: Translation, text: ProtectedText, terms: TermsOfText = (), prefix: str | None = None
) -> Translation:
    """A translation of `text.plain`, as a client has it of the signature `translate`, with what was taken out.

    What else it says of its pieces stays that of the translation without, which is the output `plain` of a hypothesis.
    The output `is_protected` says whether what is to be protected was found in time. Nothing is put into `terms`, which
    the translation was to contain; the output `is_prefix_kept` says whether it still begins with `prefix`, if it did.
    """
    source = tuple(translation.outputs.get(f"source_piece_{side}", ()) for side in ("starts", "ends"))
    ways = [way for term in terms for way in ([term] if isinstance(term, str) else term)]
    is_begun = translation.outputs.get("is_prefix_kept", False)

    def again(hypothesis: Hypothesis) -> Hypothesis:
        starts, ends = (hypothesis.outputs.get(name, ()) for name in ("piece_starts", "piece_ends"))
        reading = Reading(starts, ends, hypothesis.alignment, *source)
        outputs = {**hypothesis.outputs, "plain": hypothesis.text}
        back = text.put_back(hypothesis.text, reading, ways, prefix if is_begun and prefix else "")
        return hypothesis._replace(text=back, outputs=outputs)

    hypotheses = [again(each) for each in translation.hypotheses]
    outputs = {**translation.outputs, "is_protected": text.is_protected}
    if prefix and outputs.get("is_prefix_kept"):
        begins = as_read(prefix).rstrip(" ")
        outputs["is_prefix_kept"] = all(fold(each.text).startswith(begins) for each in hypotheses)
    return translation._replace(hypotheses=hypotheses, outputs=outputs)
