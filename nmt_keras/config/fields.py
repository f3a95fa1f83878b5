"""The declaration of a field beyond its type and default: help, rule, and whether a resumed run may change it.

A field is written once, as in `d_model: int = spec(512, "width of states", positive=True)`. Checks, `--help`,
docs/configuration.md and what may change when a run goes on are derived from it.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

REFUSED = "refused"  # another value is another experiment: a run does not go on with it
ALLOWED = "allowed"  # with --allow_config_change; the variables of a checkpoint stay what they are
FREE = "free"  # may change: the length of training, reports and the search

_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    tuple[str, ...]: 'several texts, with a comma after one alone, as in ("train.en",)',
    tuple[float, ...]: "several finite numbers, with a comma after one alone, as in (1.0,)",
}


class Spec(NamedTuple):
    """The declaration of a field."""

    help: str
    choices: tuple[str, ...]
    rule: str  # such as "must be positive"; "" where any value of the type will do
    holds: Callable[[Any], bool]
    resume: str  # REFUSED, ALLOWED or FREE
    keeps_old_default: bool  # where a recipe has today's default, a resumed run keeps the value it began with


class Field(NamedTuple):
    """A field of a section, with its place."""

    section: str
    name: str
    kind: Any  # its type
    default: Any
    spec: Spec

    @property
    def path(self) -> str:
        """Such as `model.d_model`."""
        return f"{self.section}.{self.name}"

    def value_in(self, config: Any) -> Any:
        """Its value in an experiment."""
        return getattr(getattr(config, self.section), self.name)

    def problem_in(self, config: Any) -> str:
        """What is wrong with its value, by its rule; "" if nothing is."""
        value = self.value_in(config)
        return "" if self.spec.holds(value) else f"`{self.path}` {self.spec.rule}. Received: {value!r}"

    def type_problem_in(self, config: Any) -> str:
        """What is wrong with the type of its value; "" if nothing is."""
        value = self.value_in(config)
        return "" if _is_of(value, self.kind) else f"`{self.path}` must be {_KINDS[self.kind]}. Received: {value!r}"


def spec(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    positive: bool = False,
    not_negative: bool = False,
    rate: bool = False,
    rule: tuple[str, Callable[[Any], bool]] | None = None,
    resume: str = REFUSED,
    keeps_old_default: bool = False,
) -> Any:
    """Declares a field of a section.

    Args:
        default: its default.
        help: one line for people, without a full stop.
        choices: the only values there are.
        positive: it must be more than 0.
        not_negative: it must be 0 or more.
        rate: it must be at least 0 and below 1.
        rule: any other rule, as text for people ("must be ...") and as a function of the value.
        resume: whether a run may go on with another value.
        keeps_old_default: where a recipe has today's default, a resumed run keeps the value it began with.
    """
    rules: list[tuple[str, Callable[[Any], bool]]] = [rule] if rule else []
    if choices:
        rules.append((f"must be one of {', '.join(choices)}", choices.__contains__))
    if positive:
        rules.append(("must be positive", lambda value: value > 0))
    if not_negative:
        rules.append(("must not be negative", lambda value: value >= 0))
    if rate:
        rules.append(("must be at least 0 and below 1", lambda value: 0 <= value < 1))
    if len(rules) > 1:
        raise ValueError(f"A field has one rule. Received: {[text for text, _ in rules]}")
    text, holds = rules[0] if rules else ("", lambda value: True)
    declared = Spec(help, choices, text, holds, resume, keeps_old_default)
    return dataclasses.field(default=default, metadata={"spec": declared})


def fields_of(experiment: type) -> Iterator[Field]:
    """All fields of an experiment, section by section, in the order they are declared in."""
    for section in dataclasses.fields(experiment):
        kind = typing.cast(type, section.default_factory)
        types = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            yield Field(section.name, field.name, types[field.name], field.default, field.metadata["spec"])


def _is_of(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, (tuple, list)) and all(_is_of(v, typing.get_args(kind)[0]) for v in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind)
