"""Dropout masks: how much they drop, that they keep the mean, and what they depend on."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.layers.dropout import dropout, dropout_mask, fold_in

SEED = tf.constant([3, 4])


@pytest.mark.parametrize("rate, levels", [(0.1, 26), (0.2, 51), (0.5, 128), (1e-4, 1), (0.999, 255)])
def test_a_mask_drops_the_multiple_of_a_256th_next_to_its_rate_and_keeps_the_mean(rate, levels):
    mask = dropout_mask([300, 401], rate, SEED).numpy()
    share = levels / 256
    error = 4 * np.sqrt(share * (1 - share) / mask.size)
    assert abs((mask == 0).mean() - share) < error
    np.testing.assert_allclose(mask[mask > 0], 1 / (1 - share), rtol=1e-6)
    np.testing.assert_allclose(mask.mean(), 1.0, atol=error / (1 - share))


def test_elements_are_dropped_independently():
    dropped = dropout_mask([512, 256], 0.5, SEED).numpy() == 0
    for lag in range(1, 17):  # eight elements share a draw
        assert abs(np.mean(dropped[:, lag:] == dropped[:, :-lag]) - 0.5) < 0.01
    assert abs(np.mean(dropped[1:] == dropped[:-1]) - 0.5) < 0.01


@pytest.mark.parametrize("shape", [[1], [7], [3, 5], [2, 3, 11]])
def test_any_shape(shape):
    x = tf.ones(shape)
    assert dropout(x, 0.3, SEED).shape == shape and dropout_mask(shape, 0.3, SEED).shape == shape


def test_a_mask_is_a_function_of_its_seed():
    one, same, other = (dropout_mask([4, 64], 0.5, seed) for seed in (SEED, SEED, fold_in(SEED, 1)))
    np.testing.assert_array_equal(one, same)
    assert (one.numpy() != other.numpy()).any()


def test_nothing_is_dropped_without_a_seed_or_a_rate():
    x = tf.ones([3])
    assert dropout(x, 0.5, None) is x and dropout(x, 0.0, SEED) is x and fold_in(None, 2) is None
