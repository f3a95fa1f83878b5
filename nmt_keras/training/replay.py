"""Computes a step that went bad again, in float32, one operation after the other, and names the layer it began in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.data.batching import Batch
from nmt_keras.layers.base import layers_of
from nmt_keras.layers.dropout import fold_in
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.training.checkpoints import by_path
from nmt_keras.training.losses import Forward, Loss
from nmt_keras.training.losses.cross_entropy import label_smoothed_cross_entropy
from nmt_keras.training.train_step import NonFiniteStep, dropout_seed, part_of

_LISTED = 10


class Verdict(NamedTuple):
    """Where a step goes bad."""

    where: str  # weights, forward, gradient, or nowhere
    layer: str  # path of the layer, or of the weight; "" where nothing is bad
    detail: str  # for people
    lines: list[int]  # running line numbers (0-based) in the training text of the rows that are bad, at most ten
    loss: float  # of a token, of the part that was computed last


def replay(model: Seq2Seq, non_finite: NonFiniteStep, loss: Loss, first_replica: int = 0) -> Verdict:
    """Runs a bad step once more, with its weights, its batch and its dropout, and checks every layer's result.

    Args:
        model: built under the float32 policy; it gets the weights of the step.
        non_finite: the step.
        loss: what the training minimises.
        first_replica: the number of the replica that `non_finite.slices[0]` went to.
    """
    for path, variable in by_path(model.variables).items():
        variable.assign(non_finite.weights[path])
    for path, weights in non_finite.weights.items():
        if not np.isfinite(weights).all():
            return Verdict("weights", path, f"it was not finite before the step: {_describe(weights)}", [], np.nan)
    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    layers = layers_of(model)
    try:
        verdict = Verdict("nowhere", "", "", [], np.nan)
        for replica, whole in enumerate(non_finite.slices, first_replica):
            seed = dropout_seed(non_finite.seed, non_finite.restarts, non_finite.step - 1, replica)
            for number in range(non_finite.accumulation_steps):
                part = tf.nest.map_structure(
                    lambda leaf: part_of(tf.constant(leaf), number, non_finite.accumulation_steps), whole
                )
                verdict = _replay_part(model, part, fold_in(seed, number), loss, layers)
                if verdict.where != "nowhere":
                    return verdict
        return verdict
    finally:
        tf.config.run_functions_eagerly(eager)


def _replay_part(model: Seq2Seq, part: Batch, seed: tf.Tensor, loss: Loss, layers: dict[str, Any]) -> Verdict:
    with tf.GradientTape() as tape, _Watched(layers) as results:
        sums = loss(Forward(model, part), part, seed)
    for name, tensor in results:
        values = tensor.numpy()
        if not np.isfinite(values).all():
            return Verdict("forward", name, _describe(values), _lines(values, part), np.nan)
    value = float(sums.loss) / max(float(sums.weight), 1e-6)
    if not np.isfinite(value):
        return _non_finite_loss(model, part, seed)
    weights = model.trainable_variables
    sources = [*(weight.value for weight in weights), *(tensor for _, tensor in results)]
    gradients = tape.gradient(sums.loss, sources)
    for (name, _), gradient in reversed(list(zip(results, gradients[len(weights) :]))):
        values = _dense(gradient)
        if not np.isfinite(values).all():
            detail = f"the gradient goes bad on its way back to the result of this layer: {_describe(values)}"
            return Verdict("gradient", name, detail, _lines(values, part), value)
    for weight, gradient in zip(weights, gradients):
        values = _dense(gradient)
        if not np.isfinite(values).all():
            return Verdict("gradient", weight.path, f"the gradient of this weight: {_describe(values)}", [], value)
    norm = float(tf.linalg.global_norm([gradient for gradient in gradients[: len(weights)] if gradient is not None]))
    return Verdict("nowhere", "", f"loss {value:.4g} and gradient norm {norm:.4g} of all tokens are finite", [], value)


def _non_finite_loss(model: Seq2Seq, part: Batch, seed: tf.Tensor) -> Verdict:
    """The verdict on a loss that is not finite: its logits are not, with the lines where they are not, or they are too
    large for a cross entropy, with the lines of the largest loss."""
    hidden, _ = model(part.source_ids, part.target_input_ids, seed)
    logits = model.project(hidden)
    values = logits.numpy()
    if not np.isfinite(values).all():
        name = f"{model.name}/{model.output_projection.name}"
        return Verdict("forward", name, _describe(values), _lines(values, part), np.nan)
    ids = part.target_output_ids
    flat = tf.reshape(logits, [-1, logits.shape[-1]])
    losses = label_smoothed_cross_entropy(flat, tf.reshape(ids, [-1]), 0.0)[0]
    rows = np.where(ids, tf.reshape(losses, tf.shape(ids)), 0.0).astype(np.float64).sum(1)
    largest = float(tf.reduce_max(tf.abs(logits)))
    detail = f"all layers are finite, what is minimised, made of logits of up to {largest:.3g}, is not"
    worst = np.argsort(-np.where(np.isfinite(rows), rows, np.inf), kind="stable")[:_LISTED]
    lines = [int(line) for line in part.lines.numpy()[worst] if line >= 0]
    return Verdict("forward", "the loss", detail, lines, np.nan)


class _Watched:
    """Records the float results of the layers' public methods within its block, in order and with their names.

    A result that one layer hands on from another is recorded once, as the other's.
    """

    def __init__(self, layers: dict[str, Any]):
        self._layers = layers
        self._results: list[tuple[str, tf.Tensor]] = []
        self._seen: set[int] = set()

    def __enter__(self) -> list[tuple[str, tf.Tensor]]:
        for path, layer in self._layers.items():
            for name in _methods(layer):
                object.__setattr__(layer, name, self._watch(getattr(layer, name), path, name))
        return self._results

    def __exit__(self, *_: object) -> None:
        for layer in self._layers.values():
            for name in _methods(layer):
                object.__delattr__(layer, name)

    def _watch(self, method: Callable, path: str, name: str) -> Callable:
        label = path if name == "call" else f"{path}.{name}"

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            for tensor in tf.nest.flatten(result):
                if isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating and id(tensor) not in self._seen:
                    self._seen.add(id(tensor))  # the list keeps it alive
                    self._results.append((label, tensor))
            return result

        return watched


def _methods(layer: Any) -> list[str]:
    """Public methods that the project's own classes define, and that compute."""
    names: dict[str, None] = {}
    for kind in type(layer).__mro__:
        if kind.__module__.startswith("nmt_keras."):
            names.update((name, None) for name, value in vars(kind).items() if callable(value) and name[0] != "_")
    return [name for name in names if name not in ("build", "add_weight")]


def _dense(gradient: Any) -> np.ndarray:
    return np.zeros(0) if gradient is None else tf.convert_to_tensor(gradient).numpy()


def _describe(values: np.ndarray) -> str:
    """Says how many values of an array are not finite."""
    nans, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    return f"{nans} NaN and {infinite} infinite of {values.size} values, shape {list(values.shape)}"


def _lines(values: np.ndarray, part: Batch) -> list[int]:
    """Line numbers of at most ten rows with values that are not finite; none if the first axis is not that of rows."""
    lines = part.lines.numpy()
    if not values.ndim or len(values) != len(lines):
        return []
    non_finite = ~np.isfinite(values.reshape(len(lines), -1)).all(1)
    return [int(line) for line in lines[non_finite] if line >= 0][:_LISTED]
