"""Converts between Python's `str`, which callers hold, and the bytes that TensorFlow and servers hold."""


def to_bytes(text: str) -> bytes:
    """UTF-8 in which surrogate escapes are the bytes they stand for; if there are other surrogates, all become "?"."""
    try:
        return text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", errors="replace")


def from_bytes(data: bytes) -> str:
    """The inverse of `to_bytes`: bytes that are no UTF-8 become surrogate escapes."""
    return data.decode("utf-8", errors="surrogateescape")
