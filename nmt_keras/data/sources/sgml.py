"""SGML of WMT's older test sets, one file for the sources and one for the references, which is no XML."""

import html
import re
from collections.abc import Iterator

from nmt_keras.data.sources.records import Record, Wanted, lines_of, one_line
from nmt_keras.errors import UserError

_PART = re.compile(r"<doc\b([^>]*)>|<seg\b[^>]*>(?:(.*?)</seg\s*>)?", re.IGNORECASE | re.DOTALL)
_SYSTEM = re.compile(r"""sysid\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)


def read_sgml(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads the segments of a file, those of one system where references have several.

    Raises:
        UserError: it is no UTF-8, has no segments, or none of this system; or both sides were asked of one file.
    """
    if len(wanted.fields) > 1:
        raise UserError(f"{wanted.name} has one side of a test set: give the files of the source and of the reference")
    content = "".join(lines_of(path, wanted))
    systems: dict[str, None] = {}
    system, found, line, position = "", 0, 1, 0
    for match in _PART.finditer(content):
        line += content.count("\n", position, match.start())
        position = match.start()
        attributes, text = match.groups()
        if attributes is not None:
            named = _SYSTEM.search(attributes)
            system = named.group(1) if named else ""
            systems[system] = None
        elif text is None or "<seg" in text.lower():
            raise UserError(f"{wanted.name}, line {line:,}: a segment does not end; it is truncated, fetch it again")
        elif system == (wanted.fields[0] or next(iter(systems), "")):
            found += 1
            yield Record(line, (one_line(html.unescape(text)).strip(),))
    if not found:
        asked = f" by {wanted.fields[0]!r}" if wanted.fields[0] else ""
        raise UserError(
            f"{wanted.name} has no segments{asked}; its translators: {', '.join(filter(None, systems)) or 'none'}"
        )
