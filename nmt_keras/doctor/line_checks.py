"""What a single line of text shows about how the text was made: markup, tables, tokenization, names that stay as
they are."""

import html.entities
import re

from nmt_keras.data import scripts

_ENTITY = re.compile(r"&(?:([A-Za-z][A-Za-z0-9]{1,31})|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
_MARKUP = re.compile(
    r"\s*(?:</?(?:doc|seg|hl|p|url|title|description|keywords|speaker|srcset|refset|tstset|reviewer|translator|talkid"
    r"|xml|tmx|tu|tuv|html|body|head|CHAPTER|SPEAKER)\b[^<>]*>?|<\?xml|<!DOCTYPE)",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]{0,9}(?:\s+[\w:-]+\s*=\s*[^<>]*)?\s*/?>")
_JSON = re.compile(r'\s*[{\[]\s*".*[}\]],?\s*$')
_HEADER_WORDS = frozenset(
    "source target src tgt trg text sentence sentences translation reference ref id english german french spanish "
    "chinese hausa pidgin japanese russian arabic hindi czech en de fr es zh ja ru ar cs ha hi pcm".split()
)
_SPACED_MARK = re.compile(r"[^\W\d_] [.,](?: |$)")
_JOINED_MARK = re.compile(r"[^\W\d_][.,](?: |$)")
_JOINERS_OF_TOKENIZERS = ("@@ ", "@-@", "\u2581", "\uffed")
_CASED = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f\u0530-\u058f]")
_WORD = re.compile(r"[^\W\d_]{2,}")
_CODE = re.compile(r"[{}<>=_\\;$#|~^`]|\(\)|://|\w\.\w+\(|\w/\w|--\w")
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)]*\s*$")
_FEW_WORDS = 1  # without a capital that a name may have, as in University of Texas
_LONGEST_NAME = 6  # characters of a script without spaces


def has_entity(line: str) -> bool:
    """Whether a line has a character reference of HTML, such as &apos; or &#39;."""
    return "&" in line and any(
        match[1] is None or f"{match[1]};" in html.entities.html5 for match in _ENTITY.finditer(line)
    )


def is_markup(line: str) -> bool:
    """Whether a line is markup around text, or a record, and no text."""
    return line.lstrip()[:1] in ("<", "{", "[") and bool(_MARKUP.match(line) or _JSON.match(line))


def has_tag(line: str) -> bool:
    """Whether a line of text has tags of markup in it, such as <b> or <br/>."""
    return "<" in line and _TAG.search(line) is not None and not is_markup(line)


def is_table_row(line: str) -> bool:
    """Whether a line is a row of a table: at least two tabs or bars between its cells."""
    return line.strip().count("\t") >= 2 or line.strip().strip("|").count(" | ") >= 2


def is_header(line: str) -> bool:
    """Whether a line names columns, as the first of a table does."""
    words = re.split(r"[\s,;|_]+", line.strip().strip('"').lower())
    return 0 < len(words) <= 4 and all(word.strip('"') in _HEADER_WORDS for word in words)


def is_tokenized(line: str) -> bool | None:
    """Whether full stops and commas stand apart from their words; None where there is none after a word."""
    if any(joiner in line for joiner in _JOINERS_OF_TOKENIZERS):
        return True
    if "." not in line and "," not in line:
        return None
    spaced, joined = _SPACED_MARK.search(line), _JOINED_MARK.search(line)
    return None if spaced is None and joined is None else spaced is not None and joined is None


def is_lower_case(line: str) -> bool | None:
    """Whether no letter is a capital; None where no letter has two forms."""
    return line == line.lower() if _CASED.search(line) else None


def is_name_or_code(line: str) -> bool:
    """Whether a line may be the same in another language: a name, an address, numbers, code.

    It has at most one word without a capital, none where it ends as a sentence does, or signs that code has and text
    has not.
    """
    if len(_CODE.findall(line)) >= 2 or "://" in line:
        return True
    if len(scripts.WITHOUT_SPACES.findall(line)) > _LONGEST_NAME:
        return False
    ordinary = sum(word == word.lower() for word in _WORD.findall(line))
    return ordinary <= (0 if _SENTENCE_END.search(line) else _FEW_WORDS)
