"""Parquet files, and data sets that Hugging Face's `datasets` saved to disk, read by pyarrow."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from nmt_keras.data.sources.json_lines import field_of
from nmt_keras.data.sources.records import Record, Wanted, one_line
from nmt_keras.errors import UserError


def read_parquet(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads columns of a Parquet file; lines are rows. A part of a column of structs is named with a dot.

    Raises:
        UserError: pyarrow is not installed; the file is no Parquet file, or has no such column, or one without text.
    """
    arrow = _pyarrow(wanted)
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow, wanted)
            yield from _records(file.iter_batches(columns=sorted({name for name, _ in columns})), columns)
    except (arrow.ArrowException, OSError, ValueError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise _damaged(wanted, "Parquet", error) from error


def read_saved_dataset(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads columns of a split that `datasets` saved to disk; lines are rows. Raises as `read_parquet`."""
    arrow = _pyarrow(wanted)
    folder = pathlib.Path(path)
    try:
        if (folder / "dataset_dict.json").exists():
            splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            raise UserError(f"{wanted.name} has the splits {', '.join(splits)}: name one, {wanted.name}/{splits[0]}")
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        line = 1
        for name in (part["filename"] for part in state["_data_files"]):
            with arrow.memory_map(str(folder / name)) as mapped, arrow.ipc.open_stream(mapped) as stream:
                columns = _columns(stream.schema, wanted)
                for record in _records(stream, columns, line):
                    yield record
                    line += 1
    except (arrow.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise _damaged(wanted, "saved data set", error) from error


def only_split(path: str) -> str:
    """The folder of the split of a saved data set that has one split; `path` of others."""
    try:
        splits = json.loads((pathlib.Path(path) / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return str(pathlib.Path(path) / splits[0]) if len(splits) == 1 else path
    except (OSError, ValueError, LookupError, TypeError):  # is said by what reads it
        return path


def _damaged(wanted: Wanted, what: str, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0][:200]
    return UserError(f"{wanted.name} is no sound {what} ({reason}); it is truncated, or no such file: make it again")


def _pyarrow(wanted: Wanted) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise UserError(
            f"{wanted.name} needs pyarrow, which is not installed: pip install 'nmt_keras[arrow]'"
        ) from error
    return pyarrow


def _columns(schema: Any, wanted: Wanted) -> list[tuple[str, str]]:
    """The column of each text, and the part of it where it is one of structs."""
    import pyarrow.types as types

    names: dict[str, tuple[str, str, Any]] = {}  # the column, the part and its type
    for column in schema:
        if types.is_struct(column.type):
            for part in column.type:
                names[f"{column.name}.{part.name}"] = column.name, part.name, part.type
        else:
            names.setdefault(column.name, (column.name, "", column.type))
    columns = []
    for number, (field, language) in enumerate(zip(wanted.fields, wanted.languages)):
        name = field_of(list(names), wanted, number)
        if name is None:
            raise UserError(
                f"{wanted.name} has no column {field or language!r}; its columns: {', '.join(names) or 'none'}: name "
                "one after #, such as pairs.parquet#translation.en"
            )
        *place, kind = names[name]
        kind = kind.value_type if types.is_dictionary(kind) else kind  # a table of pandas with categories
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
            raise UserError(f"{wanted.name}: column {name!r} is {kind}, no text; name another after #")
        columns.append((place[0], place[1]))
    return columns


def _records(batches: Any, columns: list[tuple[str, str]], first: int = 1) -> Iterator[Record]:
    line, wanted = first, sorted({name for name, _ in columns})
    for batch in batches:
        batch.select(wanted).validate(full=True)  # what is damaged would be read from anywhere in memory
        texts = []
        for column, part in columns:
            values = batch.column(column).to_pylist()
            texts.append([value.get(part) if value else None for value in values] if part else values)
        for row in zip(*texts):
            yield Record(line, left_out="no text") if None in row else Record(line, tuple(map(one_line, row)))
            line += 1
