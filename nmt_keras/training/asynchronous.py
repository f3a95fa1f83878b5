"""Asynchronous steps: workers update weights that parameter servers keep, without waiting for each other.

TensorFlow's coordinator hands steps to workers that are free (`tf.distribute.coordinator.ClusterCoordinator`; the
design of Dean et al. 2012 and Abadi et al. 2016, 4.4). A gradient is then of weights that others have updated since:
its staleness is the number of these updates. With M steps in flight (`training.max_in_flight`) it is at most 2 (M - 1):
those under way when a step begins, and those that begin before it ends. Keras 3 does not support this strategy; what is
used of it is pinned by tests/training/test_asynchronous.py:

- an update is made in `strategy.run`, and in no function or condition within it;
- nothing that servers keep is updated by XLA;
- `keras.Variable.assign_add` reads and writes, and loses counts: the optimizer's count is the `tf.Variable`'s own.

A step is made at least once: where a worker is gone, another makes it again.
"""

import collections
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from nmt_keras.training.train_step import Outcome, TrainStep

_IN_FLIGHT_OF_A_WORKER = 2


class Staleness(NamedTuple):
    """What is known of the updates since this was last asked."""

    mean: float  # gradients that others computed between a step's reading of the weights and its update
    largest: int
    repeated: int  # steps that were made again
    workers: int  # that made steps


class _Pending(NamedTuple):
    result: Any  # a remote value of (`Outcome`, staleness)
    batch: Any
    step: int


class AsynchronousStep(TrainStep):
    """A step that is handed to whichever worker is free.

    Its interface is that of `TrainStep`, but that a call returns when there is room for another step: what it reports
    is complete after `wait`. With one worker and one step in flight, training is exact as on one device.

    Attributes:
        failed: the steps, from 1, of which one has raised the error that a call or `wait` has raised.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        count_atomically(self.optimizer)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        self._updates = tf.Variable(0, dtype=tf.int64, name="updates", trainable=False)  # what staleness is told by
        self._pending: collections.deque[_Pending] = collections.deque()
        workers = self.workers.cluster.num_workers if self.workers.cluster is not None else 1
        self._most = self.config.max_in_flight or _IN_FLIGHT_OF_A_WORKER * workers
        self._next = 0
        self.failed = range(0)
        self._ages: list[int] = []
        self._repeated = 0
        self._makers: set[str] = set()

    @property
    def is_exact(self) -> bool:
        """Whether the order of updates is that of the steps."""
        return self._most == 1

    def compile(self, element_spec: Any = None) -> None:
        if self._compiled is None:
            number = tf.TensorSpec([], tf.int64)
            signature = None if element_spec is None else (element_spec, number)
            self._compiled = tf.function(self._closure, input_signature=signature, autograph=False)

    def __call__(self, batch: Any, apply: bool = True) -> None:
        assert self._compiled is not None, "compile it first"
        if not apply:
            raise ValueError("a step of parameter servers is always applied")
        while len(self._pending) >= self._most:
            self._finish(self._pending.popleft())
        try:  # it raises what any step has raised that is under way
            result = self._coordinator.schedule(self._compiled, args=(batch, tf.constant(self._next, tf.int64)))
        except tf.errors.OpError:
            first = self._pending[0].step if self._pending else self._next
            self.failed = range(first + 1, max(first + 1, self._next) + 1)
            raise
        self._pending.append(_Pending(result, batch, self._next))
        self._next += 1

    def wait(self) -> None:
        while self._pending:
            self._finish(self._pending.popleft())
        made = int(self.steps.numpy())
        self._repeated += max(made - self._next, 0)
        self.steps.assign(self._next)

    def settle(self) -> None:
        super().settle()
        self._next = int(self.steps.numpy())

    def take_staleness(self) -> Staleness:
        """What was measured since this was last called."""
        ages, repeated, makers = self._ages, self._repeated, self._makers
        self._ages, self._repeated, self._makers = [], 0, set()
        return Staleness(sum(ages) / max(len(ages), 1), max(ages, default=0), repeated, len(makers))

    def _closure(self, batch: Any, step: tf.Tensor) -> tuple[Outcome, tf.Tensor]:
        """A step on a worker, and its staleness.

        What is counted are gradients: those that others have computed after this step began to read the weights and
        before its own gradient was there. Each is applied just after it is counted, so that this is the number of
        updates in between but for those under way at either end; one that is not finite counts, and changes nothing.
        """
        before = self._updates.read_value()
        with tf.control_dependencies([before]):
            outcome = self._step(batch, tf.constant(True), step)
        with tf.control_dependencies([outcome.gradient_norm]):
            after = self._updates.assign_add(1, read_value=True)
        return outcome, tf.convert_to_tensor(after) - 1 - before

    def _finish(self, pending: _Pending) -> None:
        try:
            outcome, age = pending.result.fetch()
        except tf.errors.OpError:
            self.failed = range(pending.step + 1, pending.step + 2)
            raise
        self._makers.add(_maker_of(pending.result))
        self._ages.append(int(age))
        if outcome.is_non_finite:
            self.on_non_finite(self._non_finite_step(pending.batch, outcome)._replace(step=pending.step + 1))


def _maker_of(result: Any) -> str:
    """The device of the worker that has made a result, such as `/job:worker/replica:0/task:1/device:CPU:0`.

    The interface of a remote value gives copies of what it holds, which are on the chief.
    """
    outcome, _ = result._values  # pylint: disable=protected-access
    return outcome.gradient_norm.backing_device


def count_atomically(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer's count one that several workers can increase at once."""
    iterations = optimizer.iterations
    iterations.assign_add = iterations.value.assign_add
