"""Learning rates by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ExperimentConfig, TrainingConfig
from nmt_keras.config.fields import fields_of
from nmt_keras.training.schedules import SCHEDULES, Schedule, build_optimizer


def _rates(updates, **fields):
    """The rate of the n-th update, n from 1."""
    schedule = Schedule(TrainingConfig(**{"learning_rate": 2.0, **fields}), tf.Variable(0))
    return [float(schedule(tf.constant(update - 1, tf.int64))) for update in updates]


def test_every_schedule_of_the_configuration_exists():
    [field] = [f for f in fields_of(ExperimentConfig) if f.path == "training.schedule"]
    assert set(SCHEDULES) == set(field.spec.choices)


def test_constant_is_the_peak():
    np.testing.assert_allclose(_rates([1, 7, 10**6], schedule="constant"), [2, 2, 2])


@pytest.mark.parametrize(
    "warmup, updates, expected",
    [
        (4, [1, 2, 4, 9, 16, 100], [0.5, 1.0, 2.0, 2 * 2 / 3, 1.0, 0.4]),
        (1, [1, 4, 25], [2.0, 1.0, 0.4]),
        (0, [1, 4, 25], [2.0, 1.0, 0.4]),
    ],
)
def test_inverse_sqrt_warms_up_to_the_peak_and_falls_with_the_root(warmup, updates, expected):
    np.testing.assert_allclose(_rates(updates, schedule="inverse_sqrt", warmup_steps=warmup), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "warmup, updates, expected",
    [
        (4, [1, 2, 4, 8, 12, 16, 20, 21, 99], [0.5, 1.0, 2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0, 0, 0]),
        (0, [1, 10, 20], [1 + np.cos(np.pi / 20), 1.0, 0]),
    ],
)
def test_cosine_warms_up_to_the_peak_and_ends_at_zero(warmup, updates, expected):
    rates = _rates(updates, schedule="cosine", warmup_steps=warmup, max_steps=20)
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-6)


def test_luong_halving_keeps_the_peak_for_two_thirds_and_halves_four_times():
    updates = [1, 80, 89, 90, 99, 100, 110, 120, 130, 500]
    rates = _rates(updates, schedule="luong_halving", max_steps=120, warmup_steps=50)
    np.testing.assert_allclose(rates, [2, 2, 2, 1, 1, 0.5, 0.25, 0.125, 0.125, 0.125])


def test_luong_halving_of_a_short_run_halves_at_each_update_of_its_last_third():
    rates = _rates([8, 9, 10, 11, 12], schedule="luong_halving", max_steps=12, warmup_steps=50)
    np.testing.assert_allclose(rates, [2, 1, 0.5, 0.25, 0.125])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_of_a_few_steps_has_finite_rates(name):
    rates = _rates([1, 2, 3], schedule=name, max_steps=1, warmup_steps=400)
    assert np.isfinite(rates).all() and min(rates) >= 0 and max(rates) <= 2


@pytest.mark.parametrize(
    "name, kind", [("adam", keras.optimizers.Adam), ("adamw", keras.optimizers.AdamW), ("sgd", keras.optimizers.SGD)]
)
def test_optimizers_follow_the_schedule_and_do_not_clip(name, kind):
    config = TrainingConfig(
        optimizer=name, schedule="inverse_sqrt", warmup_steps=4, learning_rate=2.0, weight_decay=0.3
    )
    optimizer = build_optimizer(config, tf.Variable(0))
    assert type(optimizer) is kind
    assert optimizer.clipnorm is optimizer.global_clipnorm is optimizer.clipvalue is None
    assert optimizer.weight_decay == (0.3 if name == "adamw" else None)
    variable = keras.Variable([1.0, 2.0])
    optimizer.build([variable])
    for expected in (0.5, 1.0, 1.5, 2.0, 4 / 5**0.5):
        assert float(optimizer.learning_rate) == pytest.approx(expected)
        optimizer.apply([tf.constant([0.0, 0.0])])


def test_sgd_moves_by_the_rate_times_the_gradient():
    config = TrainingConfig(optimizer="sgd", schedule="inverse_sqrt", warmup_steps=4, learning_rate=2.0)
    optimizer = build_optimizer(config, tf.Variable(0))
    variable = keras.Variable([1.0, 2.0])
    optimizer.build([variable])
    optimizer.apply([tf.constant([1.0, -4.0])])
    np.testing.assert_allclose(variable, [0.5, 4.0])
    optimizer.apply([tf.constant([1.0, -4.0])])
    np.testing.assert_allclose(variable, [-0.5, 8.0])


def test_the_first_step_of_adam_has_the_size_of_the_rate():
    optimizer = build_optimizer(
        TrainingConfig(optimizer="adam", schedule="constant", learning_rate=0.25), tf.Variable(0)
    )
    variable = keras.Variable([1.0, 2.0])
    optimizer.build([variable])
    optimizer.apply([tf.constant([0.5, -50.0])])
    np.testing.assert_allclose(variable, [0.75, 2.25], rtol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_moments_of_adam_are_those_of_the_configuration(name):
    config = TrainingConfig(optimizer=name, adam_beta1=0.5, adam_beta2=0.98, adam_epsilon=1e-9)
    optimizer = build_optimizer(config, tf.Variable(0))
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.5, 0.98, 1e-9)
