"""Attention against the papers' equations in NumPy, and the small layers beside it."""

import functools

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


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _score(name, w, s, h, before):
    """e_{t,i} of one state and one source position, in float64."""

    def additive(*more):
        return w["energy"] @ np.tanh(s @ w["query_kernel"] + h @ w["key_kernel"] + sum(more))

    if name in ("luong_general", "local_m", "local_p"):
        return s @ (h @ w["kernel"])
    if name in ("bahdanau_normed", "monotonic", "monotonic_hard"):
        hidden = np.tanh(s @ w["query_kernel"] + h @ w["key_kernel"] + w["bias"])
        return w["gain"] * (w["energy"] / np.linalg.norm(w["energy"])) @ hidden
    return {
        "luong_dot": lambda: s @ h,
        "luong_scaled": lambda: w["scale"] * (s @ (h @ w["kernel"])),
        "bahdanau": additive,
        "location": lambda: additive(before @ w["location_kernel"]),
        "coverage": lambda: additive(before * w["coverage_kernel"]),
    }[name]()


def _reference(name, layer, query, states):
    """a_t of every target position, one after the other: the papers' equations as loops, [B, Q, S]."""
    w = {weight.name: weight.numpy().astype(np.float64) for weight in layer.weights}
    weights = np.zeros((B, Q, S))
    for b in range(B):
        size = int(MASK[b].sum())
        last, covered = np.zeros(S), np.zeros(S)
        if name.startswith("monotonic"):
            last[0] = 1.0
        fertility = 2 * _sigmoid(states[b] @ w["fertility_kernel"][:, 0]) if name == "coverage" else None
        for t in range(Q):
            s, before = query[b, t], [None] * S
            if name == "location":
                padded = np.pad(last, 3)
                before = [padded[i : i + 7] @ w["filters"] for i in range(S)]
            if name == "coverage":
                before = covered
            scores = np.array([_score(name, w, s, states[b, i], before[i]) for i in range(size)])
            if name == "monotonic_hard":
                row = np.zeros(S)
                start = int(last.argmax()) if last.any() else size
                row[[i for i in range(start, size) if scores[i] + w["threshold"] > 0][:1]] = 1.0
            elif name == "monotonic":
                p = _sigmoid(scores + w["threshold"])
                arrived, row = 0.0, np.zeros(S)
                for i in range(size):
                    arrived = last[i] + (1 - p[i - 1]) * arrived if i else last[i]
                    row[i] = p[i] * arrived
            else:
                row = np.zeros(S)
                row[:size] = _softmax(scores)
            if name == "local_p":
                centre = size * _sigmoid(np.tanh(s @ w["position_kernel"]) @ w["position_energy"])
                row *= np.exp(-((np.arange(S) - centre) ** 2) / (2 * 5.0**2))
            last, covered = row, covered + (row / fertility if name == "coverage" else 0.0)
            weights[b, t] = row
    return weights


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name not in ("none", "multi_head")])
def test_attention_follows_its_equation(name):
    layer, query, states, memory = _reading(name)
    context, weights = layer.read_sequence(tf.constant(query, tf.float32), memory)
    expected = _reference(name, layer, query, states)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(context, expected @ states, atol=1e-5)


def _reading(name, **options):
    layer = ATTENTIONS[name](D, **options)
    layer.build((None, None, D))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    query, states = rng.normal(size=(B, Q, D)), rng.normal(size=(B, S, D))
    return layer, query, states, layer.prepare(tf.constant(states, tf.float32), tf.constant(MASK))


def test_multi_head_attention_reads_with_each_head_on_its_own_channels():
    layer, query, states, memory = _reading("multi_head", num_heads=2)
    kernels = {
        part: getattr(layer, f"{part}_projection").kernel.numpy().astype(np.float64)
        for part in ("query", "key", "value", "output")
    }
    energy = layer.energy.numpy().astype(np.float64)[:, 0, 0]
    q, k, v = query @ kernels["query"], states @ kernels["key"], states @ kernels["value"]
    weights, contexts = np.zeros((2, B, Q, S)), []
    for head, channels in enumerate((slice(0, 2), slice(2, 4))):
        scores = np.tanh(q[:, :, None, channels] + k[:, None, :, channels]) @ energy[head]
        weights[head] = _softmax(np.where(MASK[:, None], scores, -np.inf))
        contexts.append(weights[head] @ v[:, :, channels])
    context, mean, _ = layer(tf.constant(query, tf.float32), memory)
    np.testing.assert_allclose(mean, weights.mean(0), atol=1e-5)
    np.testing.assert_allclose(context, np.concatenate(contexts, -1) @ kernels["output"], atol=1e-5)


def test_local_attention_reads_its_window_alone():
    long = 30
    for name in ("local_m", "local_p"):
        layer = ATTENTIONS[name](D)
        layer.build((None, None, D))
        mask = tf.sequence_mask([long, 20], long)
        memory = layer.prepare(tf.random.stateless_normal([2, long, D], [1, 2]), mask)
        _, weights, _ = layer(tf.random.stateless_normal([2, long, D], [3, 4]), memory, (), tf.range(long))
        places = [np.flatnonzero(row) for row in weights.numpy().reshape(-1, long)]
        assert max(place[-1] - place[0] for place in places) <= 20
        if name == "local_m":
            assert list(places[2]) == list(range(13)) and list(places[29]) == list(range(19, 30))
            assert list(places[long + 29]) == list(range(9, 20))  # past the end of the source


def test_local_predictive_attention_normalises_within_its_window():
    """Luong et al. 2015, eq. 10, with a source longer than the window of 10 positions on each side."""
    long = 40
    layer = ATTENTIONS["local_p"](D)
    layer.build((None, None, D))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    query, states = rng.normal(size=(1, Q, D)), rng.normal(size=(1, long, D))
    memory = layer.prepare(tf.constant(states, tf.float32), tf.fill([1, long], True))
    _, weights, _ = layer(tf.constant(query, tf.float32), memory)
    w = {weight.name: weight.numpy().astype(np.float64) for weight in layer.weights}
    for t in range(Q):
        centre = long * _sigmoid(np.tanh(query[0, t] @ w["position_kernel"]) @ w["position_energy"])
        away = np.arange(long) - centre
        scores = np.where(np.abs(away) <= 10, (states[0] @ w["kernel"]) @ query[0, t], -np.inf)
        np.testing.assert_allclose(weights[0, t], _softmax(scores) * np.exp(-(away**2) / 50), atol=1e-5)


def test_hard_monotonic_attention_is_the_soft_one_in_training():
    hard, query, _, memory = _reading("monotonic_hard")
    soft, query = _reading("monotonic")[0], tf.constant(query, tf.float32)
    seed = tf.constant([1, 2])
    np.testing.assert_array_equal(*(layer.read_sequence(query, memory, seed)[1] for layer in (hard, soft)))


def test_hard_monotonic_attention_goes_on_from_where_it_stopped(monkeypatch):
    layer, _, _, memory = _reading("monotonic_hard")
    layer.threshold.assign(0.0)
    monkeypatch.setattr(layer, "scores", lambda query, keys: query[:, :, :S])
    energies = [[-1, 1, 1, 0], [1, -1, 1, 0], [1, 1, 1, 0], [1, 1, -1, 0], [1, 1, 1, 0]]
    weights = layer.read_sequence(tf.constant([energies] * B, tf.float32), memory)[1]
    np.testing.assert_array_equal(weights[0], [[0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(weights[1], [[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])  # two positions


def test_monotonic_attention_is_noisy_in_training_alone():
    layer, query, _, memory = _reading("monotonic")
    query = tf.constant(query, tf.float32)
    rested, again = (layer.read_sequence(query, memory)[1] for _ in range(2))
    noisy = layer.read_sequence(query, memory, tf.constant([1, 2]))[1]
    np.testing.assert_array_equal(rested, again)
    assert np.abs(noisy - rested).max() > 0.01


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


def _attention(name):
    layer = ATTENTIONS[name](D, 2, name="attention")
    layer.build((None, None, D))
    rng = np.random.default_rng(4)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    return layer, *(tf.constant(rng.normal(size=(B, size, D)), tf.float32) for size in (Q, S))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_attention_reads_position_by_position_what_it_reads_at_once(name):
    layer, queries, states = _attention(name)
    memory = layer.prepare(states, tf.constant(MASK))
    context, weights = layer.read_sequence(queries, memory)
    state = layer.initial_state(memory)
    for t in range(Q):
        read, at, state = layer(queries[:, t : t + 1], memory, state, tf.constant([t]))
        np.testing.assert_allclose(at[:, 0], weights[:, t], atol=1e-6)
        np.testing.assert_allclose(read[:, 0], context[:, t], atol=1e-5)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_no_attention_reads_padding_and_what_is_there_does_not_matter(name):
    layer, queries, states = _attention(name)
    context, weights = layer.read_sequence(queries, layer.prepare(states, tf.constant(MASK)))
    assert (weights.numpy() >= 0).all() and not weights.numpy()[~np.broadcast_to(MASK[:, None], weights.shape)].any()
    other = tf.where(MASK[:, :, None], states, 9.0)
    wider = tf.concat([other, tf.fill([B, 2, D], -7.0)], 1)
    mask = tf.constant(np.pad(MASK, [(0, 0), (0, 2)]))
    again, wide_weights = layer.read_sequence(queries, layer.prepare(wider, mask))
    np.testing.assert_allclose(again, context, atol=1e-5)
    np.testing.assert_allclose(wide_weights[:, :, :S], weights, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name != "none"])
def test_a_gradient_reaches_every_weight_of_an_attention(name):
    layer, queries, states = _attention(name)
    with tf.GradientTape() as tape:
        context, weights = layer.read_sequence(queries, layer.prepare(states, tf.constant(MASK)), tf.constant([1, 2]))
        loss = tf.reduce_sum(tf.square(context)) + tf.reduce_sum(weights * tf.range(1.0, S + 1.0))
    gradients = tape.gradient(loss, [weight.value for weight in layer.trainable_weights])
    for weight, gradient in zip(layer.trainable_weights, gradients, strict=True):
        is_shift = weight.path.endswith("key/bias")  # of all keys alike: it shifts all scores of a softmax
        assert (np.abs(tf.convert_to_tensor(gradient)).max() > 1e-6) != is_shift, weight.path


def test_noise_is_normal_and_the_same_under_xla():
    from nmt_keras.layers.stateful_attention import _normal, _quantile

    assert np.isfinite(_quantile(tf.constant([0.0, 2.0**23 - 1]))).all()
    draw = functools.partial(_normal, [20_000])
    plain, compiled = (tf.function(draw, jit_compile=how)(tf.constant([1, 2])).numpy() for how in (False, True))
    np.testing.assert_allclose(compiled, plain, atol=1e-4)
    assert abs(plain.mean()) < 0.03 and plain.std() == pytest.approx(1.0, abs=0.03)
