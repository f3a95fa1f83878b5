"""A bad step computed again: the layer it begins in is named, whichever part of the step it is."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ModelConfig, TrainingConfig
from nmt_keras.data.batching import Batch
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.training.checkpoints import by_path
from nmt_keras.training.losses.cross_entropy import CrossEntropy
from nmt_keras.training.losses.guided_alignment import GuidedAlignment
from nmt_keras.training.non_finite_steps import NonFiniteSteps
from nmt_keras.training.replay import replay
from nmt_keras.training.train_step import NonFiniteStep

V = 11


LOSS = CrossEntropy(TrainingConfig(label_smoothing=0.1))


def _batch():
    rng = np.random.default_rng(1)
    source, target = rng.integers(4, V, (4, 3)), rng.integers(4, V, (4, 5))
    inputs = np.concatenate([np.full((4, 1), 2), target[:, :-1]], 1)
    ids = [array.astype(np.int32) for array in (source, inputs, target)]
    return Batch(*ids, np.ones(4, np.float32), np.array([30, 10, 20, 40]))


def _bad(model, batch=None, **weights):
    values = {path: variable.numpy() for path, variable in by_path(model.variables).items()}
    for path, change in weights.items():
        [path] = [name for name in values if name.endswith(path.replace("__", "/"))]
        values[path] = change(values[path])
    return NonFiniteStep(8, 0, 5, 2, 1, float("nan"), float("nan"), [batch or _batch()], values)


def _model(**fields):
    defaults = {"d_model": 8, "num_heads": 2, "d_ff": 12, "num_encoder_layers": 2, "num_decoder_layers": 2}
    return build_seq2seq(ModelConfig(**{**defaults, **fields}), V, V)


FAMILIES = [
    {},
    {"cell": "gru", "attention": "bahdanau", "input_feeding": True},
    {"encoder": "transformer", "decoder": "transformer"},
    {"encoder": "conv", "decoder": "ssru"},
]


@pytest.mark.parametrize("fields", FAMILIES, ids=str)
def test_what_is_finite_is_bad_nowhere(fields):
    model = _model(**fields)
    verdict = replay(model, _bad(model), LOSS)
    assert (verdict.where, verdict.layer, verdict.lines) == ("nowhere", "", [])
    assert 1 < verdict.loss < 5 and not tf.config.functions_run_eagerly()
    hidden, _ = model(_batch().source_ids, _batch().target_input_ids)  # nothing is left of the watching
    assert np.isfinite(hidden).all() and "call" not in vars(model.encoder)


@pytest.mark.parametrize("fields", FAMILIES, ids=str)
def test_weights_that_were_bad_before_are_named(fields):
    model = _model(**fields)

    def spoil(values):
        values = values.copy()
        values.reshape(-1)[3] = np.nan
        return values

    verdict = replay(model, _bad(model, output_projection__kernel=spoil), LOSS)
    assert (verdict.where, verdict.layer.endswith("output_projection/kernel")) == ("weights", True)
    assert (
        verdict.detail == f"it was not finite before the step: 1 NaN and 0 infinite of {8 * V} values, shape [8, {V}]"
    )


@pytest.mark.parametrize("fields", FAMILIES, ids=str)
def test_the_first_layer_whose_result_overflows_is_named_with_its_lines(fields):
    """One embedding is so large that what reads it overflows; the row with that word is in the second part."""
    model, batch = _model(**fields), _batch()
    batch.source_ids[:] = np.where(batch.source_ids == V - 1, 4, batch.source_ids)
    batch.source_ids[3, 1] = V - 1

    def enlarge(values):
        values = values.copy()
        values[V - 1] = 3e38
        return values

    verdict = replay(model, _bad(model, batch, source_embedding__table=enlarge), LOSS)
    assert verdict.where == "forward" and verdict.lines == [40]
    assert verdict.layer.startswith(("seq2seq/source_embedding", "seq2seq/encoder"))


def test_the_first_line_of_the_text_is_named_and_rows_of_padding_are_not():
    model, batch = _model(), _batch()
    batch.source_ids[:] = np.where(batch.source_ids == V - 1, 4, batch.source_ids)
    batch.source_ids[2:, 1] = V - 1

    def enlarge(values):
        values = values.copy()
        values[V - 1] = 3e38
        return values

    for lines, named in (([5, 6, 0, 7], [0, 7]), ([5, 6, -1, 7], [7])):
        spoiled = _bad(model, batch._replace(lines=np.array(lines)), source_embedding__table=enlarge)
        assert replay(model, spoiled, LOSS).lines == named


def test_two_dumps_of_a_restart_are_kept(tmp_path):
    model = _model()
    steps = NonFiniteSteps(tmp_path)
    for restarts, step in ((0, 3), (0, 4), (0, 5), (1, 4), (0, 6)):
        steps.write(_bad(model)._replace(step=step, restarts=restarts))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000004-restart-1",
        "step-00000005-restart-0",
        "step-00000006-restart-0",
    ]


def test_logits_that_overflow_are_those_of_the_output_projection():
    """No layer of a training step returns them whole."""
    model = _model()
    large = {"output_projection__kernel": lambda values: np.sign(values) * 3e38}
    large["combine__kernel"] = lambda values: values * 1e3  # hidden states of 1 and -1
    verdict = replay(model, _bad(model, **large), LOSS)
    assert (verdict.where, verdict.layer) == ("forward", "seq2seq/output_projection")
    assert "infinite" in verdict.detail and verdict.lines and set(verdict.lines) <= {30, 10}


def test_a_gradient_that_goes_bad_alone_is_followed_back():
    """The square root of 0 in a fixed place: finite forward, infinite backward."""
    model = _model()
    real = type(model.decoder).call

    class Rooted(type(model.decoder)):
        def call(self, *args, **kwargs):
            hidden, weights = real(self, *args, **kwargs)
            return hidden + tf.sqrt(hidden * 0.0), weights

    model.decoder.__class__ = Rooted
    verdict = replay(model, _bad(model), LOSS)
    assert verdict.where == "gradient" and verdict.layer == "seq2seq/decoder/combine" and np.isfinite(verdict.loss)


def test_the_dropout_is_that_of_the_step():
    """Two replicas with two parts each: the loss of the last part is that of its own seed."""
    from nmt_keras.layers.dropout import fold_in
    from nmt_keras.training.train_step import dropout_seed, part_of
    from tests.cross_entropy_of import cross_entropy_of

    model = _model(input_dropout_rate=0.5)
    bad = _bad(model)._replace(restarts=2, slices=[_batch(), _batch()])
    verdict = replay(model, bad, LOSS, first_replica=4)
    part = Batch(*(part_of(tf.constant(leaf), 1, 2) for leaf in _batch()))
    sums = cross_entropy_of(model, part, fold_in(dropout_seed(5, 2, 7, 5), 1), 0.1)
    assert verdict.loss == pytest.approx(float(sums.loss / sums.weight), rel=1e-5)
    other = cross_entropy_of(model, part, fold_in(dropout_seed(5, 2, 7, 4), 1), 0.1)
    assert verdict.loss != pytest.approx(float(other.loss / other.weight), rel=1e-3)


def test_a_step_with_alignments_is_kept_and_computed_again(tmp_path):
    model = _model()
    batch = _batch()
    batch = batch._replace(alignment=batch.target_output_ids[:, :, None] % 3 == batch.source_ids[:, None] % 3)
    dumps = NonFiniteSteps(tmp_path / "bad")
    for kept in (batch, _batch()):
        dumps.write(_bad(model, kept))
        bad, _ = dumps.read()
        [found] = bad.slices
        assert len(tf.nest.flatten(found)) == len(tf.nest.flatten(kept))
        for own, other in zip(tf.nest.flatten(found), tf.nest.flatten(kept), strict=True):
            np.testing.assert_array_equal(own, other)
            assert own.dtype == other.dtype
        if kept is batch:
            loss = GuidedAlignment(TrainingConfig(alignment_weight=10.0))
            assert replay(model, bad, loss).where == "nowhere"
            assert replay(model, bad, loss).loss > replay(model, bad, LOSS).loss
