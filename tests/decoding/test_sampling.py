"""Greedy decoding and sampling over models small enough to know by heart."""

import numpy as np
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.decoding import sampling
from nmt_keras.decoding.constraints import NEVER, Constraints
from nmt_keras.decoding.sampling import greedy, sample

V, S = 7, 3
STATE = (tf.zeros([2, 1]),)


def _successor(ids, position, state):
    """Next = last + 1, from BOS to 4, and EOS after 6."""
    following = tf.where(ids == BOS_ID, 4, tf.where(ids == V - 1, EOS_ID, ids + 1))
    return tf.one_hot(following, V) * 50.0, tf.ones([*ids.shape, S]) / S, state


def _fixed(probabilities):
    def step_fn(ids, position, state):
        logits = tf.math.log(tf.constant(probabilities, tf.float32))
        return tf.broadcast_to(logits, [*ids.shape, V]), tf.zeros([*ids.shape, S]), state

    return step_fn


def test_greedy_counts_and_stops_at_each_rows_own_limit():
    result = greedy(_successor, STATE, Constraints(tf.constant([9, 2])))
    np.testing.assert_array_equal(result.ids[:, 0], [[4, 5, 6, EOS_ID], [4, EOS_ID, PAD_ID, PAD_ID]])
    np.testing.assert_array_equal(result.lengths, [[4], [2]])
    np.testing.assert_allclose(tf.reduce_sum(result.token_log_probs, -1), result.log_prob, atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(result.attention_weights, -1)[:, 0], [[1, 1, 1, 1], [1, 1, 0, 0]])


def test_pad_and_bos_are_never_produced():
    result = greedy(_fixed([0.4, 0.05, 0.4, 0.05, 0.06, 0.02, 0.02]), STATE, Constraints(tf.constant([3, 3])))
    np.testing.assert_array_equal(result.ids[:, 0], [[4, 4, EOS_ID]] * 2)


def _first_ids(count=4000, **options):
    step_fn = _fixed([1e-9, 0.1, 1e-9, 0.1, 0.4, 0.3, 0.1])
    result = sample(
        step_fn,
        STATE,
        Constraints(tf.constant([2, 2])),
        seeds=tf.constant([[1, 2], [1, 3]]),
        num_samples=count,
        **options
    )
    return np.bincount(result.ids[:, :, 0].numpy().ravel(), minlength=V) / (2 * count)


def test_samples_follow_the_distribution():
    np.testing.assert_allclose(_first_ids(), [0, 0.1, 0, 0.1, 0.4, 0.3, 0.1], atol=0.02)


def test_temperature_sharpens():
    squared = np.array([0, 0.01, 0, 0.01, 0.16, 0.09, 0.01])
    np.testing.assert_allclose(_first_ids(temperature=0.5), squared / squared.sum(), atol=0.02)


def test_top_k_and_top_p_keep_the_most_probable():
    np.testing.assert_allclose(_first_ids(top_k=2), [0, 0, 0, 0, 4 / 7, 3 / 7, 0], atol=0.02)
    np.testing.assert_allclose(_first_ids(top_p=0.6), [0, 0, 0, 0, 4 / 7, 3 / 7, 0], atol=0.02)
    np.testing.assert_allclose(_first_ids(top_p=0.0), [0, 0, 0, 0, 1, 0, 0])


def test_top_p_of_one_keeps_everything():
    vocab_size = 8000  # where the sum of float32 probabilities reaches 1 early
    scores = tf.constant(np.random.default_rng(1).normal(size=(8, 1, vocab_size)) * 6, tf.float32)
    assert (sampling._truncate(scores, tf.constant(0), tf.constant(1.0)) > NEVER).numpy().all()


def test_each_row_has_its_own_options_and_the_first_samples_are_those_of_fewer():
    step_fn = _fixed([1e-9, 0.1, 1e-9, 0.1, 0.4, 0.3, 0.1])
    seeds, limits = tf.constant([[1, 2], [1, 3]]), Constraints(tf.constant([6, 6]))
    request_options = {"temperature": [0.5, 1.5], "top_k": [2, 0], "top_p": [1.0, 0.8]}
    both = sample(
        step_fn, STATE, limits, seeds=seeds, num_samples=5, **{k: tf.constant(v) for k, v in request_options.items()}
    )
    for row in range(2):
        own = {name: values[row] for name, values in request_options.items()}
        alone = sample(step_fn, STATE, limits, seeds=seeds, num_samples=3, **own)
        for number in range(3):
            length = int(alone.lengths[row, number])
            assert both.lengths[row, number] == length
            np.testing.assert_array_equal(both.ids[row, number, :length], alone.ids[row, number, :length])


def test_a_hypothesis_that_nothing_may_follow_is_given_up():
    result = greedy(_successor, STATE, Constraints(tf.constant([9, 9]), min_length=8, no_repeat_ngram=1))
    np.testing.assert_array_equal(result.lengths, [[0], [0]])
    assert np.isneginf(result.score).all() and np.isneginf(result.log_prob).all()
    assert not result.ids.numpy().any() and not result.attention_weights.numpy().any()


def test_log_prob_is_the_models_own():
    result = sample(
        _fixed([1e-9, 0.1, 1e-9, 0.1, 0.4, 0.3, 0.1]),
        STATE,
        Constraints(tf.constant([1, 1])),
        seeds=tf.constant([[1, 2], [1, 3]]),
        temperature=0.1,
        top_k=1,
    )
    np.testing.assert_allclose(result.log_prob, np.log([[0.1]] * 2), atol=1e-5)


def test_equal_seeds_give_equal_samples():
    step_fn = _fixed([1e-9, 0.1, 1e-9, 0.1, 0.4, 0.3, 0.1])

    def draw(seed):
        return sample(
            step_fn, STATE, Constraints(tf.constant([8, 8])), seeds=tf.constant([[seed, 0], [seed, 1]]), num_samples=5
        ).ids.numpy()

    np.testing.assert_array_equal(draw(1), draw(1))
    assert draw(1).shape != draw(2).shape or (draw(1) != draw(2)).any()


def _random_logits(scale, seed=0):
    """Logits of a step, the same at each position, over 3,000 ids, and others that differ by rounding errors."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=[2, 1, 3000]) * scale
    return [tf.constant(each, tf.float32) for each in (logits, logits * (1 + rng.uniform(-1e-6, 1e-6, logits.shape)))]


def _samples(logits, among=None, count=300):
    def step_fn(ids, position, state):
        shape = [*ids.shape, logits.shape[-1]]
        return tf.broadcast_to(logits, shape), tf.zeros([*ids.shape, S]), state

    limits, seeds = Constraints(tf.constant([8, 8])), tf.constant([[1, 2], [1, 3]])
    return sample(step_fn, STATE, limits, seeds=seeds, num_samples=count, among=among).ids.numpy()


def test_a_rounding_error_changes_no_sample():
    """Where the distribution is flat, so that many ids are about equally probable."""
    for scale in (0.1, 1.0, 3.0):
        np.testing.assert_array_equal(*map(_samples, _random_logits(scale)))


def test_what_is_drawn_does_not_depend_on_which_ids_are_left_out():
    """As with a shortlist, which has the ids of other rows of the batch too."""
    logits, _ = _random_logits(2.0)
    listed = tf.constant([0, 1, 2, 3, *range(5, 3000, 7)])
    kept = tf.reduce_any(tf.range(3000)[:, None] == listed, 1)
    every = _samples(tf.where(kept, logits, NEVER))
    some = _samples(tf.gather(logits, listed, axis=2), (listed, 3000))
    np.testing.assert_array_equal(listed.numpy()[some], every)
