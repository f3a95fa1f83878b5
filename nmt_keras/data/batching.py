"""Batches: the tf.data pipeline that follows a `BatchPlan`.

It fetches the lines of a batch, tokenizes, truncates, pads and prefetches; it drops nothing. The teacher-forcing shift
happens here, once, in `make_batch`.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.data.batch_plan import FILLER_LINE, BatchPlan, Bucket, mix
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.data.lengths import token_lengths
from nmt_keras.tokenizers.base import Tokenizer


class Batch(NamedTuple):
    """Ids of B sentence pairs, right-padded with PAD. A filler row is one EOS with weight 0."""

    source_ids: tf.Tensor  # int32 [B, S], ends with EOS
    target_input_ids: tf.Tensor  # int32 [B, T], starts with BOS
    target_output_ids: tf.Tensor  # int32 [B, T], ends with EOS
    weights: tf.Tensor  # float32 [B], of each row in the loss
    lines: tf.Tensor  # int64 [B], running line number in the corpus, -1 for a filler


def source_tensor(ids: tf.RaggedTensor, max_length: int) -> tf.Tensor:
    """Source ids as the encoder takes them, int32 [B, S]: at most `max_length`, the last one EOS, padded."""
    return _with_eos(*_padded(ids, max_length))


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
    padded, lengths = _padded(target, max_target_length)
    bos = tf.fill([tf.shape(padded)[0], 1], BOS_ID)
    return Batch(
        source_tensor(source, max_source_length),
        tf.concat([bos, padded[:, :-1]], 1),
        _with_eos(padded, lengths),
        weights,
        lines,
    )


def _padded(ids: tf.RaggedTensor, max_length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Ids [B, None] as a table [B, L] with a column of PAD at its end, and the number of ids in each row, [B]."""
    lengths = tf.minimum(tf.cast(ids.row_lengths(), tf.int32), max_length - 1)
    return tf.pad(ids.to_tensor(PAD_ID)[:, : max_length - 1], [[0, 0], [0, 1]], constant_values=PAD_ID), lengths


def _with_eos(padded: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.range(tf.shape(padded)[1]) == lengths[:, None], EOS_ID, padded)


def evaluation_batches(
    corpus: ParallelCorpus,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    *,
    batch_tokens: int = 2048,
    max_source_length: int,
    max_target_length: int,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Batch]:
    """All pairs with two sides, once, sorted by length; longer ones are truncated, and both are reported.

    A batch has about `batch_tokens` positions of the longer side, and at least one row.
    """
    sides = tuple(
        np.concatenate([token_lengths(text, tokenizer) for text in texts])
        for texts, tokenizer in ((corpus.sources, source_tokenizer), (corpus.targets, target_tokenizer))
    )
    lengths, shorter = np.maximum(*sides), np.minimum(*sides)
    num_empty = int((shorter <= 1).sum())
    num_long = int(((sides[0] > max_source_length) | (sides[1] > max_target_length)).sum())
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
    source, target = (
        _ragged(*_flat([tokenizer.encode(text) for text in texts]))
        for tokenizer, texts in zip((source_tokenizer, target_tokenizer), corpus.fetch(np.array(rows)))
    )
    weights, lines = tf.ones([len(rows)]), tf.constant(rows, tf.int64)
    return make_batch(source, target, weights, lines, max_source_length, max_target_length)


def _flat(sentences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all sentences, int32 [N], and how many each has, int64 [B]."""
    lengths = np.array([len(ids) for ids in sentences], np.int64)
    return np.fromiter(itertools.chain.from_iterable(sentences), np.int32, lengths.sum()), lengths


def _ragged(ids: tf.Tensor | np.ndarray, lengths: tf.Tensor | np.ndarray) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_row_lengths(ids, lengths, validate=False)


def _untuned() -> tf.data.Options:
    """Nothing here is left to tune, and an iterator would wait up to ten seconds for the tuner when it ends."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


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
        self.static_shapes = static_shapes
        self._alpha = sampling_alpha

    def dataset(
        self, first_step: int, num_slices: int = 1, slices: range = range(1), restarts: int = 0
    ) -> tf.data.Dataset:
        """Endless slices of global batches, from step `first_step` (0 is the first batch of the first epoch).

        Args:
            first_step: the number of global batches consumed before.
            num_slices: the number of replicas; each global batch is cut by rows into so many equal parts.
            slices: those of the parts, in order, that this input pipeline yields.
            restarts: how often training went bad and began again; each time the order is another.

        Returns:
            A dataset of `Batch`, one element a slice.
        """
        steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
        batches = steps.map(lambda step: self._batch(step, restarts), num_parallel_calls=1)
        batches = batches.prefetch(4).with_options(_untuned())
        if num_slices == 1:
            return batches

        def cut(batch: Batch) -> tf.data.Dataset:
            parts = [tf.reshape(leaf, tf.concat([[num_slices, -1], tf.shape(leaf)[1:]], 0)) for leaf in batch]
            return tf.data.Dataset.from_tensor_slices(Batch(*(p[slices.start : slices.stop] for p in parts)))

        return batches.flat_map(cut)

    def _batch(self, step: tf.Tensor, restarts: int) -> Batch:
        def fetch(step):
            rows = self.plan.batch(*divmod(int(step), self.plan.num_batches), restarts)
            lines = rows.lines
            real = lines != FILLER_LINE
            weights = np.zeros(len(lines), np.float32)
            weights[real] = self.corpus.weights_of(lines[real])
            fillers = [""] * int((~real).sum())
            sides: list[np.ndarray] = []
            for side, texts in enumerate(self.corpus.fetch(lines[real])):
                seed = mix(self.plan.seed_after(restarts), 4, int(step), side)
                sides += _flat(self._encode(self._tokenizers[side], [*texts, *fillers], seed, rows.bucket[side]))
            return (*sides, weights, lines, *self._shape(rows.bucket))

        source, source_lengths, target, target_lengths, *rest = tf.numpy_function(
            fetch, [step], [tf.int32, tf.int64, tf.int32, tf.int64, tf.float32] + [tf.int64] * 4, stateful=False
        )
        source, source_lengths, target, target_lengths = (
            tf.ensure_shape(array, [None]) for array in (source, source_lengths, target, target_lengths)
        )
        return self._finish(_ragged(source, source_lengths), _ragged(target, target_lengths), *rest)

    def _encode(self, tokenizer: Tokenizer, texts: list[str], seed: int, limit: int) -> list[list[int]]:
        """Ids of each text; with `sampling_alpha` sampled, but the best ones where a sample leaves EOS no room."""
        if not self._alpha:
            return [tokenizer.encode(text) for text in texts]
        sampled = tokenizer.sample(texts, self._alpha, seed)
        for row, ids in enumerate(sampled):
            if len(ids) >= limit:
                sampled[row] = tokenizer.encode(texts[row])
                self.num_overlong_samples += 1
        return sampled

    def _shape(self, bucket: Bucket) -> tuple[np.int64, np.int64, np.int64]:
        if not self.static_shapes:
            return np.int64(0), np.int64(0), np.int64(0)
        return np.int64(bucket.source_length), np.int64(bucket.target_length), np.int64(bucket.rows)

    def _finish(self, source, target, weights, lines, source_length, target_length, rows) -> Batch:
        batch = make_batch(
            source, target, tf.ensure_shape(weights, [None]), tf.ensure_shape(lines, [None]), *self._limits
        )
        if not self.static_shapes:
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
            tf.pad(batch.lines, [[0, extra]], constant_values=FILLER_LINE),
        )
