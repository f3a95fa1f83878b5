"""What a translation is to begin with, of a text from which spans were taken out: the prefix without the spans that it
has, which the model is given, and the prefix as it is to stand there.

A prefix has a span where it has its text, with the same brackets and quotation marks around it or with others, and at
its end where it has the beginning of one, which then is whole.
"""

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nmt_keras.data.scripts import TOKEN, is_letter
from nmt_keras.inference.glossary import places_of
from nmt_keras.inference.placing import CLOSING, Pair, Reading, Span, enclosed, has_break, is_inline, needs_space
from nmt_keras.inference.strings import to_bytes
from nmt_keras.tokenizers.white_space import fold

Find = Callable[[str], Sequence[tuple[int, int]]]  # where in a text what is protected starts and ends


class Beginning(NamedTuple):
    """What a translation is to begin with."""

    plain: str  # without spans, or with their symbols
    whole: str  # with the spans
    numbers: tuple[int, ...]  # of the spans in it
    ends_with_span: bool


def as_read(prefix: str) -> str:
    """A prefix as tokenizers read it: white space is one space each, which stays at the end, where it ends a word."""
    prefix = to_bytes(prefix).decode("utf-8", errors="replace")
    return fold(prefix) + " " * (prefix[-1:].isspace() and bool(fold(prefix)))


def beginning_of(prefix: str, spans: Sequence[Span], symbols: Sequence[str], find: Find) -> Beginning:
    """A beginning by a prefix, of a text with spans.

    Args:
        prefix: given by a caller.
        spans: of the text.
        symbols: of the spans, of a model that has some; none of another.
        find: what is protected, with what encloses it alone where spans have it.
    """
    prefix = as_read(prefix)
    left = {number: fold(span.text) for number, span in enumerate(spans)}
    plain, whole, done = "", "", 0
    numbers: list[int] = []

    def take(number: int, start: int, end: int, text: str) -> None:
        nonlocal plain, whole, done
        plain += prefix[done:start] + (symbols[number] if symbols else "")
        if is_letter(plain[-1:]) and is_letter(prefix[end : end + 1]) and not is_inline(text):
            plain += " "
        whole += prefix[done:start] + text
        done = end
        numbers.append(number)
        del left[number]

    for start, end in find(prefix) if left else ():
        same = _same(prefix[start:end], left)
        if end == len(prefix):
            begun = _begun_at_the_end(prefix, done, left)
            if begun is not None and (same is None or begun[1] < start):
                break
        if same is not None:
            take(same, start, end, prefix[start:end])
    begun = _begun_at_the_end(prefix, done, left)
    if begun is not None:
        take(begun[0], begun[1], len(prefix), spans[begun[0]].text)
    ends_with_span = bool(numbers) and done == len(prefix)
    return Beginning(plain + prefix[done:], whole + prefix[done:], tuple(numbers), ends_with_span)


def _same(text: str, left: Mapping[int, str]) -> int | None:
    """The first of the spans that are left that a text is, whatever encloses both."""
    inside = enclosed(text)
    exact = next((number for number, other in left.items() if other == text), None)
    return exact if exact is not None else next((n for n, other in left.items() if enclosed(other) == inside), None)


def _begun_at_the_end(prefix: str, done: int, left: Mapping[int, str]) -> tuple[int, int] | None:
    """A span that the end of a prefix is the beginning of, and where it starts there; the longest such end."""
    ways = [(number, way) for number, text in left.items() for way in {text, enclosed(text)}]
    longest = max((len(way) for _, way in ways), default=0)
    for start in range(max(done, len(prefix) - longest + 1), len(prefix)):
        end = prefix[start:]
        if is_letter(prefix[start - 1 : start]) and is_letter(end[0]):
            continue  # inside a word
        if end.isalpha() or (len(end) == 1 and not end.isdigit() and end not in "{<"):
            continue  # as well the beginning of a word, or a sign
        number = next((number for number, way in ways if way.startswith(end) and way != end), None)
        if number is not None:
            return number, start
    return None


def end_in(translation: str, begun: Beginning, terms: Sequence[str]) -> tuple[int, int] | None:
    """Where in a translation the beginning ends, and where the word or term does that it ends in; None where the
    translation begins otherwise."""
    wanted = fold(begun.plain)
    if translation.startswith(begun.plain):
        end = len(begun.plain.rstrip())
    else:  # folding makes no text longer
        end = bisect.bisect_left(range(len(translation)), len(wanted), key=lambda n: len(fold(translation[:n])))
        if fold(translation[:end]) != wanted:
            return None
    if not begun.plain or begun.ends_with_span:
        return end, end
    tokens = [match.span() for match in TOKEN.finditer(translation)]
    of_terms = [(tokens[p[0]][0], tokens[p[-1]][1]) for term in terms for p in places_of(term, translation)]
    return end, max([end, *(stop for start, stop in [*tokens, *of_terms] if start < end < stop)])


def reading_behind(reading: Reading, length: int) -> Reading:
    """What the rest of a translation reads, whose first bytes, so many, are its beginning; pieces may be of both."""
    sides = ([max(place - length, 0) for place in side] for side in (reading.starts, reading.ends))
    own = [piece for piece in zip(*sides, reading.alignment) if piece[1] > 0]
    starts, ends, alignment = zip(*own) if own else ((), (), ())
    return reading._replace(starts=starts, ends=ends, alignment=alignment)


def order_behind(pairs: Sequence[Pair], count: int, begun: Beginning) -> list[tuple[int, bool]]:
    """The spans that go behind a beginning, by their numbers among so many, and of each whether it stands in the
    beginning: a tag that opens there and closes behind it.

    They are in the order of the text, but for what an open tag is around where it was in a pair that is not open: that
    comes first, since the open one must close before, and in what is open around it.
    """
    closing = {pair.first: pair.last for pair in pairs}
    is_open = {n for n in begun.numbers if n in closing and closing[n] not in begun.numbers}
    order = [number for number in range(count) if number not in begun.numbers or number in is_open]
    for number in sorted(is_open):
        around = [pair.first for pair in pairs if pair.first < number and pair.last > closing[number]]
        innermost = max(is_open.intersection(around), default=-1)  # what is open around it goes with it
        around = [first for first in around if first in order and first > innermost]
        if around:
            low, high = order.index(number), order.index(closing[number]) + 1
            moved = order[low:high]
            del order[low:high]
            place = order.index(min(around))
            order[place:place] = moved
    return [(number, number in is_open) for number in order]


def gap_behind(begun: Beginning, spans: Sequence[Span], first: Span | None, tail: str, back: str) -> str:
    """The white space between a beginning and `back`, what is behind it, which was `tail` in the translation.

    Args:
        begun: the beginning.
        spans: of the text.
        first: the span that `back` begins with, which `tail` does not; None for none.
        tail: the rest of the translation without spans.
        back: that with spans, and without white space before it.
    """
    gap = tail[: len(tail) - len(tail.lstrip())]
    if has_break(gap) or not back:
        return gap.rstrip(" ") if back else ""
    would_be_one = is_letter(begun.whole[-1:]) and is_letter(back[0])
    if first is not None:
        return " " * (first.left.is_apart or would_be_one)
    if begun.ends_with_span:
        last = spans[begun.numbers[-1]]
        if last.is_tag and (begun.plain.endswith(" ") or not begun.plain):  # no space is behind it for a new word
            return " " * last.right.is_apart
        if back[0] in CLOSING and not last.right.is_apart:
            return ""
        return " " * (bool(gap) or begun.whole.endswith(" ") or needs_space(last, back))
    is_another = back[0] != tail.lstrip()[0]  # what stood between is taken out
    return " " * (bool(gap) or begun.whole.endswith(" ") or (would_be_one and is_another))
