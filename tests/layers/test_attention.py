"""Attention against the papers' equations in NumPy, and the small layers beside it."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.layers.dense import Dense, batched_product, product
from nmt_keras.layers.dropout import dropout, fold_in
from nmt_keras.layers.embeddings import OutputProjection, TokenEmbedding
from nmt_keras.layers.masks import masked_softmax, padding_mask
from nmt_keras.models.registry import ATTENTIONS

B, S, Q, D = 2, 3, 5, 4
MASK = np.array([[True, True, True], [True, True, False]])


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _reference_scores(name, layer, query, states):
    weights = {w.name: w.numpy().astype(np.float64) for w in layer.weights}
    scores = np.zeros((B, Q, S))
    for b in range(B):
        for q in range(Q):
            for i in range(S):
                s, h = query[b, q], states[b, i]
                scores[b, q, i] = {
                    "luong_dot": lambda: s @ h,
                    "luong_general": lambda: s @ (h @ weights["kernel"]),
                    "luong_scaled": lambda: weights["scale"] * (s @ (h @ weights["kernel"])),
                    "bahdanau": lambda: weights["energy"]
                    @ np.tanh(s @ weights["query_kernel"] + h @ weights["key_kernel"]),
                }[name]()
    return scores


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name != "none"])
def test_attention_follows_its_equation(name):
    layer = ATTENTIONS[name](D)
    layer.build((None, None, D))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    query, states = rng.normal(size=(B, Q, D)), rng.normal(size=(B, S, D))
    memory = layer.prepare(tf.constant(states, tf.float32), tf.constant(MASK))
    context, weights, state = layer(tf.constant(query, tf.float32), memory, layer.initial_state(memory))
    expected = _softmax(np.where(MASK[:, None], _reference_scores(name, layer, query, states), -np.inf))
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(context, expected @ states, atol=1e-5)
    assert state == ()


def test_no_attention_reads_nothing():
    layer = ATTENTIONS["none"](D)
    memory = layer.prepare(tf.ones([B, S, D]), tf.constant(MASK))
    context, weights, _ = layer(tf.ones([B, Q, D]), memory)
    assert context.shape == (B, Q, 0) and weights.shape == (B, Q, S) and not weights.numpy().any()


def test_masked_softmax_is_zero_where_masked():
    weights = masked_softmax(tf.constant([[1.0, 2.0, 50.0]]), tf.constant([[True, True, False]]))
    np.testing.assert_allclose(weights, [[0.26894143, 0.7310586, 0.0]], rtol=1e-6)
    np.testing.assert_array_equal(padding_mask(tf.constant([[3, 0]])), [[True, False]])


def test_products_are_those_of_numpy():
    x, kernel = np.random.default_rng(1).normal(size=(2, 3, 4)), np.random.default_rng(2).normal(size=(4, 5))
    x32, k32 = tf.constant(x, tf.float32), tf.constant(kernel, tf.float32)
    np.testing.assert_allclose(product(x32, k32, "float32"), x @ kernel, atol=1e-5)
    np.testing.assert_allclose(product(x32, tf.transpose(k32), "float32", transpose_kernel=True), x @ kernel, atol=1e-5)
    np.testing.assert_allclose(
        batched_product(x32, x32, "float32", transpose_y=True), x @ x.transpose(0, 2, 1), atol=1e-5
    )
    assert product(x32, k32, "bfloat16").dtype == tf.float32


def test_dense_adds_its_bias_and_applies_its_activation():
    layer = Dense(2, activation=tf.tanh)
    layer.build((None, 1))
    layer.kernel.assign([[1.0, 2.0]])
    layer.bias.assign([0.5, 0.0])
    np.testing.assert_allclose(layer(tf.constant([[1.0]])), np.tanh([[1.5, 2.0]]), rtol=1e-6)


def test_a_tied_projection_reads_the_embedding():
    embedding = TokenEmbedding(5, 3)
    embedding.build(None)
    projection = OutputProjection(5, embedding)
    projection.build((None, 3))
    hidden = tf.constant([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(projection(hidden), hidden @ tf.transpose(embedding.table.value), atol=1e-6)
    np.testing.assert_allclose(embedding(tf.constant([[4]]))[0, 0], embedding.table[4] * 3**0.5, rtol=1e-6)
    assert len(projection.trainable_variables) == 2 and len({id(v) for v in projection.trainable_variables}) == 2


def test_dropout_keeps_the_mean_follows_its_seed_and_rests_without_one():
    x = tf.ones([400, 50])
    seed = tf.constant([1, 2])
    dropped = dropout(x, 0.25, seed)
    np.testing.assert_allclose(np.unique(dropped), [0.0, 4 / 3], rtol=1e-6)
    assert abs(dropped.numpy().mean() - 1) < 0.02
    np.testing.assert_array_equal(dropped, dropout(x, 0.25, seed))
    assert (dropped.numpy() != dropout(x, 0.25, fold_in(seed, 1)).numpy()).any()
    assert dropout(x, 0.25, None) is x and dropout(x, 0.0, seed) is x and fold_in(None, 3) is None
