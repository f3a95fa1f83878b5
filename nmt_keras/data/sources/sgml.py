"""SGML of WMT's older test sets, one file for the sources and one for the references, which is no XML."""

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from nmt_keras.data.languages import code_of_name, language_of
from nmt_keras.data.sources.records import Record, Wanted, is_language, lines_of, one_line
from nmt_keras.errors import UserError
from nmt_keras.reports import counted

_PART = re.compile(r"<doc\b([^>]*)>|<seg\b([^>]*)>(?:(.*?)</seg\s*>)?", re.IGNORECASE | re.DOTALL)
_SEGMENT = re.compile(r"<seg\b[^>]*>.*?</seg\s*>", re.IGNORECASE | re.DOTALL)
_SET = re.compile(r"<((?:src|ref|tst)set)\b([^>]*)>", re.IGNORECASE)
_SYSTEM, _DOCUMENT, _ID, _SOURCE_LANGUAGE, _TARGET_LANGUAGE = (
    re.compile(rf"""\b{name}\s*=\s*(?:"([^"]*)"|'([^']*)'|([^"'\s>]+))""", re.IGNORECASE)
    for name in ("sysid", "docid", "id", "srclang", "trglang")
)


class _Segment(NamedTuple):
    line: int
    document: str  # its id, "" where there is none
    id: str
    text: str


def read_sgml(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads the segments of a file, those of one system where references have several.

    Where `wanted.beside` is the file of the other side, the segments are in its order, by the ids of documents and
    segments; one that is missing keeps its place, one that is not in the other file has none. Where a file has no ids,
    they are in their own order.

    Raises:
        UserError: it is no UTF-8, is cut off, is in another language, has no segments, or none of this system, or no id
            that the other file has; or both sides were asked of one file.
    """
    if len(wanted.fields) > 1:
        raise UserError(f"{wanted.name} has one side of a test set: give the files of the source and of the reference")
    content = _content(path, wanted)
    _require_language(content, wanted)
    if not wanted.beside:
        yield from (Record(segment.line, (segment.text,)) for segment in _segments(content, wanted))
        return
    own, beside = list(_segments(content, wanted)), wanted._replace(name=wanted.beside, fields=("",))
    others = list(_segments(_content(wanted.beside, beside), beside))
    if not all(any(segment.document or segment.id for segment in segments) for segments in (own, others)):
        yield from (Record(segment.line, (segment.text,)) for segment in own)
        return
    found, places = _by_id(own), _by_id(others)
    if not found.keys() & places.keys():
        raise UserError(
            f"{wanted.name} has no document with a segment whose ids {wanted.beside} has too: give the source and the "
            "reference of one test set"
        )
    for key, other in places.items():
        if key in found:
            yield Record(found[key].line, (found[key].text,))
        else:
            yield Record(other.line, left_out="no segment with the ids of the source's at its line")
    for key, segment in found.items():
        if key not in places:
            yield Record(segment.line, left_out="the source has no segment with its ids", keeps_place=False)


def _by_id(segments: list[_Segment]) -> dict[tuple[str, str, int], _Segment]:
    """Segments by the ids of their documents and their own, and how often these came before."""
    found: dict[tuple[str, str, int], _Segment] = {}
    counts: dict[tuple[str, str], int] = {}
    for segment in segments:
        ids = segment.document.casefold(), segment.id
        counts[ids] = counts.get(ids, -1) + 1
        found[*ids, counts[ids]] = segment
    return found


def _content(path: str, wanted: Wanted) -> str:
    """The text of a file that is not cut off."""
    content = "".join(lines_of(path, wanted))
    _require_whole(content, wanted)
    return content


def _segments(content: str, wanted: Wanted) -> Iterator[_Segment]:
    systems: dict[str, None] = {}
    system, document, found, line, position = "", "", 0, 1, 0
    for match in _PART.finditer(content):
        line += content.count("\n", position, match.start())
        position = match.start()
        of_document, of_segment, text = match.groups()
        if of_document is not None:
            system, document = _value(_SYSTEM, of_document), _value(_DOCUMENT, of_document)
            systems[system] = None
        elif text is None or "<seg" in text.lower():
            raise UserError(f"{wanted.name}, line {line:,}: a segment does not end; it is truncated, fetch it again")
        elif system == (wanted.fields[0] or next(iter(systems), "")):
            found += 1
            yield _Segment(line, document, _value(_ID, of_segment), one_line(html.unescape(text)).strip())
    if not found:
        asked = f" by {wanted.fields[0]!r}" if wanted.fields[0] else ""
        raise UserError(
            f"{wanted.name} has no segments{asked}; its translators: {', '.join(filter(None, systems)) or 'none'}"
        )


def _require_whole(content: str, wanted: Wanted) -> None:
    """Checks that documents and the set have their end tags; `_segments` checks the segments."""
    outside = _SEGMENT.sub("", content)
    for name in ("doc", *(match[1] for match in _SET.finditer(outside))):
        begun, ended = (
            len(re.findall(pattern, outside, re.IGNORECASE)) for pattern in (rf"<{name}\b", rf"</{name}\s*>")
        )
        if begun > ended:
            raise UserError(
                f"{wanted.name}: {counted(begun, f'<{name}>')} and {ended:,} </{name}>; it is truncated, fetch it again"
            )


def _require_language(content: str, wanted: Wanted) -> None:
    """Checks that the text is in the language that is wanted, as far as the file names one that is known."""
    [code] = wanted.languages
    for match in _SET.finditer(content):
        tag = _value(_SOURCE_LANGUAGE if match[1].lower() == "srcset" else _TARGET_LANGUAGE, match[2])
        named = code_of_name(tag) or tag
        if language_of(named).is_known and not is_language(named, code):  # "any" is of no language
            raise UserError(
                f"{wanted.name} is in {tag!r} by its {match[1]}, and {code!r} was asked for: give the file of "
                f"that one, {tag!r} as the code, or mend the header"
            )


def _value(attribute: re.Pattern[str], attributes: str) -> str:
    """The value of an attribute of an element, "" where it has none."""
    found = attribute.search(attributes)
    return html.unescape(next(filter(None, found.groups()), "")).strip() if found else ""
