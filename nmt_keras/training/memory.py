"""What a step needs of memory and time, measured before step 1."""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf

from nmt_keras.data.batch_plan import LARGEST_WORTHY_BUDGET, MIN_WORTHY_BATCHES, Bucket
from nmt_keras.errors import UserError
from nmt_keras.training.feed import Feed
from nmt_keras.training.train_step import TrainStep

_MARGIN = 0.8  # share of the memory limit that a found or suggested budget may use
_FIRST_POSITIONS = 512  # target positions of the first batch that is tried
_GROWTH = 3  # factor to the next one, which runs if those before say that it fits
_GIB = float(1 << 30)
_CGROUPS = pathlib.Path("/sys/fs/cgroup")
_V2_FILES = ("memory.max", "memory.current", "inactive_file")  # limit, use, and what of memory.stat is reclaimed
_V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class Need(NamedTuple):
    """The memory and time that a training step needs."""

    peak_bytes: int  # of the device, or of this process on a CPU
    seconds: float


class Measurement(NamedTuple):
    """Peak memory of batches of growing size, from none on; a line through the last two predicts larger ones."""

    rows: list[int]
    peaks: list[int]

    def peak_of(self, rows: int) -> float:
        """Bytes that a batch of `rows` sentences needs."""
        return self.peaks[-1] + self._slope() * (rows - self.rows[-1])

    def rows_within(self, limit: float) -> int:
        """The sentences of a batch that needs `limit` bytes."""
        return int(self.rows[-1] + (limit - self.peaks[-1]) / max(self._slope(), 1.0))

    def _slope(self) -> float:
        if len(self.rows) == 1:
            return 0.0
        return max(self.peaks[-1] - self.peaks[-2], 0) / (self.rows[-1] - self.rows[-2])


def measure(run: Callable[[], None]) -> Need:
    """Runs and measures.

    Raises:
        tf.errors.ResourceExhaustedError: the device has not so much memory.
    """
    gpus = [device.name.rpartition("device:")[2] for device in tf.config.list_logical_devices("GPU")]
    for gpu in gpus:
        tf.config.experimental.reset_memory_stats(gpu)
    if not gpus:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # the peak of the resident set begins anew
    started = time.monotonic()
    run()
    seconds = time.monotonic() - started
    if gpus:
        return Need(max(tf.config.experimental.get_memory_info(gpu)["peak"] for gpu in gpus), seconds)
    return Need(_status_bytes("VmHWM"), seconds)


def is_told() -> bool:
    """Whether the system reports a process's memory and its peak: TensorFlow does for a GPU, Linux in /proc."""
    try:
        gpus = [device.name.rpartition("device:")[2] for device in tf.config.list_logical_devices("GPU")]
        for gpu in gpus:
            tf.config.experimental.reset_memory_stats(gpu)
            tf.config.experimental.get_memory_info(gpu)
        return bool(gpus) or _status_bytes("VmHWM") > 0
    except (OSError, StopIteration, ValueError, tf.errors.OpError):
        return False


def limit_of_process() -> float:
    """Bytes that this process may grow to: what is free on the machine and in its control groups; inf where unknown."""
    free = [float("inf")]
    with contextlib.suppress(OSError, ValueError):
        free.append(_field_bytes("/proc/meminfo", "MemAvailable"))
    free += _free_in_cgroups()
    return _status_bytes("VmRSS") + min(free)


def estimate(step: TrainStep, feed: Feed, limit: Callable[[], float] = limit_of_process) -> tuple[Bucket, Need]:
    """Runs the largest batches of a feed, twice, without applying their gradients.

    On a CPU, where a process that needs too much memory is killed, smaller batches run first, and the largest only if
    it will fit. With several workers, which must run the same batches, and where each shape is a graph of its own, only
    the largest run. `step` must be compiled.

    Args:
        step: of the training.
        feed: of its batches.
        limit: how large this process may become, bytes.

    Returns:
        The bucket of the batch that needs most, and what that needs.

    Raises:
        UserError: it does not fit; the message names the bucket, and the largest budget that would, or
            a half of this one where only the largest was run.
    """
    found = [(bucket, _need_of(step, feed, bucket, limit)) for bucket in feed.largest_buckets()]
    return max(found, key=lambda pair: pair[1])


def _need_of(step: TrainStep, feed: Feed, bucket: Bucket, limit: Callable[[], float]) -> Need:
    unit, wanted = _unit(step), feed.rows_of(bucket)
    measured = Measurement([0], [measure(lambda: None).peak_bytes])
    has_peers = step.workers.link is not None
    runs_largest_alone = has_peers or feed.text.static_shapes
    bound = float("inf") if has_peers or tf.config.list_logical_devices("GPU") else limit()
    rows = max(_FIRST_POSITIONS // bucket.target_length // unit, 1) * unit
    try:
        while 2 * rows <= wanted and measured.peak_of(rows) <= bound and not runs_largest_alone:
            _measure_rows(step, feed, bucket, rows, measured)
            rows *= _GROWTH
        if measured.peak_of(wanted) > bound:
            raise _does_not_fit(step, bucket, wanted, measured, bound)
        rows = wanted
        _measure_rows(step, feed, bucket, wanted, measured)
        batch = feed.full_batch(bucket, wanted)
        again = measure(lambda: step(batch, apply=False))
    except tf.errors.ResourceExhaustedError as error:
        is_alone = rows == wanted and measured.rows[-1] in (0, wanted)
        raise _does_not_fit(step, bucket, wanted, measured, bound, is_alone) from error
    if measured.peaks[-1] > bound:
        raise _does_not_fit(step, bucket, wanted, measured, bound)
    return Need(measured.peaks[-1], again.seconds)


def find_budget(step: TrainStep, feed: Feed, limit: Callable[[], float] = limit_of_process) -> int:
    """The largest `batch_tokens` that fits and is worth it, for a feed of any plan of the text.

    Batches of the longest sentences are doubled until one does not fit. At most `LARGEST_WORTHY_BUDGET`, and no more
    than leaves `MIN_WORTHY_BATCHES` batches an epoch.

    Args:
        step: of the training, compiled.
        feed: of its batches.
        limit: how large this process may become, bytes.

    Raises:
        UserError: not even the smallest batch fits.
    """
    bucket, unit = max(feed.text.plan.buckets, key=lambda k: (k.target_length, k.source_length)), _unit(step)
    measured = Measurement([0], [measure(lambda: None).peak_bytes])
    has_gpu = bool(tf.config.list_logical_devices("GPU"))
    bound = float("inf") if has_gpu else limit()
    room = bound * _MARGIN
    worthy = min(LARGEST_WORTHY_BUDGET, max(feed.target_positions() // MIN_WORTHY_BATCHES, _FIRST_POSITIONS))
    most = max(worthy // bucket.target_length // unit, 1) * unit
    rows = min(max(_FIRST_POSITIONS // bucket.target_length // unit, 1) * unit, most)
    fitting = 0
    with contextlib.suppress(tf.errors.ResourceExhaustedError):
        while not fitting or rows <= most and measured.peak_of(rows) <= room:
            _measure_rows(step, feed, bucket, rows, measured)
            if measured.peaks[-1] > room:
                break
            fitting, rows = rows, rows * 2
    if not fitting:
        raise _does_not_fit(step, bucket, rows, measured, bound)
    if not has_gpu:
        fitting = max(min(measured.rows_within(room), most), fitting)
    return max(fitting // unit, 1) * unit * bucket.target_length


def describe(bucket: Bucket, need: Need, limit: float, batches_of_epoch: int, max_steps: int) -> str:
    """A line for people: what the largest batch needs, and what training will take at that rate."""
    free = "" if limit == float("inf") else f" of {limit / _GIB:.1f} GiB"
    lengths = f"up to {bucket.source_length} source and {bucket.target_length} target ids"
    epoch, whole = (_duration(need.seconds * steps) for steps in (batches_of_epoch, max_steps))
    return (
        f"largest batch: {bucket.largest_batch} sentences, {lengths}; memory {need.peak_bytes / _GIB:.2f} GiB{free}; "
        f"{need.seconds:.2f} s a step, so at most about {epoch} an epoch and {whole} for max_steps"
    )


def _measure_rows(step: TrainStep, feed: Feed, bucket: Bucket, rows: int, measured: Measurement) -> None:
    batch = feed.full_batch(bucket, rows)
    need = measure(lambda: step(batch, apply=False))
    measured.rows.append(rows)
    measured.peaks.append(need.peak_bytes)


def _unit(step: TrainStep) -> int:
    """Sentences that every batch is a multiple of."""
    return step.workers.num_slices * step.config.accumulation_steps


def _does_not_fit(
    step: TrainStep, bucket: Bucket, wanted: int, measured: Measurement, bound: float, is_alone: bool = False
) -> UserError:
    """The error for a batch of `wanted` sentences; `is_alone` where no smaller one was tried, of which nothing is
    known then."""
    config, unit = step.config, _unit(step)
    remedy = "the largest budget that fits is about"
    if is_alone:
        remedy, needs = "try about half,", "more than the device has"
        budget = wanted // 2 // unit * unit * bucket.target_length
    elif bound == float("inf"):
        budget, needs = measured.rows[-1] * bucket.target_length, "more than the device has"
    else:
        rows = max(measured.rows_within(bound * _MARGIN), 0) // unit * unit
        budget = rows * bucket.target_length
        needs = f"{measured.peak_of(wanted) / _GIB:.2f} GiB of memory, and there are {bound / _GIB:.2f} GiB"
    remedy = (
        f"{remedy} --config.training.batch_tokens={budget}"
        if budget >= unit * bucket.target_length
        else "no budget fits: take a smaller model, or lower data.max_source_length and data.max_target_length"
    )
    given = (
        f"training.batch_sentences={config.batch_sentences}"
        if config.batch_sentences
        else f"training.batch_tokens={config.batch_tokens}"
    )
    return UserError(f"{given} is too large: a batch {bucket} would need {needs}; {remedy}")


def _free_in_cgroups() -> Iterator[float]:
    """Bytes that are left in each control group that this process is in, file cache counted as free."""
    with contextlib.suppress(OSError):
        for line in filter(None, _lines("/proc/self/cgroup")):
            _, controllers, group = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            names = _V1_FILES if controllers else _V2_FILES
            root = _CGROUPS / "memory" if controllers else _CGROUPS
            folder = root / group.lstrip("/")
            for place in (folder, *folder.parents):
                if place.is_relative_to(root):
                    yield from _free_in_cgroup(place, *names)


def _free_in_cgroup(place: pathlib.Path, limit: str, usage: str, cache: str) -> Iterator[float]:
    with contextlib.suppress(OSError, ValueError):  # there is none, or its limit is "max"
        most, used = (int((place / name).read_text(encoding="ascii")) for name in (limit, usage))
        cached = next(line for line in _lines(place / "memory.stat") if line.startswith(f"{cache} "))
        yield float(most - used + int(cached.split()[1]))


def _lines(path: str | os.PathLike) -> list[str]:
    return pathlib.Path(path).read_text(encoding="utf-8").split("\n")


def _status_bytes(name: str) -> int:
    return _field_bytes("/proc/self/status", name)


def _field_bytes(path: str, name: str) -> int:
    """The bytes that a line such as `VmRSS:  123 kB` names."""
    line = next(line for line in _lines(path) if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
