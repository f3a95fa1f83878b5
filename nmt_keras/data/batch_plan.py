"""The batch plan: which lines form which batch, decided in NumPy from token lengths and a seed.

A batch is a function of (seed, epoch, batch), so starting and resuming cost nothing at any size.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nmt_keras.errors import UserError

FILLER_LINE = -1
_MASK64 = (1 << 64) - 1
_BUCKET_WIDTH = 2
_MIN_BATCHES_PER_BUCKET = 3


class Bucket(NamedTuple):
    """Pairs of similar length. Lengths are in ids with EOS and inclusive."""

    source_length: int  # the longest source
    target_length: int  # the longest target
    rows: int  # of a global batch, at most
    num_slots: int  # pairs visited an epoch
    num_batches: int  # an epoch


class BatchRows(NamedTuple):
    """One global batch of the plan."""

    bucket: Bucket
    lines: np.ndarray  # int64 [rows], -1 for fillers at the end


class _Group(NamedTuple):
    """The lines of one corpus in one bucket."""

    start: int  # the first, in the plan's order
    size: int
    slots: int  # visits an epoch


def permute(values: np.ndarray, size: int, key: int) -> np.ndarray:
    """Evaluates a keyed pseudo-random permutation of range(size) at `values` [N], in O(N).

    A balanced Feistel network of six rounds over the next even power of two, walked until it lands below `size` (Black
    and Rogaway 2002). Not for cryptography.
    """
    half_bits = np.uint64(max(1, math.ceil(max(size - 1, 1).bit_length() / 2)))
    half_mask = np.uint64((1 << int(half_bits)) - 1)
    result = np.array(values, np.uint64)
    outside = np.ones(len(result), bool)
    while outside.any():
        walk = result[outside]
        left, right = walk >> half_bits, walk & half_mask
        for round_number in range(6):
            left, right = right, left ^ (_mix_array(right, mix(key, round_number)) & half_mask)
        result[outside] = (left << half_bits) | right
        outside = result >= size
    return result.astype(np.int64)


def mix(*numbers: int) -> int:
    """Mixes integers into one of 64 bits (splitmix64's finaliser, chained)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK64)) + 0x9E3779B97F4A7C15 & _MASK64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK64
        state ^= state >> 31
    return state


def _mix_array(values: np.ndarray, key: int) -> np.ndarray:
    state = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(key)
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)


class BatchPlan:
    """Which lines form which batch, for ever.

    Pairs are sorted into buckets about two positions wide (wider where pairs are rare); all rows of a batch come from
    one bucket. An epoch visits each line of corpus i `weights[i]` times: with a fraction, so many lines of an endless
    succession of permutations, and at least one line in each bucket that has lines of the corpus. Batches of a bucket
    differ in size by one row at most, and a batch has at most `batch_tokens` padded target positions (or
    `batch_sentences` rows), rounded up to a multiple of `num_slices` with fillers where the bucket runs out.

    Attributes:
        buckets: the buckets, by length.
        num_batches: batches in an epoch.
        num_empty, num_long: pairs left out, because a side is empty or over its limit.
    """

    def __init__(
        self,
        source_lengths: Sequence[np.ndarray],
        target_lengths: Sequence[np.ndarray],
        *,
        seed: int,
        batch_tokens: int = 0,
        batch_sentences: int = 0,
        max_source_length: int,
        max_target_length: int,
        weights: Sequence[float] = (),
        num_slices: int = 1,
        length_factor: float = 1.0,
    ):
        """Plans over one or several corpora.

        Args:
            source_lengths: for each corpus, the ids of each line with EOS, integer [lines].
            target_lengths: the same of the target.
            seed: of the order.
            batch_tokens: budget of padded target positions of a global batch.
            batch_sentences: if positive, the rows of a global batch instead.
            max_source_length: pairs with more source ids are left out.
            max_target_length: pairs with more target ids are left out.
            weights: visits of each line per epoch, one a corpus; () is 1 for each.
            num_slices: replicas times accumulation steps; a batch is cut into so many equal parts.
            length_factor: how much longer than these lengths the batches' rows will be (sampled segmentations).

        Raises:
            UserError: no pair is left, or the budget is too small for one row a slice.
        """
        self.seed = seed
        self.buckets: list[Bucket] = []
        self._num_slices = num_slices
        self._groups: list[list[_Group]] = []  # of each bucket
        source, target = np.concatenate(source_lengths), np.concatenate(target_lengths)
        kept = self._filter(source, target, max_source_length, max_target_length)

        def sampled(longest: int, limit: int) -> int:
            return min(math.ceil(longest * length_factor), limit)

        longest = sampled(target[kept].max(), max_target_length)
        if not batch_sentences and batch_tokens < num_slices * longest:
            raise UserError(
                f"training.batch_tokens={batch_tokens} is too small: {num_slices} slice(s) (replicas x "
                f"accumulation steps) of the longest target, {longest} ids, need {num_slices * longest}; "
                "raise it or lower data.max_target_length"
            )

        def rows_of(longest: int) -> int:
            rows = batch_sentences or batch_tokens // sampled(longest, max_target_length)
            return max(rows // num_slices, 1) * num_slices

        starts = np.cumsum([0] + [len(lengths) for lengths in source_lengths])
        corpus_of = np.searchsorted(starts, kept, side="right") - 1
        length = np.maximum(source[kept], target[kept])
        order = np.lexsort((corpus_of, length))
        self._lines, length, corpus_of = kept[order], length[order], corpus_of[order]
        visits_of_line = np.array(weights or [1.0] * len(source_lengths))
        visits = np.concatenate([[0.0], np.cumsum(visits_of_line[corpus_of])])  # of the lines before each
        seen = np.zeros(len(visits_of_line), np.int64)  # lines of each corpus in the buckets before
        for start, stop in _cut(length, visits, rows_of):
            groups = self._group(start, corpus_of[start:stop], visits_of_line, seen)
            lines = self._lines[start:stop]
            rows, slots = rows_of(int(target[lines].max())), sum(group.slots for group in groups)
            limits = (sampled(source[lines].max(), max_source_length), sampled(target[lines].max(), max_target_length))
            self.buckets.append(Bucket(*limits, rows, slots, -(-slots // rows)))
            self._groups.append(groups)
        self._batch_ends = np.cumsum([bucket.num_batches for bucket in self.buckets])
        self.num_batches = int(self._batch_ends[-1])

    def _filter(self, source: np.ndarray, target: np.ndarray, max_source_length: int, max_target_length: int):
        """The lines of pairs that have two sides within their limits."""
        empty = (source <= 1) | (target <= 1)
        long = ~empty & ((source > max_source_length) | (target > max_target_length))
        self.num_empty, self.num_long = int(empty.sum()), int(long.sum())
        kept = np.flatnonzero(~empty & ~long)
        if not len(kept):
            raise UserError(
                f"No pair is left to train on: of {len(source):,}, {self.num_empty:,} have an empty side and "
                f"{self.num_long:,} are over data.max_source_length={max_source_length} or "
                f"data.max_target_length={max_target_length} ids; raise the limits or give other text"
            )
        return kept

    def _group(self, start: int, corpus_of: np.ndarray, weights: np.ndarray, seen: np.ndarray) -> list[_Group]:
        """Brings a bucket's lines, from `start` on, into the order of their corpora [N], which it adds to `seen`."""
        stop = start + len(corpus_of)
        self._lines[start:stop] = self._lines[start:stop][np.argsort(corpus_of, kind="stable")]
        groups = []
        for corpus, size in zip(*np.unique(corpus_of, return_counts=True)):
            before, seen[corpus] = seen[corpus], seen[corpus] + size
            slots = math.floor(weights[corpus] * seen[corpus] + 0.5) - math.floor(weights[corpus] * before + 0.5)
            groups.append(_Group(start, int(size), max(1, slots)))
            start += int(size)
        return groups

    def batch(self, epoch: int, index: int) -> BatchRows:
        """Batch `index` (from 0, below `num_batches`) of `epoch` (from 0)."""
        place = int(permute(np.array([index]), self.num_batches, mix(self.seed, 1, epoch))[0])
        number = int(np.searchsorted(self._batch_ends, place, side="right"))
        bucket, groups = self.buckets[number], self._groups[number]
        within = place - (self._batch_ends[number] - bucket.num_batches)
        first, last = (int(within + i) * bucket.num_slots // bucket.num_batches for i in (0, 1))
        slots = permute(np.arange(first, last), bucket.num_slots, mix(self.seed, 2, epoch, number))
        lines = np.empty(len(slots), np.int64)
        begin = 0
        for start, size, count in groups:
            mine = (slots >= begin) & (slots < begin + count)
            place_in_stream = epoch * count + slots[mine] - begin
            for lap in np.unique(place_in_stream // size):
                here = np.flatnonzero(mine)[place_in_stream // size == lap]
                offsets = place_in_stream[place_in_stream // size == lap] % size
                lines[here] = self._lines[start + permute(offsets, size, mix(self.seed, 3, int(lap), int(start)))]
            begin += count
        fillers = -len(lines) % self._num_slices
        return BatchRows(bucket, np.append(lines, np.full(fillers, FILLER_LINE)))

    def summary(self) -> str:
        """One line for the log: what is visited, what was left out, and the batches of an epoch."""
        pairs = sum(bucket.num_slots for bucket in self.buckets)
        return (
            f"{pairs:,} pairs an epoch in {self.num_batches:,} batches of {len(self.buckets)} length buckets; left "
            f"out: {self.num_empty:,} with an empty side, {self.num_long:,} over the length limit"
        )


def _cut(length: np.ndarray, visits: np.ndarray, rows_of) -> Iterator[tuple[int, int]]:
    """Cuts sorted lengths [N] into buckets: two positions wide, or wider until their visits fill a few batches.

    `visits` [N + 1] are an epoch's of all lines before each, and at last of all.
    """

    def fills(start: int, stop: int) -> bool:
        return visits[stop] - visits[start] >= _MIN_BATCHES_PER_BUCKET * rows_of(int(length[stop - 1]))

    start = 0
    while start < len(length):
        limit = length[start] + _BUCKET_WIDTH
        stop = int(np.searchsorted(length, limit))
        while stop < len(length) and not fills(start, stop):
            stop = int(np.searchsorted(length, length[stop], side="right"))
        if stop < len(length) and not fills(stop, len(length)):
            stop = len(length)
        yield start, stop
        start = stop
