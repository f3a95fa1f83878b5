"""Weights that training leaves as they are."""

import re
from collections.abc import Iterable

import keras

from nmt_keras.errors import UserError
from nmt_keras.models.seq2seq import Seq2Seq


def freeze(model: Seq2Seq, pattern: str) -> list[str]:
    """Makes weights whose whole path matches a regular expression, such as `encoder/.*`, stay as they are.

    Args:
        model: built.
        pattern: of paths without the name of the model; "" freezes none.

    Returns:
        The paths of those.

    Raises:
        UserError: the pattern is no regular expression, or matches no weight, or all of them.
    """
    if not pattern:
        return []
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"`training.freeze` is no regular expression ({error}). Received: {pattern!r}") from error
    weights = {_name(weight): weight for weight in model.trainable_variables}
    matched = [name for name in weights if compiled.fullmatch(name)]
    if not matched or len(matched) == len(weights):
        raise UserError(
            f"`training.freeze` {pattern!r} matches {'all weights' if matched else 'no weight'}: it must match the "
            f"whole path of some of them, which begin with {', '.join(_beginnings(weights))}"
        )
    for name in matched:
        weights[name].trainable = False
    return matched


def _name(weight: keras.Variable) -> str:
    return weight.path.partition("/")[2]


def _beginnings(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] + "/" for name in names))
