"""The processes and the strategy of a training, from their meeting to their end."""

import contextlib
import hashlib
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import keras
import sentencepiece
import tensorflow as tf
from tensorflow.python.eager import context  # has what ends a collective that waits

from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import fields_of
from nmt_keras.config.rules import OF_SEVERAL_WORKERS
from nmt_keras.errors import UserError, WorkerLost
from nmt_keras.reports import Report
from nmt_keras.training.rendezvous import Cluster, cluster_of, meet
from nmt_keras.training.watch import Watch, end_soon
from nmt_keras.training.workers import Workers

STATUS_LOST = 75  # of a process that can go on when all workers are there again
_TIME_TO_FAIL = 15.0  # seconds for the main thread to notice that a collective was ended
_OF_ONE_MACHINE = ("data.data_dir", "data.cache_dir")  # may differ between workers


@contextlib.contextmanager
def connected(config: ExperimentConfig, run_dir: pathlib.Path, report: Report) -> Iterator[Workers]:
    """The strategy of `training.distribution` and its workers, once all are there and agree.

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
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        yield Workers(tf.distribute.MirroredStrategy(devices))
    elif name in OF_SEVERAL_WORKERS:
        with _watched(config, run_dir, report) as cluster:
            link = tf.distribute.MultiWorkerMirroredStrategy()
            yield Workers(link if name == "multi_worker" else tf.distribute.get_strategy(), cluster, link)
    else:
        yield Workers(tf.distribute.get_strategy())


@contextlib.contextmanager
def _watched(config: ExperimentConfig, run_dir: pathlib.Path, report: Report) -> Iterator[Cluster]:
    """The meeting of the workers, and the watch over them."""
    cluster = cluster_of(os.environ.get("TF_CONFIG"), config.training.distribution)

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
            yield cluster
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
