"""Tables: tab-separated text as parallel corpora are passed on, where a quote is a character, and CSV with quotes."""

import contextlib
import csv
import itertools
from collections.abc import Iterator, Sequence

from nmt_keras.data.sources.records import Record, Wanted, is_header, lines_of, named_like, one_line
from nmt_keras.errors import UserError

_SEPARATORS = (",", ";", "\t", "|")
_LONGEST_FIELD = 1 << 24
_SAMPLED = 100  # lines in which a separator is looked for


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
    csv.field_size_limit(_LONGEST_FIELD)
    sample = list(itertools.islice(lines_of(path, wanted), _SAMPLED))
    separator = max(_SEPARATORS, key=lambda each: _share_of_one_width(sample, each))
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


def _share_of_one_width(sample: Sequence[str], separator: str) -> float:
    """The share of a file's first rows that have as many columns as the first one, two or more, by a separator: text
    has as many commas or bars in each row as it likes."""
    widths = []
    with contextlib.suppress(csv.Error):  # of a quote that does not close, which the reading tells
        widths = [len(row) for row in csv.reader(sample, delimiter=separator) if row]
    return widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0.0


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
    named = [named_like(first, wanted, number) for number in range(len(wanted.fields))]
    shown = ", ".join(repr(name[:30]) for name in first[:10])
    if not any(wanted.fields):
        missing = [code for code, place in zip(wanted.languages, named) if place is None]
        if missing and is_header(first, has_wanted=len(missing) < len(named)):
            raise UserError(
                f"{wanted.name} has no column {' and none '.join(map(repr, missing))}; its first row is {shown}: give "
                "the codes of its columns, or name each after #, by its name or its number from 1, such as pairs.tsv#3"
            )
        if None not in named and len(set(named)) < len(named):
            raise UserError(
                f"{wanted.name}: {' and '.join(wanted.languages)} are the same column; its first row is {shown}: name "
                "each column after #, such as pairs.tsv#3"
            )
    columns, has_header = [], None not in named
    for field, by_name, role, language in zip(wanted.fields, named, wanted.roles, wanted.languages):
        if field.isdecimal() and int(field):
            columns.append(int(field) - 1)
        elif not field and by_name is not None and (has_header or any(wanted.fields)):
            columns.append(by_name)
        elif not any(wanted.fields):
            columns.append(role)
        elif field and field.lower() in header:
            columns.append(header.index(field.lower()))
            has_header = True
        else:
            raise UserError(
                f"{wanted.name} has no column {field or language!r}; its first row is {shown}: name each "
                "column after #, by its name or its number from 1, such as pairs.tsv#3"
            )
    return columns, has_header
