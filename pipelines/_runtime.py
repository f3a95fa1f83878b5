"""The one place that configures the process: flags, logging, seeds, precision, devices, strategy."""

import logging
import os
import sys
import typing
from collections.abc import Callable

from absl import app, flags
from tqdm import tqdm

from nmt_keras.errors import UserError

if typing.TYPE_CHECKING:
    import tensorflow as tf

    from nmt_keras.config import ExperimentConfig, TrainingConfig

STATUS_FINDINGS = 1
STATUS_USER_ERROR = 2


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, runs a job and ends the process: 0 ok, 1 findings, 2 a user's error in one line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(lambda argv: _guard(main), flags_parser=parse_flags)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; what is wrong with it ends the process with status 2 and one line."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(f"Unexpected argument {rest[1]!r}; every argument is a --flag=value")
        return rest
    except (flags.Error, UserError) as error:
        _fail(error)
    except (KeyError, AttributeError, TypeError, ValueError, OSError) as error:  # of config_flags and recipes
        _fail(f"The recipe or an override of it cannot be used: {_explain(error, argv)}")
    raise AssertionError("unreachable")


def _guard(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail("Interrupted")
    raise AssertionError("unreachable")


def _fail(error: object) -> typing.NoReturn:
    text = " ".join(str(error).split())
    print(f"error: {text}", file=sys.stderr)
    sys.exit(STATUS_USER_ERROR)


def _explain(error: Exception, argv: list[str]) -> str:
    """Adds the valid names to an unknown field of `--config`."""
    import dataclasses

    from nmt_keras.config import ExperimentConfig

    known = {section.name: [f.name for f in dataclasses.fields(typing.cast(type, section.default_factory))]
             for section in dataclasses.fields(ExperimentConfig)}
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0]
        if not name.startswith("config."):
            continue
        section, _, leaf = name.removeprefix("config.").partition(".")
        if section not in known:
            return f"unknown section {section!r} in {argument!r}; valid ones: {', '.join(known)}"
        if leaf not in known[section]:
            return f"unknown field {leaf!r} in {argument!r}; valid ones: {', '.join(known[section])}"
    return f"{type(error).__name__}: {error}"


def report(line: str) -> None:
    """A line of progress, on stderr and past a progress bar."""
    tqdm.write(line, file=sys.stderr)


def configure(config: "TrainingConfig") -> None:
    """Seeds and sets the precision. First of all: seeding destroys tokenizers that exist (tensorflow/text#570)."""
    import keras

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)


def build_strategy(name: str) -> "tf.distribute.Strategy":
    """The strategy of `training.distribution`.

    Raises:
        UserError: it needs devices or a cluster that are not there.
    """
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices(
            "GPU" if tf.config.list_physical_devices("GPU") else "CPU")])
    if name == "multi_worker":
        if "TF_CONFIG" not in os.environ:
            raise UserError("training.distribution=multi_worker needs the environment variable TF_CONFIG with the "
                            "cluster and this worker's task; set it on every worker")
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", ""))
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
            return tf.distribute.TPUStrategy(resolver)
        except (ValueError, tf.errors.OpError) as error:
            raise UserError("training.distribution=tpu found no TPU on this machine or at TPU_NAME; use one_device or "
                            "mirrored") from error
    return tf.distribute.get_strategy()


def is_chief(strategy: "tf.distribute.Strategy") -> bool:
    """Whether this process is the one that keeps files."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_type or (resolver.task_type, resolver.task_id) in (
        ("chief", 0), ("worker", 0))


def inference_config(config: "ExperimentConfig", **overrides) -> None:
    """Applies the overrides of `decoding` that a job was given (None is none) and configures the process."""
    for name, value in overrides.items():
        if value is not None:
            setattr(config.decoding, name, value)
    config.validate()
    configure(config.training)
