"""The strategy of a training and the processes that share it: its chief, its barrier."""

import contextlib
import hashlib
import itertools
import os
import pathlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import sentencepiece
import tensorflow as tf
from tensorflow.python.eager import context  # has what ends a collective that waits

from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import fields_of
from nmt_keras.errors import UserError, WorkerLost
from nmt_keras.reports import Report
from nmt_keras.training.rendezvous import Cluster, cluster_of, meet
from nmt_keras.training.watch import Watch, end_soon

STATUS_LOST = 75  # of a process that can go on when all workers are there again
_TIME_TO_FAIL = 15.0  # seconds for the main thread to notice that a collective was ended
_OF_ONE_MACHINE = ("data.data_dir", "data.cache_dir")  # may differ between workers


@contextlib.contextmanager
def connected(config: ExperimentConfig, run_dir: pathlib.Path, report: Report) -> Iterator[tf.distribute.Strategy]:
    """The strategy of `training.distribution`; of several workers, once all are there and agree.

    Within the block the workers watch each other: where one is lost, what the others wait for is ended, or if that does
    not help the process, with the same line and status 75.

    Args:
        config: of the experiment, as it will be used.
        run_dir: which all workers share.
        report: takes a line for the user, while a worker is waited for.

    Raises:
        UserError: it needs devices or a cluster that are not there, or the workers were started with different values.
        Interrupted: a worker did not come.
        WorkerLost: one is lost within the block.
    """
    name = config.training.distribution
    if name == "mirrored":
        yield tf.distribute.MirroredStrategy(
            [
                device.name
                for device in tf.config.list_logical_devices("GPU" if tf.config.list_physical_devices("GPU") else "CPU")
            ]
        )
    elif name == "multi_worker":
        with _watched(config, run_dir, report):
            yield tf.distribute.MultiWorkerMirroredStrategy()
    else:
        yield tf.distribute.get_strategy()


@contextlib.contextmanager
def _watched(config: ExperimentConfig, run_dir: pathlib.Path, report: Report) -> Iterator[None]:
    """The meeting of the workers, and the watch over them."""
    cluster = cluster_of(os.environ.get("TF_CONFIG"))

    timers = []

    def on_lost(number: int) -> None:
        timers.append(end_soon(_lost_line(cluster, number), STATUS_LOST, _TIME_TO_FAIL))
        context.context().abort_collective_ops(tf.errors.UNAVAILABLE, f"worker {number} is lost")

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_watch_listener(0 if cluster.number else config.training.watch_port))
        own_port = listener.getsockname()[1]
        port = meet(cluster, _started_with(config), run_dir, config.training.worker_timeout, report, own_port)
        watch = Watch(cluster, port if cluster.number else listener, on_lost)
        is_done = False
        try:
            yield
            is_done = True
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError) as error:
            raise WorkerLost(_lost_line(cluster, watch.wait_for_lost())) from error
        finally:
            watch.close(is_done)
            for timer in timers:  # the main thread has noticed
                timer.cancel()


def _watch_listener(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"The port training.watch_port={port} cannot be opened on this machine: {error.strerror}; give another or 0"
        ) from error


def _lost_line(cluster: Cluster, number: int | None) -> str:
    """The line on a worker that was lost."""
    name = "Another worker of the cluster" if number is None else cluster.name_of(number)
    return (
        f"{name} stopped or cannot be reached; read what it printed, then start all workers again: they go on from the "
        "latest checkpoint"
    )


def _started_with(config: ExperimentConfig) -> dict[str, Any]:
    """What must be equal on all workers before they read text: the configuration, the code and its libraries."""
    values = {
        field.path: field.value_in(config) for field in fields_of(ExperimentConfig) if field.path not in _OF_ONE_MACHINE
    }
    package, code = pathlib.Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        code.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "sentencepiece": sentencepiece.__version__}
    return {**values, "the code of nmt_keras (SHA-256)": code.hexdigest()[:16], **versions}


def agree(strategy: tf.distribute.Strategy, about: Mapping[str, str]) -> None:
    """Compares what the workers have read and made, once they are connected.

    Args:
        strategy: of the training.
        about: values by name, with the same names on all workers.

    Raises:
        UserError: a value differs; each worker says which.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    hashes = [hashlib.sha256(value.encode()).digest()[:8] for value in about.values()]
    own = tf.constant([[int.from_bytes(each, "little", signed=True) for each in hashes]], tf.int64)
    gathered = strategy.run(lambda: tf.distribute.get_replica_context().all_gather(own, axis=0))
    rows = strategy.experimental_local_results(gathered)[0].numpy()
    here = len(strategy.experimental_local_results(gathered))  # replicas of a worker
    for row, name in itertools.product(range(len(rows)), range(len(about))):
        if rows[row, name] != rows[0, name]:
            raise UserError(
                f"Worker {row // here} has another {list(about)[name]} than worker 0: give all workers the same text "
                "and the same files"
            )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that keeps files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def task_of(strategy: tf.distribute.Strategy) -> int:
    """The number of this process among the workers."""
    resolver = strategy.cluster_resolver
    return int(resolver.task_id or 0) if resolver is not None and resolver.task_type else 0


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker of several is here."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.constant(1.0)))
