"""What every loss must do, and that a loss is one class and one line."""

import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.constants import PAD_ID
from nmt_keras.data.batching import Batch
from nmt_keras.errors import UserError
from nmt_keras.training import losses
from nmt_keras.training.losses import LOSSES, Forward, LossSums, Resources, build_loss
from tests.cross_entropy_of import D, V, small_batch, small_model

EXTRA = {  # what each loss has in the configuration
    "cross_entropy": {"label_smoothing": 0.1},
    "r_drop": {"r_drop_alpha": 3.0},
    "distillation": {"distillation_weight": 0.7, "distillation_temperature": 2.0},
    "guided_alignment": {"alignment_weight": 0.5, "label_smoothing": 0.1},
    "minimum_risk": {"num_risk_candidates": 3, "risk_sharpness": 0.5, "risk_weight": 0.8},
}


class Focal:
    """Focal loss (Lin et al. 2017) with gamma 1; reports the mean probability of the labels beside the rest."""

    names = ("loss", "label_probability")
    name_of_minimised = "focal_loss"

    def __init__(self, config, resources):
        del config, resources

    def __call__(self, forward, batch, seed):
        def values_of(logits, labels, weights):
            log_probs = tf.gather(tf.nn.log_softmax(logits[0]), labels, batch_dims=1)
            probs = tf.exp(log_probs)
            sums = (-(1.0 - probs) * log_probs, tf.stop_gradient(-log_probs), tf.stop_gradient(probs))
            return tuple(tf.reduce_sum(weights * value) for value in sums)

        loss, plain, probs = forward.sums(values_of, [forward(seed)])
        return LossSums(loss, tf.reduce_sum(forward.weights), {"loss": plain, "label_probability": probs})


class TwoPasses:
    """The squared distance of the logits of two passes with other dropout, beside the cross entropy of the first."""

    names = ("loss", "distance")
    name_of_minimised = "both"

    def __init__(self, config, resources):
        del config, resources

    def __call__(self, forward, batch, seed):
        def values_of(logits, labels, weights):
            plain = -tf.gather(tf.nn.log_softmax(logits[0]), labels, batch_dims=1)
            distance = tf.reduce_mean(tf.square(logits[0] - logits[1]), -1)
            return tuple(tf.reduce_sum(weights * value) for value in (plain + distance, plain, distance))

        seeds = (None, None) if seed is None else (seed, seed + 1)
        total, plain, distance = forward.sums(values_of, [forward(each) for each in seeds])
        return LossSums(total, tf.reduce_sum(forward.weights), {"loss": plain, "distance": distance})


class WithTeacher:
    """Cross entropy of one pass, the distance to another that is only read, and a penalty of hidden states."""

    names = ("loss", "penalty")
    name_of_minimised = "all"

    def __init__(self, config, resources):
        del config, resources

    def __call__(self, forward, batch, seed):
        def values_of(logits, labels, weights):
            plain = -tf.gather(tf.nn.log_softmax(logits[0]), labels, batch_dims=1)
            distance = tf.reduce_mean(tf.square(logits[0] - tf.stop_gradient(logits[1])), -1)
            return tuple(tf.reduce_sum(weights * value) for value in (plain + distance, plain))

        student, teacher = forward(seed), forward(None)
        total, plain = forward.sums(values_of, [student, teacher])
        weights = tf.cast(forward.weights, student.hidden.dtype)
        penalty = tf.cast(tf.reduce_sum(weights[:, None] * tf.square(student.hidden)), total.dtype)
        scalars = {"loss": plain, "penalty": tf.stop_gradient(penalty)}
        return LossSums(total + forward.scaled(penalty), tf.reduce_sum(forward.weights), scalars)


@pytest.fixture(params=[*LOSSES, "focal", "two_passes", "with_teacher"])
def loss(request, monkeypatch):
    """Each loss of the registry, and three of this test."""
    monkeypatch.setitem(LOSSES, "focal", Focal)
    monkeypatch.setitem(LOSSES, "two_passes", TwoPasses)
    monkeypatch.setitem(LOSSES, "with_teacher", WithTeacher)
    return _build(request.param, small_model(seed=8))


def _build(name, teacher):
    return build_loss(TrainingConfig(loss=name, **EXTRA.get(name, {})), Resources(teacher, _errors))


def _errors(candidates, references):
    """The share of the ids of a reference, as a set, that a candidate lacks."""
    found = [
        [1.0 - len(set(ids) & reference) / len(reference) for ids in row.tolist()]
        for row, reference in zip(candidates, (set(ids) - {PAD_ID} for ids in references.tolist()))
    ]
    return np.array(found, np.float32)


@pytest.fixture(scope="module")
def model():
    return small_model()


def _batch():
    batch = small_batch((1.0, 0.5, 2.0))
    return batch._replace(alignment=batch.target_output_ids[:, :, None] % 3 == batch.source_ids[:, None] % 3)


def _sums_and_gradients(loss, model, batch, seed=None, **options):
    with tf.GradientTape() as tape:
        sums = loss(Forward(model, batch, **options), batch, seed)
    gradients = tape.gradient(sums.loss, [weight.value for weight in model.trainable_variables])
    return sums, [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


def _assert_equal(ours, theirs, factor=1.0):
    (sums, gradients), (other_sums, other_gradients) = ours, theirs
    assert sums.scalars.keys() == other_sums.scalars.keys()
    for own, other in zip(tf.nest.flatten(sums), tf.nest.flatten(other_sums), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5)
    for own, other in zip(gradients, other_gradients, strict=True):
        np.testing.assert_allclose(own, factor * other, atol=1e-5 * factor)


def test_it_reports_what_it_names_in_float32(loss, model):
    sums, gradients = _sums_and_gradients(loss, model, _batch(), tf.constant([1, 2]))
    assert set(sums.scalars) == set(loss.names) and loss.names[0] == "loss"
    assert all(value.dtype == tf.float32 and value.shape == () for value in tf.nest.flatten(sums))
    assert float(sums.weight) == 5 * 1.0 + 2 * 0.5 + 3 * 2.0
    assert any(gradient.any() for gradient in gradients)


def test_the_first_scalar_is_the_cross_entropy_without_smoothing(loss, model):
    batch = _batch()
    logits = model.project(model(batch.source_ids, batch.target_input_ids)[0])
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(batch.target_output_ids, logits)
    weights = tf.where(batch.target_output_ids > 0, batch.weights[:, None], 0.0)
    sums = loss(Forward(model, batch), batch, None)
    np.testing.assert_allclose(sums.scalars["loss"], tf.reduce_sum(weights * values), rtol=1e-5)


def test_padding_changes_nothing(loss, model):
    batch = _batch()
    wider = Batch(
        *(tf.pad(ids, [[0, 0], [0, more]]) for ids, more in zip(batch[:3], (2, 4, 4))),
        *batch[3:5],
        tf.pad(batch.alignment, [[0, 0], [0, 4], [0, 2]]),
    )
    _assert_equal(_sums_and_gradients(loss, model, wider), _sums_and_gradients(loss, model, batch))


def test_padding_rows_change_nothing(loss, model):
    batch = _batch()
    filled = Batch(
        *(
            tf.concat([ids, tf.one_hot([0] * 4, ids.shape[1], first, dtype=tf.int32)], 0)
            for ids, first in zip(batch[:3], (3, 2, 3))
        ),
        tf.pad(batch.weights, [[0, 4]]),
        tf.pad(batch.lines, [[0, 4]], constant_values=-1),
        tf.pad(batch.alignment, [[0, 4], [0, 0], [0, 0]]),
    )
    np.testing.assert_array_equal(filled.target_output_ids[3:], [[3, 0, 0, 0, 0]] * 4)
    _assert_equal(_sums_and_gradients(loss, model, filled), _sums_and_gradients(loss, model, batch))


def test_the_parts_of_a_batch_add_up(loss, model):
    batch = _batch()
    parts = [
        _sums_and_gradients(loss, model, Batch(*(leaf[start:stop] for leaf in batch)))
        for start, stop in ((0, 1), (1, 3))
    ]
    added = tf.nest.map_structure(tf.add, *(sums for sums, _ in parts))
    gradients = [a + b for a, b in zip(*(gradients for _, gradients in parts), strict=True)]
    _assert_equal((added, gradients), _sums_and_gradients(loss, model, batch))


def test_a_scale_multiplies_the_gradient_and_nothing_else(loss, model):
    scaled = _sums_and_gradients(loss, model, _batch(), gradient_scale=tf.constant(2.0**10))
    _assert_equal(scaled, _sums_and_gradients(loss, model, _batch()), factor=2.0**10)


def test_chunks_change_nothing(loss, model):
    """384 rows at once, and in three chunks."""
    many = Batch(*(tf.repeat(leaf, 30, 0) for leaf in _batch()))  # 300 positions
    many = many._replace(weights=many.weights / 30.0)
    _assert_equal(*(_sums_and_gradients(loss, model, many, chunk_rows=rows) for rows in (128, 2048)))


@pytest.mark.parametrize("name", [*LOSSES, "focal", "two_passes", "with_teacher"])
def test_the_gradient_is_that_of_the_whole_logits_in_float64(name, monkeypatch):
    """Of the factors of the logits: what is taken a chunk at a time is what TensorFlow takes of all of them at once."""
    if name == "minimum_risk":
        pytest.skip("its logits are of translations that it finds itself: see test_losses.py")
    if name == "guided_alignment":
        pytest.skip("it takes attention too, which is not a factor of the logits: see test_guided_alignment.py")
    for own, kind in (("focal", Focal), ("two_passes", TwoPasses), ("with_teacher", WithTeacher)):
        monkeypatch.setitem(LOSSES, own, kind)
    rng = np.random.default_rng(4)
    teacher_kernel, taught = tf.constant(rng.normal(size=(5, V))), tf.constant(rng.normal(size=(300, 5)))
    loss = _build(name, types.SimpleNamespace(project=lambda hidden: hidden @ teacher_kernel))
    rows, passes = 300, 2 if name in ("two_passes", "with_teacher", "r_drop") else 1
    hidden = [tf.constant(rng.normal(size=(rows, D))) for _ in range(passes)]
    kernel, bias = tf.constant(rng.normal(size=(D, V))), tf.constant(rng.normal(size=V))
    labels, weights = tf.constant(rng.integers(1, V, rows), tf.int32), tf.constant(rng.choice([0.0, 0.5, 2.0], rows))
    factors = [kernel, bias, *hidden]

    class Bare:
        """A forward pass whose hidden states are given."""

        def __init__(self, in_chunks):
            self.labels, self.weights, self._in_chunks, self._passes = labels, weights, in_chunks, iter(hidden)

        def __call__(self, seed):
            return losses.forward.Pass(next(self._passes), None)

        def scaled(self, term):
            return term

        def through(self, model):
            return lambda seed: losses.forward.Pass(taught, None)

        def sums(self, values_of, passes, rows=()):
            states = [each.hidden for each in passes]
            if not self._in_chunks:
                more = [row.project(row.hidden) for row in rows]
                return values_of([tf.matmul(each, kernel) + bias for each in states], labels, weights, *more)
            options = {"dtype": "float64", "chunk_rows": 128}
            return losses.chunks.sums_over_chunks(values_of, states, kernel, bias, (labels, weights, *rows), **options)

    results = []
    for in_chunks in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(factors)
            sums = loss(Bare(in_chunks), None, tf.constant([1, 2]))
        results.append((tf.nest.flatten(sums), tape.gradient(sums.loss, factors, unconnected_gradients="zero")))
    for own, other in zip(*map(tf.nest.flatten, results), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("policy, tolerance", [("mixed_bfloat16", 0.05), ("mixed_float16", 0.005)])
@pytest.mark.parametrize("name", LOSSES)
def test_under_a_mixed_policy_it_is_nearly_the_same(name, policy, tolerance):
    """Of candidates that are searched: those that are drawn may be others."""
    options = {**EXTRA.get(name, {}), **({"risk_candidates": "beam"} if name == "minimum_risk" else {})}
    results = []
    for kind in ("float32", policy):
        keras.config.set_dtype_policy(kind)
        loss = build_loss(TrainingConfig(loss=name, **options), Resources(small_model(seed=8), _errors))
        results.append(_sums_and_gradients(loss, small_model(), _batch(), gradient_scale=tf.constant(64.0)))
    (expected, expected_gradients), (sums, gradients) = results
    np.testing.assert_allclose(sums.loss, expected.loss, rtol=tolerance)
    largest = max(np.abs(gradient).max() for gradient in expected_gradients)
    for own, other in zip(gradients, expected_gradients, strict=True):
        assert own.dtype == np.float32 and np.isfinite(own).all()
        np.testing.assert_allclose(own, other, atol=3 * tolerance * largest)


def test_a_loss_without_a_name_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="`training.loss` must be one of cross_entropy, r_drop, .* Received: 'focal'"):
        build_loss(TrainingConfig(loss="focal"))


def test_one_class_and_one_line_make_a_loss_that_trains_and_is_logged(monkeypatch, copy_text, tmp_path):
    from nmt_keras.experiment.train import train
    from tests.pipelines import copy_recipe

    monkeypatch.setitem(LOSSES, "focal", Focal)
    config = copy_recipe.get_config()
    config.data.data_dir, config.data.cache_dir = str(copy_text), str(tmp_path / "cache")
    config.training.loss, config.training.accumulation_steps = "focal", 2
    config.training.max_steps = config.training.evaluate_every = config.training.checkpoint_every = 30
    config.training.log_every = 10
    train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().split("\n")[:-1]]
    logged = [row for row in rows if "loss" in row]
    assert [row["step"] for row in logged] == [10, 20, 30]
    assert logged[-1]["label_probability"] > logged[0]["label_probability"] > 0
    assert logged[-1]["loss"] < logged[0]["loss"] and 0 < logged[-1]["focal_loss"] < logged[-1]["loss"]
