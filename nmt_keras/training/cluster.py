"""The strategy of a training and the processes that share it: its chief, its barrier."""

import json
import os

import tensorflow as tf

from nmt_keras.errors import UserError


def build_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of `training.distribution`.

    Raises:
        UserError: it needs devices or a cluster that are not there.
    """
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(
            [
                device.name
                for device in tf.config.list_logical_devices("GPU" if tf.config.list_physical_devices("GPU") else "CPU")
            ]
        )
    if name == "multi_worker":
        _check_cluster(os.environ.get("TF_CONFIG"))
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def _check_cluster(tf_config: str | None) -> None:
    if tf_config is None:
        raise UserError(
            "training.distribution=multi_worker needs the environment variable TF_CONFIG with the cluster and this "
            "worker's task; set it on every worker"
        )
    try:
        config = json.loads(tf_config)
        task = config["task"]
        config["cluster"][task["type"]][int(task["index"])]
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(
            'The environment variable TF_CONFIG must be like {"cluster": {"worker": ["host:port", "host:port"]}, '
            f'"task": {{"type": "worker", "index": 0}}}}, with a task of the cluster. Received: {tf_config}'
        ) from error


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
