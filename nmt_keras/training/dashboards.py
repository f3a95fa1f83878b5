"""What TensorBoard shows beside scalars: a screen of curves, runs in a table, embeddings, and a profile of steps."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.projector import ProjectorConfig

from nmt_keras import files
from nmt_keras.config import ExperimentConfig
from nmt_keras.config.fields import fields_of

_BUCKETS = 30  # of a histogram
_COMPARED = (  # whatever their values are
    "data.tokenizer",
    "model.d_model",
    "model.decoder",
    "model.encoder",
    "training.batch_tokens",
    "training.learning_rate",
    "training.max_steps",
    "training.seed",
)
_CHARTS = {  # tags are regular expressions
    "loss of a target piece": ("train/loss$", "dev/loss$"),
    "dev BLEU": ("dev/bleu.*",),
    "target tokens/s": ("train/target_tokens_per_s$",),
    "learning rate": ("train/learning_rate$",),
    "norm of the gradient": ("train/gradient_norm$",),
    "share of padding": ("train/padding_share$",),
}
_METRICS = ("dev/bleu", "dev/loss", "train/target_tokens_per_s")


def write_layout() -> None:
    """Writes, to the default writer, the layout of the dashboard "custom scalars": what to look at first, on a
    screen."""
    charts = [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        for title, tags in _CHARTS.items()
    ]
    category = layout_pb2.Category(title="training", chart=charts)
    tf.summary.experimental.write_raw_pb(
        custom_scalar.pb(layout_pb2.Layout(category=[category])).SerializeToString(), step=0
    )


def write_hyperparameters(config: ExperimentConfig, name: str) -> None:
    """Writes, to the default writer, what the dashboard "HParams" compares runs by: some fields of every run, and those
    in which it differs from the defaults.

    Args:
        config: of the run.
        name: of the run, for people.
    """
    values: dict[str, Any] = {}
    for field in fields_of(ExperimentConfig):
        value = field.value_in(config)
        is_told = value != field.default and field.section != "decoding" and not field.path.endswith("_dir")
        if field.path in _COMPARED or is_told and isinstance(value, (bool, int, float, str)):
            values[field.path] = value
    hparams.hparams_config(
        hparams=[hparams.HParam(path) for path in values], metrics=[hparams.Metric(tag) for tag in _METRICS]
    )
    hparams.hparams(values, trial_id=name)


def write_histogram(name: str, numbers: np.ndarray) -> None:
    """Writes, to the default writer, how numbers of any shape are distributed, those that are finite.

    NumPy counts them: `tf.summary.histogram` makes a matrix of 30 columns out of them.
    """
    counts, edges = np.histogram(numbers[np.isfinite(numbers)], bins=_BUCKETS)
    buckets = np.stack([edges[:-1], edges[1:], counts], -1)
    tf.summary.write(name, buckets, metadata=histogram_metadata.create_summary_metadata(None, None))


def write_embeddings(folder: pathlib.Path, tables: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> None:
    """Writes what the dashboard "projector" shows: vectors with their pieces as labels.

    Args:
        folder: of a run's events.
        tables: by name, vectors [V, D] and the piece of each.
    """
    config = ProjectorConfig()
    for name, (vectors, pieces) in tables.items():
        values = np.ascontiguousarray(vectors, np.float32)
        with files.atomic_write(folder / f"{name}.bytes") as path:
            pathlib.Path(path).write_bytes(values.tobytes())
        labels = (" ".join(piece.split()) or "(space)" for piece in pieces)  # a blank line would not count
        files.write_text(folder / f"{name}.tsv", "".join(label + "\n" for label in labels))
        embedding = config.embeddings.add()
        embedding.tensor_name, embedding.tensor_path = name, f"{name}.bytes"
        embedding.tensor_shape.extend(values.shape)
        embedding.metadata_path = f"{name}.tsv"
    files.write_text(folder / "projector_config.pbtxt", str(config))


class StepProfile:
    """TensorFlow's profile of some steps, for the dashboard "profile" (its plugin is a package of its own,
    tensorboard-plugin-profile).

    Args:
        folder: of a run's events.
        first: the first step.
        last: the last one.
    """

    def __init__(self, folder: pathlib.Path, first: int, last: int):
        self._folder = folder
        self._first, self._last = first, last
        self._runs = self._came = False

    @property
    def came(self) -> bool:
        """Whether any of the steps was profiled."""
        return self._came

    def before(self, step: int) -> None:
        """To call before each step."""
        if not self._runs and self._first <= step <= self._last:
            tf.profiler.experimental.start(str(self._folder))
            self._runs = self._came = True

    def after(self, step: int, wait: Callable[[], None]) -> None:
        """To call after each step, with what waits until it is made, which only the profile's last step asks for."""
        if self._runs and step >= self._last:
            wait()
            self.close()

    def close(self) -> None:
        """Ends the profile, where it runs."""
        if self._runs:
            tf.profiler.experimental.stop()
            self._runs = False
