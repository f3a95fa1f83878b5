"""The recurrent layers against plain loops and the cells' equations."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.layers import fusion, recurrent
from nmt_keras.layers.cells import CELLS
from nmt_keras.layers.recurrent import RecurrentLayer, RecurrentStack

B, T, INPUT, UNITS = 2, 5, 3, 4


def _layer(cell, **kwargs):
    layer = RecurrentLayer(cell, UNITS, **kwargs)
    layer.build((None, None, INPUT))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def _inputs(seed=2):
    rng = np.random.default_rng(seed)
    x = tf.constant(rng.normal(size=(B, T, INPUT)), tf.float32)
    mask = tf.sequence_mask([5, 3], T)
    states = tuple(tf.constant(rng.normal(size=(B, UNITS)), tf.float32) for _ in range(2))
    return x, mask, states


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _normed(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _reference(cell, layer, x, h, c):
    """The equations of the papers, in float64."""
    weights = {w.name: w.numpy().astype(np.float64) for w in layer.weights}
    a, r = x @ weights["kernel"], h @ weights["recurrent_kernel"]
    if cell == "normed_lstm":
        gates = _normed(a) * weights["input_gain"] + _normed(r) * weights["recurrent_gain"] + weights["bias"]
        i, f, o, g = np.split(gates, 4, axis=-1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        return _sigmoid(o) * np.tanh(_normed(c) * weights["cell_gain"] + weights["cell_bias"]), c
    a = a + weights["bias"]
    if cell == "lstm":
        i, f, o, g = np.split(a + r, 4, axis=-1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        return _sigmoid(o) * np.tanh(c), c
    if cell == "gru":
        r = r + weights["recurrent_bias"]
        (az, ar, an), (rz, rr, rn) = np.split(a, 3, axis=-1), np.split(r, 3, axis=-1)
        z = _sigmoid(az + rz)
        return z * h + (1 - z) * np.tanh(an + _sigmoid(ar + rr) * rn), c
    return np.tanh(a + r), c


@pytest.mark.parametrize("cell", CELLS)
def test_sequence_follows_the_equations_of_the_cell(cell):
    layer = _layer(cell)
    x, _, states = _inputs()
    outputs, last = layer(x, initial_states=states[: layer.cell.num_states])
    h, c = (s.numpy().astype(np.float64) for s in states)
    for t in range(T):
        h, c = _reference(cell, layer, x[:, t].numpy(), h, c)
        np.testing.assert_allclose(outputs[:, t], h, atol=1e-5)
    np.testing.assert_allclose(last[0], h, atol=1e-5)
    if cell == "lstm":
        np.testing.assert_allclose(last[1], c, atol=1e-5)


@pytest.mark.parametrize("mode", ["inference", "training", "compiled"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_and_its_gradient_are_those_of_its_steps_in_float64(cell, reverse, mode, monkeypatch):
    monkeypatch.setattr(fusion, "_MIN_WIDTH", 1 if mode == "compiled" else 1_000_000)
    recurrent._kernels.cache_clear()
    layer = _layer(cell, reverse=reverse)
    x, mask, states = _inputs()
    states = states[: layer.cell.num_states]
    weights = [w.value for w in (layer.kernel, layer.recurrent_kernel, *layer.biases, *layer.parameters)]
    coefficients = tf.random.stateless_normal([B, T, UNITS], [3, 4])
    seed = None if mode == "inference" else tf.constant([1, 2])  # it says that this is training

    def plain(x, states, weights):
        kernel, recurrent_kernel, *vectors = weights
        biases, parameters = vectors[: len(layer.biases)], vectors[len(layer.biases) :]
        outputs = [None] * T
        for t in reversed(range(T)) if reverse else range(T):
            projections = [x[:, t] @ kernel, states[0] @ recurrent_kernel]
            biased = [p + b for p, b in zip(projections, biases)] + projections[len(biases) :]
            new = layer.cell.update(*biased, states, *parameters)
            keep = mask[:, t, None]
            states = tuple(tf.where(keep, n, o) for n, o in zip(new, states))
            outputs[t] = tf.where(keep, new[0], 0.0)
        return tf.stack(outputs, 1), states

    def sequence(x, states, _):
        return layer(x, sequence_mask=mask, initial_states=states, dropout_seed=seed)

    results = []
    for run, dtype in ((plain, tf.float64), (sequence, tf.float32)):
        operands = x, states, weights
        if dtype == tf.float64:
            operands = tf.nest.map_structure(lambda operand: tf.cast(operand, tf.float64), operands)
        with tf.GradientTape() as tape:
            tape.watch(operands)
            outputs, last = run(*operands)
            total = tf.reduce_sum(outputs * tf.cast(coefficients, dtype))
            total += sum(tf.reduce_sum(tf.sin(state)) for state in last)
        gradients = tape.gradient(total, tf.nest.flatten(operands))
        assert outputs.dtype == dtype and all(gradient.dtype == dtype for gradient in gradients)
        results.append((outputs, *last, *gradients))
    for expected, own in zip(*results, strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(own, expected, atol=2e-5)


def test_gradient_with_state_dropout_matches_finite_differences():
    layer = _layer("lstm", state_dropout_rate=0.5)
    x, _, _ = _inputs()
    seed = tf.constant([1, 2])

    def loss(x):
        return tf.reduce_sum(tf.sin(layer(x, dropout_seed=seed)[0]))

    theory, numeric = tf.test.compute_gradient(loss, [x], delta=1e-2)
    np.testing.assert_allclose(theory[0], numeric[0], atol=2e-3)
    assert not np.allclose(loss(x), tf.reduce_sum(tf.sin(layer(x)[0])))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_stands_at_padding_changes_nothing(bidirectional):
    stack = RecurrentStack("lstm", 2, 6, bidirectional=bidirectional, residual=True)
    stack.build((None, None, INPUT))
    x, mask, _ = _inputs()
    other = tf.where(mask[:, :, None], x, 9.0)
    (a, last_a), (b, last_b) = stack(x, sequence_mask=mask), stack(other, sequence_mask=mask)
    np.testing.assert_array_equal(a, b)
    tf.nest.map_structure(np.testing.assert_array_equal, last_a, last_b)
    np.testing.assert_array_equal(a[1, 3:], np.zeros((2, 6)))
    alone, last_alone = stack(x[1:, :3], sequence_mask=mask[1:, :3])
    np.testing.assert_allclose(alone[0], a[1, :3], atol=1e-6)
    np.testing.assert_allclose(last_alone[1][0][0], last_a[1][0][1], atol=1e-6)


def test_mixed_precision_computes_products_in_bfloat16_and_returns_float32():
    layer = RecurrentLayer("lstm", UNITS)
    layer.dtype_policy = "mixed_bfloat16"
    layer.build((None, None, INPUT))
    plain = RecurrentLayer("lstm", UNITS)
    plain.build((None, None, INPUT))
    for a, b in zip(plain.weights, layer.weights):
        a.assign(b)
    x, mask, _ = _inputs()
    mixed, full = layer(x, sequence_mask=mask)[0], plain(x, sequence_mask=mask)[0]
    assert mixed.dtype == tf.float32
    difference = float(tf.reduce_max(tf.abs(mixed - full)))
    assert 0 < difference < 0.02
