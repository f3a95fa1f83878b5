"""Files that hold text, and are no text files: documents of office programs and the like."""

import os
import stat

from nmt_keras.errors import UserError

_BEGINNINGS = (
    (b"%PDF-", "a PDF"),
    (b"{\\rtf", "rich text (RTF)"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an office program"),
    (b"PK\x03\x04", "a document of an office program, or another zip file"),
)


def require_no_document(name: str, beginning: bytes) -> None:
    """Checks that a file is none of these.

    Args:
        name: what the message calls it.
        beginning: its first bytes, eight at least.

    Raises:
        UserError: it is one.
    """
    for magic, kind in _BEGINNINGS:
        if beginning.startswith(magic):
            raise UserError(
                f"{name} is no text file, it is {kind}: save its text as plain text, or its table as CSV or "
                "tab-separated text, in UTF-8"
            )


def require_text_file(path: str) -> None:
    """Checks that a file that can be read twice is none of these; what cannot be read says so where it is opened.

    Raises:
        UserError: it is one.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return
        with open(path, "rb") as file:
            beginning = file.read(8)
    except OSError:
        return
    require_no_document(path, beginning)
