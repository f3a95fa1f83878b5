"""The batch plan: which lines form which batch, decided in NumPy from token lengths and a seed.

A batch is a function of (seed, epoch, batch), so starting and resuming cost nothing at any size.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nmt_keras.errors import UserError
from nmt_keras.reports import counted

PADDING_LINE = -1
_MASK64 = (1 << 64) - 1
LARGEST_WORTHY_BUDGET = 32_768  # target positions: more of them in one update teach little more
MIN_WORTHY_BATCHES = 100  # an epoch
_BUCKET_WIDTH = 2
_MIN_BATCHES_PER_BUCKET = 3
_VERSION = 1  # raised when the same arguments give another order


def visits_at_temperature(sizes: Sequence[int], temperature: float) -> list[float]:
    """How often an epoch visits each line of corpora of these sizes, sampled in proportion to size^(1 / temperature)
    (Arivazhagan et al. 2019, 4.2), the largest corpus once."""
    return [(max(sizes) / size) ** (1.0 - 1.0 / temperature) for size in sizes]


class Bucket(NamedTuple):
    """Pairs of similar length. Lengths are in ids with EOS and inclusive."""

    source_length: int  # the longest source
    target_length: int  # the longest target
    rows: int  # of a global batch, at most
    num_slots: int  # pairs visited an epoch
    num_batches: int  # an epoch

    @property
    def largest_batch(self) -> int:
        """Rows of its largest batch: the budget's, or fewer where the bucket has not so many pairs."""
        return min(self.rows, -(-self.num_slots // self.num_batches))

    def __str__(self) -> str:
        lengths = f"{self.source_length} source and {self.target_length} target ids"
        return f"in the bucket of up to {lengths}, {self.largest_batch} sentences"


class BatchRows(NamedTuple):
    """One global batch of the plan."""

    bucket: Bucket
    lines: np.ndarray  # int64 [rows], -1 for padding rows at the end


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
    """The plan of all batches: which lines form which batch, in every epoch.

    Pairs are sorted into buckets about two positions wide (wider where pairs are rare); all rows of a batch come from
    one bucket. An epoch visits each line of corpus i `weights[i]` times, on average where that is a fraction:
    the lines come from an endless sequence of permutations. It visits at least one line in each bucket that has lines
    of the corpus. Batches of a bucket differ in size by one row at most, and a batch has at most `batch_tokens` padded
    target positions (or `batch_sentences` rows), rounded up to a multiple of `num_slices` with padding rows where the
    bucket runs out.

    Attributes:
        seed: of the order.
        num_slices: equal parts that a batch can be cut into.
        buckets: the buckets, by length.
        num_batches: batches in an epoch.
        num_empty, num_long, num_weightless: pairs left out, because a side is empty or over its limit, or the weight 0.
        fingerprint: a hash of everything that decides the batches, except the text itself (only its lengths).
        static_padding: the share of an epoch's positions, of both sides, that is padding where every batch has the size
            of its bucket.
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
        example_weights: Sequence[np.ndarray | None] = (),
        num_buckets: int = 0,
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
            example_weights: of the lines in the loss, float [lines] for each corpus or None; those of 0 are left out.
            num_buckets: if positive, so many buckets at most, cut where batches that are as long as their bucket pad
                least.

        Raises:
            UserError: no pair is left, or the budget is too small for one row a slice.
        """
        self.seed = seed
        self.buckets: list[Bucket] = []
        self.num_slices = num_slices
        self._groups: list[list[_Group]] = []  # of each bucket
        limits = {"max_source_length": max_source_length, "max_target_length": max_target_length}
        sizes = {"batch_tokens": batch_tokens, "batch_sentences": batch_sentences, "num_slices": num_slices}
        options = {"seed": seed, "weights": list(weights), "length_factor": length_factor, **limits, **sizes}
        if num_buckets:
            options["num_buckets"] = num_buckets
        self.fingerprint = _fingerprint(options, [*source_lengths, *target_lengths, *example_weights])
        starts = np.cumsum([0] + [len(lengths) for lengths in source_lengths])
        source, target = np.concatenate(source_lengths), np.concatenate(target_lengths)
        is_kept = self._filter(source, target, starts, example_weights, max_source_length, max_target_length)

        def sampled(longest: int, limit: int) -> int:
            return min(math.ceil(longest * length_factor), limit)

        longest = sampled(target.max(where=is_kept, initial=0), max_target_length)
        if not batch_sentences and batch_tokens < num_slices * longest:
            raise UserError(
                f"training.batch_tokens={batch_tokens} is too small: {counted(num_slices, 'slice')} (replicas x "
                f"accumulation steps) of the longest target, {longest} ids, need {num_slices * longest}; "
                "raise it or lower data.max_target_length"
            )

        def rows_of(longest: int) -> int:
            rows = batch_sentences or batch_tokens // sampled(longest, max_target_length)
            return max(rows // num_slices, 1) * num_slices

        limit = max(max_source_length, max_target_length)  # NumPy sorts 16 bits by radix
        length = np.maximum(source, target, dtype=np.uint16 if limit < 1 << 16 else np.int32, casting="unsafe")[is_kept]
        order = np.argsort(length, kind="stable")  # lines of a length stay in the order of their corpora
        lines = np.arange(len(source), dtype=np.uint32 if len(source) < 1 << 32 else np.int64)
        self._lines, length = lines[is_kept][order], length[order]
        del order, lines
        visits_of_line = np.array(weights or [1.0] * len(source_lengths))
        if len(source_lengths) == 1:
            corpus_of, visits = np.zeros(len(length), np.uint16), np.arange(len(length) + 1) * visits_of_line[0]
        else:
            corpus_of = (np.searchsorted(starts, self._lines, side="right") - 1).astype(np.uint16)
            visits = np.concatenate([[0.0], np.cumsum(visits_of_line[corpus_of])])  # of the lines before each
        seen = np.zeros(len(visits_of_line), np.int64)  # lines of each corpus in the buckets before
        real_positions = 0.0
        sides = source[self._lines], target[self._lines]
        cuts = _cut_into(length, visits, *sides, num_buckets) if num_buckets else None
        for start, stop in cuts or _cut(length, visits, rows_of):
            groups = self._group(start, corpus_of[start:stop], visits_of_line, seen)
            lines = self._lines[start:stop]
            longest_target = int(target[lines].max())
            rows, slots = rows_of(longest_target), sum(group.slots for group in groups)
            longest_source = sampled(int(source[lines].max()), max_source_length)
            longest_target = sampled(longest_target, max_target_length)
            real_positions += slots * float(np.mean(source[lines] + target[lines]))
            self.buckets.append(Bucket(longest_source, longest_target, rows, slots, -(-slots // rows)))
            self._groups.append(groups)
        self._batch_ends = np.cumsum([bucket.num_batches for bucket in self.buckets])
        self.num_batches = int(self._batch_ends[-1])
        positions = sum(b.num_batches * self.static_rows(b) * (b.source_length + b.target_length) for b in self.buckets)
        self.static_padding = 1.0 - real_positions / positions

    def static_rows(self, bucket: Bucket) -> int:
        """Rows of each batch of a bucket where shapes are static: its largest batch, with padding rows."""
        return -(-bucket.largest_batch // self.num_slices) * self.num_slices

    def _filter(
        self,
        source: np.ndarray,
        target: np.ndarray,
        starts: np.ndarray,
        example_weights: Sequence[np.ndarray | None],
        max_source_length: int,
        max_target_length: int,
    ) -> np.ndarray:
        """bool [lines]: which pairs have two sides within their limits, and a weight."""
        empty = (source <= 1) | (target <= 1)
        long = ~empty & ((source > max_source_length) | (target > max_target_length))
        weightless = np.zeros(len(source), bool)
        for start, weights in zip(starts, example_weights):
            if weights is not None:
                weightless[start : start + len(weights)] = weights == 0
        weightless &= ~empty & ~long
        self.num_empty, self.num_long, self.num_weightless = (int(m.sum()) for m in (empty, long, weightless))
        is_kept = ~(empty | long | weightless)
        if not is_kept.any():
            raise UserError(
                f"No pair is left to train on: of {len(source):,}, {self.num_empty:,} have an empty side and "
                f"{self.num_long:,} are over data.max_source_length={max_source_length} or "
                f"data.max_target_length={max_target_length} ids, {self.num_weightless:,} have the weight 0 in "
                "data.train_example_weights; raise the limits or give other text or weights"
            )
        return is_kept

    def _group(self, start: int, corpus_of: np.ndarray, weights: np.ndarray, seen: np.ndarray) -> list[_Group]:
        """Sorts a bucket's lines, from `start` on, by their corpora [N], and adds each corpus's lines to `seen`."""
        stop = start + len(corpus_of)
        corpora, sizes = np.zeros(1, int), np.array([len(corpus_of)])
        if len(weights) > 1:
            self._lines[start:stop] = self._lines[start:stop][np.argsort(corpus_of, kind="stable")]
            corpora, sizes = np.unique(corpus_of, return_counts=True)
        groups = []
        for corpus, size in zip(corpora, sizes):
            before, seen[corpus] = seen[corpus], seen[corpus] + size
            slots = math.floor(weights[corpus] * seen[corpus] + 0.5) - math.floor(weights[corpus] * before + 0.5)
            groups.append(_Group(start, int(size), max(1, slots)))
            start += int(size)
        return groups

    def seed_after(self, restarts: int) -> int:
        """The seed of the order after so many restarts of a training that went bad."""
        return mix(self.seed, 5, restarts) if restarts else self.seed

    def batch(self, epoch: int, index: int, restarts: int = 0) -> BatchRows:
        """Batch `index` (from 0, below `num_batches`) of `epoch` (from 0)."""
        seed = self.seed_after(restarts)
        place = int(permute(np.array([index]), self.num_batches, mix(seed, 1, epoch))[0])
        number = int(np.searchsorted(self._batch_ends, place, side="right"))
        bucket, groups = self.buckets[number], self._groups[number]
        within = place - (self._batch_ends[number] - bucket.num_batches)
        first, last = (int(within + i) * bucket.num_slots // bucket.num_batches for i in (0, 1))
        slots = permute(np.arange(first, last), bucket.num_slots, mix(seed, 2, epoch, number))
        lines = np.empty(len(slots), np.int64)
        begin = 0
        for start, size, count in groups:
            mine = (slots >= begin) & (slots < begin + count)
            place_in_stream = epoch * count + slots[mine] - begin
            for lap in np.unique(place_in_stream // size):
                here = np.flatnonzero(mine)[place_in_stream // size == lap]
                offsets = place_in_stream[place_in_stream // size == lap] % size
                lines[here] = self._lines[start + permute(offsets, size, mix(seed, 3, int(lap), int(start)))]
            begin += count
        padding_rows = -len(lines) % self.num_slices
        return BatchRows(bucket, np.append(lines, np.full(padding_rows, PADDING_LINE)))

    def summary(self) -> str:
        """One line for the log: what is visited, what was left out, and the batches of an epoch."""
        pairs = sum(bucket.num_slots for bucket in self.buckets)
        return (
            f"{pairs:,} pairs an epoch in {self.num_batches:,} batches of {len(self.buckets)} length buckets; left "
            f"out: {self.num_empty:,} with an empty side, {self.num_long:,} over the length limit"
            + (f", {self.num_weightless:,} of weight 0" if self.num_weightless else "")
        )


def _fingerprint(options: dict, arrays: Sequence[np.ndarray | None]) -> str:
    digest = hashlib.blake2b(json.dumps({"version": _VERSION, **options}).encode(), digest_size=16)
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _cut(length: np.ndarray, visits: np.ndarray, rows_of: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Cuts sorted lengths [N] into buckets: two positions wide, or wider until their visits fill a few batches.

    `visits` [N + 1]: an epoch's visits to all lines before each line, and at the end to all lines.
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


def _cut_into(
    length: np.ndarray, visits: np.ndarray, source: np.ndarray, target: np.ndarray, number: int
) -> list[tuple[int, int]]:
    """Cuts sorted lengths [N] into at most `number` buckets whose rows have the fewest positions in an epoch.

    Found by dynamic programming over the distinct lengths: the best cut of the shortest D into k buckets is the best
    cut of some shorter ones into k - 1, and a bucket of the rest.
    """
    ends = np.append(np.flatnonzero(np.diff(length)) + 1, len(length))  # of the lines of each distinct length
    starts = np.append(0, ends[:-1])
    longest = [np.maximum.reduceat(side, starts).astype(np.int64) for side in (source, target)]
    count = len(ends)
    costs = np.full((count, count), np.inf)  # of a bucket from one distinct length to another
    for first in range(count):
        width = sum(np.maximum.accumulate(side[first:]) for side in longest)
        costs[first, first:] = (visits[ends[first:]] - visits[starts[first]]) * width
    best, first_of_last = costs[0].copy(), []  # of the lengths up to each, in one bucket so far
    for _ in range(min(number, count) - 1):
        totals = np.append(0.0, best[:-1])[:, None] + costs
        first_of_last.append(totals.argmin(0))
        best = totals.min(0)
    cuts, last = [], count - 1
    for firsts in reversed(first_of_last):
        first = int(firsts[last])
        cuts.append((int(starts[first]), int(ends[last])))
        last = first - 1
        if last < 0:
            break
    if last >= 0:
        cuts.append((0, int(ends[last])))
    return cuts[::-1]
