"""An export, or a model that could be one, in this process: the same signatures and rows as from a server."""

import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the operations of an export

from nmt_keras.errors import UserError
from nmt_keras.inference.client import Client
from nmt_keras.inference.transports import Failure, Kind, Tensors, bytes_of, strings_of


class LocalTransport:
    """A `Transport` to functions of this process.

    Args:
        functions: of each signature, from tensors by name to tensors by name.
        owner: of the functions, which is kept: a `tf.function` holds its module weakly.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Mapping[str, tf.Tensor]]], owner: tf.Module):
        self._functions = functions
        self._owner = owner

    def predict(self, signature: str, inputs: Tensors) -> Tensors:
        """See `Transport`."""
        if signature not in self._functions:
            raise Failure(Kind.NO_SIGNATURE, f"it has {', '.join(sorted(self._functions))}")
        try:
            outputs = self._functions[signature](**{name: _tensor(value) for name, value in inputs.items()})
        except tf.errors.ResourceExhaustedError as error:
            raise Failure(Kind.TOO_LARGE, error.message) from error
        return {name: strings_of(value.numpy()) for name, value in outputs.items()}

    def close(self) -> None:
        """See `Transport`."""


def load_export(folder: pathlib.Path) -> Client:
    """Loads a SavedModel, or the newest version in a folder of them.

    Raises:
        UserError: `folder` is no export.
    """
    versions = [path for path in folder.glob("*/saved_model.pb") if path.parent.name.isdecimal()]
    if versions:
        folder = max((path.parent for path in versions), key=lambda path: int(path.name))
    try:
        loaded = tf.saved_model.load(str(folder))
        if "serving_default" not in loaded.signatures:
            raise LookupError("serving_default")
    except (OSError, LookupError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{folder} is no export of this toolkit; give saved_models/<name>/<version>") from error
    return Client(str(folder), transport=LocalTransport(loaded.signatures, loaded), concurrency=1)


def _tensor(value: np.ndarray) -> tf.Tensor:
    if value.dtype != object:
        return tf.constant(value)
    return tf.constant(bytes_of(value), tf.string)
