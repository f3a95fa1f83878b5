"""Strings as bytes and back: what TensorFlow and servers hold is bytes, what callers hold is Python's `str`."""


def to_bytes(text: str) -> bytes:
    """UTF-8, with the bytes that Python's "surrogateescape" stands for; what is no character otherwise is "?"."""
    try:
        return text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", errors="replace")


def from_bytes(data: bytes) -> str:
    """The inverse of `to_bytes`: bytes that are no UTF-8 become surrogate escapes."""
    return data.decode("utf-8", errors="surrogateescape")
