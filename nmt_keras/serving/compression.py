"""Weights of an export in fewer bytes: bfloat16, or int8 with a scale for each row or column.

`int8` saves space, not time: weights are restored to float32 once a call, and products are in float32. `int8_compute`
stores the same and multiplies in int8 where that is faster (`nmt_keras.serving.int8`).
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nmt_keras.layers.int8 import GraphConstant, Int8Kernel, rounded

# What each is computed in; of int8_compute, what is not in int8.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "int8": "float32", "int8_compute": "auto"}
_MIN_SIZE = 1024  # numbers; what is smaller, biases and gains, stays as it is


class StoredWeight(NamedTuple):
    """A weight as an export keeps it."""

    weight: keras.Variable
    values: tf.Variable | GraphConstant  # int8, bfloat16 or float32, as the weight
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


def compress_kernels(
    weights: Iterable[keras.Variable], transposed: Mapping[str, bool] = MappingProxyType({})
) -> tuple[list[StoredWeight], dict[str, Int8Kernel]]:
    """Rounds weights to int8, in place, some of them for products in int8: with a scale for each of their outputs.

    Args:
        weights: of a model.
        transposed: the weights for products, by their paths, and whether these take them transposed.

    Returns:
        What to keep of each, and those for products, by their paths.
    """
    kernels, stored = {}, []
    for weight in weights:
        if weight.path not in transposed:
            stored.append(_stored(weight, "int8"))
            continue
        is_transposed = transposed[weight.path]
        values, scales = rounded(np.array(weight, np.float32), 0 if is_transposed else 1)
        kernel = Int8Kernel(values, scales.reshape(-1), is_transposed)
        kernels[weight.path] = kernel
        stored.append(StoredWeight(weight, kernel.values, _variable(scales)))
    for each in stored:
        each.weight.assign(each.restored())
    return stored, kernels


def _stored(weight: keras.Variable, precision: str) -> StoredWeight:
    values = np.array(weight, np.float32)
    if precision == "bfloat16" or values.size < _MIN_SIZE or values.ndim < 2:
        small = precision == "bfloat16" and values.size >= _MIN_SIZE
        return StoredWeight(weight, _variable(tf.cast(values, tf.bfloat16 if small else tf.float32)), None)
    integers, scales = rounded(values, int(np.argmax(values.shape)))
    return StoredWeight(weight, _variable(integers), _variable(scales))


def _variable(value: Any) -> tf.Variable:
    return tf.Variable(value, trainable=False)
