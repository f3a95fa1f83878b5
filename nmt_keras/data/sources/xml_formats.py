"""XML of translators and of WMT: TMX 1.4, XLIFF 1.2 and 2, and WMT's test sets since 2021.

Files are read as a stream by defusedxml, which refuses declarations of entities; a DTD that a file names is never read.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

from nmt_keras.data.sources.records import Record, Wanted, is_language, one_line
from nmt_keras.errors import UserError

_CHUNK_BYTES = 1 << 16


class _Segment:
    """The text of a segment, with its inline elements dropped or as placeholders.

    Elements of `_CODE` hold a tool's own markup, and `sub` a text of its own inside it; both are left out. What other
    inline elements hold is text. A placeholder is <N> ... </N>, or <N/>; N counts the elements of a unit as they come,
    and elements of one identity, on either side, have one.

    Args:
        keep_tags: write placeholders.
        numbers: of the unit's elements so far, by their identity.
    """

    _OPEN, _CLOSE = {"bpt", "bx", "sc", "sm"}, {"ept", "ex", "ec", "em"}
    _CODE = {"ph", "it", "ut", "x", "cp", "sub"} | _OPEN | _CLOSE

    def __init__(self, keep_tags: bool, numbers: dict[tuple[str, str], int]):
        self._keep = keep_tags
        self._numbers = numbers
        self._parts: list[str] = []
        self._inside: list[tuple[str, str]] = []

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An inline element begins."""
        # `i` pairs a TMX element with its end, `x` with the other side; XLIFF has `id`, and what an end refers to.
        keys = ("i",) if name in ("bpt", "ept") else ("x", "rid", "startRef", "id")
        named = next(((key, attributes[key]) for key in keys if key in attributes), (name, str(len(self._parts))))
        identity = ("id" if named[0] in ("rid", "startRef") else named[0], named[1])
        number = str(self._numbers.setdefault(identity, len(self._numbers) + 1))
        self._inside.append((name, number))
        if self._keep and name != "sub":
            close = "/" if name in self._CODE - self._OPEN - self._CLOSE else ""
            self._parts.append(f"</{number}>" if name in self._CLOSE else f"<{number}{close}>")

    def end(self) -> None:
        """The innermost element ends."""
        name, number = self._inside.pop()
        if self._keep and name not in self._CODE:
            self._parts.append(f"</{number}>")

    def text(self, content: str) -> None:
        """There is text."""
        if not any(name in self._CODE for name, _ in self._inside):
            self._parts.append(content)

    def __str__(self) -> str:
        return one_line("".join(self._parts)).strip()


class _Handler(ContentHandler):
    """Takes the events of a file and collects records.

    Attributes:
        records: found since they were last taken.
        line_number: where the parser is.
    """

    segments = {"seg"}  # elements that hold text

    def __init__(self, wanted: Wanted):
        super().__init__()
        self.records: list[Record] = []
        self._wanted = wanted
        self._numbers: dict[tuple[str, str], int] = {}
        self._segment: _Segment | None = None
        self._depth = 0  # of elements inside the segment
        self.line_number: Callable[[], int]

    def begin(self, name: str, attributes: Mapping[str, str], line: int) -> bool:
        """An element outside of segments begins; whether it is read, if it holds text."""
        raise NotImplementedError

    def segment(self, text: str) -> None:
        """A segment was read."""
        raise NotImplementedError

    def finish(self, name: str) -> None:
        """An element outside of segments ends."""

    def explain(self) -> str:
        """What the file has, for who asked for something else."""
        raise NotImplementedError

    def startElement(self, name: str, attrs: Any) -> None:
        name = name.rpartition(":")[2]
        if self._segment is not None:
            self._depth += 1
            self._segment.start(name, attrs)
        elif self.begin(name, attrs, self.line_number()) and name in self.segments:
            self._segment = _Segment(self._wanted.keep_tags, self._numbers)

    def endElement(self, name: str) -> None:
        if self._segment is None:
            self.finish(name.rpartition(":")[2])
        elif self._depth:
            self._depth -= 1
            self._segment.end()
        else:
            text, self._segment = str(self._segment), None
            self.segment(text)

    def skippedEntity(self, name: str) -> None:
        raise UserError(
            f"{self._wanted.name}, line {self.line_number():,}: the entity &{name}; is not declared in the file: write "
            "the character in its place"
        )

    def characters(self, content: str) -> None:
        if self._segment is not None:
            self._segment.text(content)


def _read(path: str, handler: _Handler, wanted: Wanted) -> Iterator[Record]:
    from defusedxml.common import DefusedXmlException  # most corpora are plain text
    from defusedxml.expatreader import create_parser

    parser = create_parser(forbid_dtd=False, forbid_entities=True, forbid_external=False)
    parser.setContentHandler(handler)
    handler.line_number = parser.getLineNumber
    has_text = False
    try:
        with open(path, "rb") as file:
            while True:
                chunk = file.read(_CHUNK_BYTES)
                if chunk:
                    parser.feed(chunk)
                else:
                    parser.close()
                has_text = has_text or any(not record.left_out for record in handler.records)
                yield from handler.records
                handler.records = []
                if not chunk:
                    break
    except SAXParseException as error:
        raise UserError(
            f"{wanted.name}, line {error.getLineNumber():,}: no sound XML ({error.getMessage()}); it is truncated, or "
            "in another encoding than it says: make or fetch it again"
        ) from error
    except (LookupError, ValueError) as error:
        if isinstance(error, (UserError, DefusedXmlException)):
            raise error if isinstance(error, UserError) else _entities(wanted) from error
        raise UserError(f"{wanted.name} is in an encoding that is not read ({error}): convert it to UTF-8") from error
    except DefusedXmlException as error:
        raise _entities(wanted) from error
    if not has_text:
        if not all(wanted.languages):
            raise UserError(
                f"{wanted.name} is read by the codes of its languages, which must be given; {handler.explain()}"
            )
        languages = " and ".join(wanted.languages)
        raise UserError(f"{wanted.name} has no text in {languages}; {handler.explain()}: give what it has")


def _entities(wanted: Wanted) -> UserError:
    return UserError(f"{wanted.name} declares entities, which are not read: do not trust this file")


def _chosen(texts: Mapping[str, str], wanted: Wanted, line: int) -> Record:
    """The record of a unit, whose texts are known by the languages of the file."""
    chosen = []
    for field, code in zip(wanted.fields, wanted.languages):
        tags = sorted(texts, key=lambda tag: tag.lower() != code.lower())  # the exact one first
        found = [texts[tag] for tag in tags if (tag.lower() == field.lower() if field else is_language(tag, code))]
        if not found or not found[0].strip():
            return Record(line, left_out=f"no text in {field or code}")
        chosen.append(found[0])
    return Record(line, tuple(chosen))


class _Tmx(_Handler):
    def __init__(self, wanted: Wanted):
        super().__init__(wanted)
        self._line = 0
        self._texts: dict[str, str] = {}
        self._language = ""
        self._languages: set[str] = set()

    def begin(self, name: str, attributes: Mapping[str, str], line: int) -> bool:
        if name == "tu":
            self._line, self._texts, self._numbers = line, {}, {}
        elif name == "tuv":
            self._language = attributes.get("xml:lang") or attributes.get("lang") or ""
            self._languages.add(self._language)
        return True

    def segment(self, text: str) -> None:
        self._texts.setdefault(self._language, text)

    def finish(self, name: str) -> None:
        if name == "tu":
            self.records.append(_chosen(self._texts, self._wanted, self._line))

    def explain(self) -> str:
        return f"its languages: {', '.join(sorted(self._languages)) or 'none, so that it may be no TMX file'}"


class _Xliff(_Handler):
    segments = {"source", "target"}
    _UNFINISHED = ("new", "needs-", "initial")

    def __init__(self, wanted: Wanted):
        super().__init__(wanted)
        self._languages = ("", "")
        self._unit = "trans-unit"  # of XLIFF 1; of 2 `segment`
        self._line, self._state, self._side = 0, "", ""
        self._texts: dict[str, str] = {}
        self._in_alternative = False

    def begin(self, name: str, attributes: Mapping[str, str], line: int) -> bool:
        if name == "xliff" and "srcLang" in attributes:
            self._languages, self._unit = (attributes["srcLang"], attributes.get("trgLang", "")), "segment"
        elif name == "file" and "source-language" in attributes:
            self._languages = (attributes["source-language"], attributes.get("target-language", ""))
        elif name == self._unit:
            self._line, self._texts, self._numbers = line, {}, {}
            self._state = attributes.get("state", "")
        elif name == "alt-trans":
            self._in_alternative = True
        elif name in self.segments and not self._in_alternative:
            self._side = self._languages[name == "target"]
            self._state = attributes.get("state", self._state)
        return not self._in_alternative

    def segment(self, text: str) -> None:
        self._texts.setdefault(self._side, text)

    def finish(self, name: str) -> None:
        if name == "alt-trans":
            self._in_alternative = False
        elif name == self._unit and self._state.startswith(self._UNFINISHED):
            self.records.append(Record(self._line, left_out=f"state {self._state}"))
        elif name == self._unit:
            self.records.append(_chosen(self._texts, self._wanted, self._line))

    def explain(self) -> str:
        known = [language for language in self._languages if language]
        return f"it is from {' to '.join(known)}" if known else "it names no languages, so that it may be no XLIFF file"


class _Wmt(_Handler):
    """A document has a source and references, each by a translator, and segments with one `id` in all of them."""

    def __init__(self, wanted: Wanted):
        super().__init__(wanted)
        self._parts: list[tuple[tuple[str, str, str], dict[str, tuple[str, int]]]] = []  # of a document
        self._id, self._line = "", 0
        self._languages: set[str] = set()
        self._translators: dict[str, None] = {}

    def begin(self, name: str, attributes: Mapping[str, str], line: int) -> bool:
        if name == "doc":
            self._parts = []
        elif name in ("src", "ref", "hyp"):
            part = name, attributes.get("lang", ""), attributes.get("translator", "")
            self._parts.append((part, {}))
            self._languages.add(part[1])
            if name == "ref":
                self._translators[part[2]] = None
        elif name == "seg":
            self._id, self._line = attributes.get("id", ""), line
        return bool(self._parts)

    def segment(self, text: str) -> None:
        segments = self._parts[-1][1]
        key = self._id or f"number {len(segments)}"
        if key in segments:
            raise UserError(f"{self._wanted.name}, line {self._line:,}: segment {key!r} is there before: mend the file")
        segments[key] = text, self._line

    def finish(self, name: str) -> None:
        if name != "doc":
            return
        parts = [self._part(number) for number in range(len(self._wanted.fields))]
        for key, (_, line) in next(filter(None, parts), {}).items():
            if all(key in part for part in parts):
                self.records.append(Record(line, tuple(part[key][0] for part in parts)))
            else:
                self.records.append(Record(line, left_out="no source, or no translation by this translator"))
        self._parts = []

    def _part(self, number: int) -> dict[str, tuple[str, int]]:
        kind = ("src", "ref")[self._wanted.roles[number]]
        code, given = self._wanted.languages[number], self._wanted.fields[number]
        for (name, language, translator), segments in self._parts:
            if name == kind and is_language(language, code) and given in ("", translator):
                return segments
        return {}

    def explain(self) -> str:
        languages, translators = (
            ", ".join(filter(None, each)) for each in (sorted(self._languages), self._translators)
        )
        return f"its languages: {languages or 'none'}; its translators: {translators or 'none'}"


def read_tmx(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads a translation memory (TMX 1.4); texts are chosen by the languages of their variants.

    Raises:
        UserError: it is no sound XML, declares entities, or has no text in these languages.
    """
    yield from _read(path, _Tmx(wanted), wanted)


def read_xliff(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads XLIFF 1.2 or 2, without what is not translated yet or needs work by its state. Raises as `read_tmx`."""
    yield from _read(path, _Xliff(wanted), wanted)


def read_wmt_xml(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads a test set of WMT as of 2021: sources, and the references of a translator. Raises as `read_tmx`."""
    yield from _read(path, _Wmt(wanted), wanted)
