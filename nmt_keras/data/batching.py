"""The batch plan, and the tf.data pipeline that follows it.

`BatchPlan` decides in NumPy, from token lengths and a seed, which lines form which batch: a batch is a function of
(seed, epoch, batch), so starting and resuming cost nothing. tf.data then fetches the lines of a batch, tokenizes,
truncates, pads and prefetches; it drops nothing. The teacher-forcing shift happens here, once, in `make_batch`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.tokenizer import SentencePieceTokenizer, Tokenizer
from nmt_keras.errors import UserError

_MASK64 = (1 << 64) - 1
_BUCKET_WIDTH = 2
_MIN_BATCHES_PER_BUCKET = 3
_FILLER_LINE = -1


class Batch(NamedTuple):
    """Ids of B sentence pairs, right-padded with PAD. A filler row is one EOS with weight 0."""

    source_ids: tf.Tensor  # int32 [B, S], ends with EOS
    target_input_ids: tf.Tensor  # int32 [B, T], starts with BOS
    target_output_ids: tf.Tensor  # int32 [B, T], ends with EOS
    weights: tf.Tensor  # float32 [B], of each row in the loss
    lines: tf.Tensor  # int64 [B], running line number in the corpus, -1 for a filler


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
    """Which lines form which batch, for ever, decided from lengths, a seed and the epoch.

    Pairs are sorted into buckets about two positions wide (wider where pairs are rare); all rows of a batch come from
    one bucket. An epoch visits each line of corpus i `weights[i]` times: with a fraction, so many lines of an endless
    succession of permutations. Batches of a bucket differ in size by one row at most, and a batch has at most
    `batch_tokens` padded target positions (or `batch_sentences` rows), rounded up to a multiple of `num_slices` with
    fillers where the bucket runs out.

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
        weights = weights or [1.0] * len(source_lengths)
        starts = np.cumsum([0] + [len(lengths) for lengths in source_lengths])
        source, target = np.concatenate(source_lengths), np.concatenate(target_lengths)
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
        longest = min(math.ceil(target[kept].max() * length_factor), max_target_length)
        if not batch_sentences and batch_tokens < num_slices * longest:
            raise UserError(
                f"training.batch_tokens={batch_tokens} is too small: {num_slices} slice(s) (replicas x "
                f"accumulation steps) of the longest target, {longest} ids, need {num_slices * longest}; "
                "raise it or lower data.max_target_length"
            )
        corpus_of = np.searchsorted(starts, kept, side="right") - 1
        length = np.maximum(source[kept], target[kept])
        order = np.lexsort((corpus_of, length))
        self._lines, length, corpus_of = kept[order], length[order], corpus_of[order]
        self._groups: list[list[tuple[int, int, int]]] = []  # of each bucket: (start, size, slots) of each corpus
        self.buckets: list[Bucket] = []

        def rows_of(longest: int) -> int:
            rows = batch_sentences or batch_tokens // min(math.ceil(longest * length_factor), max_target_length)
            return max(rows // num_slices, 1) * num_slices

        for start, stop in _cut(length, rows_of):
            lines = self._lines[start:stop].copy()
            groups, begin = [], start
            for corpus in np.unique(corpus_of[start:stop]):
                members = start + np.flatnonzero(corpus_of[start:stop] == corpus)
                slots = max(1, round(weights[corpus] * len(members)))
                groups.append((begin, len(members), slots))
                self._lines[begin : begin + len(members)] = lines[members - start]
                begin += len(members)
            rows, slots = rows_of(int(target[lines].max())), sum(group[2] for group in groups)
            source_length, target_length = (
                min(math.ceil(lengths[lines].max() * length_factor), limit)
                for lengths, limit in ((source, max_source_length), (target, max_target_length))
            )
            self.buckets.append(Bucket(source_length, target_length, rows, slots, -(-slots // rows)))
            self._groups.append(groups)
        self._batch_ends = np.cumsum([bucket.num_batches for bucket in self.buckets])
        self.num_batches = int(self._batch_ends[-1])
        self._num_slices = num_slices

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
        return BatchRows(bucket, np.append(lines, np.full(fillers, _FILLER_LINE)))

    def summary(self) -> str:
        """One line for the log: what is visited, what was left out, and the batches of an epoch."""
        pairs = sum(bucket.num_slots for bucket in self.buckets)
        return (
            f"{pairs:,} pairs an epoch in {self.num_batches:,} batches of {len(self.buckets)} length buckets; left "
            f"out: {self.num_empty:,} with an empty side, {self.num_long:,} over the length limit"
        )


def _cut(length: np.ndarray, rows_of) -> Iterator[tuple[int, int]]:
    """Cuts sorted lengths [N] into buckets: two positions wide, or wider until they fill a few batches."""
    start = 0
    while start < len(length):
        limit = length[start] + _BUCKET_WIDTH
        stop = int(np.searchsorted(length, limit))
        while stop < len(length) and stop - start < _MIN_BATCHES_PER_BUCKET * rows_of(int(length[stop - 1])):
            stop = int(np.searchsorted(length, length[stop], side="right"))
        if len(length) - stop < _MIN_BATCHES_PER_BUCKET * rows_of(int(length[-1])):
            stop = len(length)
        yield start, stop
        start = stop


def token_lengths(text: TextFile, tokenizer: Tokenizer) -> np.ndarray:
    """int32 [lines]: ids of each line with EOS, memory-mapped from the cache beside the line index.

    An empty or blank line has length 1, its EOS, however the tokenizer treats blanks.
    """

    def write(path) -> None:
        lengths = np.ones(len(text), np.int32)
        for start in range(0, len(text), 10_000):
            lines = text.lines(range(start, min(start + 10_000, len(text))))
            lengths[start : start + len(lines)] = [len(tokenizer.encode(s)) + 1 if s.strip() else 1 for s in lines]
        np.save(path, lengths)

    return np.load(text.cached(text.cache_name(f"{tokenizer.sha256[:16]}.lengths.npy"), write), mmap_mode="r")


def source_tensor(ids: tf.RaggedTensor, max_length: int) -> tf.Tensor:
    """Source ids as the encoder takes them, int32 [B, S]: at most `max_length`, the last one EOS, padded."""
    return _with_eos(ids, max_length).to_tensor(PAD_ID)


def make_batch(
    source: tf.RaggedTensor,
    target: tf.RaggedTensor,
    weights: tf.Tensor,
    lines: tf.Tensor,
    max_source_length: int,
    max_target_length: int,
) -> Batch:
    """Truncates (keeping EOS), shifts the target for teacher forcing, and pads.

    Args:
        source: int32 [B, None], ids without specials.
        target: int32 [B, None], the same of the target.
        weights: float32 [B].
        lines: int64 [B].
        max_source_length: of the source with EOS.
        max_target_length: of the target with EOS.
    """
    output = _with_eos(target, max_target_length)
    bos = tf.fill([output.nrows(), 1], BOS_ID)
    return Batch(
        source_tensor(source, max_source_length),
        tf.concat([bos, output[:, :-1]], 1).to_tensor(PAD_ID),
        output.to_tensor(PAD_ID),
        weights,
        lines,
    )


def _with_eos(ids: tf.RaggedTensor, max_length: int) -> tf.RaggedTensor:
    return tf.concat([ids[:, : max_length - 1], tf.fill([ids.nrows(), 1], EOS_ID)], 1)


def evaluation_batches(
    corpus: ParallelCorpus,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    *,
    batch_tokens: int,
    max_source_length: int,
    max_target_length: int,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Batch]:
    """All pairs with two sides, once, sorted by length; longer ones are truncated, and both are reported.

    A batch has about `batch_tokens` positions of the longer side, and at least one row.

    Raises:
        UserError: no pair has text on both sides.
    """
    sides = tuple(
        np.concatenate([token_lengths(text, tokenizer) for text in texts])
        for texts, tokenizer in ((corpus.sources, source_tokenizer), (corpus.targets, target_tokenizer))
    )
    lengths, shorter = np.maximum(*sides), np.minimum(*sides)
    num_empty = int((shorter <= 1).sum())
    num_long = int(((sides[0] > max_source_length) | (sides[1] > max_target_length)).sum())
    if num_empty == len(lengths):
        raise UserError(f"{corpus.sources[0].path} and {corpus.targets[0].path} have no pair with text on both sides")
    if num_empty or num_long:
        report(
            f"perplexity: of {len(lengths):,} pairs, {num_empty:,} are left out because a side is empty, and "
            f"{num_long:,} are cut to {max_source_length} and {max_target_length} ids"
        )
    rows: list[int] = []
    for line in np.argsort(lengths, kind="stable").tolist():
        if shorter[line] <= 1:
            continue
        if rows and (len(rows) + 1) * lengths[line] > batch_tokens:
            yield _encode_rows(corpus, rows, source_tokenizer, target_tokenizer, max_source_length, max_target_length)
            rows = []
        rows.append(line)
    if rows:
        yield _encode_rows(corpus, rows, source_tokenizer, target_tokenizer, max_source_length, max_target_length)


def _encode_rows(corpus, rows, source_tokenizer, target_tokenizer, max_source_length, max_target_length) -> Batch:
    source, target = corpus.fetch(np.array(rows))
    return make_batch(
        source_tokenizer.encode_tf(tf.constant(source)),
        target_tokenizer.encode_tf(tf.constant(target)),
        tf.ones([len(rows)]),
        tf.constant(rows, tf.int64),
        max_source_length,
        max_target_length,
    )


class TrainingText:
    """The training side of a run: a plan, the text it points into and the tokenizers, as a tf.data pipeline.

    Args:
        plan: which lines form which batch.
        corpus: the text.
        source_tokenizer: of the source.
        target_tokenizer: of the target; the same object for a joint vocabulary.
        max_source_length: of a source with EOS, in ids.
        max_target_length: of a target with EOS, in ids.
        static_shapes: pad every batch to the size of its bucket.
        sampling_alpha: of subword regularisation; 0 takes the best segmentation.
    """

    def __init__(
        self,
        plan: BatchPlan,
        corpus: ParallelCorpus,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        *,
        max_source_length: int,
        max_target_length: int,
        static_shapes: bool = False,
        sampling_alpha: float = 0.0,
    ):
        self.plan = plan
        self.corpus = corpus
        self.num_overlong_samples = 0
        self._tokenizers = (source_tokenizer, target_tokenizer)
        self._limits = (max_source_length, max_target_length)
        self._static_shapes = static_shapes
        self._alpha = sampling_alpha

    def dataset(self, first_step: int, num_slices: int = 1, slices: range = range(1)) -> tf.data.Dataset:
        """Endless slices of global batches, from step `first_step` (0 is the first batch of the first epoch).

        Args:
            first_step: the number of global batches consumed before.
            num_slices: the number of replicas; each global batch is cut by rows into so many equal parts.
            slices: those of the parts, in order, that this input pipeline yields.

        Returns:
            A dataset of `Batch`, one element a slice.
        """
        steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
        batches = steps.map(self._sampled_batch if self._alpha else self._best_batch, num_parallel_calls=1)
        batches = batches.prefetch(4)
        if num_slices == 1:
            return batches

        def cut(batch: Batch) -> tf.data.Dataset:
            parts = [tf.reshape(leaf, tf.concat([[num_slices, -1], tf.shape(leaf)[1:]], 0)) for leaf in batch]
            return tf.data.Dataset.from_tensor_slices(Batch(*(p[slices.start : slices.stop] for p in parts)))

        return batches.flat_map(cut)

    def _rows(self, step: int) -> BatchRows:
        return self.plan.batch(*divmod(int(step), self.plan.num_batches))

    def _fetch(self, step):
        rows = self._rows(step)
        lines = rows.lines
        real = lines != _FILLER_LINE
        source, target = self.corpus.fetch(lines[real])
        fillers = [""] * int((~real).sum())
        return rows.bucket, lines, real.astype(np.float32), source + fillers, target + fillers

    def _best_batch(self, step: tf.Tensor) -> Batch:
        def fetch(step):
            bucket, lines, weights, source, target = self._fetch(step)
            encoded = (np.array([line.encode("utf-8") for line in side], object) for side in (source, target))
            return (*encoded, weights, lines, *self._shape(bucket))

        source, target, weights, lines, shape_s, shape_t, rows = tf.numpy_function(
            fetch, [step], [tf.string, tf.string, tf.float32] + [tf.int64] * 4, stateful=False
        )
        source, target = (
            tokenizer.encode_tf(tf.ensure_shape(text, [None]))
            for tokenizer, text in zip(self._tokenizers, (source, target))
        )
        return self._finish(source, target, weights, lines, shape_s, shape_t, rows)

    def _sampled_batch(self, step: tf.Tensor) -> Batch:
        def fetch(step):
            bucket, lines, weights, *texts = self._fetch(step)
            sides = []
            for side, (tokenizer, text) in enumerate(zip(self._tokenizers, texts)):
                ids = self._sample(tokenizer, text, mix(self.plan.seed, 4, int(step), side), bucket[side])
                sides += [np.fromiter(itertools.chain(*ids), np.int32), np.array([len(i) for i in ids], np.int64)]
            return (*sides, weights, lines, *self._shape(bucket))

        source, source_rows, target, target_rows, weights, lines, shape_s, shape_t, rows = tf.numpy_function(
            fetch, [step], [tf.int32, tf.int64, tf.int32, tf.int64, tf.float32] + [tf.int64] * 4, stateful=False
        )
        source, target = (
            tf.RaggedTensor.from_row_lengths(tf.ensure_shape(ids, [None]), tf.ensure_shape(n, [None]))
            for ids, n in ((source, source_rows), (target, target_rows))
        )
        return self._finish(source, target, weights, lines, shape_s, shape_t, rows)

    def _sample(self, tokenizer: Tokenizer, texts: list[str], seed: int, limit: int) -> list[list[int]]:
        if not isinstance(tokenizer, SentencePieceTokenizer):
            raise TypeError("only SentencePiece tokenizers sample segmentations")
        sampled = tokenizer.sample(texts, self._alpha, seed)
        for row, ids in enumerate(sampled):
            if len(ids) >= limit:  # no room for EOS
                sampled[row] = tokenizer.encode(texts[row])
                self.num_overlong_samples += 1
        return sampled

    def _shape(self, bucket: Bucket) -> tuple[np.int64, np.int64, np.int64]:
        if not self._static_shapes:
            return np.int64(0), np.int64(0), np.int64(0)
        return np.int64(bucket.source_length), np.int64(bucket.target_length), np.int64(bucket.rows)

    def _finish(self, source, target, weights, lines, source_length, target_length, rows) -> Batch:
        batch = make_batch(
            source, target, tf.ensure_shape(weights, [None]), tf.ensure_shape(lines, [None]), *self._limits
        )
        if not self._static_shapes:
            return batch
        extra = tf.cast(rows, tf.int32) - tf.shape(batch.source_ids)[0]
        filler = tf.one_hot(
            [0], tf.maximum(tf.shape(batch.source_ids)[1], tf.shape(batch.target_output_ids)[1]), dtype=tf.int32
        )

        def grow(ids, first_id, length):
            more = tf.tile(filler[:, : tf.shape(ids)[1]] * first_id, [extra, 1])
            ids = tf.concat([ids, more], 0)
            return tf.pad(ids, [[0, 0], [0, tf.cast(length, tf.int32) - tf.shape(ids)[1]]], constant_values=PAD_ID)

        return Batch(
            grow(batch.source_ids, EOS_ID, source_length),
            grow(batch.target_input_ids, BOS_ID, target_length),
            grow(batch.target_output_ids, EOS_ID, target_length),
            tf.pad(batch.weights, [[0, extra]]),
            tf.pad(batch.lines, [[0, extra]], constant_values=_FILLER_LINE),
        )
