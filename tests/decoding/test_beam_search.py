"""Beam search against brute force over all strings of a tiny vocabulary."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID
from nmt_keras.decoding.beam_search import beam_search, penalty

V, S = 6, 3
ORDINARY = [1, 4, 5]


def _random_model(batch, max_length, seed=0, spread=2.0):
    """A model whose logits depend on the row, the position and the last two ids; its attention likewise."""
    rng = np.random.default_rng(seed)
    table = tf.constant(rng.normal(size=(batch, max_length, V, V, V)) * spread, tf.float32)
    heat = tf.constant(rng.dirichlet(np.ones(S), size=(batch, max_length, V)), tf.float32)

    def step_fn(ids, position, state):
        (before,) = state
        rows = tf.broadcast_to(tf.range(batch)[:, None], tf.shape(ids))
        at = tf.fill(tf.shape(ids), position)
        logits = tf.gather_nd(table, tf.stack([rows, at, before, ids], -1))
        return logits, tf.gather_nd(heat, tf.stack([rows, at, ids], -1)), (ids,)

    return step_fn, (tf.zeros([batch, 1], tf.int32),), table.numpy(), heat.numpy()


def _log_softmax(x):
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


def _brute_force(table, row, max_length, alpha):
    """All strings that end within max_length ids: (score, log_prob, ids, token log probabilities), best first."""
    results = []
    for length in range(1, max_length + 1):
        for body in itertools.product(ORDINARY, repeat=length - 1):
            ids = [*body, EOS_ID]
            before, last, log_probs = 0, BOS_ID, []
            for position, token in enumerate(ids):
                log_probs.append(_log_softmax(table[row, position, before, last])[token])
                before, last = last, token
            log_prob = sum(log_probs)
            results.append((log_prob / ((5 + length) / 6) ** alpha, log_prob, ids, log_probs))
    return sorted(results, key=lambda r: -r[0])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_enough_beam_finds_the_best_strings(seed, alpha):
    lengths, count = [4, 2, 3], 3
    step_fn, state, table, heat = _random_model(3, 4, seed)
    result = beam_search(step_fn, state, tf.constant(lengths), beam_size=27, length_penalty=alpha, num_hypotheses=count)
    for row, length in enumerate(lengths):
        expected = _brute_force(table, row, length, alpha)[:count]
        for place, (score, log_prob, ids, token_log_probs) in enumerate(expected):
            size = len(ids)
            assert result.ids[row, place, :size].numpy().tolist() == ids
            assert not result.ids[row, place, size:].numpy().any()
            assert result.lengths[row, place] == size
            np.testing.assert_allclose(result.score[row, place], score, atol=1e-5)
            np.testing.assert_allclose(result.log_prob[row, place], log_prob, atol=1e-5)
            np.testing.assert_allclose(result.token_log_probs[row, place, :size], token_log_probs, atol=1e-5)
            weights = [heat[row, t, token] for t, token in enumerate([BOS_ID, *ids[:-1]])]
            np.testing.assert_allclose(result.attention_weights[row, place, :size], weights, atol=1e-6)
            assert not result.attention_weights[row, place, size:].numpy().any()


@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_stopping_early_changes_nothing(beam_size, alpha):
    """A plain search without early exit, one row at a time, is the reference."""
    batch, length = 5, 7
    step_fn, state, table, _ = _random_model(batch, length, seed=9, spread=1.0)
    result = beam_search(step_fn, state, tf.fill([batch], length), beam_size=beam_size, length_penalty=alpha)
    for row in range(batch):
        live, ended = [(0.0, [])], []
        for position in range(length):
            candidates = []
            for log_prob, ids in live:
                before, last = ([0, BOS_ID, *ids] if not ids else [BOS_ID, *ids])[-2:]
                log_probs = _log_softmax(table[row, position, before if len(ids) > 0 else 0, last])
                ended.append((log_prob + log_probs[EOS_ID], [*ids, EOS_ID]))
                candidates += [(log_prob + log_probs[token], [*ids, token]) for token in ORDINARY]
            live = sorted(candidates, key=lambda c: -c[0])[:beam_size]
        best = max(ended, key=lambda e: e[0] / ((5 + len(e[1])) / 6) ** alpha)
        assert result.ids[row, 0, : len(best[1])].numpy().tolist() == best[1]


def test_beam_search_recovers_from_a_greedy_mistake():
    """Greedy takes 4 (0.6), after which nothing is likely; the better string begins with 5 (0.4)."""
    first = np.log(np.array([1e-9, 1e-9, 1e-9, 1e-9, 0.6, 0.4], np.float32))
    after = {
        4: np.log(np.array([1e-9, 0.3, 1e-9, 0.3, 0.2, 0.2], np.float32)),
        5: np.log(np.array([1e-9, 1e-9, 1e-9, 0.98, 0.01, 0.01], np.float32)),
    }

    def step_fn(ids, position, state):
        logits = tf.stack([first if int(i) == BOS_ID else after.get(int(i), after[4]) for i in tf.reshape(ids, [-1])])
        return tf.reshape(logits, [*ids.shape, V]), tf.ones([*ids.shape, S]) / S, state

    one, two = (beam_search(step_fn, (tf.zeros([1, 1]),), tf.constant([3]), beam_size=k) for k in (1, 2))
    assert one.ids[0, 0, 0] == 4
    assert two.ids[0, 0].numpy().tolist() == [5, EOS_ID]
    np.testing.assert_allclose(two.log_prob[0, 0], np.log(0.4 * 0.98), atol=1e-4)


def test_a_row_does_not_depend_on_the_others():
    step_fn, state, table, _ = _random_model(4, 6, seed=3)
    together = beam_search(step_fn, state, tf.constant([6, 2, 5, 3]), beam_size=3, length_penalty=1.0, num_hypotheses=2)
    for row, length in enumerate([6, 2, 5, 3]):
        rows = tf.constant(table[row : row + 1])

        def alone(ids, position, state, rows=rows):
            (before,) = state
            at, zero = tf.fill(tf.shape(ids), position), tf.zeros_like(ids)
            return tf.gather_nd(rows, tf.stack([zero, at, before, ids], -1)), tf.zeros([*ids.shape, S]), (ids,)

        single = beam_search(
            alone,
            (tf.zeros([1, 1], tf.int32),),
            tf.constant([length]),
            beam_size=3,
            length_penalty=1.0,
            num_hypotheses=2,
        )
        size = single.ids.shape[2]
        np.testing.assert_array_equal(single.ids[0], together.ids[row, :, :size])
        np.testing.assert_array_equal(single.score[0], together.score[row])


def test_all_hypotheses_may_end_at_once_and_missing_ones_have_length_zero():
    step_fn, state, _, _ = _random_model(2, 1)
    result = beam_search(step_fn, state, tf.constant([1, 1]), beam_size=4, num_hypotheses=3)
    np.testing.assert_array_equal(result.ids[:, :, 0], [[EOS_ID, 0, 0]] * 2)
    np.testing.assert_array_equal(result.lengths, [[1, 0, 0]] * 2)
    assert np.isneginf(result.score[:, 1:]).all()


def test_length_penalty_is_that_of_the_paper():
    np.testing.assert_allclose(penalty(tf.constant([1, 7]), 0.6), [1.0, 2.0**0.6], rtol=1e-6)


def test_the_search_is_a_graph():
    step_fn, state, _, _ = _random_model(2, 4)
    graph = tf.function(lambda: beam_search(step_fn, state, tf.constant([4, 3]), beam_size=3), autograph=False)
    tf.nest.map_structure(
        np.testing.assert_array_equal,
        tuple(graph()),
        tuple(beam_search(step_fn, state, tf.constant([4, 3]), beam_size=3)),
    )


def test_a_model_that_gives_no_numbers_gives_no_hypothesis():
    def step_fn(ids, position, state):
        del position
        nothing = tf.fill([2, tf.shape(ids)[1], V], float("nan"))
        return nothing, tf.zeros([2, tf.shape(ids)[1], S]), state

    result = beam_search(step_fn, (tf.zeros([2, 1]),), tf.constant([4, 4]), beam_size=3)
    np.testing.assert_array_equal(result.lengths, [[0], [0]])
    np.testing.assert_array_equal(result.score, [[-np.inf], [-np.inf]])
