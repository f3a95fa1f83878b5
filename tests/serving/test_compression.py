"""Weights in fewer bytes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.constants import EXPORT_PRECISIONS
from nmt_keras.serving.compression import PRECISIONS, compress


def _weights():
    """Two matrices, longer one way and the other, a kernel of a convolution, and what is small."""
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=shape) * 3 for shape in ((8, 256), (300, 9), (3, 16, 64), (2000,), (30, 30))]
    return [keras.Variable(array.astype(np.float32)) for array in arrays], arrays


def test_each_precision_that_may_be_asked_for_is_computed_in_something():
    assert tuple(PRECISIONS) == EXPORT_PRECISIONS


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_the_model_computes_with_what_is_kept(precision):
    weights, arrays = _weights()
    for weight, stored, array in zip(weights, compress(weights, precision), arrays, strict=True):
        assert stored.weight is weight
        np.testing.assert_array_equal(weight.numpy(), stored.restored())
        assert np.abs(weight.numpy() - array).max() < 0.02 * np.abs(array).max()


def test_int8_has_a_scale_a_place_of_the_longest_axis_and_leaves_vectors_and_small_ones():
    weights, arrays = _weights()
    stored = compress(weights, "int8")
    assert [each.values.dtype for each in stored] == [tf.int8] * 3 + [tf.float32] * 2
    shapes = [None if each.scales is None else tuple(each.scales.shape) for each in stored]
    assert shapes == [(1, 256), (300, 1), (1, 1, 64), None, None]
    for each, array in zip(stored[:3], arrays):
        largest = np.abs(array).max(tuple(axis for axis, size in enumerate(each.scales.shape) if size == 1))
        np.testing.assert_allclose(np.ravel(each.scales) * 127, largest, rtol=1e-6)
        assert np.abs(each.values.numpy()).max() == 127
        assert (np.abs(each.restored() - array) <= each.scales.numpy() * 0.501).all()
    for each, array in zip(stored[3:], arrays[3:]):
        np.testing.assert_array_equal(each.values, array.astype(np.float32))
    assert not any(variable.trainable for each in stored for variable in each[1:] if variable is not None)


def test_bfloat16_is_kept_where_it_saves_something():
    weights, arrays = _weights()
    stored = compress(weights, "bfloat16")
    assert [each.values.dtype for each in stored] == [tf.bfloat16] * 4 + [tf.float32]
    assert all(each.scales is None for each in stored)
    np.testing.assert_array_equal(stored[4].restored(), arrays[4].astype(np.float32))


def test_a_matrix_of_zeros_stays_one():
    [stored] = compress([keras.Variable(np.zeros((40, 40), np.float32))], "int8")
    assert not np.any(stored.restored())
