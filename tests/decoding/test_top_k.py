"""The two-stage top-k against the library's, on values with many ties."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.constants import EOS_ID
from nmt_keras.decoding.constraints import NEVER, Constraints, Past
from nmt_keras.decoding.prefixes import Surfaces, make_prefix
from nmt_keras.decoding.top_k import top_k


@pytest.mark.parametrize("size", [7, 1023, 1024, 2000, 2003, 8000])
@pytest.mark.parametrize("is_static", [True, False])
@pytest.mark.parametrize("k", [1, 5, 7])
def test_values_and_indices_are_those_of_one_stage(size, is_static, k):
    rng = np.random.default_rng(size + k)
    values = np.round(rng.normal(size=(2, 3, size)) * 2).astype(np.float32)  # a dozen values: ties everywhere
    values[0, 1, ::2] = -np.inf
    values[1, 2] = -np.inf
    signature = [tf.TensorSpec([None, None, size if is_static else None])]
    run = tf.function(lambda x: top_k(x, k), input_signature=signature, autograph=False)
    for found, expected in zip(run(values), tf.math.top_k(values, k)):
        np.testing.assert_array_equal(found, expected)


def test_more_than_there_are_blocks():
    values = tf.random.stateless_normal([1, 2, 2000], [3, 4])
    for found, expected in zip(top_k(values, 300), tf.math.top_k(values, 300)):
        np.testing.assert_array_equal(found, expected)


def _prefix():
    """The first row begins with id 7."""
    return make_prefix(tf.constant([[7], [0]]), tf.constant(["", ""]), Surfaces.of([b"%d," % i for i in range(2000)]))[
        0
    ]


@pytest.mark.parametrize("rules", [{}, {"no_repeat_ngram": 2}, {"prefix": _prefix()}], ids=["", "repeats", "prefix"])
@pytest.mark.parametrize("position", [0, 1, 8])
def test_a_hypothesis_whose_logits_are_not_numbers_has_no_continuation_and_spoils_no_other(rules, position):
    """Not at the last position either, where EOS must follow, nor within a forced beginning."""
    logits = np.array(tf.random.stateless_normal([2, 3, 2000], [5, 6]))
    constraints = Constraints(tf.constant([9, 9]), **rules)
    is_in_prefix = tf.constant([[position == 0] * 3, [False] * 3]) if "prefix" in rules else ()
    past = Past(tf.zeros([2, 3, 9], tf.int32) if "no_repeat_ngram" in rules else (), (), is_in_prefix)
    expected = constraints.continuations(tf.constant(logits), tf.constant(position), past, 4)
    logits[:, 1, 700] = np.nan
    found = constraints.continuations(tf.constant(logits), tf.constant(position), past, 4)
    assert (found.scores[:, 1].numpy() == NEVER).all() and (found.end_scores[:, 1].numpy() == NEVER).all()
    for own, other in zip(found[:5], expected[:5]):
        own, other = np.array(own), np.array(other)
        own[:, 1] = other[:, 1]
        np.testing.assert_array_equal(own, other)
    assert EOS_ID not in found.ids.numpy()[np.isfinite(found.scores)]


@pytest.mark.parametrize("kind", ["random", "sure", "flat", "large", "shifted", "impossible"])
def test_continuations_are_the_best_of_all_scores(kind):
    """Without a pass over all ids for rules, beside `score`, which makes one."""
    logits = np.array(tf.random.stateless_normal([2, 3, 2000], [7, 8])) * {"flat": 1e-2, "large": 1e4}.get(kind, 1.0)
    if kind == "sure":
        logits[:, :, 40] = 90.0
    if kind == "shifted":
        logits += 3000.0
    if kind == "impossible":
        logits[:, :, 50:] = -np.inf
    constraints, position = Constraints(tf.constant([9, 9]), min_length=4), tf.constant(1)
    past = Past((), (), ())
    scores, log_probs = (x.numpy() for x in constraints.score(tf.constant(logits), position, past))
    found = constraints.continuations(tf.constant(logits), position, past, 4)
    for row, query in np.ndindex(2, 3):
        may_follow = np.isfinite(found.scores[row, query])
        ids = found.ids[row, query].numpy()[may_follow][:4]
        np.testing.assert_array_equal(ids, np.argsort(-scores[row, query], kind="stable")[:4])
        for own, expected in ((found.scores, scores), (found.log_probs, log_probs)):
            own = own[row, query].numpy()[may_follow][:4]
            np.testing.assert_allclose(own, expected[row, query, ids], rtol=1e-5, atol=1e-5)
    assert (found.end_scores.numpy() == NEVER).all()
    np.testing.assert_allclose(found.end_log_probs, log_probs[:, :, EOS_ID], rtol=1e-5, atol=1e-5)
