"""JSON lines: an object a line; a field of an object in an object is named with a dot, translation.en."""

import json
from collections.abc import Iterator
from typing import Any

from nmt_keras.data.sources.records import Record, Wanted, lines_of, named_like, one_line
from nmt_keras.errors import UserError


def read_json_lines(path: str, wanted: Wanted) -> Iterator[Record]:
    """Reads fields of the objects of a file.

    Raises:
        UserError: it is no UTF-8, a line is no JSON object, a field is no text, or the first object lacks it.
    """
    fields: list[str] = []
    for number, line in enumerate(lines_of(path, wanted), 1):
        if not line.strip():
            yield Record(number, left_out="an empty line")
            continue
        where = f"{wanted.name}, line {number:,}"
        try:
            value = json.loads(line.rstrip("\r\n"))
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(
                f'{where}: no JSON ({reason}); each line must be an object, such as {{"en": ...}}'
            ) from error
        if not isinstance(value, dict):
            raise UserError(f"{where}: {line.strip()[:40]!r} is no JSON object; each line must be one")
        fields = fields or [_field(value, wanted, each) for each in range(len(wanted.fields))]
        texts = [_text(value, field, where) for field in fields]
        if None in texts:
            yield Record(number, left_out=f"no field {fields[texts.index(None)]!r}")
        else:
            yield Record(number, tuple(one_line(text or "") for text in texts))


def field_of(names: list[str], wanted: Wanted, number: int) -> str | None:
    """Which of the names of fields holds a text of what is wanted: the one that is given, else by language and role."""
    field = wanted.fields[number]
    if field:
        return field if field in names else None
    inner = sorted(names, key=lambda name: -name.count("."))  # of `id` and `translation.id`, the second is a language
    place = named_like([name.rpartition(".")[2] for name in inner], wanted, number)
    return None if place is None else inner[place]


def _field(value: dict[str, Any], wanted: Wanted, number: int) -> str:
    names = list(_names(value))
    found = field_of(names, wanted, number)
    if found is None:
        field = wanted.fields[number] or wanted.languages[number]
        raise UserError(
            f"{wanted.name} has no field {field!r} in its first object; its fields: {', '.join(names[:20]) or 'none'}: "
            "name one after #, such as pairs.jsonl#translation.en"
        )
    return found


def _names(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, part in value.items():
        if isinstance(part, dict):
            yield from _names(part, f"{prefix}{name}.")
        else:
            yield prefix + name


def _text(value: Any, field: str, where: str) -> str | None:
    for name in [field] if isinstance(value, dict) and field in value else field.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: field {field!r} is {value!r:.40}, and no text")
    return value
