"""Terms that must stand in a hypothesis: beam search against brute force over all strings of a tiny vocabulary."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID
from nmt_keras.decoding.beam_search import beam_search
from nmt_keras.decoding.constraints import Constraints
from nmt_keras.decoding.prefixes import Surfaces, make_prefix
from nmt_keras.decoding.ranking import Ranking
from nmt_keras.decoding.terms import Letters, Terms, allocation

V = 7
ORDINARY = [1, 4, 5, 6]
SURFACES = [b"", b" ,", b"", b"", b" x", b"y", b" z"]  # of each id: 5 goes on with a word


def _terms(rows, width=None, seen=()):
    """Terms of their rows: lists of terms, each a list of phrases, each a list of ids; none in `seen` is offered."""
    phrases = [[(number, phrase) for number, term in enumerate(row) for phrase in term] for row in rows]
    size = max(1, *(len(row) for row in phrases))
    length = max([1, *(len(phrase) for row in phrases for _, phrase in row)])
    ids, owners = np.zeros([len(rows), size, length], np.int32), np.zeros([len(rows), size], np.int32)
    for row, each in enumerate(phrases):
        for place, (number, phrase) in enumerate(each):
            ids[row, place, : len(phrase)], owners[row, place] = phrase, number
    count = max(len(row) for row in rows) if width is None else width
    offered = np.array([[[i for i in phrase if i] not in seen for phrase in row] for row in ids.tolist()])
    leaves = map(tf.constant, (ids, owners, offered, count))
    return Terms(*leaves, Letters.of(SURFACES, str.isalpha))


def _model(batch, length, seed, spread=2.0):
    """Logits that depend on the row, the position and the last id."""
    table = np.random.default_rng(seed).normal(size=(batch, length, V, V)) * spread

    def step_fn(ids, position, state):
        rows = tf.broadcast_to(tf.range(batch)[:, None], tf.shape(ids))
        at = tf.stack([rows, tf.fill(tf.shape(ids), position), ids], -1)
        return tf.gather_nd(tf.constant(table, tf.float32), at), tf.zeros([*tf.unstack(tf.shape(ids)), 1]), state

    return step_fn, (tf.zeros([batch, 1]),), table


def _stands(phrase, body):
    """Whether a phrase stands among ids as whole words."""
    letters = ["".join(SURFACES[i].decode() for i in ids) for ids in (phrase, ())]
    for start in range(len(body) - len(phrase) + 1):
        if body[start : start + len(phrase)] != phrase:
            continue
        before = SURFACES[body[start - 1]].decode() if start else ""
        after = SURFACES[body[start + len(phrase)]].decode() if start + len(phrase) < len(body) else ""
        begins = before[-1:].isalpha() and letters[0][:1].isalpha()
        goes_on = letters[0][-1:].isalpha() and after[:1].isalpha()
        if not begins and not goes_on:
            return True
    return False


def _brute_force(table, terms, alpha, beginning=()):
    """All strings, (terms that are not placed, - score, ids, placed), best first."""
    found = []
    for length in range(1, len(table) + 1):
        for body in itertools.product(ORDINARY, repeat=length - 1):
            if list(body[: len(beginning)]) != list(beginning):
                continue
            total = 0.0
            for position, (last, token) in enumerate(zip([BOS_ID, *body], [*body, EOS_ID])):
                logits = table[position, last]
                total += logits[token] - np.log(np.exp(logits).sum())
            placed = [any(_stands(phrase, list(body)) for phrase in term) for term in terms]
            lacking = sum(bool(term) and not each for term, each in zip(terms, placed))
            found.append((lacking, -total / ((5 + length) / 6) ** alpha, [*body, EOS_ID], placed))
    return sorted(found)


ROWS = [
    [[[6, 5]], [[4, 4, 1], [1, 4]]],  # "zy", and "xx," or ",x"
    [],
    [[[5]]],  # which begins no word: it stands where no letter is before it
    [[[4, 5, 4, 6]]],  # found in 4 5 4 5 4 6
    [[[1]], [[6]], [[4]], [[6, 1]]],  # more than three ids are needed
    [[], [[6, 6]]],  # a term that cannot be said
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_wide_enough_beam_finds_the_best_strings_with_most_terms(seed, alpha):
    length, count = 5, 4
    step_fn, state, table = _model(len(ROWS), length, seed)
    constraints = Constraints(tf.fill([len(ROWS)], length), terms=_terms(ROWS))
    found = beam_search(step_fn, state, constraints, Ranking(alpha), beam_size=700, num_hypotheses=count)
    for row, terms in enumerate(ROWS):
        expected = _brute_force(table[row], terms, alpha)[:count]
        ids = [[i for i in each if i] for each in found.ids[row].numpy().tolist()]
        assert ids == [each for _, _, each, _ in expected]
        np.testing.assert_allclose(found.score[row], [-score for _, score, _, _ in expected], atol=1e-5)
        placed = found.is_placed[row, :, : len(terms)].numpy().tolist()
        assert placed == [each for *_, each in expected]


@pytest.mark.parametrize("seed", range(4))
def test_a_phrase_that_is_not_offered_counts_where_it_stands(seed):
    rows = [[[[6, 5, 4], [5]]], [[[4, 4], [1]], [[5, 6], [6]]]]
    step_fn, state, table = _model(2, 5, seed)
    terms = _terms(rows, seen=([5], [1], [5, 6]))
    found = beam_search(step_fn, state, Constraints(tf.fill([2], 5), terms=terms), beam_size=700, num_hypotheses=3)
    for row, needed in enumerate(rows):
        expected = _brute_force(table[row], needed, 0.0)[:3]
        assert [[i for i in each if i] for each in found.ids[row].numpy().tolist()] == [
            each for _, _, each, _ in expected
        ]
    begun = terms.advance(terms.begin(), tf.constant([[1], [5]]))
    assert terms.next_ids(terms.begin()).numpy().tolist() == [[[6, 0, 0, 0]], [[4, 0, 0, 6]]]
    assert terms.next_ids(begun).numpy().tolist() == [[[6, 0, 0, 0]], [[4, 0, 6, 0]]]  # what is begun goes on


@pytest.mark.parametrize("width", [2, 5])
def test_a_narrow_beam_places_all_terms_that_there_is_room_for(width):
    """Also where the model finds them next to impossible."""
    rng = np.random.default_rng(7)
    for seed in range(6):
        rows = [
            [[rng.choice(ORDINARY, rng.integers(1, 4)).tolist()] for _ in range(rng.integers(0, 3))] for _ in range(4)
        ]
        rows = [[term for term in row if term[0][0] != 5] for row in rows]  # which would go on with a word
        step_fn, state, _ = _model(4, 12, seed, spread=6.0)
        constraints = Constraints(tf.fill([4], 12), terms=_terms(rows))
        found = beam_search(step_fn, state, constraints, beam_size=width)
        for row, terms in enumerate(rows):
            body = [i for i in found.ids[row, 0].numpy().tolist() if i][:-1]
            stand = [_stands(phrases[0], body) for phrases in terms]
            assert stand == found.is_placed[row, 0, : len(terms)].numpy().tolist() == [True] * len(terms)


@pytest.mark.parametrize("seed", range(4))
def test_terms_that_begin_alike_are_all_placed(seed):
    """As words do whose first piece is a space: to have begun all of them is no more than to have begun one."""
    rows = [[[[4, 6, 6, 1]], [[4, 1, 6, 6]], [[4, 6, 1, 1]]]]
    step_fn, state, _ = _model(1, 16, seed, spread=6.0)
    constraints = Constraints(tf.fill([1], 16), terms=_terms(rows))
    found = beam_search(step_fn, state, constraints, beam_size=4)
    assert found.is_placed[0, 0].numpy().tolist() == [True] * 3


def test_a_row_is_as_in_a_search_of_its_own():
    """Whatever terms and beams other rows have, and one without terms is that of a search without any."""
    rows = [[[[6, 5]], [[4, 4, 1], [1, 4]]], [], [[[4, 6]]], []]
    beams, counts, length = [4, 3, 9, 1], [2, 3, 4, 1], 7
    step_fn, state, table = _model(4, length, seed=5)
    constraints = Constraints(tf.fill([4], length), terms=_terms(rows))
    sizes = {"beam_size": tf.constant(beams), "num_hypotheses": tf.constant(counts)}
    together = beam_search(step_fn, state, constraints, Ranking(1.0), **sizes)

    for row, terms in enumerate(rows):

        def alone(ids, position, state, row=row):
            logits = tf.gather(tf.constant(table[row], tf.float32)[position], ids)
            return logits, tf.zeros([*tf.unstack(tf.shape(ids)), 1]), state

        own = Constraints(tf.constant([length]), terms=_terms([terms]) if terms else None)
        sizes = {"beam_size": beams[row], "num_hypotheses": counts[row]}
        found = beam_search(alone, (tf.zeros([1, 1]),), own, Ranking(1.0), **sizes)
        size = found.ids.shape[2]
        np.testing.assert_array_equal(together.ids[row, : counts[row], :size], found.ids[0])
        np.testing.assert_allclose(together.score[row, : counts[row]], found.score[0], atol=1e-5)


def test_terms_go_with_the_other_rules():
    """A beginning is kept, no id comes twice in a row, and what a rule forbids is reported as not placed."""
    step_fn, state, table = _model(2, 6, seed=1)
    prefix, _ = make_prefix(tf.constant([[1], [4]]), tf.constant(["", ""]), Surfaces.of(SURFACES))
    rows = [[[[6, 4]], [[4, 4]]], [[[6, 4]]]]
    constraints = Constraints(tf.constant([6, 6]), prefix=prefix, no_repeat_ngram=1, terms=_terms(rows))
    found = beam_search(step_fn, state, constraints, beam_size=40)
    bodies = [[i for i in row if i][:-1] for row in found.ids[:, 0].numpy().tolist()]
    assert bodies[0][0] == 1 and bodies[1][0] == 4
    assert all(len(set(body)) == len(body) for body in bodies)
    assert found.is_placed[:, 0].numpy().tolist() == [[True, False], [False, False]]


def test_a_search_among_places_finds_the_same():
    """With a shortlist ids are known by their places."""
    rows = [[[[6, 4]]], [[[5, 1], [1, 1]]]]
    step_fn, state, table = _model(2, 5, seed=3)
    listed = tf.constant([0, 1, 2, 3, 4, 6])  # without 5

    def short(ids, position, state):
        logits, attention, state = step_fn(tf.gather(listed, ids), position, state)
        return tf.gather(logits, listed, axis=-1), attention, state

    def places(ids):
        return tf.reduce_sum(tf.cast(listed < ids[..., None], tf.int32), -1)

    rows[1] = [[[1, 1]]]
    terms = _terms(rows)
    assert tf.where(terms.possible_ids()).numpy().tolist() == [[0, 4], [0, 6], [1, 1]]
    limits = tf.constant([5, 5])
    found = beam_search(short, state, Constraints(limits, terms=terms.among(listed, places)), beam_size=200)
    for row in range(2):
        expected = [each for each in _brute_force(table[row], rows[row], 0.0) if 5 not in each[2]][0]
        assert tf.gather(listed, found.ids[row, 0]).numpy().tolist()[: len(expected[2])] == expected[2]


def test_banks_take_turns_and_what_may_not_follow_comes_last():
    scores = tf.constant([[-1.0, -2.0, -3.0, -4.0, -5.0, -np.inf], [-3.0, -np.inf, -1.0, -2.0, -np.inf, -4.0]])
    needed = tf.constant([[2, 2, 2, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
    places = allocation(scores, needed, 6).numpy().tolist()
    assert places[0] == [3, 4, 0, 1, 2, 5]
    assert places[1][:4] == [2, 3, 0, 5]
