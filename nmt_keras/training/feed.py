"""Batches of a training text as a strategy takes them, from any step on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nmt_keras.data.batch_plan import Bucket
from nmt_keras.data.batching import Batch, TrainingText
from nmt_keras.training.workers import Workers

_FIRST_PIECE = max(PAD_ID, UNK_ID, BOS_ID, EOS_ID) + 1


class Feed:
    """A training text for the replicas of a strategy.

    Args:
        text: its plan is made for the replicas of all workers times the accumulation steps.
        workers: that train on it.
    """

    def __init__(self, text: TrainingText, workers: Workers):
        self.text = text
        self.workers = workers

    def start(self, step: int, restarts: int) -> Iterator[Any]:
        """The batches from step `step` on, in the order that holds after so many restarts."""
        return iter(self._dataset(step, restarts))

    @property
    def element_spec(self) -> Any:
        """The type of a batch; None where each has a static shape of its own."""
        return None if self.text.static_shapes else self._dataset(0, 0).element_spec

    def each_shape(self) -> Iterator[Any]:
        """A batch of each shape that comes, where shapes are static."""
        for bucket in self.text.plan.buckets:
            yield self.full_batch(bucket, self.rows_of(bucket))

    def _dataset(self, step: int, restarts: int) -> Any:
        strategy = self.workers.strategy
        replicas = strategy.num_replicas_in_sync
        if replicas == 1:
            slices = range(self.workers.first_slice, self.workers.first_slice + 1)
            return self.text.dataset(step, self.workers.num_slices, slices, restarts)

        def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return self.text.dataset(step, replicas, range(first, first + local), restarts)

        return strategy.distribute_datasets_from_function(pipeline)

    def describe(self, step: int, restarts: int) -> str:
        """The bucket of the batch at a step, for people."""
        plan = self.text.plan
        return str(plan.batch(*divmod(step, plan.num_batches), restarts).bucket)

    def largest_buckets(self) -> list[Bucket]:
        """The buckets whose batches may need the most memory: by positions of both sides, and by pairs of positions."""
        measures = (
            lambda k: (k.source_length + k.target_length, k.target_length),  # states, logits
            lambda k: (k.source_length * k.target_length, k.target_length),  # attention
            lambda k: (k.source_length**2 + k.target_length**2, k.target_length),  # self-attention
        )
        found = [
            max(self.text.plan.buckets, key=lambda k: (self.rows_of(k) * measure(k)[0], measure(k)[1]))
            for measure in measures
        ]
        return list(dict.fromkeys(found))

    def rows_of(self, bucket: Bucket) -> int:
        """Rows of a bucket's largest batch, padding rows included."""
        return self.text.plan.static_rows(bucket)

    def target_positions(self) -> int:
        """Target positions of an epoch, padded to the longest target of each bucket."""
        return sum(bucket.num_slots * bucket.target_length for bucket in self.text.plan.buckets)

    def full_batch(self, bucket: Bucket, rows: int) -> Any:
        """A global batch of `rows` sentences that are all as long as the bucket allows, of the strategy's values."""
        strategy = self.workers.strategy
        part = rows // self.workers.num_slices

        def ids(first: int, length: int, last: int) -> tf.Tensor:
            table = np.full([part, length], _FIRST_PIECE, np.int32)
            table[:, 0] = first
            table[:, -1] = last
            return tf.constant(table)

        batch = Batch(
            ids(_FIRST_PIECE, bucket.source_length, EOS_ID),
            ids(BOS_ID, bucket.target_length, _FIRST_PIECE),
            ids(_FIRST_PIECE, bucket.target_length, EOS_ID),
            tf.ones([part]),
            tf.zeros([part], tf.int64),
            () if self.text.align is None else tf.ones([part, bucket.target_length, bucket.source_length], tf.bool),
        )
        if strategy.num_replicas_in_sync == 1:
            return batch
        return tf.nest.map_structure(
            lambda leaf: strategy.experimental_distribute_values_from_function(lambda _: leaf), batch
        )
