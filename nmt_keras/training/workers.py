"""The processes of a training, as one of them sees the others."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from nmt_keras.errors import UserError
from nmt_keras.training.rendezvous import Cluster

_HASH_BYTES = 8


class Workers:
    """The processes of a training, and the strategy by which this one computes.

    Args:
        strategy: the scope of the model and its step.
        cluster: of several processes.
        link: a strategy of all of them, by which they exchange values. It is `strategy` itself where they make each
            step together, and another where each makes steps of its own.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        cluster: Cluster | None = None,
        link: tf.distribute.MultiWorkerMirroredStrategy | None = None,
    ):
        self.strategy = strategy
        self.link = link
        self.number = cluster.number if cluster is not None else 0
        self.cluster = cluster
        self._sums: dict[tuple, tf.types.experimental.PolymorphicFunction] = {}

    @property
    def count(self) -> int:
        """How many processes there are."""
        return len(self.cluster.addresses) if self.cluster is not None else 1

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that keeps files."""
        return not self.number

    @property
    def make_own_steps(self) -> bool:
        """Whether each process makes steps of its own, and they meet now and then."""
        return self.link is not None and self.link is not self.strategy

    @property
    def num_slices(self) -> int:
        """Replicas of all processes: the equal parts that a global batch is cut into."""
        return self.strategy.num_replicas_in_sync * (self.count if self.make_own_steps else 1)

    @property
    def first_slice(self) -> int:
        """The number of the strategy's first replica among those of all processes."""
        return self.number * self.strategy.num_replicas_in_sync if self.make_own_steps else 0

    def sum(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The sums over all processes of tensors of one type, in one message."""
        if self.link is None:
            return list(values)
        kind = tuple((value.dtype, tuple(value.shape)) for value in values)
        if kind not in self._sums:
            self._sums[kind] = tf.function(self._sum, autograph=False)
        return self._sums[kind](list(values))

    def _sum(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        assert self.link is not None
        flat = tf.concat([tf.reshape(value, [-1]) for value in values], 0)
        own_replicas = self.link.num_replicas_in_sync // self.count

        def share() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            is_first = tf.equal(context.replica_id_in_sync_group % own_replicas, 0)  # one replica speaks for a process
            return context.all_reduce("sum", tf.where(is_first, flat, tf.zeros_like(flat)))

        summed = self.link.experimental_local_results(self.link.run(share))[0]
        parts = tf.split(summed, [value.shape.num_elements() for value in values])
        return [tf.reshape(part, value.shape) for part, value in zip(parts, values)]

    def sum_of(self, value: float) -> float:
        """The sum of a number over all processes."""
        return float(self.sum([tf.constant(value, tf.float32)])[0])

    def of_chief(self, value: float) -> float:
        """The chief's value of a number, for all processes."""
        return self.sum_of(value if self.is_chief else 0.0)

    def barrier(self) -> None:
        """Waits until every process is here."""
        self.sum_of(1.0)

    def agree(self, about: Mapping[str, str]) -> None:
        """Compares what the processes have read and made.

        Args:
            about: values by name, with the same names in all of them.

        Raises:
            UserError: a value differs; each process says which.
        """
        if self.link is None or self.cluster is None:
            return
        table = np.zeros([self.count, len(about), _HASH_BYTES], np.float32)  # which holds bytes exactly
        table[self.number] = [list(hashlib.sha256(value.encode()).digest()[:_HASH_BYTES]) for value in about.values()]
        rows = self.sum([tf.constant(table)])[0].numpy()
        for row, name in itertools.product(range(len(rows)), range(len(about))):
            if (rows[row, name] != rows[0, name]).any():
                other = self.cluster.name_of(row)
                raise UserError(
                    f"{other[0].upper()}{other[1:]} has another {list(about)[name]} than "
                    f"{self.cluster.name_of(0)}: give all workers the same text and the same files"
                )
