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
    np.testing.assert_allclose(found, [[-(np.log(0.5) + np.log(0.25)) / 2, -np.log(1e-6), 0.0]], rtol=1e-5)


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


FAMILIES = {
    **{name: {"decoder": name} for name in DECODERS},
    "conditional_gru": {"decoder": "conditional_gru", "cell": "gru", "num_decoder_layers": 1},
    **{name: {"attention": name} for name in ("luong_general", "local_p", "coverage", "multi_head")},
    "input_feeding": {"attention": "luong_general", "input_feeding": True},
    "transformer": {"encoder": "transformer", "decoder": "transformer"},
}


@pytest.mark.parametrize("family", FAMILIES)
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
