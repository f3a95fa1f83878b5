"""Where parallel text may come from.

A name is a text file, a file of a format below, a folder of a saved data set, a stem whose files end in the languages'
codes (Moses: `corpus` for `corpus.en` and `corpus.de`), a `.zip` file of these as OPUS has them, `tfds:NAME[#SPLIT]`,
or a pattern with `*` whose files are read one after the other. `.gz`, `.bz2`, `.xz` and `.zst` may follow. What holds
both sides is named for both, or for the source alone; `#` after a name says which column, field, language or
translator is meant.
"""

import array
import glob
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nmt_keras import files
from nmt_keras.data.corpus import Origin, TextFile
from nmt_keras.data.documents import require_text_file
from nmt_keras.data.languages import language_of
from nmt_keras.data.sources.arrow import only_split, read_parquet, read_saved_dataset
from nmt_keras.data.sources.gettext import read_po
from nmt_keras.data.sources.json_lines import read_json_lines
from nmt_keras.data.sources.records import Reader, Record, Wanted
from nmt_keras.data.sources.sgml import read_sgml
from nmt_keras.data.sources.tables import read_csv, read_tsv
from nmt_keras.data.sources.tfds import text_of_tfds
from nmt_keras.data.sources.xml_formats import read_tmx, read_wmt_xml, read_xliff
from nmt_keras.data.unpacking import SUFFIXES, file_key, members, plain_name, unpacked, unzipped
from nmt_keras.errors import UserError
from nmt_keras.reports import counted, shows_bars

READERS: dict[str, Reader] = {
    ".tsv": read_tsv,
    ".csv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".tmx": read_tmx,
    ".xliff": read_xliff,
    ".xlf": read_xliff,
    ".po": read_po,
    ".sgm": read_sgml,
    ".sgml": read_sgml,
    ".xml": read_wmt_xml,
    ".parquet": read_parquet,
}
_ROWS = (read_tsv, read_csv, read_json_lines, read_parquet, read_saved_dataset, read_sgml)  # may be one side alone
_VERSION = 2  # of what readers make of a file
_NAMED = 10  # places of what was left out, in a message


class _File(NamedTuple):
    name: str  # what messages call it
    path: str


class _Source(NamedTuple):
    """What a name stands for."""

    name: str
    parts: tuple[_File, ...]
    reader: Reader | None  # None: plain text
    field: str


def open_pair(
    source: str,
    target: str,
    languages: tuple[str, str],
    cache_dir: str,
    tfds_dir: str | None = None,
    keep_tags: bool = False,
) -> tuple[TextFile, TextFile]:
    """Opens both sides of a corpus, converted into the cache once where they are no plain text.

    Args:
        source: names the text of the source.
        target: names its translations; "" where `source` names both.
        languages: codes of both.
        cache_dir: takes what is converted.
        tfds_dir: where TFDS keeps its data sets.
        keep_tags: keep inline tags of translation memories as placeholders.

    Raises:
        UserError: a file cannot be read, or has no such text.
    """
    names = (source, target or source)
    if any(name.startswith("tfds:") for name in names):
        paths = (
            (
                text_of_tfds(name.removeprefix("tfds:"), cache_dir, language, tfds_dir)
                if name.startswith("tfds:")
                else name
            )
            for name, language in zip(names, languages)
        )
        first, second = (TextFile(path, cache_dir) for path in paths)
        return first, second
    sides = [_resolve(name, language, cache_dir) for name, language in zip(names, languages)]
    if not target and sides[0].field:  # a translator is that of the reference
        if sides[0].reader is not read_wmt_xml:
            raise UserError(f"{source} names one side of a corpus: name the other too, as in {sides[0].name}#2")
        sides[0] = sides[0]._replace(field="")
    if sides[0].reader and sides[0].parts == sides[1].parts:
        wanted = Wanted("", languages, (sides[0].field, sides[1].field), keep_tags=keep_tags)
        first, second = _converted(sides[0], wanted, cache_dir)
        return first, second
    if not target and sides[0].parts == sides[1].parts:
        file_key(sides[0].parts[0].path)  # says so where there is none
        if plain_name(sides[0].name).lower().endswith(".json"):
            raise UserError(
                f"{source} is not read as JSON, which may be anything: if each line is an object, give the file the "
                "ending .jsonl; write the objects of a list one a line, as jq -c '.[]' does"
            )
        raise UserError(
            f"{source} holds one side of a corpus, and the other was not given: name its file, or a file of both ("
            f"{', '.join(READERS)})"
        )
    beside = ""
    if all(side.reader is read_sgml and len(side.parts) == 1 for side in sides) and not sides[0].field:
        beside = unpacked(sides[0].parts[0].path, cache_dir)
    first = _one_side(sides[0], languages[0], 0, cache_dir, keep_tags)
    second = _one_side(sides[1], languages[1], 1, cache_dir, keep_tags, beside)
    if max(len(side.parts) for side in sides) > 1:
        _require_same_parts(first, second)
    return first, second


def is_plain_file(path: str) -> bool:
    """Whether a name is that of a text file, which is read as it is."""
    return os.path.isfile(path) and _reader_of(path) is None and not path.lower().endswith(".zip")


def _one_side(side: _Source, language: str, role: int, cache_dir: str, keep_tags: bool, beside: str = "") -> TextFile:
    if side.reader is None and len(side.parts) == 1:
        name, path = side.parts[0]
        return TextFile(path, cache_dir, Origin(name, (name,)) if name != path else None)
    if side.reader is not None and side.reader not in _ROWS:
        raise UserError(
            f"{side.name} holds both sides of a corpus, and what is not translated is left out: name it for both sides"
        )
    [text] = _converted(side, Wanted("", (language,), (side.field,), (role,), keep_tags, beside), cache_dir)
    return text


def _require_same_parts(first: TextFile, second: TextFile) -> None:
    names: list[tuple[str, ...]] = []
    counts: list[list[int]] = []
    for text in (first, second):
        places = text.origin.places if text.origin else None
        names.append(text.origin.files if text.origin else (text.path,))
        parts = np.zeros(len(text), np.int64) if places is None else places[:, 0]
        counts.append(np.bincount(parts, minlength=len(names[-1])).tolist())
    if len(names[0]) != len(names[1]):
        raise UserError(
            f"{first.path} fits {counted(len(names[0]), 'file')} and {second.path} {len(names[1])}; each must have its "
            "translation"
        )
    for mine, yours, many, others in zip(*names, *counts):
        if many != others:
            raise UserError(
                f"{mine} has {counted(many, 'line')} and {yours} has {others:,}; they must be aligned line by line, "
                "each with its own translation"
            )


def _resolve(name: str, language: str, cache_dir: str) -> _Source:
    """What a name stands for."""
    path, field = name, ""
    if not os.path.exists(path) and "#" in os.path.basename(path):
        path, _, field = path.rpartition("#")
    if not os.path.exists(path):
        stems = [f"{path}.{language}{suffix}" for suffix in ("", *SUFFIXES)]
        path = next(filter(os.path.exists, stems), path)
    paths = [path]
    if not os.path.exists(path) and glob.has_magic(path):
        paths = sorted(glob.glob(path))
        if not paths:
            raise UserError(f"No file fits the pattern {path}; check it (and data_dir)")
    parts = tuple(part for each in paths for part in _parts(each, language, cache_dir))
    for part in parts:
        require_text_file(part.path)
    readers = {_reader_of(part.path) for part in parts}
    if len(readers) > 1:
        raise UserError(f"{path} names files of several formats: {', '.join(part.name for part in parts[:_NAMED])}")
    return _Source(path, parts, readers.pop(), field)


def _reader_of(path: str) -> Reader | None:
    if os.path.isdir(path):
        return read_saved_dataset if _is_dataset(path) else None
    return READERS.get(os.path.splitext(plain_name(path))[1].lower())


def _is_dataset(path: str) -> bool:
    return any(os.path.exists(os.path.join(path, name)) for name in ("state.json", "dataset_dict.json"))


def _parts(path: str, language: str, cache_dir: str) -> Iterator[_File]:
    """The files that a path stands for: itself, or members of a zip file."""
    if os.path.isdir(path) and _is_dataset(path):
        yield _File(path, only_split(path))
        return
    if not path.lower().endswith(".zip") or os.path.isdir(path):
        yield _File(path, path)
        return
    found = [name for name in members(path) if not os.path.basename(name).startswith(".")]
    plain = [name for name in found if plain_name(name).endswith(f".{language}")]
    tables = [name for name in found if os.path.splitext(plain_name(name))[1].lower() in READERS]
    if not plain:
        stems: dict[str, list[str]] = {}  # of text in languages: Books.de-en of Books.de-en.de and Books.de-en.en
        for stem, _, code in (plain_name(name).rpartition(".") for name in found):
            if language_of(code).is_known:
                stems.setdefault(stem, []).append(code)
        several = {stem: codes for stem, codes in stems.items() if len(codes) > 1}
        tables = [name for name in tables if os.path.splitext(plain_name(name))[0] not in several]  # links of OPUS
        if several and not tables:
            codes = sorted({code for codes in several.values() for code in codes})
            raise UserError(
                f"{path} has no text in {language!r}; it has text in {', '.join(codes)}: give one of these codes"
            )
    chosen = plain or tables
    if len(chosen) != 1:
        raise UserError(
            f"{path} has {len(chosen)} files that may hold the text in {language!r}, and must have one: "
            f"{', '.join((chosen or found)[:_NAMED]) or 'it is empty'}; unpack it, and name the file"
        )
    yield _File(f"{path}/{chosen[0]}", unzipped(path, chosen[0], cache_dir))


def _converted(source: _Source, wanted: Wanted, cache_dir: str) -> list[TextFile]:
    """The texts of records, from the cache, where they are written once."""
    identity = [_VERSION, list(wanted), [(name, _identity(path)) for name, path in source.parts]]
    identity += [file_key(wanted.beside)] if wanted.beside else []
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    base = pathlib.Path(cache_dir) / f"{os.path.basename(source.parts[0].name)}-{digest}"
    paths = [base.with_name(f"{base.name}.{number}.txt") for number in range(len(wanted.fields))]
    places, card = base.with_name(base.name + ".places.npy"), base.with_name(base.name + ".left_out.json")
    if not card.exists():  # written last
        left_out = _convert(source, wanted, cache_dir, paths, places)
        files.write_json(card, left_out)
    remarks = tuple(
        f"{source.name}: {counted(count, 'record')} left out: {reason} ({', '.join(some)})"
        for reason, (count, some) in json.loads(card.read_text(encoding="utf-8")).items()
    )
    origin = Origin(source.name, tuple(part.name for part in source.parts), np.load(places, mmap_mode="r"), remarks)
    stem = os.path.basename(plain_name(source.name)).replace("*", "all")
    return [
        TextFile(str(path), cache_dir, origin._replace(copy_name=f"{stem}.{language}"))
        for path, language in zip(paths, wanted.languages)
    ]


def _identity(path: str) -> list[str]:
    """What changes where the content of a file or a saved data set does."""
    if not os.path.isdir(path):
        return [file_key(path)]
    inside = [entry.path for entry in sorted(os.scandir(path), key=lambda entry: entry.name) if entry.is_file()]
    return list(map(file_key, inside))


def _convert(
    source: _Source, wanted: Wanted, cache_dir: str, paths: Sequence[pathlib.Path], places: pathlib.Path
) -> dict[str, tuple[int, list[str]]]:
    """Writes the texts and the place of each line, and says what was left out: how many records, and some places."""
    left_out: dict[str, tuple[int, list[str]]] = {}
    found = array.array("q")  # 16 bytes a pair
    with ExitStack() as stack:
        texts = [stack.enter_context(open(stack.enter_context(files.atomic_write(path)), "wb")) for path in paths]
        progress = stack.enter_context(tqdm(unit="record", disable=not shows_bars(), desc=source.name))
        for part, (name, path) in enumerate(source.parts):
            for record in _records(source, path, wanted._replace(name=name), cache_dir):
                progress.update()
                if record.left_out:
                    count, some = left_out.get(record.left_out, (0, []))
                    where = f"{name}:{record.line}" if len(source.parts) > 1 else str(record.line)
                    left_out[record.left_out] = count + 1, [*some, where] if count < _NAMED else some
                    if len(texts) > 1 or not record.keeps_place:
                        continue
                found.extend((part, record.line))
                for text, line in zip(texts, record.texts or ("",)):  # one side keeps its place by an empty line
                    text.write(line.encode("utf-8", "surrogateescape") + b"\n")
        if not found:
            reasons = "; ".join(
                f"{counted(count, 'record')} left out: {reason}" for reason, (count, _) in left_out.items()
            )
            reasons = f": {reasons}" if reasons else ", it is empty"
            raise UserError(f"{source.name} has no pairs of text{reasons}; give text of both languages")
        with files.atomic_write(places) as temporary, open(temporary, "wb") as file:
            np.save(file, np.frombuffer(found, np.int64).reshape(-1, 2))
    return left_out


def _records(source: _Source, path: str, wanted: Wanted, cache_dir: str) -> Iterator[Record]:
    if os.path.isdir(path):
        yield from read_saved_dataset(path, wanted)
        return
    path = unpacked(path, cache_dir)
    if source.reader is not None:
        yield from source.reader(path, wanted)
        return
    with open(path, "rb") as file:  # plain text, byte for byte
        for number, line in enumerate(file, 1):
            line = line.removesuffix(b"\n").removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf" if number == 1 else b"")
            yield Record(number, (line.decode("utf-8", "surrogateescape"),))
