"""What readers of formats have in common: what is wanted of a file, the records they give, and its lines."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from nmt_keras.data import encodings
from nmt_keras.data.languages import code_of_name, language_of
from nmt_keras.errors import UserError

_ROLES = (("source", "src"), ("target", "tgt", "translation", "reference"))
_SAMPLED_BYTES = 1 << 16
_TAG = re.compile(r"[a-z]{2,3}(-([a-z]{4}|[a-z]{2}|[0-9]{3}))*")  # a language with a script and a region
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can write


class Wanted(NamedTuple):
    """What is read of a file.

    Attributes:
        name: of the file, for messages.
        languages: the code of each text of a record, one or two.
        fields: where each text is: a column, a field, a language's code in the file, a translator; "" finds it.
        roles: of each text, 0 for the source and 1 for the target.
        keep_tags: keep inline tags as placeholders such as <1>, </1> and <2/>.
        beside: of one side alone, the path of the other side's file, where ids say what belongs together; "" is none.
    """

    name: str
    languages: tuple[str, ...]
    fields: tuple[str, ...]
    roles: tuple[int, ...] = (0, 1)
    keep_tags: bool = False
    beside: str = ""


class Record(NamedTuple):
    """A record of a file: the line it begins in, from 1, and its texts; or why it has none, and whether an empty line
    is in its place where the file has one side alone."""

    line: int
    texts: tuple[str, ...] = ()
    left_out: str = ""
    keeps_place: bool = True


Reader = Callable[[str, Wanted], Iterator[Record]]


def lines_of(path: str, wanted: Wanted) -> Iterator[str]:
    """The lines of UTF-8 text with their line ends, without a byte order mark.

    Raises:
        UserError: a line is no UTF-8; the message has the encoding it looks like.
    """
    with open(path, "rb") as file:
        sample = file.read(_SAMPLED_BYTES)
        file.seek(0)
        encoding = encodings.guess_of_several(sample, [], wanted.languages)
        if encoding:
            raise UserError(f"{wanted.name} looks like {encoding}: {_convert(wanted.name, encoding)}")
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                guessed = encodings.guess_of_several(sample, [line], wanted.languages)
                looks = f", and looks like {guessed}" if guessed else ""
                raise UserError(
                    f"{wanted.name}, line {number:,}: byte {line[error.start]:#04x} is no UTF-8{looks}: "
                    f"{_convert(wanted.name, guessed or 'LATIN1')}"
                ) from error


def _convert(name: str, encoding: str) -> str:
    return f"convert it, {encodings.command(name, encoding)}"


def is_language(tag: str, code: str) -> bool:
    """Whether the tag of a text, such as de-AT, is of the language of a code, such as de, deu_Latn or de-AT."""
    tag, code = (value.lower().replace("_", "-") for value in (tag, code))
    if tag == code or not _TAG.fullmatch(tag):
        return tag == code
    return language_of(tag).code == language_of(code).code and ("-" not in code or "-" not in tag)


def named_like(names: Sequence[str], wanted: Wanted, number: int) -> int | None:
    """The place, among names of columns or fields, of the text `number` of what is wanted.

    A name is the code of the text's language, or else a tag of it, its English name, or what its role is called.
    """
    code, role = wanted.languages[number], wanted.roles[number]
    tests: tuple[Callable[[str], bool], ...] = (
        lambda name: name == code.lower(),
        lambda name: is_language(name, code),
        lambda name: code_of_name(name) == language_of(code).code,
        lambda name: name in _ROLES[role],
    )
    lower = [name.strip().lower() for name in names]
    return next((place for test in tests for place, name in enumerate(lower) if test(name)), None)


def is_header(names: Sequence[str], has_wanted: bool) -> bool:
    """Whether a row of cells names columns: other languages, by code or name, and perhaps roles and numbers of rows.

    Codes are words too, as It and Es: a row of codes alone is a header if one of them is wanted (`has_wanted`).
    """
    roles = {"id", "line", "index", "score", "#", *_ROLES[0], *_ROLES[1]}
    lower = {name.strip().lower() for name in names}
    called = {name for name in lower if code_of_name(name) is not None}
    codes = {name for name in lower if language_of(name).is_known}
    return (
        1 < len(names) == len(lower)
        and bool(called | codes)
        and lower <= called | codes | roles | {""}
        and (has_wanted or not lower <= codes)
    )


def one_line(text: str) -> str:
    """Text with each run of line ends as one space (`str.splitlines` would cut at U+2028 too) that can be written."""
    return _SURROGATE.sub("\ufffd", " ".join(part for part in text.replace("\r", "\n").split("\n") if part))
