"""White space and invisible characters, folded the same way wherever text enters; `white_space_ops` does it in a graph.

Each run of Unicode white space becomes one space, and none is left at either end. Characters that show nothing are
removed: controls, and format characters that mean nothing in running text (soft hyphens, zero width spaces, direction
marks, byte order marks) or look like nothing (Hangul fillers). A joiner (U+200C, U+200D) stays after a character of a
script that uses it, and inside emoji; after Latin, Greek, Cyrillic, Chinese and the like, digits and punctuation, it
shows nothing and is removed. Everything else stays as it is, Chinese punctuation and visible format characters of
Arabic included.
"""

import re

Ranges = tuple[tuple[int, int], ...]

# Inclusive ranges of code points. Python's `str.split` takes the same for white space, which a test compares.
WHITE = (
    (0x09, 0x0D),
    (0x1C, 0x20),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
)
INVISIBLE = (
    (0x00, 0x08),
    (0x0E, 0x1B),
    (0x7F, 0x84),
    (0x86, 0x9F),
    (0xAD, 0xAD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x200B, 0x200B),
    (0x200E, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF9, 0xFFFB),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0001, 0xE0001),
)
JOINERS = ((0x200C, 0x200D),)
# Characters that nothing is joined to: Latin, Greek, Cyrillic, Armenian; Georgian; Ethiopic; punctuation; Chinese,
# Japanese and Korean. Hebrew, Arabic, the scripts of India and what follows them, and emoji are left.
_PLAIN = (
    (0x00, 0x058F),
    (0x10A0, 0x139F),
    (0x1E00, 0x1FFF),
    (0x2010, 0x2027),
    (0x2030, 0x205E),
    (0x2E80, 0x2FFF),
    (0x3001, 0x9FFF),
    (0xAC00, 0xD7AF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
    (0x20000, 0x3FFFF),
)


def _class(ranges: Ranges) -> str:
    """A class of characters in a regular expression of Python's."""
    return "[" + "".join(rf"\U{low:08x}-\U{high:08x}" for low, high in ranges) + "]"


NEVER_JOINED = (*_PLAIN, *(pair for pair in WHITE if pair[0] > 0x058F))
_INVISIBLE_PY = re.compile(_class(INVISIBLE))
_USELESS_JOINERS_PY = re.compile(f"(^|{_class(NEVER_JOINED)}){_class(JOINERS)}+")
_PRINTABLE_PY = re.compile("[\u034f\u3164\uffa0]")  # of the invisible ones, those that Python takes for printable
_ODD_SPACE_PY = re.compile(f"(?! ){_class(WHITE)}")


def fold(text: str) -> str:
    """The text with single spaces as its only white space, and without characters that show nothing."""
    if not _is_plain(text):
        text = _USELESS_JOINERS_PY.sub(r"\1", _INVISIBLE_PY.sub("", text))
    return " ".join(text.split())


def _is_plain(text: str) -> bool:
    """Whether there is no white space but U+0020, and nothing invisible, as in most lines."""
    return text.isprintable() and (text.isascii() or _PRINTABLE_PY.search(text) is None)


def is_blank(text: str) -> bool:
    """Whether a text has only white space and invisible characters."""
    return not fold(text)


def has_odd_space(text: str) -> bool:
    """Whether there is white space other than U+0020."""
    return not _is_plain(text) and _ODD_SPACE_PY.search(text) is not None


def has_invisible(text: str) -> bool:
    """Whether there is a character that `fold` removes."""
    if _is_plain(text):
        return False
    return _INVISIBLE_PY.search(text) is not None or _USELESS_JOINERS_PY.search(text) is not None
