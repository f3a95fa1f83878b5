"""Batches: the tf.data pipeline that follows a `BatchPlan`.

NumPy gathers a batch from the ids of the corpus, which are encoded once (`data/encoded.py`), and pads it. Where
segmentations are sampled, the lines of the batch are tokenized anew. Nothing is dropped. The teacher-forcing shift
happens here, once, in `make_batch`.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.constants import BOS_ID
from nmt_keras.data.alignments import Alignments
from nmt_keras.data.batch_plan import PADDING_LINE, BatchPlan, BatchRows, mix
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.data.encoded import EncodedCorpus
from nmt_keras.data.padding import Rows, end, rows_of, table_of
from nmt_keras.reports import Report, silent
from nmt_keras.tokenizers.base import Tokenizer


class Batch(NamedTuple):
    """Ids of B sentence pairs, right-padded with PAD, as tensors or NumPy arrays. A padding row is one EOS with weight
    0."""

    source_ids: tf.Tensor  # int32 [B, S], ends with EOS
    target_input_ids: tf.Tensor  # int32 [B, T], starts with BOS
    target_output_ids: tf.Tensor  # int32 [B, T], ends with EOS
    weights: tf.Tensor  # float32 [B], of each row in the loss
    lines: tf.Tensor  # int64 [B], running line number in the corpus, -1 for a padding row
    alignment: Any = ()  # bool [B, T, S], which source piece translates which target piece; () where none is given


class Shape(NamedTuple):
    """The size of a batch where it must not depend on its sentences."""

    rows: int
    source_length: int
    target_length: int


def make_batch(
    source: Rows,
    target: Rows,
    weights: np.ndarray,
    lines: np.ndarray,
    max_source_length: int,
    max_target_length: int,
    shape: Shape = Shape(0, 0, 0),
) -> Batch:
    """Truncates (keeping EOS), shifts the target for teacher forcing, and pads.

    Args:
        source: ids of B sentences, without specials.
        target: the same of the target.
        weights: float32 [B].
        lines: int64 [B].
        max_source_length: of the source with EOS.
        max_target_length: of the target with EOS.
        shape: of the batch, with padding rows as its last rows; 0 is as small as its sentences allow.
    """
    rows = shape.rows or len(lines)
    source_ids = end(*table_of(source, max_source_length, width=shape.source_length, num_rows=rows))
    table, lengths = table_of(target, max_target_length, width=shape.target_length, num_rows=rows)
    target_input_ids = np.empty_like(table)
    target_input_ids[:, 0] = BOS_ID
    target_input_ids[:, 1:] = table[:, :-1]
    padding_rows = (0, rows - len(lines))
    return Batch(
        source_ids,
        target_input_ids,
        end(table, lengths),
        np.pad(weights, padding_rows),
        np.pad(lines, padding_rows, constant_values=PADDING_LINE),
    )


def evaluation_batches(
    corpus: ParallelCorpus,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    *,
    batch_tokens: int = 2048,
    max_source_length: int,
    max_target_length: int,
    tags: Sequence[int] = (),
    report: Report = silent,
) -> Iterator[Batch]:
    """All pairs with two sides, once, sorted by length; longer ones are truncated, and both are reported.

    A batch has about `batch_tokens` positions of the longer side, and at least one row. `tags` as for `EncodedCorpus`.
    """
    encoded = EncodedCorpus(corpus, (source_tokenizer, target_tokenizer), tags=tags)
    sides = tuple(np.concatenate(lengths) for lengths in encoded.lengths)
    lengths, shorter = np.maximum(*sides), np.minimum(*sides)
    num_empty = int((shorter <= 1).sum())
    num_long = int(((sides[0] > max_source_length) | (sides[1] > max_target_length)).sum())
    if num_empty or num_long:
        report(
            f"perplexity: of {len(lengths):,} pairs, {num_empty:,} are left out because a side is empty, and "
            f"{num_long:,} are cut to {max_source_length} and {max_target_length} ids"
        )

    def batch_of(rows: list[int]) -> Batch:
        lines = np.array(rows, np.int64)
        source, target = (encoded.rows(side, lines) for side in (0, 1))
        return make_batch(source, target, np.ones(len(rows), np.float32), lines, max_source_length, max_target_length)

    rows: list[int] = []
    for line in np.argsort(lengths, kind="stable").tolist():
        if shorter[line] <= 1:
            continue
        if rows and (len(rows) + 1) * lengths[line] > batch_tokens:
            yield batch_of(rows)
            rows = []
        rows.append(line)
    if rows:
        yield batch_of(rows)


def _untuned() -> tf.data.Options:
    """Options without autotuning: it has nothing to tune, and an ending iterator may wait ten seconds for it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


class TrainingText:
    """The training side of a run: a plan, the ids it points into and the tokenizers, as a tf.data pipeline.

    Args:
        plan: which lines form which batch.
        corpus: the text.
        source_tokenizer: of the source.
        target_tokenizer: of the target; the same object for a joint vocabulary.
        encoded: the ids of the corpus, where they are open already.
        max_source_length: of a source with EOS, in ids.
        max_target_length: of a target with EOS, in ids.
        static_shapes: pad every batch to the size of its bucket.
        sampling_alpha: of subword regularisation; 0 takes the best segmentation.
        align: makes `Batch.alignment`; None makes none.
    """

    def __init__(
        self,
        plan: BatchPlan,
        corpus: ParallelCorpus,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        *,
        encoded: EncodedCorpus | None = None,
        max_source_length: int,
        max_target_length: int,
        static_shapes: bool = False,
        sampling_alpha: float = 0.0,
        align: Alignments | None = None,
    ):
        self.plan = plan
        self.corpus = corpus
        self.num_overlong_samples = 0
        self._tokenizers = (source_tokenizer, target_tokenizer)
        self._encoded = encoded or EncodedCorpus(corpus, self._tokenizers)
        self._limits = (max_source_length, max_target_length)
        self.static_shapes = static_shapes
        self._alpha = sampling_alpha
        self.align = align

    def dataset(
        self, first_step: int, num_slices: int = 1, slices: range = range(1), restarts: int = 0
    ) -> tf.data.Dataset:
        """Endless slices of global batches, from step `first_step` (0 is the first batch of the first epoch).

        Only the slices in `slices` are made. A slice is padded to its own longest sentence, so that every process makes
        it the same.

        Args:
            first_step: the number of global batches consumed before.
            num_slices: the number of replicas; each global batch is cut by rows into so many equal parts.
            slices: those of the parts, in order, that this input pipeline yields.
            restarts: how often training went bad and began again; each time the order is another.

        Returns:
            A dataset of `Batch`, one element a slice.
        """

        @functools.lru_cache(1)  # the slices of a step follow each other
        def planned(step: int) -> BatchRows:
            epoch, index = divmod(step, self.plan.num_batches)
            return self.plan.batch(epoch, index, restarts)

        def make(step: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, ...]:
            batch = self._slice(planned(int(step)), int(step), int(number), num_slices, restarts)
            if self.align is None:
                return tuple(batch)[: len(kinds)]
            return (*tuple(batch)[:-1], self.align(batch.source_ids, batch.target_output_ids, batch.lines))

        kinds = [tf.int32, tf.int32, tf.int32, tf.float32, tf.int64] + [tf.bool] * bool(self.align)

        def load(step: tf.Tensor, number: tf.Tensor) -> Batch:
            leaves = tf.numpy_function(make, [step, number], kinds, stateful=False)
            ranks = (2, 2, 2, 1, 1, 3)
            return Batch(*(tf.ensure_shape(leaf, [None] * rank) for leaf, rank in zip(leaves, ranks)))

        steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
        if len(slices) > 1:
            numbers = tf.data.Dataset.from_tensor_slices(list(slices))
            pairs = steps.flat_map(lambda step: numbers.map(lambda number: (step, number)))
        else:
            pairs = steps.map(lambda step: (step, tf.constant(slices[0])))
        return pairs.map(load, num_parallel_calls=1).prefetch(4).with_options(_untuned())

    def _slice(self, planned: BatchRows, step: int, number: int, num_slices: int, restarts: int) -> Batch:
        """One slice of a planned batch."""
        size = len(planned.lines) // num_slices
        lines = planned.lines[number * size : (number + 1) * size]
        real = lines[lines != PADDING_LINE]  # padding rows are at the end
        padding_rows = (0, size - len(real))
        weights = np.pad(self.corpus.weights_of(real), padding_rows)
        if self._alpha:
            seed, bucket = self.plan.seed_after(restarts), planned.bucket
            places = range(number * size, number * size + len(real))  # in the global batch
            source, target = (
                self._sampled(side, texts, real, [mix(seed, 4, step, side, row) for row in places], bucket[side])
                for side, texts in enumerate(self.corpus.fetch(real))
            )
        else:
            source, target = (self._encoded.rows(side, real) for side in (0, 1))
        source, target = (rows._replace(lengths=np.pad(rows.lengths, padding_rows)) for rows in (source, target))
        shape = Shape(0, 0, 0)
        if self.static_shapes:
            rows = self.plan.static_rows(planned.bucket) // num_slices
            shape = Shape(rows, planned.bucket.source_length, planned.bucket.target_length)
        return make_batch(source, target, weights, lines, *self._limits, shape)

    def _sampled(self, side: int, texts: list[str], lines: np.ndarray, seeds: list[int], limit: int) -> Rows:
        """The ids of a sampled segmentation of each text, or of the best one if the sample leaves no room for EOS."""
        sampled = self._tokenizers[side].sample(texts, self._alpha, seeds)
        taken = self._encoded.num_tags if side == 0 else 0
        overlong = [row for row, ids in enumerate(sampled) if taken + len(ids) >= limit]
        for row in overlong:
            sampled[row] = self._encoded.rows(side, lines[row : row + 1]).ids.tolist()[taken:]
        self.num_overlong_samples += len(overlong)
        rows = rows_of(sampled)
        return rows if side else self._encoded.tagged(rows, lines)
