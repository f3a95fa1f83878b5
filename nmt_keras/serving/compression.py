"""Weights of an export in fewer bytes: bfloat16, or int8 with a scale for each row or column.

int8 saves space, not time: weights are restored to float32 once a call, and products are in float32.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "int8": "float32"}  # what each is computed in
_MIN_SIZE = 1024  # numbers; what is smaller, biases and gains, stays as it is


class StoredWeight(NamedTuple):
    """A weight as an export keeps it."""

    weight: keras.Variable
    values: tf.Variable  # int8, bfloat16 or float32, as the weight
    scales: tf.Variable | None  # float32, broadcast to the weight; of int8

    def restored(self) -> tf.Tensor:
        """The weight that is computed with, float32."""
        values = tf.cast(tf.convert_to_tensor(self.values), tf.float32)
        return values if self.scales is None else values * self.scales


def compress(weights: Iterable[keras.Variable], precision: str) -> list[StoredWeight]:
    """Rounds weights to what `precision` can hold, in place, so that the model computes as its export does.

    Args:
        weights: of a model.
        precision: bfloat16, or int8: linear with one scale for each place of the longest axis, symmetric about 0
            (Jacob et al. 2018, 2.1).

    Returns:
        What to keep of each.
    """
    stored = [_stored(weight, precision) for weight in weights]
    for each in stored:
        each.weight.assign(each.restored())
    return stored


def _stored(weight: keras.Variable, precision: str) -> StoredWeight:
    values = np.array(weight, np.float32)
    if precision == "bfloat16" or values.size < _MIN_SIZE or values.ndim < 2:
        small = precision == "bfloat16" and values.size >= _MIN_SIZE
        return StoredWeight(weight, _variable(tf.cast(values, tf.bfloat16 if small else tf.float32)), None)
    axes = tuple(axis for axis in range(values.ndim) if axis != np.argmax(values.shape))
    scales = np.maximum(np.abs(values).max(axes, keepdims=True) / 127.0, np.finfo(np.float32).tiny)
    rounded = np.clip(np.rint(values / scales), -127, 127).astype(np.int8)
    return StoredWeight(weight, _variable(rounded), _variable(scales.astype(np.float32)))


def _variable(value: Any) -> tf.Variable:
    return tf.Variable(value, trainable=False)
