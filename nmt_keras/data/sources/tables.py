"""Tables: tab-separated text as parallel corpora are passed on, where a quote is a character, and CSV with quotes."""

import csv
from collections.abc import Iterator, Sequence

from nmt_keras.data.sources.records import Record, Wanted, is_language, lines_of, one_line
from nmt_keras.errors import UserError

_NAMES = (("source", "src"), ("target", "tgt", "translation", "reference"))
_SEPARATORS = (",", ";", "\t", "|")
_LONGEST_FIELD = 1 << 24


def read_tsv(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads the columns of a tab-separated file.

    Raises:
        UserError: it is no UTF-8, or has no such column.
    """
    rows = (
        (number, line.rstrip("\r\n").split("\t") if line.strip() else [])
        for number, line in enumerate(lines_of(path, wanted), 1)
    )
    yield from _records(rows, wanted)


def read_csv(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads the columns of a file of comma-separated values (RFC 4180); semicolons, tabs and bars are found too.

    Raises:
        UserError: it is no UTF-8, its quotes do not close, or it has no such column.
    """
    first = next(iter(lines_of(path, wanted)), "")
    separator = max(_SEPARATORS, key=first.count)
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(lines_of(path, wanted), delimiter=separator, strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        begin = 1
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise UserError(
                    f"{wanted.name}, line {begin:,}: {error}; mend its quotes (one in a quoted field is doubled), or "
                    "name the file .tsv where quotes are characters"
                ) from error
            if row is None:
                return
            yield begin, row
            begin = reader.line_num + 1

    yield from _records(rows(), wanted)


def _records(rows: Iterator[tuple[int, list[str]]], wanted: Wanted) -> Iterator[Record]:
    columns: list[int] = []
    for line, row in rows:
        if not columns and row:
            columns, has_header = _columns(row, wanted)
            if has_header:
                continue
        if not row:
            yield Record(line, left_out="an empty line")
        elif len(row) <= max(columns):
            yield Record(line, left_out=f"fewer than {max(columns) + 1} columns")
        else:
            yield Record(line, tuple(one_line(row[column]) for column in columns))


def _columns(first: Sequence[str], wanted: Wanted) -> tuple[list[int], bool]:
    """The column of each text, from 0, and whether the first row names them."""
    header = [name.strip().lower() for name in first]
    numbered = all(field.isdecimal() for field in wanted.fields)
    named = any(field and not field.isdecimal() for field in wanted.fields)
    found = [_found(header, wanted, number) for number in range(len(wanted.fields))]
    has_header = named or (not numbered and None not in found)
    if not has_header:
        return [max(int(field) - 1, 0) if field else role for field, role in zip(wanted.fields, wanted.roles)], False
    columns = []
    for column, field, language in zip(found, wanted.fields, wanted.languages):
        if column is None:
            shown = ", ".join(repr(name[:30]) for name in first[:10])
            raise UserError(
                f"{wanted.name} has no column {field or language!r}; its first row is {shown}: name a column after #, "
                "by its name or its number from 1, such as pairs.tsv#3"
            )
        columns.append(column)
    return columns, True


def _found(header: Sequence[str], wanted: Wanted, number: int) -> int | None:
    """The column that a field names, or else the language or the role of a text."""
    field = wanted.fields[number].strip().lower()
    if field:
        return header.index(field) if field in header else int(field) - 1 if field.isdecimal() else None
    language = wanted.languages[number]
    if language.lower() in header:
        return header.index(language.lower())
    by_language = (i for i, name in enumerate(header) if name.isascii() and name and is_language(name, language))
    by_role = (i for i, name in enumerate(header) if name in _NAMES[wanted.roles[number]])
    return next(by_language, next(by_role, None))
