"""Each loss against its formula, and what it is for."""

import numpy as np
import pytest
import tensorflow as tf
from sacrebleu.metrics import BLEU, CHRF

from nmt_keras.config import TrainingConfig
from nmt_keras.constants import EOS_ID
from nmt_keras.tokenizers.words import WordTokenizer
from nmt_keras.training.losses import Forward, Resources, build_loss
from nmt_keras.training.sentence_errors import SentenceErrors
from tests.cross_entropy_of import cross_entropy_of, small_batch, small_model

SEED = tf.constant([1, 2])


@pytest.fixture(scope="module")
def model():
    return small_model()


def _sums(loss, model, batch=None, seed=SEED):
    batch = batch or small_batch((1.0, 0.5, 2.0))
    return loss(Forward(model, batch), batch, seed)


def _log_probs(model, batch, seed=None):
    """Of all ids at all positions with a label, float64 [N, V], and the labels and weights there."""
    hidden, _ = model(batch.source_ids, batch.target_input_ids, seed)
    real = batch.target_output_ids.numpy() > 0
    logits = model.project(hidden).numpy().astype(np.float64)[real]
    weights = np.repeat(batch.weights.numpy(), real.sum(1))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True)), batch.target_output_ids.numpy()[real], weights


def test_r_drop_is_its_formula(model):
    """Wu et al. 2021, eqs. 2 to 4, halved."""
    from nmt_keras.layers.dropout import fold_in

    batch = small_batch((1.0, 0.5, 2.0))
    (log_p, labels, weights), (log_q, *_) = (_log_probs(model, batch, fold_in(SEED, number)) for number in (1, 2))
    rows = np.arange(len(labels))
    entropies = -(log_p[rows, labels] + log_q[rows, labels])
    divergences = (np.exp(log_p) * (log_p - log_q)).sum(-1) + (np.exp(log_q) * (log_q - log_p)).sum(-1)
    expected = (weights * (entropies + 3.0 / 2.0 * divergences)).sum() / 2.0
    sums = _sums(build_loss(TrainingConfig(loss="r_drop", r_drop_alpha=3.0, label_smoothing=0.0)), model, batch)
    np.testing.assert_allclose(sums.loss, expected, rtol=1e-5)
    np.testing.assert_allclose(sums.scalars["divergence"], (weights * divergences).sum() / 2.0, rtol=1e-5)
    assert float(sums.scalars["divergence"]) > 0.01


def test_without_dropout_r_drop_is_cross_entropy(model):
    loss = build_loss(TrainingConfig(loss="r_drop", label_smoothing=0.1))
    batch = small_batch()
    sums, plain = _sums(loss, model, batch, None), cross_entropy_of(model, batch, None, 0.1)
    np.testing.assert_allclose(sums.loss, plain.loss, rtol=1e-5)
    assert float(sums.scalars["divergence"]) == 0.0


def _distillation(teacher, **fields):
    return build_loss(TrainingConfig(loss="distillation", label_smoothing=0.0, **fields), Resources(teacher))


def test_distillation_is_its_formula(model):
    batch, teacher = small_batch((1.0, 0.5, 2.0)), small_model(seed=8)
    (log_p, labels, weights), (log_q, *_) = (_log_probs(each, batch) for each in (model, teacher))
    log_p_soft, log_q_soft = (x / 2 - np.log(np.exp(x / 2).sum(-1, keepdims=True)) for x in (log_p, log_q))
    divergences = 4.0 * (np.exp(log_q_soft) * (log_q_soft - log_p_soft)).sum(-1)
    expected = (weights * (0.3 * -log_p[np.arange(len(labels)), labels] + 0.7 * divergences)).sum()
    loss = _distillation(teacher, distillation_weight=0.7, distillation_temperature=2.0)
    np.testing.assert_allclose(_sums(loss, model, batch, None).loss, expected, rtol=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(model):
    weights = [weight.value for weight in model.trainable_variables]
    with tf.GradientTape() as tape:
        sums = _sums(_distillation(model, distillation_weight=1.0), model, seed=None)
    gradients = tape.gradient(sums.loss, weights, unconnected_gradients="zero")
    assert abs(float(sums.loss)) < 1e-5
    assert max(np.abs(tf.convert_to_tensor(gradient)).max() for gradient in gradients) < 1e-5


def test_no_gradient_reaches_the_teacher(model):
    teacher = small_model(seed=8)
    with tf.GradientTape() as tape:
        loss = _sums(_distillation(teacher), model).loss
    assert all(each is None for each in tape.gradient(loss, [weight.value for weight in teacher.trainable_variables]))


class _Tables:
    """Errors that are a function of a candidate's ids; keeps the candidates that it was asked of."""

    def __init__(self):
        self.candidates = []

    def __call__(self, candidates, references):
        del references
        self.candidates.append(candidates)
        return np.array([[sum(ids) * 7 % 11 / 11 for ids in row.tolist()] for row in candidates], np.float32)


def _minimum_risk(errors, **fields):
    config = TrainingConfig(loss="minimum_risk", num_risk_candidates=4, label_smoothing=0.0, **fields)
    return build_loss(config, Resources(errors=errors))


@pytest.mark.parametrize("candidates", ["beam", "sample"])
def test_minimum_risk_and_its_gradient_are_the_formula(model, candidates):
    """Shen et al. 2016, eqs. 10 to 12, with TensorFlow's gradient of each candidate's log probability."""
    batch, errors = small_batch((1.0, 0.5, 2.0)), _Tables()
    weights = [weight.value for weight in model.trainable_variables]
    with tf.GradientTape() as tape:
        sums = _sums(_minimum_risk(errors, risk_sharpness=0.4, risk_candidates=candidates), model, batch, None)
    gradients = tape.gradient(sums.loss, weights, unconnected_gradients="zero")
    [found] = errors.candidates
    assert found.shape[1] == 4 and (found[:, 0, 0] > 0).all()
    if candidates == "beam":
        assert all(len({tuple(ids) for ids in row.tolist()}) == 4 for row in found)
    with tf.GradientTape() as tape:
        total = tf.constant(0.0)
        for row, ids in enumerate(found.tolist()):
            distinct = list(dict.fromkeys(tuple(i for i in each if i) for each in ids))
            log_probs = []
            for each in distinct:
                hidden, _ = model(batch.source_ids[row : row + 1], tf.constant([[2, *each[:-1]]]))
                all_of_them = tf.nn.log_softmax(model.project(hidden))[0]
                log_probs.append(tf.reduce_sum(tf.gather(all_of_them, each, batch_dims=1)))
            shares = tf.nn.softmax(0.4 * tf.stack(log_probs))
            risk = tf.reduce_sum(shares * [sum(each) * 7 % 11 / 11 for each in distinct])
            total += risk * float(batch.weights[row]) * np.count_nonzero(batch.target_output_ids[row])
    expected = tape.gradient(total, weights, unconnected_gradients="zero")
    np.testing.assert_allclose(sums.loss, total, rtol=1e-4)
    np.testing.assert_allclose(sums.scalars["risk"], total, rtol=1e-4)
    assert max(np.abs(tf.convert_to_tensor(each)).max() for each in expected) > 0.05
    for own, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(own), tf.convert_to_tensor(other), rtol=1e-3, atol=1e-5)


def test_candidates_are_drawn_by_the_seed_and_the_line(model):
    batch = small_batch()
    drawn = []
    for seed, lines in ((SEED, [0, 1, 2]), (SEED, [0, 1, 2]), (SEED, [0, 7, 2]), (tf.constant([1, 3]), [0, 1, 2])):
        errors = _Tables()
        _sums(_minimum_risk(errors), model, batch._replace(lines=tf.constant(lines, tf.int64)), seed)
        drawn.append([[[i for i in ids if i] for ids in row] for row in errors.candidates[0].tolist()])
    first, again, other_line, other_seed = drawn
    assert first == again
    assert [a == b for a, b in zip(first, other_line)] == [True, False, True]
    assert all(a != b for a, b in zip(first, other_seed))


def test_candidates_are_at_most_half_longer_than_their_reference(model):
    errors = _Tables()
    _sums(_minimum_risk(errors), model)
    lengths = (errors.candidates[0] > 0).sum(-1)
    assert (lengths.max(1) <= np.array([5 + 5, 2 + 5, 3 + 5])).all()


@pytest.mark.slow
def test_minimum_risk_lowers_the_expected_error():
    """Of a model that knows nothing: the error is the share of ids that are not 5."""
    model, batch = small_model(), small_batch()

    def errors(candidates, references):
        del references
        rows = [[[i for i in ids if i and i != EOS_ID] for ids in row] for row in candidates.tolist()]
        return np.array([[1.0 - ids.count(5) / max(len(ids), 1) for ids in row] for row in rows], np.float32)

    loss, weights = _minimum_risk(errors, risk_sharpness=1.0), model.trainable_variables

    @tf.function(autograph=False)
    def step(seed):
        with tf.GradientTape() as tape:
            sums = _sums(loss, model, batch, seed)
        gradients = tape.gradient(sums.loss, [weight.value for weight in weights])
        for weight, gradient in zip(weights, gradients):
            weight.assign_sub(0.5 * tf.convert_to_tensor(gradient) / sums.weight)
        return sums.scalars["risk"] / sums.weight

    risks = [float(step(tf.constant([1, number]))) for number in range(120)]
    assert np.mean(risks[-10:]) < 0.5 * np.mean(risks[:10])


@pytest.mark.parametrize("metric", [BLEU(effective_order=True), CHRF()])
def test_errors_are_1_minus_the_score_of_the_text(metric):
    tokenizer = WordTokenizer([f"w{i}" for i in range(9)])
    texts = ["w0 w1 w2 w3 w4", "w0 w1 w2 w3 w5", "w6"]
    ids = [tokenizer.encode(text) + [EOS_ID] for text in texts]
    candidates = np.array([[row + [0] * (6 - len(row)) for row in ids]])
    found = SentenceErrors(tokenizer, metric)(candidates, candidates[:, 0])
    expected = [1.0 - metric.sentence_score(text, [texts[0]]).score / 100.0 for text in texts]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [expected], atol=1e-6)
    assert found[0, 0] == pytest.approx(0.0, abs=1e-6) and 0 < found[0, 1] < found[0, 2]
