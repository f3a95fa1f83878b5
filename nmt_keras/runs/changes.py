"""Changes of the configuration with which a run may be resumed."""

import pathlib
from typing import Any

from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import ALLOWED, FREE, REFUSED, fields_of
from nmt_keras.errors import UserError

SCHEDULED_TO_THE_END = ("cosine", "luong_halving")


def keep_what_was_decided(before: ExperimentConfig, config: ExperimentConfig) -> None:
    """Gives a configuration the `batch_tokens` that the run found, and the run's values of defaults changed since."""
    config.training.batch_tokens = config.training.batch_tokens or before.training.batch_tokens
    for each in (before, config):
        if each.training.compile == "auto":  # as in a run that began before there was this field
            each.training.compile = "parts"
    for field in fields_of(ExperimentConfig):
        if field.spec.keeps_old_default and field.value_in(config) == field.default:
            setattr(getattr(config, field.section), field.name, field.value_in(before))


def require_allowed(
    run_dir: pathlib.Path, before: ExperimentConfig, config: ExperimentConfig, allow_change: bool
) -> tuple[list[str], list[str]]:
    """Lists the changes that need permission, and those that need none.

    Raises:
        UserError: a change is refused, or needs permission and `allow_change` is False.
    """
    differences, changeable, changes = _differences(before, config)
    refused = differences + ([] if allow_change else changeable)
    if refused:
        remedy = "" if differences else "give --allow_config_change to go on so, "
        raise UserError(
            f"{run_dir} belongs to another configuration: {'; '.join(refused)}; {remedy}give the same values, "
            "or another --run_dir"
        )
    return changeable, changes


def _differences(old: ExperimentConfig, new: ExperimentConfig) -> tuple[list[str], list[str], list[str]]:
    """Lists the differences of two configurations: refused ones, those that need permission, and free ones."""
    found: dict[str, list[str]] = {REFUSED: [], ALLOWED: [], FREE: []}
    for field in fields_of(ExperimentConfig):
        before, after = field.value_in(old), field.value_in(new)
        if _comparable(before) != _comparable(after):
            found[field.spec.resume].append(f"{field.path} was {before!r}, now {after!r}")
    return found[REFUSED], found[ALLOWED], found[FREE]


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
