"""What a step needs is measured before step 1, and a batch that will not fit is refused with one that will."""

import mmap
import re
import types

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.data.batch_plan import LARGEST_WORTHY_BUDGET, Bucket
from nmt_keras.errors import UserError
from nmt_keras.training import memory
from nmt_keras.training.memory import Measurement, Need
from nmt_keras.training.workers import Workers

MIB = 1 << 20


class _Step:
    """A step that needs 100 MiB and 2 MiB a sentence; it may be of a device that has no more than `most`."""

    def __init__(self, monkeypatch, most=None, accumulation_steps=1, batch_tokens=1280):
        from nmt_keras.config import TrainingConfig

        self.config = TrainingConfig(batch_tokens=batch_tokens, accumulation_steps=accumulation_steps)
        self.workers = Workers(tf.distribute.get_strategy())
        self.ran = []

        def measure(run):
            run()
            need = 100 * MIB + 2 * MIB * (self.ran[-1] if self.ran else 0)
            if most is not None and need > most:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
            return Need(need, 0.5)

        monkeypatch.setattr(memory, "measure", measure)
        if most is not None:
            monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])

    def __call__(self, rows, apply):
        assert not apply
        self.ran.append(rows)


class _Feed:
    def __init__(self, bucket, static_shapes=False):
        self.bucket = bucket
        self.static_shapes = static_shapes

    @property
    def text(self):
        plan = types.SimpleNamespace(buckets=[Bucket(9, 9, 64, 1024, 16), self.bucket])
        return types.SimpleNamespace(plan=plan, static_shapes=self.static_shapes)

    def largest_buckets(self):
        return [self.bucket]

    def rows_of(self, bucket):
        return bucket.largest_batch

    def target_positions(self):
        return 100_000 * LARGEST_WORTHY_BUDGET

    def full_batch(self, bucket, rows):
        assert bucket is self.bucket
        return rows


BUCKET = Bucket(30, 20, 64, 1024, 16)


def test_the_largest_batch_is_measured_after_smaller_ones(monkeypatch):
    step = _Step(monkeypatch)
    bucket, need = memory.estimate(step, _Feed(BUCKET), limit=lambda: 300 * MIB)
    assert bucket is BUCKET and need == Need(228 * MIB, 0.5)
    assert step.ran == [25, 64, 64]


def test_a_batch_that_will_not_fit_never_runs_and_the_largest_budget_is_named(monkeypatch):
    step = _Step(monkeypatch)
    with pytest.raises(UserError) as caught:
        memory.estimate(step, _Feed(BUCKET), limit=lambda: 220 * MIB)
    assert str(caught.value) == (
        "training.batch_tokens=1280 is too large: a batch in the bucket of up to 30 source and 20 target ids, 64 "
        "sentences would need 0.22 GiB of memory, and there are 0.21 GiB; the largest budget that fits is about "
        "--config.training.batch_tokens=760"
    )  # (0.8 * 220 - 100) / 2 = 38 sentences of 20
    assert step.ran == [25]


def test_an_absurd_budget_is_approached_step_by_step(monkeypatch):
    step = _Step(monkeypatch, batch_tokens=10**12)
    with pytest.raises(
        UserError, match="training.batch_tokens=1000000000000 is too large: .* about --config.training.ba"
    ):
        memory.estimate(step, _Feed(BUCKET._replace(rows=10**9, num_slots=10**9, num_batches=1)), lambda: 1000 * MIB)
    assert step.ran == [25, 75, 225] and 100 + 2 * 675 > 1000


def test_a_batch_is_no_larger_than_its_bucket():
    assert BUCKET.largest_batch == 64
    assert BUCKET._replace(rows=10**9, num_slots=50, num_batches=1).largest_batch == 50


def test_where_nothing_fits_the_model_is_too_large(monkeypatch):
    with pytest.raises(UserError, match="no budget fits: take a smaller model, or lower data.max_source_length"):
        memory.estimate(_Step(monkeypatch), _Feed(BUCKET), limit=lambda: 90 * MIB)


def test_a_device_tells_by_itself_what_does_not_fit(monkeypatch):
    step = _Step(monkeypatch, most=200 * MIB)
    with pytest.raises(
        UserError, match="would need more than the device has; .* about --config.training.batch_tokens=500$"
    ):
        memory.estimate(step, _Feed(BUCKET))
    assert step.ran == [25, 64]


def test_where_only_the_largest_batch_was_tried_half_of_the_budget_is_proposed(monkeypatch):
    """Each shape is a graph, or all workers must run the same batches: nothing is known of smaller ones."""
    step = _Step(monkeypatch, most=200 * MIB)
    told = "would need more than the device has; try about half, --config.training.batch_tokens=640$"
    with pytest.raises(UserError, match=told):
        memory.estimate(step, _Feed(BUCKET, static_shapes=True))
    assert step.ran == [64]
    step = _Step(monkeypatch, most=200 * MIB)
    step.workers.link = step.workers.strategy  # a worker of several
    with pytest.raises(UserError, match=told):
        memory.estimate(step, _Feed(BUCKET))
    of_one = _Feed(BUCKET._replace(rows=1, num_slots=1, num_batches=1))  # of which there is no half
    with pytest.raises(UserError, match="; no budget fits: take a smaller model"):
        memory.estimate(_Step(monkeypatch, most=101 * MIB), of_one)
    with pytest.raises(UserError, match="; no budget fits: take a smaller model"):  # the smallest was tried
        memory.find_budget(_Step(monkeypatch, most=110 * MIB), _Feed(BUCKET))


@pytest.mark.parametrize("parts", [1, 3])
def test_a_budget_of_zero_finds_what_fits(monkeypatch, parts):
    step = _Step(monkeypatch, accumulation_steps=parts)
    budget = memory.find_budget(step, _Feed(BUCKET), limit=lambda: 500 * MIB)
    rows = 150 // parts * parts  # (0.8 * 500 - 100) / 2
    assert budget == rows * 20 and max(step.ran) <= rows
    assert all(rows % parts == 0 for rows in step.ran)


def test_a_budget_that_is_found_on_a_device_is_one_that_ran(monkeypatch):
    step = _Step(monkeypatch, most=500 * MIB)
    budget = memory.find_budget(step, _Feed(BUCKET))
    assert budget == 200 * 20 and step.ran == [25, 50, 100, 200, 400]


def test_a_budget_that_is_found_is_no_larger_than_it_is_worth(monkeypatch):
    budget = memory.find_budget(_Step(monkeypatch), _Feed(BUCKET), limit=lambda: 1 << 50)
    assert LARGEST_WORTHY_BUDGET - 20 < budget <= LARGEST_WORTHY_BUDGET
    feed = _Feed(BUCKET)
    feed.target_positions = lambda: 100 * 1000
    assert memory.find_budget(_Step(monkeypatch), feed, limit=lambda: 1 << 50) == 1000
    with pytest.raises(UserError, match="no budget fits"):
        memory.find_budget(_Step(monkeypatch), _Feed(BUCKET), limit=lambda: 90 * MIB)


def test_the_peak_of_this_process_is_what_it_held_for_a_moment():
    before = memory.measure(lambda: None).peak_bytes

    def hold():
        # From the system, not from the allocator, which may keep what is freed.
        with mmap.mmap(-1, 64 * MIB) as held:
            for _ in range(64):
                held.write(b"x" * MIB)

    need = memory.measure(hold)
    assert 60 * MIB < need.peak_bytes - before < 100 * MIB and need.seconds > 0
    assert memory.measure(lambda: None).peak_bytes < need.peak_bytes - 30 * MIB


def test_what_is_free_is_that_of_the_tightest_control_group(tmp_path, monkeypatch):
    real, free = memory._lines, memory._field_bytes("/proc/meminfo", "MemAvailable")
    assert memory.limit_of_process() <= free * 1.1 + memory._status_bytes("VmRSS")
    for folder, limit in (("job", "max"), ("job/inner", str(50 * MIB)), ("memory/old", str(30 * MIB))):
        names = memory._V1_FILES if folder.startswith("memory") else memory._V2_FILES
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / names[0]).write_text(limit + "\n")
        (tmp_path / folder / names[1]).write_text(f"{20 * MIB}\n")
        (tmp_path / folder / "memory.stat").write_text(f"anon 1\n{names[2]} {4 * MIB}\n")
    groups = ["0::/job/inner", "4:cpu,memory:/old", "3:cpuset:/job", ""]
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_lines", lambda path: groups if path == "/proc/self/cgroup" else real(path))
    assert sorted(memory._free_in_cgroups()) == [14 * MIB, 34 * MIB]
    assert memory.limit_of_process() - memory._status_bytes("VmRSS") == pytest.approx(14 * MIB, abs=MIB)


def test_a_line_through_two_measurements_tells_of_larger_batches():
    measured = Measurement([10, 30], [100, 140])
    assert (measured.peak_of(50), measured.rows_within(200)) == (180, 60)
    assert Measurement([10, 20], [100, 90]).peak_of(50) == 90  # never less for more


def test_people_are_told_what_training_will_take():
    line = memory.describe(BUCKET, Need(3 << 29, 0.25), float(4 << 30), 1000, 100_000)
    assert line == (
        "largest batch: 64 sentences, up to 30 source and 20 target ids; memory 1.50 GiB of 4.0 GiB; 0.25 s a step, so "
        "at most about 4 min an epoch and 6.9 h for max_steps"
    )
    assert re.search(r"memory 1\.50 GiB; ", memory.describe(BUCKET, Need(3 << 29, 0.25), float("inf"), 1, 1))


def test_the_batches_that_are_tried_are_those_of_most_positions_and_of_most_pairs_of_them():
    """Where rows times positions are all alike, attention makes the longest sentences the largest batch."""
    from nmt_keras.data.batch_plan import BatchPlan
    from nmt_keras.training.feed import Feed

    lengths = np.repeat(np.arange(10, 121, 10), 400).astype(np.int32)
    limits = {"max_source_length": 120, "max_target_length": 120}
    plan = BatchPlan([lengths], [lengths], seed=1, batch_tokens=8192, **limits)
    feed = Feed(
        types.SimpleNamespace(plan=plan, static_shapes=False, align=None), Workers(tf.distribute.get_strategy())
    )
    pairs = [feed.rows_of(b) * b.source_length * b.target_length for b in plan.buckets]
    tried = feed.largest_buckets()
    assert max(pairs) == max(feed.rows_of(b) * b.source_length * b.target_length for b in tried)
    positions = [feed.rows_of(b) * (b.source_length + b.target_length) for b in plan.buckets]
    assert max(positions) == max(feed.rows_of(b) * (b.source_length + b.target_length) for b in tried)
    batch = feed.full_batch(tried[0], 6)
    assert batch.source_ids.shape == (6, tried[0].source_length) and (batch.target_output_ids.numpy() > 0).all()


def test_what_was_measured_is_compared_too(monkeypatch):
    """A batch of one row has no smaller one to be measured first."""
    one = Bucket(500, 600, 1, 10, 10)
    with pytest.raises(UserError, match="is too large: a batch in the bucket of up to 500 source and 600 target ids"):
        memory.estimate(_Step(monkeypatch), _Feed(one), limit=lambda: 101 * MIB)


def test_a_system_that_tells_nothing_is_known(monkeypatch):
    assert memory.is_told()
    monkeypatch.setattr(memory, "_status_bytes", lambda name: (_ for _ in ()).throw(FileNotFoundError(name)))
    assert not memory.is_told()
    monkeypatch.setattr(memory, "_status_bytes", lambda name: next(iter(())))
    assert not memory.is_told()


def test_where_shapes_are_static_no_others_are_tried(monkeypatch):
    """Each would be a graph of its own."""
    step = _Step(monkeypatch)
    memory.estimate(step, _Feed(BUCKET, static_shapes=True), limit=lambda: 300 * MIB)
    assert step.ran == [BUCKET.largest_batch] * 2
