"""Converts between Python's `str`, which callers hold, and the bytes that TensorFlow and servers hold."""

from collections.abc import Sequence

from nmt_keras.errors import UserError

# The terms that a translation must contain, each said in one way or in any of several.
TermsOfText = Sequence[str | Sequence[str]]


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


def require_terms(terms: object, count: int) -> None:
    """Checks that an argument has a list of terms, or none, for each of so many texts.

    Raises:
        UserError: it has another number of them, or something else.
    """
    if isinstance(terms, (str, bytes)) or not isinstance(terms, Sequence):
        raise UserError(f"terms must be a list with the terms of each text. Received: {terms!r:.60}")
    if len(terms) != count:
        raise UserError(
            f"terms of {len(terms):,} texts for {count:,} texts: give as many lists, [] where there are none"
        )
    for each in terms:
        require_terms_of_text(each)


def require_terms_of_text(terms: object) -> None:
    """Checks that an argument is the terms of a text.

    Raises:
        UserError: it is no list of texts, and of lists of texts.
    """
    if isinstance(terms, (str, bytes)) or not isinstance(terms, Sequence):
        raise UserError(f"The terms of a text must be a list, [] where there are none. Received: {terms!r:.60}")
    for term in terms:
        ways = [term] if isinstance(term, str) else term
        is_list = isinstance(ways, Sequence) and not isinstance(ways, bytes)
        if not is_list or not ways or not all(isinstance(way, str) and way.strip() for way in ways):
            raise UserError(f"A term must be a text, or a list of ways to say it, none empty. Received: {term!r:.60}")


def join_terms(terms: TermsOfText) -> str:
    """The terms of a text as one string, as `inference.terms` reads it: a term a line, ways to say it between tabs."""
    return "\n".join(
        "\t".join(" ".join(way.split()) for way in ([term] if isinstance(term, str) else term)) for term in terms
    )
