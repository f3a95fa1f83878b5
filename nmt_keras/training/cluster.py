"""The processes and the strategy of a training, from their meeting to their end."""

import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import keras
import sentencepiece
import tensorflow as tf
from tensorflow.python.eager import context  # has what ends a collective that waits

from nmt_keras import files
from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import fields_of
from nmt_keras.config.rules import OF_SEVERAL_WORKERS
from nmt_keras.errors import UserError, WorkerLost
from nmt_keras.reports import Report
from nmt_keras.training.rendezvous import Cluster, cluster_of, meet, split
from nmt_keras.training.watch import ALIVE, Watch, end_soon
from nmt_keras.training.workers import Workers

STATUS_LOST = 75  # of a process that can go on when all workers are there again
_TIME_TO_FAIL = 15.0  # seconds for the main thread to notice that a collective was ended
_HEARD_WITHIN = 8.0  # seconds until a chief that watches has said so
SIGNS_OF_LOSS = (  # of another worker
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
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
        # Strategies of one process share the keys of their collectives, and shapes of an earlier one would be expected.
        tf.distribute.MirroredStrategy._collective_key_base += 1000
        strategy = tf.distribute.MirroredStrategy(devices)
        tf.distribute.MirroredStrategy._collective_key_base += 1000
        yield Workers(strategy)
    elif name == "tpu":
        yield Workers(tf.distribute.OneDeviceStrategy(_tpu()))
    elif name == "parameter_server":
        with _coordinated(config, run_dir, report) as workers:
            yield workers
    elif name in OF_SEVERAL_WORKERS:
        with _watched(config, run_dir, report) as (cluster, _):
            link = tf.distribute.MultiWorkerMirroredStrategy()
            yield Workers(link if name == "multi_worker" else tf.distribute.get_strategy(), cluster, link)
    else:
        yield Workers(tf.distribute.get_strategy())


def _tpu() -> str:
    """The name of this machine's first TPU, made ready."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
        tf.tpu.experimental.initialize_tpu_system(resolver)
        [device, *_] = tf.config.list_logical_devices("TPU")
    except (ValueError, RuntimeError, NotImplementedError, tf.errors.OpError) as error:
        raise UserError(
            "training.distribution=tpu needs a TPU, and TensorFlow finds none here: run it on a TPU VM with "
            "tensorflow-tpu, or take one_device or mirrored"
        ) from error
    return device.name


@contextlib.contextmanager
def _watched(
    config: ExperimentConfig,
    run_dir: pathlib.Path,
    report: Report,
    goes_on_without: Callable[[Cluster, int, set[int]], bool] = lambda cluster, number, others: False,
    on_back: Callable[[Cluster, int], None] = lambda cluster, number: None,
) -> Iterator[tuple[Cluster, Watch]]:
    """The meeting of the workers, and the watch over them."""
    cluster = cluster_of(os.environ.get("TF_CONFIG"), config.training.distribution)
    timers = []

    def on_lost(number: int) -> None:
        timers.append(end_soon(_lost_line(cluster, number), STATUS_LOST, _TIME_TO_FAIL))
        context.context().abort_collective_ops(tf.errors.UNAVAILABLE, f"worker {number} is lost")

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_watch_listener(0 if cluster.number else config.training.watch_port))
        own_port = listener.getsockname()[1]
        port = _port_of_running(cluster, run_dir) if config.training.distribution == "parameter_server" else 0
        if not port:
            port = meet(cluster, _started_with(config), run_dir, config.training.worker_timeout, report, own_port)
        meeting = port if cluster.number else listener
        goes_on, back = functools.partial(goes_on_without, cluster), functools.partial(on_back, cluster)
        watch = Watch(cluster, meeting, on_lost, goes_on, back)
        is_done = False
        try:
            yield cluster, watch
            is_done = True
        except SIGNS_OF_LOSS as error:
            raise WorkerLost(_lost_line(cluster, watch.wait_for_lost())) from error
        finally:
            watch.close(is_done)
            for timer in timers:  # the main thread has noticed
                timer.cancel()


@contextlib.contextmanager
def _coordinated(config: ExperimentConfig, run_dir: pathlib.Path, report: Report) -> Iterator[Workers]:
    """The coordinator's part of asynchronous training: it goes on without a worker that is gone, and takes it back,
    while another is there."""
    _place_of_running(run_dir).unlink(missing_ok=True)  # of a chief that was killed

    def goes_on_without(cluster: Cluster, number: int, others: set[int]) -> bool:
        if cluster.task_of(number)[0] != "worker" or not any(cluster.task_of(n)[0] == "worker" for n in others):
            return False  # nobody would be left to compute
        report(
            f"warning: {cluster.name_of(number)} is gone: what it was computing is computed by another, and it may "
            "come back"
        )
        return True

    def on_back(cluster: Cluster, number: int) -> None:
        report(f"{cluster.name_of(number)} is back")

    with _watched(config, run_dir, report, goes_on_without, on_back) as (
        cluster,
        watch,
    ), contextlib.ExitStack() as stack:
        place = _place_of_running(run_dir)
        files.write_json(place, {"addresses": list(cluster.addresses), "watch": watch.port})
        stack.callback(place.unlink, missing_ok=True)
        _let_closures_run(cluster)
        stack.enter_context(_without_errors_of_workers())
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        strategy = tf.distribute.ParameterServerStrategy(resolver)
        if strategy.num_replicas_in_sync > 1:
            raise UserError(
                f"A worker of training.distribution=parameter_server takes one GPU, and each has "
                f"{strategy.num_replicas_in_sync}: start one for each, with CUDA_VISIBLE_DEVICES"
            )
        yield Workers(strategy, cluster)


def serve(config: ExperimentConfig, run_dir: pathlib.Path, report: Report) -> bool:
    """Is a worker or a parameter server of asynchronous training, if this process is one, until the chief has left.

    Returns:
        Whether it is one.

    Raises:
        UserError, Interrupted, WorkerLost: as `connected`.
    """
    if config.training.distribution != "parameter_server":
        return False
    own = cluster_of(os.environ.get("TF_CONFIG"), config.training.distribution)
    job, index = own.task_of(own.number)
    if job == "chief":
        return False
    with _watched(config, run_dir, report) as (cluster, watch):
        _let_closures_run(cluster)
        spec = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
        server = tf.distribute.Server(spec, job_name=job, task_index=index, protocol="grpc", start=True)
        report(f"{cluster.name_of(cluster.number)} serves {server.target}")
        if not watch.wait_for_end():
            raise WorkerLost(_lost_line(cluster, watch.wait_for_lost()))
    return True


@contextlib.contextmanager
def _without_errors_of_workers() -> Iterator[None]:
    """Leaves out of TensorFlow's log how a worker failed that training goes on without, which `_coordinated` says."""

    def is_other(record: logging.LogRecord) -> bool:
        return record.msg != "Worker %s failed with %r:%s"

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _let_closures_run(cluster: Cluster) -> None:
    """Gives TensorFlow a thread for each worker that waits: with fewer, as on few cores, all wait for ever."""
    threads = max(os.cpu_count() or 1, len(cluster.addresses) + 2)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _place_of_running(run_dir: pathlib.Path) -> pathlib.Path:
    return run_dir.absolute().parent / f".{run_dir.name}.running"


def _port_of_running(cluster: Cluster, run_dir: pathlib.Path) -> int:
    """Where the chief of a training that is under way watches, for a process that comes back; 0 if none is."""
    try:
        told = json.loads(_place_of_running(run_dir).read_text(encoding="utf-8"))
        if cluster.number and told["addresses"] == list(cluster.addresses):
            place = split(cluster.addresses[0])[0], int(told["watch"])
            with socket.create_connection(place, timeout=_HEARD_WITHIN) as connection:
                if connection.recv(len(ALIVE)) == ALIVE:  # else it is a chief that waits for all to come
                    return int(told["watch"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0


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
