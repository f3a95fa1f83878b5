"""Guided alignment against its formula, and what it does to attention."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ModelConfig, TrainingConfig
from nmt_keras.models.registry import DECODERS
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.training.losses import Forward, build_loss
from nmt_keras.training.losses.cross_entropy import CrossEntropy
from nmt_keras.training.losses.guided_alignment import alignment_cross_entropy
from tests.cross_entropy_of import SOURCE_V, V, small_batch, small_model


def _aligned_batch():
    batch = small_batch((1.0, 0.5, 2.0))
    links = np.zeros([3, 5, 4], bool)
    for place in ((0, 0, 1), (0, 1, 0), (0, 1, 2), (1, 0, 0), (2, 1, 1)):
        links[place] = True
    return batch._replace(alignment=tf.constant(links))


def test_the_distance_is_that_of_the_formula():
    attention = np.array([[[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]]])
    links = np.array([[[True, True, False], [True, False, False], [False] * 3]])
    found = alignment_cross_entropy(tf.constant(attention), tf.constant(links)).numpy()
    np.testing.assert_allclose(found, [[-(np.log(0.5) + np.log(0.25)) / 2, -np.log(1e-30), 0.0]], rtol=1e-5)


def test_it_is_the_cross_entropy_and_the_weighted_distance():
    model, batch = small_model(), _aligned_batch()
    config = TrainingConfig(loss="guided_alignment", alignment_weight=0.3)
    sums = build_loss(config)(Forward(model, batch), batch, None)
    plain = CrossEntropy(config)(Forward(model, batch), batch, None)
    _, attention = model(batch.source_ids, batch.target_input_ids)
    distance = tf.reduce_sum(batch.weights[:, None] * alignment_cross_entropy(attention, batch.alignment))
    np.testing.assert_allclose(sums.scalars["alignment_loss"], distance, rtol=1e-5)
    np.testing.assert_allclose(sums.loss, plain.loss + 0.3 * distance, rtol=1e-5)
    assert float(distance) > 1.0


def test_its_gradient_is_that_of_the_formula():
    model, batch = small_model(), _aligned_batch()
    config = TrainingConfig(loss="guided_alignment", alignment_weight=0.3, label_smoothing=0.1)
    weights = [weight.value for weight in model.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        sums = build_loss(config)(Forward(model, batch, gradient_scale=tf.constant(4.0)), batch, None)
        hidden, attention = model(batch.source_ids, batch.target_input_ids)
        labels = 0.9 * tf.one_hot(batch.target_output_ids, V) + 0.1 / V
        entropies = tf.nn.softmax_cross_entropy_with_logits(labels, model.project(hidden))
        shares = tf.cast(batch.alignment, tf.float32)
        shares /= tf.maximum(tf.reduce_sum(shares, -1, keepdims=True), 1.0)
        terms = entropies - 0.3 * tf.reduce_sum(shares * tf.math.log(attention + 1e-12), -1)
        real = tf.cast(batch.target_output_ids > 0, tf.float32) * batch.weights[:, None]
        expected = tf.reduce_sum(real * terms)
    np.testing.assert_allclose(sums.loss, expected, rtol=1e-4)
    own, other = (tape.gradient(value, weights, unconnected_gradients="zero") for value in (sums.loss, expected))
    for a, b in zip(own, other, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(a), 4.0 * tf.convert_to_tensor(b), atol=2e-4)


def test_attention_that_is_wholly_wrong_learns_too():
    scores = tf.Variable([[[20.0, 0.0, 0.0]]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(alignment_cross_entropy(tf.nn.softmax(scores), tf.constant([[[False, True, False]]])))
    assert float(tf.nn.softmax(scores)[0, 0, 1]) < 1e-8
    np.testing.assert_allclose(tape.gradient(loss, scores)[0, 0], [1.0, -1.0, 0.0], atol=1e-3)


FAMILIES = {
    **{name: {"decoder": name} for name in DECODERS},
    "conditional_gru": {"decoder": "conditional_gru", "cell": "gru", "num_decoder_layers": 1},
    **{name: {"attention": name} for name in ("luong_general", "local_p", "coverage", "multi_head")},
    "input_feeding": {"attention": "luong_general", "input_feeding": True},
    "transformer": {"encoder": "transformer", "decoder": "transformer"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=[pytest.mark.slow] * (f not in ("rnn", "transformer", "input_feeding"))) for f in FAMILIES],
)
def test_attention_of_every_family_learns_it(family):
    """Twenty steps of gradient descent on the second term alone."""
    fields = {"d_model": 8, "num_heads": 2, "d_ff": 12, "num_decoder_layers": 2, **FAMILIES[family]}
    model, batch = build_seq2seq(ModelConfig(**fields), SOURCE_V, V), _aligned_batch()
    weights = model.trainable_variables

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            _, attention = model(batch.source_ids, batch.target_input_ids)
            loss = tf.reduce_sum(alignment_cross_entropy(attention, batch.alignment))
        gradients = tape.gradient(loss, [weight.value for weight in weights], unconnected_gradients="zero")
        norm = tf.linalg.global_norm(gradients)
        for weight, gradient in zip(weights, gradients):
            weight.assign_sub(0.3 * tf.convert_to_tensor(gradient) / norm)
        return loss

    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
