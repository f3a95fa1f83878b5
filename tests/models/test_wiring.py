"""What each decoder joins to what: NumPy loops written from the papers' equations, in float64."""

import math

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.models.encoders import EncoderOutput
from nmt_keras.models.registry import ATTENTIONS, DECODERS, ENCODERS

B, S, T, D = 2, 3, 5, 4
X = np.random.default_rng(1).normal(size=(B, T, D))  # embedded target
STATES, EMBEDDED = np.random.default_rng(2).normal(size=(2, B, S, D))
LAST = np.random.default_rng(3).normal(size=(4, 2, B, D))  # the encoder's last states, of four layers


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _numbers(layer):
    return {weight.name: weight.numpy().astype(np.float64) for weight in layer.weights}


def _lstm(layer, x, states):
    w, (h, c) = _numbers(layer), states
    i, f, o, g = np.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, axis=-1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(layer, x, h):
    w = _numbers(layer)
    az, ar, an = np.split(x @ w["kernel"] + w["bias"], 3, axis=-1)
    rz, rr, rn = np.split(h @ w["recurrent_kernel"] + w["recurrent_bias"], 3, axis=-1)
    z = _sigmoid(az + rz)
    return z * h + (1 - z) * np.tanh(an + _sigmoid(ar + rr) * rn)


def _attend(scores):
    """Weights [B, S] and what they read of the encoder's states."""
    weights = _softmax(scores)
    return weights, np.einsum("bs,bsd->bd", weights, STATES)


def _general(layer, s):
    return _attend(np.einsum("bd,bsd->bs", s, STATES @ _numbers(layer)["kernel"]))


def _additive(layer, s):
    w = _numbers(layer)
    return _attend(np.tanh((s @ w["query_kernel"])[:, None] + STATES @ w["key_kernel"]) @ w["energy"])


def _decoder(name, attention, **fields):
    """A decoder with weights of ordinary size, and the memory of the encoder's states."""
    config = ModelConfig(
        **{"d_model": D, "num_heads": 2, "bridge": "copy", "input_dropout_rate": 0.0, "attention": attention, **fields}
    )
    parts = [ATTENTIONS[attention](D, 1, name="attention")] if attention else []
    decoder = DECODERS[name](config, *parts)
    decoder.build((None, None, D))
    rng = np.random.default_rng(4)
    for weight in decoder.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.7)
    states, embedded, last = (tf.constant(x, tf.float32) for x in (STATES, EMBEDDED, LAST))
    num_states = 1 if fields.get("cell") == "gru" else 2
    layers = tuple(tuple(last[n, i] for i in range(num_states)) for n in range(config.num_decoder_layers))
    return decoder, decoder.prepare(EncoderOutput(states, embedded, tf.fill([B, S], True), layers))


def _assert_decodes(decoder, memory, hiddens, weights):
    hidden, attention_weights = decoder(tf.constant(X, tf.float32), memory)
    np.testing.assert_allclose(attention_weights, np.stack(weights, 1), atol=1e-5)
    np.testing.assert_allclose(hidden, np.stack(hiddens, 1), atol=1e-5)


@pytest.mark.parametrize("feeding", [False, True])
def test_luong_decoder(feeding):
    """Luong et al. 2015: s_t = f(s_{t-1}, [y_{t-1}; h~_{t-1}]), h~_t = tanh(W_c [c_t; s_t]) (eq. 5)."""
    decoder, memory = _decoder("rnn", "luong_general", num_decoder_layers=2, input_feeding=feeding)
    layers = [layer for (layer,) in decoder.stack.layers]
    states, fed, hiddens, all_weights = [LAST[0], LAST[1]], np.zeros((B, D)), [], []
    for t in range(T):
        x = np.concatenate([X[:, t], fed], -1) if feeding else X[:, t]
        for n, layer in enumerate(layers):
            states[n] = _lstm(layer, x, states[n])
            x = states[n][0]
        weights, context = _general(decoder.attention, x)
        fed = np.tanh(np.concatenate([context, x], -1) @ _numbers(decoder.combine)["kernel"])
        hiddens.append(fed)
        all_weights.append(weights)
    _assert_decodes(decoder, memory, hiddens, all_weights)


def test_bahdanau_decoder_reads_before_it_steps():
    """The article's equations: e_{t,i} = a(s_{t-1}, h_i), s_t = f(s_{t-1}, [y_{t-1}; c_t])."""
    decoder, memory = _decoder("rnn", "bahdanau", cell="gru", num_decoder_layers=1, input_feeding=True)
    [[layer]] = decoder.stack.layers
    s, hiddens, all_weights = LAST[0, 0], [], []
    for t in range(T):
        weights, context = _additive(decoder.attention, s)
        s = _gru(layer, np.concatenate([X[:, t], context], -1), s)
        hiddens.append(np.tanh(np.concatenate([context, s], -1) @ _numbers(decoder.combine)["kernel"]))
        all_weights.append(weights)
    _assert_decodes(decoder, memory, hiddens, all_weights)


@pytest.mark.parametrize("name", ["gnmt", "rnmt_plus"])
@pytest.mark.parametrize("feeding", [False, True])
def test_gnmt_decoder(name, feeding):
    """Wu et al. 2016, 3: the bottom layer's state reads; its context goes to all layers above, and with feeding to the
    bottom one at the next position; residuals from the third layer on. RNMT+ gives the softmax the context too."""
    decoder, memory = _decoder(name, "bahdanau", num_decoder_layers=4, input_feeding=feeding)
    layers = [layer for stack in (decoder.bottom, decoder.second, decoder.others) for (layer,) in stack.layers]
    states, fed, hiddens, all_weights = list(LAST), np.zeros((B, D)), [], []
    for t in range(T):
        x = np.concatenate([X[:, t], fed], -1) if feeding else X[:, t]
        states[0] = _lstm(layers[0], x, states[0])
        x = states[0][0]
        weights, context = _additive(decoder.attention, x)
        for n in (1, 2, 3):
            states[n] = _lstm(layers[n], np.concatenate([x, context], -1), states[n])
            x = states[n][0] + (x if n > 1 else 0.0)
        if name == "rnmt_plus":
            x = np.concatenate([context, x], -1) @ _numbers(decoder.combine)["kernel"]
        fed = context
        hiddens.append(x)
        all_weights.append(weights)
    _assert_decodes(decoder, memory, hiddens, all_weights)


def test_gnmt_encoder():
    """Wu et al. 2016, 3.2: both ways at the bottom, forward above, residuals from the third layer on."""
    encoder = ENCODERS["gnmt"](ModelConfig(d_model=D, num_encoder_layers=4, input_dropout_rate=0.0))
    encoder.build((None, None, D))
    rng = np.random.default_rng(5)
    for weight in encoder.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.7)
    [[forward, backward]] = encoder.first.layers
    above = [layer for stack in (encoder.second, encoder.others) for (layer,) in stack.layers]

    def run(layer, x):
        states, outputs = (np.zeros((B, layer.units)),) * 2, []
        for position in range(S):
            states = _lstm(layer, x[:, position], states)
            outputs.append(states[0])
        return np.stack(outputs, 1)

    x = np.concatenate([run(forward, EMBEDDED), run(backward, EMBEDDED[:, ::-1])[:, ::-1]], -1)
    for n, layer in enumerate(above):
        x = run(layer, x) + (x if n else 0.0)
    output = encoder(tf.constant(EMBEDDED, tf.float32), tf.fill([B, S], True))
    np.testing.assert_allclose(output.states, x, atol=1e-5)


def test_conditional_gru_decoder():
    """Sennrich et al. 2017, 2: s'_t = GRU_1(y_{t-1}, s_{t-1}), c_t read with s'_t, s_t = GRU_2(c_t, s'_t)."""
    decoder, memory = _decoder("conditional_gru", "bahdanau", cell="gru", num_decoder_layers=1)
    s, hiddens, all_weights = LAST[0, 0], [], []
    for t in range(T):
        between = _gru(decoder.first, X[:, t], s)
        weights, context = _additive(decoder.attention, between)
        s = _gru(decoder.second, context, between)
        w = _numbers(decoder.combine)
        hiddens.append(np.tanh(np.concatenate([s, X[:, t], context], -1) @ w["kernel"] + w["bias"]))
        all_weights.append(weights)
    _assert_decodes(decoder, memory, hiddens, all_weights)


def test_convolutional_decoder():
    """Gehring et al. 2017, 3.2 and 3.3: gated linear units over the k positions before, attention in every layer."""
    k, layers = 3, 2
    decoder, memory = _decoder("conv", "", num_decoder_layers=layers, kernel_size=k, positions="none")
    half = math.sqrt(0.5)

    def normed(layer, x):
        w = _numbers(layer)
        return x @ (w["direction"] / np.linalg.norm(w["direction"], axis=0) * w["magnitude"]) + w["bias"]

    embedded = X * 0.1  # of unit variance, as they come
    x, mean = normed(decoder.inward, embedded), 0.0
    values = (STATES + EMBEDDED) * half
    for number in range(layers):
        y = np.zeros((B, T, D))
        for t in range(T):
            window = [x[:, t - k + 1 + i] if t - k + 1 + i >= 0 else np.zeros((B, D)) for i in range(k)]
            a, b = np.split(normed(decoder.convolutions[number].dense, np.concatenate(window, -1)), 2, axis=-1)
            y[:, t] = a * _sigmoid(b)
        query = (normed(decoder.queries[number], y) + embedded) * half
        weights = _softmax(np.einsum("btd,bsd->bts", query, STATES))
        context = np.einsum("bts,bsd->btd", weights, values) * math.sqrt(S)
        y = (normed(decoder.contexts[number], context) + y) * half
        x, mean = (y + x) * half, mean + weights / layers
    hidden, attention_weights = decoder(tf.constant(X, tf.float32), memory)
    np.testing.assert_allclose(attention_weights, mean, atol=1e-5)
    np.testing.assert_allclose(hidden, normed(decoder.outward, x), atol=1e-5)
