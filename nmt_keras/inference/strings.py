"""Converts between Python's `str`, which callers hold, and the bytes that TensorFlow and servers hold."""

from collections.abc import Sequence

from nmt_keras.errors import UserError


def to_bytes(text: str) -> bytes:
    """UTF-8 in which surrogate escapes are the bytes they stand for; if there are other surrogates, all become "?"."""
    try:
        return text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", errors="replace")


def from_bytes(data: bytes) -> str:
    """The inverse of `to_bytes`: bytes that are no UTF-8 become surrogate escapes."""
    return data.decode("utf-8", errors="surrogateescape")


def require_as_many(name: str, texts: object, count: int) -> None:
    """Checks that an argument is a list of so many texts.

    Raises:
        UserError: it is one text, has another number of them, or something that is no text.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
        raise UserError(f"{name} must be a list of texts, one for each. Received: {texts!r:.60}")
    if len(texts) != count:
        raise UserError(f'{len(texts):,} {name} for {count:,} texts: give as many, "" where there is none')
    wrong = next((each for each in texts if not isinstance(each, str)), None)
    if wrong is not None or None in texts:
        raise UserError(f'{name} must be texts, "" where there is none. Received: {wrong!r:.60}')
