"""Guesses the encoding of text that is not UTF-8, by byte order marks, zero bytes, escape sequences and letter
frequencies."""

import codecs
import os
import re
from collections.abc import Sequence

import charset_normalizer

from nmt_keras.data.languages import language_of
from nmt_keras.data.scripts import ScriptCheck

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32LE"),
    (codecs.BOM_UTF32_BE, "UTF-32BE"),
    (codecs.BOM_UTF16_LE, "UTF-16LE"),
    (codecs.BOM_UTF16_BE, "UTF-16BE"),
)
_ESCAPES = (
    (re.compile(rb"\x1b\$[@B]"), "ISO-2022-JP"),
    (re.compile(rb"\x1b\$\)C"), "ISO-2022-KR"),
    (re.compile(rb"(?:~\{(?:[\x21-\x77][\x21-\x7e])+~\}[^\n]*\n?){3}"), "HZ"),
)
_WIDE = ("UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE")
# What text of a script was written in before UTF-8, the most frequent first; the names are iconv's and Python's.
_LEGACY = {
    "Cyrillic": ("CP1251", "KOI8-R", "ISO-8859-5", "CP866"),
    "Greek": ("CP1253", "ISO-8859-7"),
    "Arabic": ("CP1256", "ISO-8859-6"),
    "Hebrew": ("CP1255", "ISO-8859-8"),
    "Thai": ("TIS-620",),
    "Han": ("GB18030", "BIG5"),
    "Kana": ("SHIFT_JIS", "EUC-JP"),
    "Hangul": ("EUC-KR",),
}
_WESTERN = ("CP1252",)
_LATIN = {
    **dict.fromkeys("cs sk pl hu sl hr bs sr sh ro sq hsb szl".split(), ("CP1250", "ISO-8859-2")),
    **dict.fromkeys("lt lv et ltg".split(), ("CP1257",)),
    **dict.fromkeys("tr az ku tk".split(), ("ISO-8859-9",)),
    "vi": ("CP1258",),
}
_ZERO_SHARE = 0.05  # share of zero bytes above which text is taken to have 16 or 32 bits a character
_FEW_LINES = 3
_FEW_BYTES = 16  # bytes beyond ASCII that the library needs to guess; wide encodings are recognised before
_NOT_GUESSED = ("utf_7", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be")
_ENOUGH = 0.6  # of the letters beyond ASCII that must be of the language's script


def guess(sample: bytes, broken_lines: Sequence[bytes], language: str) -> str:
    """The encoding that text looks like, by its name for iconv; "" where it looks like UTF-8 or like nothing known.

    Args:
        sample: the beginning of the text.
        broken_lines: some lines that are no UTF-8.
        language: its tag; its script decides between encodings in which the bytes have a meaning.
    """
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    if sample and sample.count(0) > _ZERO_SHARE * len(sample):
        return max(_WIDE, key=lambda name: _ascii_share(sample, name))
    for pattern, name in _ESCAPES:
        if pattern.search(sample):
            return name
    if not broken_lines and 0 not in sample:
        return ""
    raw = b"\n".join(broken_lines)
    known = language_of(language)
    # Han last: Japanese and Korean have it too.
    for script in sorted(known.scripts, key=lambda name: name == "Han"):
        names = _LATIN.get(known.code, _WESTERN) if script == "Latin" else _LEGACY.get(script, ())
        readings = [name for name in names if _reads(raw, name, language)]
        if script in _FREQUENT:
            readings.sort(key=lambda name: -_frequent_letters(raw.decode(name), script))
        if readings and broken_lines:
            return readings[0]
    for name in _wide_by_line_ends(sample):  # line ends give it away where the characters have no zero bytes
        if _reads(sample[: len(sample) // 2 * 2], name, language):
            return name
    if not broken_lines:
        return ""
    if not known.scripts and _is_western(raw):
        return _WESTERN[0]
    if sum(byte > 0x7F for byte in raw) < _FEW_BYTES:
        return ""
    best = charset_normalizer.from_bytes(raw, cp_exclusion=list(_NOT_GUESSED)).best()
    return "" if best is None or best.encoding in ("utf_8", "ascii") else best.encoding.upper().replace("_", "-")


def guess_of_several(sample: bytes, broken_lines: Sequence[bytes], languages: Sequence[str]) -> str:
    """The encoding that lines look like with text of several languages; see `guess`.

    Most bytes of any text are letters of Western Europe too. They are taken for these where they make frequent ones, or
    where no other language says what else they are.
    """
    found = [name for language in languages if (name := guess(sample, broken_lines, language))]
    is_western = _is_western(b"\n".join(broken_lines))
    return min(found, key=lambda name: (name in _WESTERN) != is_western, default="")


def _is_western(raw: bytes) -> bool:
    """Whether text looks Western European: few characters are beyond ASCII, and most of these are frequent there."""
    try:
        text = raw.decode(_WESTERN[0])
    except UnicodeDecodeError:
        return False
    beyond = [character for character in text if not character.isascii()]
    return len(beyond) < 0.2 * len(text) and _frequent_letters(text, "Latin") > _ENOUGH


def is_cut_off(line: bytes) -> bool:
    """Whether a line is UTF-8 but for a last character that is not whole."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _wide_by_line_ends(sample: bytes) -> list[str]:
    """The encodings of 16 bits in which there are line feeds, with their zero byte, at even places."""
    found = []
    for name, end in (("UTF-16LE", rb"\n\0"), ("UTF-16BE", rb"\0\n")):
        places = [match.start() % 2 for match in re.finditer(end, sample)]
        if len(places) >= _FEW_LINES and sum(places) <= 0.1 * len(places):
            found.append(name)
    return found


def command(path: str, encoding: str) -> str:
    """How a text is converted."""
    stem, extension = os.path.splitext(path.removesuffix(".gz"))
    read = (
        f"zcat {path} | iconv -f {encoding} -t UTF-8"
        if path.endswith(".gz")
        else f"iconv -f {encoding} -t UTF-8 {path}"
    )
    return f"{read} > {stem}.utf8{extension}"


def _ascii_share(sample: bytes, name: str) -> float:
    width = 4 if "32" in name else 2
    text = sample[: len(sample) // width * width].decode(name, errors="replace")
    return sum(character.isascii() and character != "\0" for character in text) / max(len(text), 1) * width


def _reads(raw: bytes, name: str, language: str) -> bool:
    """Whether bytes have a meaning in an encoding, and the letters beyond ASCII are mostly of the language's script."""
    try:
        text = raw.decode(name)
    except UnicodeDecodeError:
        return False
    if not language_of(language).scripts:
        return False
    beyond = [character for character in text if not character.isascii() and not character.isspace()]
    if any("\x80" <= character <= "\x9f" or "\ue000" <= character <= "\uf8ff" for character in beyond):
        return False
    letters = "".join(character for character in beyond if character.isalpha())
    return 2 * len(letters) >= len(beyond) and ScriptCheck(language).share(letters) >= _ENOUGH


# Frequent letters of a script: of Latin those beyond ASCII, of Cyrillic those of Russian and Ukrainian, of Han those of
# simplified and traditional Chinese. Text decoded with the wrong encoding rarely has them.
_FREQUENT = {
    "Latin": frozenset("äöüßéèêàçñáíóúãõåæøëïîôûâìòùąćęłńśźżčďěňřšťůžőűăşţğıİÄÖÜÉÁÅØŠŽČŁŚŻ¿¡’“”„«»–—…€°"),
    "Cyrillic": frozenset("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфіїєґ"),
    "Han": frozenset(
        "的一是不了在人有我他这個个们們中来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着著下自之年过過"
    ),
}


def _frequent_letters(text: str, script: str) -> float:
    beyond = [character for character in text if not character.isascii() and character.isprintable()]
    return sum(character in _FREQUENT[script] for character in beyond) / max(len(beyond), 1)
