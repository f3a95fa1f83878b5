"""PO files of GNU gettext, read by polib."""

import collections
import re
from collections.abc import Iterator

from nmt_keras.data.sources.records import Record, Wanted, is_language, lines_of, one_line
from nmt_keras.errors import UserError

_STRING = re.compile(r'(?:[a-z_]+(?:\[\d+\])?\s*)?"(?:[^"\\]|\\.)*"')


def read_po(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads messages and their translations, plural forms too, without fuzzy, obsolete and untranslated entries.

    Raises:
        UserError: it is no PO file, is in another encoding than it says, or is in neither language.
    """
    import polib  # most corpora are plain text

    try:
        _require_whole_strings(path, polib.detect_encoding(path))
        entries = polib.pofile(path)
    except (OSError, UnicodeDecodeError, LookupError) as error:
        if isinstance(error, UnicodeDecodeError):
            collections.deque(lines_of(path, wanted), maxlen=0)  # which names the line and the encoding of most
        reason = str(error).replace(path, wanted.name)
        raise UserError(f"{wanted.name} is no sound PO file ({reason}); mend it: msgfmt --check says where") from error
    language = entries.metadata.get("Language", "")
    of_source, of_target = (
        [is_language(language, code) for code, role in zip(wanted.languages, wanted.roles) if role == wanted_role]
        for wanted_role in (0, 1)
    )
    is_turned = any(of_source) and not any(of_target)
    if language and not any(of_source + of_target):
        raise UserError(
            f"{wanted.name} is in {language!r} by its header, and {' and '.join(wanted.languages)} was asked for: give "
            "the file of that language"
        )
    for entry in entries:
        if entry.obsolete or entry.fuzzy or not entry.translated():
            kind = "an obsolete" if entry.obsolete else "a fuzzy" if entry.fuzzy else "an untranslated"
            yield Record(entry.linenum, left_out=f"{kind} entry")
            continue
        pairs = [(entry.msgid, entry.msgstr)]
        if entry.msgid_plural:
            forms = [entry.msgstr_plural[number] for number in sorted(entry.msgstr_plural)]
            pairs = [(entry.msgid if number == 0 else entry.msgid_plural, form) for number, form in enumerate(forms)]
        for pair in pairs:
            sides = pair[::-1] if is_turned else pair
            yield Record(entry.linenum, tuple(one_line(sides[role]) for role in wanted.roles))


def _require_whole_strings(path: str, encoding: str) -> None:
    """Polib takes the last character of a string whose quotation mark is missing for that mark.

    Raises:
        OSError: a string does not end on its line; or the file cannot be read.
        UnicodeDecodeError: it is not in the encoding.
    """
    with open(path, encoding=encoding, newline="\n") as file:  # in some encodings a character ends in a byte of "\\"
        for number, line in enumerate(file, 1):
            text = line.strip()
            is_string = text.startswith(('"', "msgid", "msgstr", "msgctxt"))
            if is_string and not _STRING.fullmatch(text):
                raise OSError(f"Syntax error in po file (line {number}): a string has no end")
