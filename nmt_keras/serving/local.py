"""An export, or a model that could be one, in this process: the same signatures and rows as from a server."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the operations of an export

from nmt_keras.errors import UserError
from nmt_keras.layers.int8 import is_available
from nmt_keras.serving.client import Client
from nmt_keras.serving.transports import Failure, Kind, Tensors, bytes_of, strings_of
from nmt_keras.serving.versions import needs_of, newest_version

Functions = Mapping[str, Callable[..., Mapping[str, tf.Tensor]]]


class LocalTransport:
    """A `Transport` to functions of this process.

    Args:
        functions: of each signature, from tensors by name to tensors by name.
        owner: the functions' module, kept alive here: a `tf.function` holds it weakly.
        renew: makes both anew, where their resources were destroyed, as `tf.random.set_seed` does
        (tensorflow/text#570).
    """

    def __init__(self, functions: Functions, owner: Any, renew: Callable[[], tuple[Functions, Any]] | None = None):
        self._functions = functions
        self._owner = owner
        self._renew = renew

    def predict(self, signature: str, inputs: Tensors) -> Tensors:
        """See `Transport`."""
        if signature not in self._functions:
            raise Failure(Kind.NO_SIGNATURE, f"it has {', '.join(sorted(self._functions))}")
        tensors = {name: _tensor(value) for name, value in inputs.items()}
        try:
            try:
                outputs = self._functions[signature](**tensors)
            except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):
                if self._renew is None:
                    raise
                self._functions, self._owner = self._renew()
                outputs = self._functions[signature](**tensors)
        except tf.errors.ResourceExhaustedError as error:
            raise Failure(Kind.TOO_LARGE, error.message) from error
        return {name: strings_of(value.numpy()) for name, value in outputs.items()}

    def close(self) -> None:
        """See `Transport`."""


def load_export(folder: pathlib.Path) -> Client:
    """Loads a SavedModel, or the newest version in a folder of them.

    Raises:
        UserError: `folder` is no export, or needs what this machine lacks.
    """
    folder = newest_version(folder)
    needs = needs_of(folder)
    if needs and not is_available():
        raise UserError(f"{folder} needs {needs}: load it where that is so, or export it with another --precision")

    def load() -> tuple[Functions, Any]:
        loaded = tf.saved_model.load(str(folder))
        return loaded.signatures, loaded

    try:
        signatures, loaded = load()
        if "serving_default" not in signatures:
            raise LookupError("serving_default")
    except (OSError, LookupError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"{folder} is no export of this toolkit, or it is damaged; give another, or export the model again"
        ) from error
    return Client(str(folder), transport=LocalTransport(signatures, loaded, load), concurrency=1)


def _tensor(value: np.ndarray) -> tf.Tensor:
    if value.dtype != object:
        return tf.constant(value)
    return tf.constant(bytes_of(value), tf.string)
