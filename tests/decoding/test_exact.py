"""Exact search against all strings of a tiny vocabulary."""

import itertools

import numpy as np
import pytest

from nmt_keras.constants import EOS_ID
from nmt_keras.decoding.exact import exact_search

V, ORDINARY, LENGTH = 6, (1, 4, 5), 5


def _model(seed, spread=1.5):
    """Log probabilities that depend on the position, the last id and the one before; its table."""
    table = np.random.default_rng(seed).normal(size=(LENGTH, V, V, V)) * spread
    table -= np.log(np.exp(table).sum(-1, keepdims=True))

    def step(number, position, before):
        return table[position, before, number], number

    return step, table


def _all_strings(table):
    """(log probability, ids), the most probable first."""
    found = []
    for length in range(1, LENGTH + 1):
        for body in itertools.product(ORDINARY, repeat=length - 1):
            total, before, last = 0.0, 0, 2
            for position, number in enumerate((*body, EOS_ID)):
                total += table[position, before, last, number]
                before, last = last, number
            found.append((total, [*body, EOS_ID]))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(8))
def test_it_finds_the_most_probable_string_of_all(seed):
    step, table = _model(seed)
    (log_prob, ids), *others = _all_strings(table)
    found = exact_search(step, 0, max_length=LENGTH, max_steps=10_000)
    assert found.is_proved and found.ids == ids and found.log_prob == pytest.approx(log_prob)
    # A known string saves steps, and the best one is only proved.
    for known_log_prob, known in ((log_prob, ids), others[3]):
        again = exact_search(
            step, 0, max_length=LENGTH, max_steps=10_000, known=known, known_log_prob=known_log_prob - 1e-9
        )
        assert again.ids == ids and again.is_proved and again.steps <= found.steps


def test_a_beginning_that_is_less_probable_than_the_best_string_is_not_looked_at():
    """Of ids 1, 4 and 5 only one is ever probable: there is a step for each position, and no other."""
    step, _ = _model(0)

    def sure(number, position, state):
        log_probs = np.full(V, -20.0)
        log_probs[EOS_ID if position == 3 else 4] = -0.01
        return log_probs, state

    assert exact_search(sure, 0, max_length=LENGTH, max_steps=100) == ([4, 4, 4, EOS_ID], pytest.approx(-0.04), 4, True)
    assert exact_search(step, 0, max_length=LENGTH, max_steps=10_000).steps < 3**LENGTH / 2


def _steps(step):
    return exact_search(step, 0, max_length=LENGTH, max_steps=10_000).steps


def test_out_of_steps_it_gives_the_best_so_far_and_says_so():
    step, table = max(map(_model, range(20)), key=lambda model: _steps(model[0]))
    strings = dict((tuple(ids), log_prob) for log_prob, ids in _all_strings(table))
    whole = exact_search(step, 0, max_length=LENGTH, max_steps=10_000)
    assert whole.steps > 5
    for max_steps in (1, 2, whole.steps - 1):
        found = exact_search(step, 0, max_length=LENGTH, max_steps=max_steps)
        assert not found.is_proved and found.steps == max_steps
        assert found.log_prob == pytest.approx(strings[tuple(found.ids)]) and found.log_prob <= whole.log_prob


def test_the_length_is_a_limit():
    step, table = _model(5)
    for limit in (1, 2, 3):
        best = next(ids for _, ids in _all_strings(table) if len(ids) <= limit)
        assert exact_search(step, 0, max_length=limit, max_steps=10_000).ids == best
