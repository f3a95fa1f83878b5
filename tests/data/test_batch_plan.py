"""The batch plan."""

import itertools

import numpy as np
import pytest

from nmt_keras.data.batch_plan import BatchPlan, mix, permute, visits_at_temperature
from nmt_keras.errors import UserError


@pytest.mark.parametrize("key", [0, 1, (1 << 64) - 1])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 10, 1000, 1024, 1025])
def test_permute_is_a_bijection(size, key):
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_permutations_of_different_keys_differ():
    orders = {tuple(permute(np.arange(10), 10, key).tolist()) for key in range(50)}
    assert len(orders) == 50


def test_permute_evaluates_each_value_alone():
    whole = permute(np.arange(1000), 1000, 7)
    np.testing.assert_array_equal(permute(np.array([999, 3, 3]), 1000, 7), whole[[999, 3, 3]])
    assert permute(np.array([], np.int64), 1000, 7).tolist() == []


def test_permute_gives_the_same_values_for_ever():
    """A run is resumed by evaluating the same permutations again, whatever the version of NumPy."""
    assert permute(np.arange(10), 10, 1).tolist() == [7, 5, 4, 3, 0, 9, 1, 2, 8, 6]
    assert permute(np.arange(7), 7, mix(1, 2, 3)).tolist() == [6, 4, 0, 3, 2, 5, 1]
    assert permute(np.array([0, 1, 12345, 999_999]), 1_000_000, 42).tolist() == [512206, 935, 259627, 178510]
    assert permute(np.array([0, 1, 2**40 - 1]), 2**40, 3).tolist() == [274788551575, 294311404904, 684264113708]


def test_mix_gives_the_same_values_for_ever():
    assert mix(0) == 16294208416658607535
    assert mix(1) == 10451216379200822465
    assert mix(1, 2, 3) == 15020427595393229491
    assert mix(-1) == mix((1 << 64) - 1) == 16490336266968443936
    assert mix(3, 2, 1) != mix(1, 2, 3)


def _lengths(count=1500, seed=1):
    """Of sentences as they are: a skewed distribution, targets about 1.1 times as long."""
    rng = np.random.default_rng(seed)
    source = np.clip(rng.lognormal(2.7, 0.45, count).round(), 2, 60).astype(np.int32)
    target = np.clip((source * rng.normal(1.1, 0.15, count)).round(), 2, 60).astype(np.int32)
    return source, target


def _plan(source, target, **options):
    if not options.get("batch_sentences"):
        options.setdefault("batch_tokens", 500)
    return BatchPlan([source], [target], **{"seed": 1, "max_source_length": 60, "max_target_length": 60, **options})


def _epoch(plan, epoch=0):
    return [plan.batch(epoch, index) for index in range(plan.num_batches)]


def _lines(batches):
    lines = np.concatenate([batch.lines for batch in batches])
    return lines[lines >= 0]


@pytest.mark.parametrize("options", [{}, {"num_slices": 4}, {"batch_sentences": 7}, {"length_factor": 1.4}])
def test_an_epoch_visits_each_line_once(options):
    plan = _plan(*_lengths(), **options)
    for epoch in (0, 5):
        np.testing.assert_array_equal(np.sort(_lines(_epoch(plan, epoch))), np.arange(1500))


def test_epochs_differ_in_the_order_of_batches_and_of_lines():
    plan = _plan(*_lengths())
    first, second = _epoch(plan, 0), _epoch(plan, 1)
    assert [batch.bucket for batch in first] != [batch.bucket for batch in second]
    assert not {frozenset(batch.lines) for batch in first} & {frozenset(batch.lines) for batch in second}


def test_buckets_are_visited_in_a_mixed_order():
    lengths = [batch.bucket.target_length for batch in _epoch(_plan(*_lengths()))]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.3


def test_a_batch_depends_on_seed_epoch_and_number_alone():
    plan, again, other = (_plan(*_lengths(), seed=seed) for seed in (3, 3, 4))
    for _ in range(2):
        plan.batch(0, 0)
    for epoch, index in ((7, 11), (0, 5), (7, 11)):
        np.testing.assert_array_equal(plan.batch(epoch, index).lines, again.batch(epoch, index).lines)
    assert set(plan.batch(0, 0).lines) != set(other.batch(0, 0).lines)


def test_the_plan_is_the_same_for_ever():
    """Golden: a run that was begun with an earlier version goes on with the same batches."""
    plan = _plan(np.arange(2, 22), np.arange(2, 22), batch_tokens=60, num_slices=2)
    assert [batch.lines.tolist() for batch in _epoch(plan)] == [
        [4, 5, 8, 3],
        [7, 11, 6, 0],
        [17, 19],
        [18, 14],
        [16, 12],
        [15, 13],
        [2, 9, 10, 1],
    ]
    assert plan.batch(1, 0).lines.tolist() == [0, 9, 4, 6]


@pytest.mark.parametrize("num_slices, length_factor", [(1, 1.0), (3, 1.0), (8, 1.0), (3, 1.4)])
def test_every_batch_keeps_to_its_budget_and_to_its_bucket(num_slices, length_factor):
    source, target = _lengths()
    plan = _plan(source, target, num_slices=num_slices, length_factor=length_factor)
    ranges = {}  # of the longer side's lengths in each bucket
    for batch in _epoch(plan):
        bucket, real = batch.bucket, batch.lines[batch.lines >= 0]
        assert len(batch.lines) <= bucket.rows
        assert len(batch.lines) * bucket.target_length <= bucket.rows * bucket.target_length <= 500
        assert len(batch.lines) % num_slices == 0 and bucket.rows % num_slices == 0
        assert len(batch.lines) - len(real) < num_slices
        np.testing.assert_array_equal(batch.lines[: len(real)], real)
        assert source[real].max() <= bucket.source_length and target[real].max() <= bucket.target_length
        assert bucket.target_length >= min(60, length_factor * target[real].max())
        longer = np.maximum(source, target)[real]
        first, last = ranges.get(bucket, (60, 0))
        ranges[bucket] = (min(first, longer.min()), max(last, longer.max()))
    ordered = sorted(ranges.values())
    assert all(before[1] < after[0] for before, after in zip(ordered, ordered[1:]))


def test_buckets_add_up_to_the_epoch():
    plan = _plan(*_lengths())
    assert sum(bucket.num_slots for bucket in plan.buckets) == 1500
    assert sum(bucket.num_batches for bucket in plan.buckets) == plan.num_batches
    sizes = {}
    for batch in _epoch(plan):
        sizes.setdefault(batch.bucket, []).append(len(batch.lines))
    assert {bucket: len(rows) for bucket, rows in sizes.items()} == {b: b.num_batches for b in plan.buckets}
    assert all(max(rows) - min(rows) <= 1 for rows in sizes.values())


def test_padding_is_a_small_part_of_a_realistic_corpus():
    source, target = _lengths(20_000)
    plan = _plan(source, target, batch_tokens=2000)
    positions = sum(len(batch.lines) * target[batch.lines].max() for batch in _epoch(plan))
    assert 1 - target.sum() / positions < 0.25
    same = _plan(source, source, batch_tokens=2000)
    positions = sum(len(batch.lines) * source[batch.lines].max() for batch in _epoch(same))
    assert 1 - source.sum() / positions < 0.07


def test_empty_and_long_pairs_are_left_out_and_counted():
    source = np.array([5, 1, 5, 1, 61, 60, 9, 61])
    target = np.array([5, 5, 1, 1, 9, 60, 61, 1])
    plan = _plan(source, target)
    assert (plan.num_empty, plan.num_long) == (4, 2)
    np.testing.assert_array_equal(np.sort(_lines(_epoch(plan))), [0, 5])
    assert plan.summary() == (
        "2 pairs an epoch in 1 batches of 1 length buckets; left out: 4 with an empty side, 2 "
        "over "
        "the length limit"
    )


def test_a_plan_without_any_pair_is_refused():
    with pytest.raises(
        UserError,
        match=r"^No pair is left to train on: of 3, 2 have an empty side and 1 are over data\.max_source_length=60 or "
        r"data\.max_target_length=60 ids, 0 have the weight 0 in data\.train_example_weights; raise the limits or give "
        r"other text or weights$",
    ):
        _plan(np.array([1, 5, 61]), np.array([5, 1, 5]))


def test_a_budget_below_the_longest_target_of_each_slice_is_refused():
    source, target = np.array([5, 6]), np.array([20, 31])
    with pytest.raises(
        UserError,
        match=r"^training\.batch_tokens=92 is too small: 3 slices \(replicas x "
        r"accumulation "
        r"steps\) of the longest target, 31 ids, need 93; raise it or lower "
        r"data\.max_target_length$",
    ):
        _plan(source, target, batch_tokens=92, num_slices=3)
    assert _plan(source, target, batch_tokens=93, num_slices=3).num_batches >= 1


def test_a_sentence_budget_counts_rows_whatever_their_length():
    plan = _plan(*_lengths(), batch_sentences=16)
    assert {bucket.rows for bucket in plan.buckets} == {16}
    sizes = [len(batch.lines) for batch in _epoch(plan)]
    assert max(sizes) == 16 and np.mean(sizes) > 13


def _mixed(sizes, lengths_of, **options):
    lengths = [lengths_of(size, i) for i, size in enumerate(sizes)]
    return BatchPlan(
        lengths,
        lengths,
        **{"seed": 1, "batch_tokens": 300, "max_source_length": 60, "max_target_length": 60, **options},
    )


def test_lines_of_several_corpora_are_each_visited_once():
    plan = _mixed([400, 301, 103], lambda size, seed: _lengths(size, seed)[0])
    for epoch in range(2):
        np.testing.assert_array_equal(np.sort(_lines(_epoch(plan, epoch))), np.arange(804))


def test_a_line_of_a_corpus_of_weight_two_is_visited_twice_and_of_a_half_every_other_epoch():
    plan = _mixed([40, 30], lambda size, _: np.full(size, 10), weights=(2.0, 0.5))
    assert sum(bucket.num_slots for bucket in plan.buckets) == 95
    for first in (0, 4):
        epochs = [np.bincount(_lines(_epoch(plan, epoch)), minlength=70) for epoch in (first, first + 1)]
        for counts in epochs:
            np.testing.assert_array_equal(counts[:40], np.full(40, 2))
            assert counts[40:].sum() == 15 and counts[40:].max() == 1
        np.testing.assert_array_equal(epochs[0][40:] + epochs[1][40:], np.full(30, 1))


def test_weights_hold_over_corpora_of_varied_lengths():
    plan = _mixed([500, 600], lambda size, seed: _lengths(size, seed)[0], weights=(2.0, 0.5))
    counts = sum(np.bincount(_lines(_epoch(plan, epoch)), minlength=1100) for epoch in range(2))
    np.testing.assert_array_equal(counts[:500], np.full(500, 4))
    assert counts[500:].max() <= 2 and abs(counts[500:].sum() - 600) <= 2


def test_a_rare_corpus_is_visited_as_its_weight_says_or_once_a_bucket():
    plan = _mixed([20_000, 400], lambda size, seed: _lengths(size, seed)[0], weights=(1.0, 0.02))
    lines = _lines(_epoch(plan, 0))
    assert 8 <= (lines >= 20_000).sum() <= len(plan.buckets) < 30


def test_batches_of_a_corpus_of_small_weight_are_full():
    plan = _mixed([20_000], lambda size, seed: _lengths(size, seed)[0], weights=(0.1,))
    rows = [len(plan.batch(0, i).lines) / plan.batch(0, i).bucket.rows for i in range(plan.num_batches)]
    assert np.mean(rows) > 0.75


def test_each_restart_has_an_order_of_its_own():
    plan = _plan(*_lengths())
    orders = [[plan.batch(0, index, restarts).lines.tolist() for index in range(5)] for restarts in (0, 1, 2)]
    assert orders[0] == [plan.batch(0, index).lines.tolist() for index in range(5)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    again = [plan.batch(0, index, 2).lines for index in range(plan.num_batches)]
    assert sorted(np.concatenate(again).tolist()) == list(range(1500))


def test_pairs_of_weight_zero_are_left_out_and_counted():
    source, target = _lengths(90)
    weights = np.ones(90, np.float32)
    weights[[3, 50]] = 0.0
    source[4] = 1  # empty, and of weight 0: counted as empty
    weights[4] = 0.0
    plan = _plan(source, target, example_weights=[weights])
    assert (plan.num_weightless, plan.num_empty) == (2, 1)
    assert sorted(np.concatenate([batch.lines for batch in _epoch(plan)]).tolist()) == sorted(
        set(range(90)) - {3, 4, 50}
    )
    assert plan.summary().endswith("1 with an empty side, 0 over the length limit, 2 of weight 0")
    two = BatchPlan(
        [source, source],
        [target, target],
        seed=1,
        batch_tokens=500,
        max_source_length=60,
        max_target_length=60,
        example_weights=[None, weights],
    )
    assert two.num_weightless == 2 and {3, 50} <= set(np.concatenate([batch.lines for batch in _epoch(two)]).tolist())


def test_a_fingerprint_is_of_everything_that_decides_the_batches():
    source, target = _lengths(200)
    longer = target.copy()
    longer[7] += 1
    weights = np.ones(200, np.float32)
    plans = [
        _plan(source, target),
        _plan(source, longer),
        _plan(source, target, seed=2),
        _plan(source, target, batch_tokens=501),
        _plan(source, target, batch_sentences=8),
        _plan(source, target, num_slices=2),
        _plan(source, target, max_target_length=59),
        _plan(source, target, weights=[2.0]),
        _plan(source, target, length_factor=1.1),
        _plan(source, target, example_weights=[weights]),
        _plan(source, target, example_weights=[weights / 2]),
    ]
    assert len({plan.fingerprint for plan in plans}) == len(plans)
    assert _plan(source, target).fingerprint == plans[0].fingerprint == "e768c871eb250b2bfa84b8ffd51a5ae7"


def test_a_temperature_visits_small_corpora_more_often():
    assert visits_at_temperature([100, 25, 1], 1.0) == [1.0, 1.0, 1.0]
    visits = visits_at_temperature([100, 25, 1], 2.0)
    np.testing.assert_allclose(visits, [1.0, 2.0, 10.0])
    np.testing.assert_allclose(np.multiply(visits, [100, 25, 1]), 10.0 * np.sqrt([100, 25, 1]))
    np.testing.assert_allclose(np.multiply(visits_at_temperature([100, 25, 1], 1e9), [100, 25, 1]), 100.0, rtol=1e-6)


def _positions_of(cuts, lengths):
    """Positions of rows that are as long as the longest of their bucket."""
    return sum((stop - start) * int(lengths[stop - 1]) for start, stop in cuts)


def test_a_number_of_buckets_is_cut_where_rows_pad_least():
    """Against all ways to cut."""
    from nmt_keras.data.batch_plan import _cut_into

    lengths = np.sort(np.random.default_rng(4).choice([2, 3, 4, 7, 8, 15, 16], 40))
    ends = np.append(np.flatnonzero(np.diff(lengths)) + 1, len(lengths)).tolist()
    for number in (1, 2, 3, 5, 9):
        cuts = _cut_into(lengths, np.arange(41), lengths, lengths, number)
        assert cuts[0][0] == 0 and cuts[-1][1] == 40 and len(cuts) <= number
        assert all(before[1] == after[0] for before, after in zip(cuts, cuts[1:]))
        ways = itertools.combinations(ends[:-1], min(number, len(ends)) - 1)
        least = min(_positions_of(list(zip((0, *way), (*way, 40))), lengths) for way in ways)
        assert _positions_of(cuts, lengths) == least


def test_what_static_shapes_pad_is_counted():
    lengths = np.array([4] * 6 + [9] * 5)
    limits = {"max_source_length": 9, "max_target_length": 9}
    plan = BatchPlan([lengths], [lengths], seed=1, batch_sentences=4, num_buckets=2, **limits)
    assert [(b.target_length, b.num_batches, plan.static_rows(b)) for b in plan.buckets] == [(4, 2, 3), (9, 2, 3)]
    assert plan.static_padding == pytest.approx(1 - (6 * 4 + 5 * 9) / (6 * 4 + 6 * 9))
    assert BatchPlan([lengths], [lengths], seed=1, batch_sentences=4, **limits).fingerprint != plan.fingerprint
