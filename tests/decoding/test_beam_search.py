"""Beam search against brute force over all strings of a tiny vocabulary."""

import codecs
import itertools

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID
from nmt_keras.decoding import characters
from nmt_keras.decoding.banned_phrases import automaton
from nmt_keras.decoding.beam_search import beam_search
from nmt_keras.decoding.constraints import Constraints
from nmt_keras.decoding.prefixes import Surfaces, make_prefix
from nmt_keras.decoding.ranking import Ranking
from nmt_keras.decoding.sampling import greedy

V, S = 6, 3
ORDINARY = [1, 4, 5]


def _random_model(batch, max_length, seed=0, spread=2.0, sees=2):
    """A model whose logits depend on the row, the position and the last two ids, or the last; its attention
    likewise."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(batch, max_length, V, V, V)) * spread
    table = tf.constant(values if sees == 2 else np.repeat(values[:, :, :1], V, 2), tf.float32)
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


def _brute_force(table, heat, row, rules, ranking, prefix=((), b"")):
    """All strings that the rules allow, as loops over the papers' formulas: (score, ids, log probabilities of the
    tokens), best first."""
    results = []
    for length in range(1, rules["max_length"] + 1):
        for body in itertools.product(ORDINARY, repeat=length - 1):
            ids = [*body, EOS_ID]
            if not _is_allowed(ids, rules, prefix):
                continue
            before, last, log_probs, total = 0, BOS_ID, [], 0.0
            for position, token in enumerate(ids):
                logits = table[row, position, before, last].astype(np.float64)
                log_probs.append(_log_softmax(logits)[token])
                for seen in set(ids[:position]):
                    theta = rules.get("repetition_penalty", 1.0)
                    logits[seen] = logits[seen] / theta if logits[seen] > 0 else logits[seen] * theta
                total += _log_softmax(logits)[token]
                before, last = last, token
            alpha = ranking.get("length_penalty", 0.0)
            base = length if ranking.get("kind") == "average" else (5 + length) / 6
            covered = sum(heat[row, t, token] for t, token in enumerate([BOS_ID, *ids[:-1]]))
            left_out = np.log(np.minimum(covered, 1.0))[: SIZES[row]].sum()
            score = total / base**alpha + ranking.get("coverage_penalty", 0.0) * left_out
            results.append((score, ids, log_probs))
    return sorted(results, key=lambda r: -r[0])


def _prefix_of(rules, row):
    """The ids of a forced beginning and its tail, of a row."""
    return [i for i in rules.get("prefix", [[]] * 3)[row] if i], rules.get("tails", [b""] * 3)[row]


def _num_forced(ids, rules, prefix):
    """How many ids belong to the forced beginning; None where they are not it."""
    forced, tail = prefix
    for position, token in enumerate(ids[: rules["max_length"] - 1]):
        if position >= len(forced) + bool(tail):
            return position
        rest = b"".join(SURFACES[i] for i in forced[position:]) + tail
        is_next = position < len(forced) and token == forced[position]
        if rest and SURFACES[token].startswith(rest):  # it completes the beginning
            return position + is_next  # and keeps the other rules where it goes beyond it
        if position >= len(forced) or token != forced[position]:
            return None
    return len(ids[: rules["max_length"] - 1])


def _is_allowed(ids, rules, prefix):
    first = _num_forced(ids, rules, prefix)
    if first is None:
        return False
    for end in range(first, len(ids)):  # the position of a token that was not forced
        is_last = end == rules["max_length"] - 1
        if ids[end] == EOS_ID and end + 1 < rules.get("min_length", 0) and not is_last:
            return False
        n = rules.get("no_repeat_ngram", 0)
        if (
            n
            and ids[end] != EOS_ID
            and end >= n
            and tuple(ids[end - n + 1 : end + 1]) in {tuple(ids[i : i + n]) for i in range(end - n + 1)}
        ):
            return False
        if rules.get("is_whole") and not is_last and not is_utf8(b"".join(BYTES[i] for i in ids[: end + 1]), ids[end]):
            return False
        text = "".join(SURFACES[i].decode() for i in ids[: end + 1])
        new = len(SURFACES[ids[end]])  # of the text, which a phrase must end in
        if new and any(
            phrase in text[max(len(text) - new - len(phrase) + 1, 0) :] for phrase in rules.get("banned", ())
        ):
            return False
    return True


def is_utf8(text, last_id):
    """Whether bytes are text, or may become one where it is not over."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text, final=last_id == EOS_ID)
    except UnicodeDecodeError:
        return False
    return True


SIZES = [3, 2, 3]  # real source positions of each row
SURFACES = [b"", b"xy", b"", b"", b"x", b"yz"]  # of each id
BYTES = [b"", b"\xc3", b"", b"", b"x", b"\xa4"]  # where a character is two ids


@pytest.mark.parametrize(
    "rules, ranking",
    [
        ({}, {}),
        ({}, {"length_penalty": 0.6}),
        ({}, {"length_penalty": 1.5}),
        ({}, {"length_penalty": 1.0, "kind": "average"}),
        ({}, {"length_penalty": 1.0, "coverage_penalty": 0.7}),
        ({"min_length": 3}, {"length_penalty": 1.0}),
        ({"min_length": 9}, {}),
        ({"no_repeat_ngram": 1}, {"length_penalty": 1.0}),
        ({"no_repeat_ngram": 2}, {"length_penalty": 1.0, "kind": "average"}),
        ({"no_repeat_ngram": 9}, {}),
        ({"repetition_penalty": 1.7}, {"length_penalty": 1.0}),
        ({"repetition_penalty": 0.6}, {"length_penalty": 1.0}),
        ({"banned": ["xy", "zx"]}, {"length_penalty": 1.0}),
        ({"banned": ["xxyy"]}, {"length_penalty": 1.0, "kind": "average"}),
        ({"is_whole": True}, {"length_penalty": 1.0}),
        ({"is_whole": True, "min_length": 3, "repetition_penalty": 1.3}, {"coverage_penalty": 0.7}),
        ({"prefix": [[4, 1], [5, 0], [4, 4]]}, {"length_penalty": 1.0}),
        ({"prefix": [[4, 5], [5, 0], [4, 4]], "banned": ["xy", "yz", "xx"]}, {"length_penalty": 1.0}),
        ({"prefix": [[4], [0], [5]], "tails": [b"y", b"x", b""]}, {"length_penalty": 1.0, "coverage_penalty": 0.7}),
        ({"prefix": [[0, 0], [4, 4], [5, 4]], "tails": [b"xy", b"y", b"xy"], "min_length": 4}, {}),
        (
            {"prefix": [[4, 4], [0, 0], [1, 1]], "min_length": 2, "no_repeat_ngram": 1, "repetition_penalty": 1.3},
            {"length_penalty": 0.5, "coverage_penalty": 0.3},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_enough_beam_finds_the_best_strings(seed, rules, ranking):
    lengths, count = [5, 2, 3], 3
    step_fn, state, table, heat = _random_model(3, 5, seed)
    given = {name: value for name, value in rules.items() if name not in ("banned", "prefix", "tails", "is_whole")}
    if "is_whole" in rules:
        given["characters"] = tf.constant(characters.automaton(BYTES))
    if "banned" in rules:
        given["banned_phrases"] = tf.constant(automaton(rules["banned"], SURFACES))
    if "prefix" in rules:
        tails = tf.constant(rules.get("tails", [b""] * 3))
        given["prefix"], is_whole = make_prefix(tf.constant(rules["prefix"]), tails, Surfaces.of(SURFACES))
        assert is_whole.numpy().all()
    result = beam_search(
        step_fn,
        state,
        Constraints(tf.constant(lengths), **given),
        Ranking(**ranking, source_mask=tf.sequence_mask(SIZES, S)),
        beam_size=81,
        num_hypotheses=count,
        max_positions=5 if seed == 2 else None,
    )
    for row, length in enumerate(lengths):
        rules_of_row = {**rules, "max_length": length}
        expected = _brute_force(table, heat, row, rules_of_row, ranking, _prefix_of(rules, row))[:count]
        assert not result.lengths[row, len(expected) :].numpy().any()
        for place, (score, ids, token_log_probs) in enumerate(expected):
            size = len(ids)
            assert result.ids[row, place, :size].numpy().tolist() == ids
            assert not result.ids[row, place, size:].numpy().any()
            assert result.lengths[row, place] == size
            np.testing.assert_allclose(result.score[row, place], score, atol=1e-5)
            np.testing.assert_allclose(result.log_prob[row, place], sum(token_log_probs), atol=1e-5)
            np.testing.assert_allclose(result.token_log_probs[row, place, :size], token_log_probs, atol=1e-5)
            weights = [heat[row, t, token] for t, token in enumerate([BOS_ID, *ids[:-1]])]
            np.testing.assert_allclose(result.attention_weights[row, place, :size], weights, atol=1e-6)
            assert not result.attention_weights[row, place, size:].numpy().any()


@pytest.mark.parametrize("alpha", [0.0, 2.0])
@pytest.mark.parametrize("sees", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_recombination_is_exact_dynamic_programming_for_a_model_that_sees_as_many_ids(seed, sees, alpha):
    """With a beam for each of the three ids, or nine pairs, that it sees, the n-best list is that of all strings."""
    lengths, count = [6, 4, 5], 3**sees
    step_fn, state, table, heat = _random_model(3, 6, seed, spread=0.7, sees=sees)
    rules, ranking = Constraints(tf.constant(lengths)), Ranking(alpha)
    options = {"beam_size": 3**sees, "num_hypotheses": count}
    result = beam_search(step_fn, state, rules, ranking, **options, recombine=sees)
    for row, length in enumerate(lengths):
        expected = _brute_force(table, heat, row, {"max_length": length}, {"length_penalty": alpha})[:count]
        for place, (score, ids, token_log_probs) in enumerate(expected):
            size = len(ids)
            assert result.ids[row, place].numpy().tolist() == ids + [0] * (result.ids.shape[2] - size)
            assert result.lengths[row, place] == size
            np.testing.assert_allclose(result.score[row, place], score, atol=1e-5)
            np.testing.assert_allclose(result.log_prob[row, place], sum(token_log_probs), atol=1e-5)
            np.testing.assert_allclose(result.token_log_probs[row, place, :size], token_log_probs, atol=1e-5)
            weights = [heat[row, t, token] for t, token in enumerate([BOS_ID, *ids[:-1]])]
            np.testing.assert_allclose(result.attention_weights[row, place, :size], weights, atol=1e-6)


def test_without_recombination_so_many_beams_are_too_few():
    """Where strings are long, as in the test above."""
    lost = 0
    for seed in range(8):
        step_fn, state, *_ = _random_model(3, 6, seed, spread=0.7, sees=1)
        options = {"beam_size": 3, "num_hypotheses": 3}
        found = [
            beam_search(
                step_fn, state, Constraints(tf.constant([6, 4, 5])), Ranking(2.0), **options, recombine=recombine
            )
            for recombine in (0, 1)
        ]
        plain, recombined = (each.score.numpy() for each in found)
        assert (recombined >= plain - 1e-5).all()
        lost += (recombined > plain + 1e-5).sum()
    assert lost > 1


def _of_positions(tables):
    """A step function whose logits, of ids 4, 5 and EOS, depend on the position and the last id."""

    def step_fn(ids, position, state):
        own = tf.gather(tf.constant(tables, tf.float32)[position], tf.clip_by_value(ids - 3, 0, 2))  # BOS, 4, 5
        spread = tf.concat([tf.fill([*tf.unstack(tf.shape(ids)), 3], -30.0), own[..., 2:], own[..., :2]], -1)
        return spread, tf.zeros([*tf.unstack(tf.shape(ids)), 1]), state

    return step_fn


def test_a_beam_that_recombination_frees_is_used():
    """Both best beginnings end in 4, the only good end comes after 5: a plain search of two beams has lost it."""
    first = [[0.0, -0.1, -9.0]] * 3
    second = [[0.0, -2.0, -9.0]] * 3  # 44 and 54 are better than 45 and 55
    third = [[-9.0, -9.0, -5.0], [0.0, 0.0, -5.0], [-9.0, -9.0, 3.0]]  # it may end after 5
    last = [[0.0, 0.0, -9.0]] * 3
    step_fn = _of_positions([first, second, third, last])
    options = {"beam_size": 2, "num_hypotheses": 2}
    plain, recombined = (
        beam_search(step_fn, (tf.zeros([1, 1]),), Constraints(tf.constant([4])), **options, recombine=n).ids.numpy()
        for n in (0, 1)
    )
    assert [row[:3] for row in recombined[0].tolist()] == [[4, 5, EOS_ID], [5, 5, EOS_ID]]
    assert 5 not in plain[0, :, 1]


@pytest.mark.parametrize("options", [{"recombine": 1}, {"groups": 2, "diversity_penalty": 0.7}], ids=str)
def test_rows_with_more_beams_change_no_row(options):
    """Also where an id is beyond those that a search of fewer beams looks at."""
    size, batch = 40, 6
    table = tf.constant(np.random.default_rng(3).normal(size=(5, size, size)), tf.float32)

    def step_fn(ids, position, state):
        return tf.gather(table[position], ids), tf.zeros([*tf.unstack(tf.shape(ids)), 1]), state

    beams, limits = [2, 8, 3, 1, 2, 5], Constraints(tf.fill([batch], 5))
    state = (tf.zeros([batch, 1]),)
    together = beam_search(
        step_fn, state, limits, beam_size=tf.constant(beams), num_hypotheses=tf.constant(beams), **options
    )
    for row, number in enumerate(beams):
        one = Constraints(tf.constant([5]))
        alone = beam_search(step_fn, (tf.zeros([1, 1]),), one, beam_size=number, num_hypotheses=number, **options)
        length = alone.ids.shape[2]
        np.testing.assert_array_equal(together.ids[row, :number, :length], alone.ids[0])
        np.testing.assert_allclose(together.score[row, :number], alone.score[0], atol=1e-5)


@pytest.mark.parametrize("recombine", [1, 2, 9])
def test_recombination_keeps_to_the_beams_and_hypotheses_of_each_row(recombine):
    step_fn, state, *_ = _random_model(4, 6, seed=2, spread=1.0)
    limits, ranking = Constraints(tf.constant([6, 5, 6, 6])), Ranking(1.0)
    sizes, counts = tf.constant([4, 1, 2, 4]), tf.constant([3, 1, 2, 4])
    together = beam_search(step_fn, state, limits, ranking, beam_size=sizes, num_hypotheses=counts, recombine=recombine)
    found = (together.lengths.numpy() > 0).sum(1)
    assert (found <= counts.numpy()).all() and found[1] == 1
    for row in range(4):
        ids = [tuple(i for i in each if i) for each in together.ids[row].numpy().tolist() if any(each)]
        assert len(set(ids)) == len(ids)
        scores = together.score[row, : found[row]].numpy()
        assert (np.diff(scores) <= 0).all()
    plain = beam_search(step_fn, state, limits, ranking, beam_size=sizes, num_hypotheses=counts)
    np.testing.assert_array_equal(together.ids[1], plain.ids[1])  # a beam of one has nothing to recombine
    if recombine == 9:  # no two hypotheses share so many
        for one, other in zip(together[:6], plain[:6]):
            np.testing.assert_allclose(one, other, atol=1e-6)


def _diverse_by_hand(table, row, length, beams, groups, penalty):
    """Diverse beam search as loops: all that ended, (log probability, ids), the best first."""
    live, ended = [[(0.0, [])] for _ in range(groups)], []
    for position in range(length):
        chosen = []
        for group, beginnings in enumerate(live):
            candidates = []
            for log_prob, ids in beginnings:
                before, last = [0, BOS_ID, *ids][-2:]
                log_probs = _log_softmax(table[row, position, before, last])
                if position or not group:  # all groups begin with the one empty string
                    ended.append((log_prob + log_probs[EOS_ID], [*ids, EOS_ID]))
                candidates += [(log_prob + log_probs[token], [*ids, token]) for token in ORDINARY]
            candidates.sort(key=lambda c: penalty * chosen.count(c[1][-1]) - c[0])
            live[group] = candidates[: len(range(group, beams, groups))]
            chosen += [ids[-1] for _, ids in live[group]]
    return sorted(ended, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("beams, groups", [(4, 2), (5, 2), (3, 3)])
def test_diverse_beam_search_is_that_of_the_paper(beams, groups, penalty):
    batch, length = 3, 5
    step_fn, state, table, _ = _random_model(batch, length, seed=4, spread=1.0)
    limits = Constraints(tf.fill([batch], length))
    options = {"beam_size": beams, "num_hypotheses": beams}
    result = beam_search(step_fn, state, limits, **options, groups=groups, diversity_penalty=penalty)
    plain = beam_search(step_fn, state, limits, **options)
    for row in range(batch):
        expected = _diverse_by_hand(table, row, length, beams, groups, penalty)[:beams]
        found = [[i for i in ids if i] for ids in result.ids[row].numpy().tolist()]
        assert found == [ids for _, ids in expected]
        np.testing.assert_allclose(result.log_prob[row], [log_prob for log_prob, _ in expected], atol=1e-5)
    assert (result.ids.numpy().tolist() == plain.ids.numpy().tolist()) is False


def test_groups_keep_to_the_beams_of_each_row():
    step_fn, state, *_ = _random_model(3, 6, seed=2, spread=1.0)
    limits, sizes = Constraints(tf.constant([6, 5, 6])), tf.constant([4, 1, 2])
    options = {"groups": 2, "diversity_penalty": 1.0}
    together = beam_search(step_fn, state, limits, beam_size=sizes, num_hypotheses=sizes, **options)
    plain = beam_search(step_fn, state, limits, beam_size=sizes, num_hypotheses=sizes)
    assert ((together.lengths.numpy() > 0).sum(1) <= sizes.numpy()).all()
    for one, other in zip(together[:6], plain[:6]):
        if one.shape.rank == 2:
            np.testing.assert_allclose(one[1, :1], other[1, :1], atol=1e-6)  # a beam of one is greedy
    alone, greedy_search = (
        beam_search(step_fn, state, limits, beam_size=1, **more) for more in (options, {"groups": 1})
    )
    np.testing.assert_array_equal(alone.ids, greedy_search.ids)


@pytest.mark.parametrize("beam_size", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_stopping_early_changes_nothing(beam_size, alpha):
    """A plain search without early exit, one row at a time, is the reference."""
    batch, length = 5, 7
    step_fn, state, table, _ = _random_model(batch, length, seed=9, spread=1.0)
    limits = Constraints(tf.fill([batch], length))
    result = beam_search(step_fn, state, limits, Ranking(alpha), beam_size=beam_size)
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


def test_arrays_of_a_fixed_size_do_not_go_with_groups():
    step_fn, state, *_ = _random_model(1, 3)
    with pytest.raises(ValueError, match="max_positions does not go with groups. Received: 3 and 2"):
        beam_search(step_fn, state, Constraints(tf.constant([3])), beam_size=4, groups=2, max_positions=3)


def test_early_exit_saves_steps():
    """Every string ends at once: the search must not go on to its limit."""
    steps = []

    def step_fn(ids, position, state):
        steps.append(int(position))
        return tf.one_hot(tf.fill(tf.shape(ids), EOS_ID), V) * 40.0, tf.zeros([*ids.shape, S]), state

    beam_search(step_fn, (tf.zeros([2, 1]),), Constraints(tf.constant([50, 50])), Ranking(1.0), beam_size=2)
    assert steps == [0]


def test_each_row_has_its_own_beam_and_number_of_hypotheses():
    step_fn, state, _, _ = _random_model(4, 6, seed=3, spread=1.0)
    limits, ranking = Constraints(tf.constant([6, 2, 5, 6])), Ranking(tf.constant([1.0, 0.0, 0.5, 1.0]))
    beams, counts = [2, 5, 1, 3], [1, 3, 1, 2]
    together = beam_search(
        step_fn, state, limits, ranking, beam_size=tf.constant(beams), num_hypotheses=tf.constant(counts)
    )
    for row in range(4):
        alone = beam_search(step_fn, state, limits, ranking, beam_size=beams[row], num_hypotheses=counts[row])
        size = int(tf.reduce_max(alone.lengths[row]))
        np.testing.assert_array_equal(together.ids[row, : counts[row], :size], alone.ids[row, :, :size])
        np.testing.assert_array_equal(together.lengths[row, : counts[row]], alone.lengths[row])
        np.testing.assert_array_equal(together.score[row, : counts[row]], alone.score[row])
        assert not together.lengths[row, counts[row] :].numpy().any()


def test_a_beam_of_one_is_greedy():
    step_fn, state, _, _ = _random_model(5, 7, seed=4, spread=1.0)
    limits, ranking = Constraints(tf.fill([5], 7), no_repeat_ngram=2), Ranking(1.0)
    for one, other in zip(
        beam_search(step_fn, state, limits, ranking, beam_size=1), greedy(step_fn, state, limits, ranking), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


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

    one, two = (beam_search(step_fn, (tf.zeros([1, 1]),), Constraints(tf.constant([3])), beam_size=k) for k in (1, 2))
    assert one.ids[0, 0, 0] == 4
    assert two.ids[0, 0].numpy().tolist() == [5, EOS_ID]
    np.testing.assert_allclose(two.log_prob[0, 0], np.log(0.4 * 0.98), atol=1e-4)


def test_a_row_does_not_depend_on_the_others():
    step_fn, state, table, _ = _random_model(4, 6, seed=3)
    together = beam_search(
        step_fn, state, Constraints(tf.constant([6, 2, 5, 3])), Ranking(1.0), beam_size=3, num_hypotheses=2
    )
    for row, length in enumerate([6, 2, 5, 3]):
        rows = tf.constant(table[row : row + 1])

        def alone(ids, position, state, rows=rows):
            (before,) = state
            at, zero = tf.fill(tf.shape(ids), position), tf.zeros_like(ids)
            return tf.gather_nd(rows, tf.stack([zero, at, before, ids], -1)), tf.zeros([*ids.shape, S]), (ids,)

        single = beam_search(
            alone,
            (tf.zeros([1, 1], tf.int32),),
            Constraints(tf.constant([length])),
            Ranking(1.0),
            beam_size=3,
            num_hypotheses=2,
        )
        size = single.ids.shape[2]
        np.testing.assert_array_equal(single.ids[0], together.ids[row, :, :size])
        np.testing.assert_array_equal(single.score[0], together.score[row])


def test_all_hypotheses_may_end_at_once_and_missing_ones_have_length_zero():
    step_fn, state, _, _ = _random_model(2, 1)
    result = beam_search(step_fn, state, Constraints(tf.constant([1, 1])), beam_size=4, num_hypotheses=3)
    np.testing.assert_array_equal(result.ids[:, :, 0], [[EOS_ID, 0, 0]] * 2)
    np.testing.assert_array_equal(result.lengths, [[1, 0, 0]] * 2)
    assert np.isneginf(result.score[:, 1:]).all()


def test_length_penalty_is_that_of_the_paper():
    np.testing.assert_allclose(Ranking(0.6).penalty(tf.constant([[1, 7]])), [[1.0, 2.0**0.6]], rtol=1e-6)


def test_the_search_is_a_graph():
    step_fn, state, _, _ = _random_model(2, 4)
    graph = tf.function(
        lambda: beam_search(step_fn, state, Constraints(tf.constant([4, 3])), beam_size=3), autograph=False
    )
    tf.nest.map_structure(
        np.testing.assert_array_equal,
        tuple(graph()),
        tuple(beam_search(step_fn, state, Constraints(tf.constant([4, 3])), beam_size=3)),
    )


def test_a_model_that_gives_no_numbers_gives_no_hypothesis():
    def step_fn(ids, position, state):
        del position
        nothing = tf.fill([2, tf.shape(ids)[1], V], float("nan"))
        return nothing, tf.zeros([2, tf.shape(ids)[1], S]), state

    result = beam_search(step_fn, (tf.zeros([2, 1]),), Constraints(tf.constant([4, 4])), beam_size=3)
    np.testing.assert_array_equal(result.lengths, [[0], [0]])
    np.testing.assert_array_equal(result.score, [[-np.inf], [-np.inf]])


@pytest.mark.parametrize("seed", range(8))
def test_a_forced_beginning_is_kept_with_recombination(seed):
    """Hypotheses inside and outside a beginning that end in the same ids are not the same: "a b" is not over where
    "aba b" is."""
    step_fn, state, _, _ = _random_model(1, 5, seed, spread=0.5, sees=1)
    surfaces = [b"", b"aba", b"", b"", b"a", b"b"]
    prefix, _ = make_prefix(tf.constant([[4, 5, 4]]), tf.constant([b""]), Surfaces.of(surfaces))
    options = {"beam_size": 8, "num_hypotheses": 8, "recombine": 1}
    result = beam_search(step_fn, state, Constraints(tf.constant([5]), prefix=prefix), Ranking(), **options)
    texts = [
        b"".join(surfaces[i] for i in ids[: length - 1])
        for ids, length in zip(result.ids[0].numpy(), result.lengths[0].numpy())
        if length
    ]
    assert len(texts) > 2 and all(text.startswith(b"aba") for text in texts), texts


def test_what_completes_a_beginning_keeps_the_other_rules_unless_nothing_else_does():
    step_fn, state, _, _ = _random_model(1, 5)
    options = {"beam_size": 20, "num_hypotheses": 20}
    for banned, wanted in ((["xy"], False), (["xy", "x"], True)):
        prefix, _ = make_prefix(tf.constant([[0]]), tf.constant([b"x"]), Surfaces.of(SURFACES))
        rules = {"prefix": prefix, "banned_phrases": tf.constant(automaton(banned, SURFACES))}
        result = beam_search(step_fn, state, Constraints(tf.constant([4]), **rules), Ranking(), **options)
        firsts = {int(ids[0]) for ids, length in zip(result.ids[0].numpy(), result.lengths[0].numpy()) if length}
        assert firsts and (1 in firsts) == wanted  # id 1 is "xy"
