"""The parts of the Transformer and of ConvS2S against their equations in NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.layers.convolution import GatedConvolution, NormedDense
from nmt_keras.layers.linear_recurrence import linear_recurrence
from nmt_keras.layers.multihead_attention import MultiHeadAttention
from nmt_keras.layers.positions import PositionEmbedding, RelativePositions, rotate, sinusoids
from nmt_keras.layers.transformer import NORM_EPSILON, SSRU, CausalSelfAttention, FeedForward, LayerNorm, Residual

B, T, H, C, D, F = 2, 5, 2, 4, 8, 12


def _filled(layer, seed=1):
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def _x(*shape, seed=2):
    return np.random.default_rng(seed).normal(size=shape)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _dense(layer, x):
    result = x @ layer.kernel.numpy().astype(np.float64)
    return result + layer.bias.numpy() if layer.use_bias else result


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_multi_head_attention_is_scaled_dot_product_a_head():
    layer = MultiHeadAttention(D, H)
    layer.build()
    _filled(layer)
    x, y = _x(B, 3, D), _x(B, T, D, seed=3)
    mask = np.array([[True] * 5, [True] * 3 + [False] * 2])
    q, k, v = (
        _dense(part, z)
        for part, z in ((layer.query_projection, x), (layer.key_projection, y), (layer.value_projection, y))
    )
    contexts, weights = [], []
    for head in range(H):
        channels = slice(head * C, head * C + C)
        scores = q[..., channels] @ k[..., channels].transpose(0, 2, 1) / np.sqrt(C)
        weights.append(_softmax(np.where(mask[:, None], scores, -np.inf)))
        contexts.append(weights[-1] @ v[..., channels])
    expected = _dense(layer.output_projection, np.concatenate(contexts, -1))
    result, got = layer(
        tf.constant(x, tf.float32), layer.project(tf.constant(y, tf.float32)), tf.constant(mask)[:, None, None]
    )
    np.testing.assert_allclose(got, np.stack(weights, 1), atol=1e-5)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(tf.range(7), D).numpy()
    for position in range(7):
        for i in range(D // 2):
            angle = position / 10_000 ** (2 * i / D)
            assert table[position, i] == pytest.approx(np.sin(angle), abs=1e-6)
            assert table[position, D // 2 + i] == pytest.approx(np.cos(angle), abs=1e-6)


def test_a_product_of_rotated_vectors_depends_on_their_distance_alone():
    q, k = (tf.constant(_x(1, 1, 1, C, seed=seed), tf.float32) for seed in (1, 2))

    def product(at, other):
        return float(tf.reduce_sum(rotate(q, tf.constant([at])) * rotate(k, tf.constant([other]))))

    assert product(3, 1) == pytest.approx(product(10, 8), abs=1e-5)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)
    assert product(0, 0) == pytest.approx(float(tf.reduce_sum(q * k)), abs=1e-6)


def test_each_pair_of_channels_turns_at_its_own_speed():
    x = _x(1, 1, 1, 6)
    turned = rotate(tf.constant(x, tf.float32), tf.constant([5])).numpy()[0, 0, 0]
    for i, (first, second) in enumerate(zip(x[0, 0, 0, :3], x[0, 0, 0, 3:])):
        angle = 5 / 10_000 ** (2 * i / 6)
        assert turned[i] == pytest.approx(first * np.cos(angle) - second * np.sin(angle), abs=1e-5)
        assert turned[3 + i] == pytest.approx(first * np.sin(angle) + second * np.cos(angle), abs=1e-5)


def test_relative_positions_are_clipped_at_sixteen():
    layer = RelativePositions(C)
    layer.build()
    _filled(layer)
    query, table = _x(B, H, 3, C), layer.table.numpy()
    positions, keys = np.array([0, 1, 40]), np.arange(45)
    result = layer(tf.constant(query, tf.float32), tf.constant(positions), tf.constant(keys))
    for q, position in enumerate(positions):
        for key in keys:
            row = table[np.clip(key - position, -16, 16) + 16]
            np.testing.assert_allclose(result[:, :, q, key], query[:, :, q] @ row, atol=1e-5)


def test_learned_positions_beyond_the_last_share_its_vector():
    layer = PositionEmbedding("learned", D, 3)
    layer.build()
    added = layer(tf.zeros([1, 5, D]), tf.range(5)).numpy()[0]
    np.testing.assert_array_equal(added[2], added[4])
    assert (added[1] != added[2]).any()


@pytest.mark.parametrize("length", [1, 2, 5, 8, 13])
def test_the_linear_recurrence_equals_its_loop(length):
    factor, term = _x(B, length, 3), _x(B, length, 3, seed=4)
    expected = np.zeros_like(term)
    for t in range(length):
        expected[:, t] = term[:, t] + (factor[:, t] * expected[:, t - 1] if t else 0)
    arguments = (tf.constant(factor, tf.float32), tf.constant(term, tf.float32))
    np.testing.assert_allclose(linear_recurrence(*arguments, axis=1), expected, atol=1e-4)
    dynamic = tf.function(
        lambda f, b: linear_recurrence(f, b, axis=1), input_signature=[tf.TensorSpec([None, None, 3])] * 2
    )
    np.testing.assert_allclose(dynamic(*arguments), expected, atol=1e-4)


def test_ssru_follows_its_equation():
    layer = SSRU(D)
    layer.build()
    _filled(layer)
    x, c = _x(B, T, D), np.zeros((B, D))
    result = layer(tf.constant(x, tf.float32))
    for t in range(T):
        forget = _sigmoid(_dense(layer.forget, x[:, t]))
        c = forget * c + (1 - forget) * _dense(layer.candidate, x[:, t])
        np.testing.assert_allclose(result[:, t], np.maximum(c, 0), atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu", "swiglu"])
def test_feed_forward_follows_its_equation(activation):
    layer = FeedForward(D, F, activation, 0.0)
    layer.build()
    _filled(layer)
    x = _x(B, T, D)
    inner = _dense(layer.inner, x)
    inner = {
        "relu": lambda: np.maximum(inner, 0),
        "gelu": lambda: inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2,
        "swiglu": lambda: inner * _sigmoid(inner) * _dense(layer.gate, x),
    }[activation]()
    np.testing.assert_allclose(layer(tf.constant(x, tf.float32)), _dense(layer.outer, inner), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_residual_normalises_before_or_after(pre_norm):
    layer = Residual(D, pre_norm, 0.0)
    layer.build()
    x, y = _x(B, T, D), _x(B, T, D, seed=5)

    def norm(z):
        return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)

    before, after = (
        layer.before(tf.constant(x, tf.float32)),
        layer.after(tf.constant(x, tf.float32), tf.constant(y, tf.float32), None),
    )
    np.testing.assert_allclose(before, norm(x) if pre_norm else x, atol=1e-5)
    np.testing.assert_allclose(after, x + y if pre_norm else norm(x + y), atol=1e-5)


def test_the_cache_grows_by_a_position_a_step():
    layer = CausalSelfAttention(D, H)
    layer.build()
    state = layer.initial_state(B, 1)
    for position in range(3):
        _, state = _stepped(layer, tf.ones([B, 1, D]), position, state)
        [own] = state.layers
        assert own.keys.shape == own.values.shape == (B, H, position + 1, C)
        assert state.positions.numpy().tolist() == [list(range(position + 1))] * B
        assert state.is_own.shape == (B, 1, position + 1)


def _stepped(layer, x, position, state):
    """A step of a decoder of one layer."""
    here = state.at(tf.constant(position))
    y, own = layer.step(tf.constant(x, tf.float32), tf.constant(position), *state.layers, here)
    return y, here._replace(layers=(own,))


def test_the_cache_of_no_rows_and_of_half_precision_grows_too():
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = CausalSelfAttention(D, H)
    layer.build()
    for rows in (0, 2):
        state = layer.initial_state(rows, 1)
        for position in range(4):
            y, state = _stepped(layer, np.ones([rows, 3 if position else 1, D]), position, state)
            assert {leaf.dtype for leaf in state.layers[0]} == {tf.bfloat16} and y.shape[0] == rows
            state = state.reordered(tf.zeros([rows, 3], tf.int32))
            assert state.positions.shape[1] == state.layers[0].keys.shape[2] <= (2 * (position + 1) if rows else 0)


@pytest.mark.parametrize("options", [{}, {"rotary": True}, {"relative": True}], ids=str)
def test_keys_that_no_hypothesis_sees_are_left_out(options):
    layer = CausalSelfAttention(D, H, **options)
    layer.build()
    _filled(layer)
    width, length = 5, 12
    rng = np.random.default_rng(4)
    state, paths, kept = layer.initial_state(B, 1), [[[]] * width] * B, []
    for position in range(length):
        x = rng.normal(size=(B, width if position else 1, D))
        y, state = _stepped(layer, x, position, state)
        kept.append(state.positions.shape[1])
        paths = [[[*path, each] for path, each in zip(paths[row], x[row])] for row in range(B)]
        for row, beam in ((row, beam) for row in range(B) for beam in range(x.shape[1])):
            expected = layer(tf.constant([paths[row][beam]], tf.float32))[0, -1]
            np.testing.assert_allclose(y[row, beam], expected, atol=1e-5)
        parents = rng.integers(x.shape[1], size=(B, width))  # few have all the descendants, not the same in each row
        before, state = state, state.reordered(tf.constant(parents, tf.int32))
        paths = [[paths[row][parent] for parent in parents[row]] for row in range(B)]
        seen = max(len({place for beam in row for place in np.flatnonzero(beam)}) for row in state.is_own.numpy())
        is_kept = before.positions.shape[1] <= 2 * seen
        assert state.positions.shape[1] == (before.positions.shape[1] if is_kept else seen)
    assert any(after < before for before, after in zip(kept, kept[1:]))
    assert len({tuple(own) for own in state.positions.numpy().tolist()}) == B, "rows keep keys of other positions"


@pytest.mark.parametrize("causal", [False, True])
def test_a_gated_convolution_is_one_over_windows(causal):
    layer = GatedConvolution(D, 3, causal, 0.0)
    layer.build()
    _filled(layer)
    v, g, b = (w.numpy().astype(np.float64) for w in (layer.dense.direction, layer.dense.magnitude, layer.dense.bias))
    kernel = v / np.linalg.norm(v, axis=0) * g
    x = _x(B, T, D)
    mask = np.array([[True] * 5, [True] * 3 + [False] * 2])
    padded = np.pad(np.where(mask[..., None], x, 0), [(0, 0), (2, 0) if causal else (1, 1), (0, 0)])
    result = layer(tf.constant(x, tf.float32), tf.constant(mask))
    for t in range(T):
        left, right = np.split(padded[:, t : t + 3].reshape(B, -1) @ kernel + b, 2, axis=-1)
        np.testing.assert_allclose(result[:, t], left * _sigmoid(right), atol=1e-5)


def test_a_normed_product_starts_with_the_size_of_its_directions():
    layer = NormedDense(64)
    layer.build((None, 256))
    out = layer(tf.random.stateless_normal([500, 256], [1, 2]))
    assert float(tf.math.reduce_variance(out)) == pytest.approx(1.0, abs=0.1)


def test_layer_normalisation_and_its_gradient_are_those_of_the_formula_in_float64():
    rng = np.random.default_rng(5)
    x, d_y, gamma, beta = (rng.normal(size=shape) for shape in ((2, 3, 8), (2, 3, 8), (8,), (8,)))
    norm = LayerNorm()
    norm.build((None, None, 8))
    norm.gamma.assign(gamma)
    norm.beta.assign(beta)
    given, precise = tf.constant(x, tf.float32), tf.constant(x)
    with tf.GradientTape() as tape, tf.GradientTape() as precise_tape:
        tape.watch(given)
        precise_tape.watch(precise)
        own = norm(given)
        mean, variance = tf.nn.moments(precise, [-1], keepdims=True)
        expected = (precise - mean) / tf.sqrt(variance + NORM_EPSILON) * gamma + beta
    np.testing.assert_allclose(own, expected, atol=1e-5)
    gradient = precise_tape.gradient(expected, precise, output_gradients=tf.constant(d_y))
    np.testing.assert_allclose(tape.gradient(own, given, tf.constant(d_y, tf.float32)), gradient, atol=1e-5)
