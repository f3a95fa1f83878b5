"""The reference of all fields: python -m nmt_keras.config.reference > docs/configuration.md"""

import dataclasses
import textwrap
import typing
from collections.abc import Iterator

from nmt_keras.config.experiment import ExperimentConfig
from nmt_keras.config.fields import ALLOWED, FREE, REFUSED, Field, fields_of

_ON_RESUME = {REFUSED: "no", ALLOWED: "with permission", FREE: "yes"}


def described(field: Field) -> str:
    """What a field is, its choices or its rule, and its default, in a line."""
    choices = f" ({', '.join(field.spec.choices)})" if field.spec.choices else ""
    return f"{field.spec.help}{choices or _rule(field)}. Default: {field.default!r}."


def help_lines() -> Iterator[str]:
    """A line for each field, as the flag that overrides it."""
    for field in fields_of(ExperimentConfig):
        yield f"  --config.{field.path}: {described(field)}"


def markdown() -> str:
    """docs/configuration.md."""
    return "\n".join(_markdown_lines()) + "\n"


def _markdown_lines() -> Iterator[str]:
    yield "# Every field of a recipe"
    yield ""
    yield from textwrap.wrap(
        "Made by `python -m nmt_keras.config.reference > docs/configuration.md`; a test compares. A field of a recipe "
        "is overridden as in `--config.model.d_model=256`. The last column says whether a run that stopped may go on "
        "with another value: yes; with permission, that is with `--allow_config_change`; or no, because it would be "
        "another experiment.",
        120,
    )
    for section in dataclasses.fields(ExperimentConfig):
        kind = typing.cast(type, section.default_factory)
        yield from ("", f"## {section.name}", "", " ".join((kind.__doc__ or "").split()), "")
        yield from ("| field | default | what it is | may change on resume |", "| --- | --- | --- | --- |")
        for field in fields_of(ExperimentConfig):
            if field.section == section.name:
                choices = f": {', '.join(f'`{choice}`' for choice in field.spec.choices)}" if field.spec.choices else ""
                text = (field.spec.help + (choices or _rule(field))).replace("|", "\\|")
                yield f"| `{field.name}` | `{field.default!r}` | {text} | {_ON_RESUME[field.spec.resume]} |"


def _rule(field: Field) -> str:
    return f" ({field.spec.rule})" if field.spec.rule else ""


if __name__ == "__main__":
    print(markdown(), end="")
