"""cuDNN's form of the weights against its documented equations, the choice of path; and on a GPU, both paths."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.layers import cudnn
from nmt_keras.layers.cells import CELLS
from nmt_keras.layers.recurrent import RecurrentLayer, use_cudnn, ways_of
from nmt_keras.models.seq2seq import build_seq2seq

B, T, INPUT, UNITS = 3, 5, 3, 4
LENGTHS = (5, 1, 3)


def _layer(cell, reverse=False):
    layer = RecurrentLayer(cell, UNITS, reverse)
    layer.build((None, None, INPUT))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def _inputs(cell):
    rng = np.random.default_rng(2)
    states = tuple(tf.constant(rng.normal(size=(B, UNITS)), tf.float32) for _ in range(CELLS[cell].num_states))
    return tf.constant(rng.normal(size=(B, T, INPUT)), tf.float32), tf.sequence_mask(LENGTHS, T), states


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _read(vector, gates):
    """W, R, b_W and b_R of each gate, from the places that cuDNN's documentation gives them."""
    sizes = [UNITS * INPUT] * gates + [UNITS * UNITS] * gates + [UNITS] * 2 * gates
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    matrices = [part.reshape(UNITS, -1) for part in parts[: 2 * gates]]
    return matrices[:gates], matrices[gates:], parts[2 * gates : 3 * gates], parts[3 * gates :]


def _by_the_documentation(mode, vector, x, states):
    """One position, by the equations of CUDNN_LSTM and CUDNN_GRU, in float64."""
    w, r, bw, br = _read(vector.astype(np.float64), {"lstm": 4, "gru": 3}[mode])
    h = states[0]
    both = [x @ w[g].T + h @ r[g].T + bw[g] + br[g] for g in range(len(w))]
    if mode == "lstm":
        i, f, o = (_sigmoid(both[g]) for g in (0, 1, 3))
        c = f * states[1] + i * np.tanh(both[2])
        return o * np.tanh(c), c
    reset, update = _sigmoid(both[0]), _sigmoid(both[1])
    new = np.tanh(x @ w[2].T + reset * (h @ r[2].T + br[2]) + bw[2])
    return ((1 - update) * new + update * h,)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_packed_weights_mean_what_the_layer_computes(cell):
    layer = _layer(cell)
    x, _, states = _inputs(cell)
    vector = cudnn.packed(layer.cell, layer.kernel.value, layer.recurrent_kernel.value, [b.value for b in layer.biases])
    outputs, _ = layer(x, initial_states=states)
    now = tuple(state.numpy().astype(np.float64) for state in states)
    for t in range(T):
        now = _by_the_documentation(cell, vector.numpy(), x[:, t].numpy(), now)
        np.testing.assert_allclose(outputs[:, t], now[0], atol=1e-5)


def test_what_cudnn_cannot_do_is_left_to_the_loop():
    assert not cudnn.obstacle(CELLS["lstm"], 0.0, "bfloat16")
    assert "its cell" in cudnn.obstacle(CELLS["normed_lstm"], 0.0, "float32")
    assert "its cell" in cudnn.obstacle(CELLS["rnn"], 0.0, "float32")
    assert "state_dropout_rate" in cudnn.obstacle(CELLS["gru"], 0.1, "float32")
    assert "float64" in cudnn.obstacle(CELLS["gru"], 0.0, "float64")


def _traced(is_used, **fields):
    """A model, and the names of the operations of one pass with dropout and its gradient, made and not run."""
    config = ModelConfig(d_model=8, num_encoder_layers=1, num_decoder_layers=1, **fields)
    model = build_seq2seq(config, 11, 11)
    use_cudnn(model, is_used)

    @tf.function(autograph=False)
    def run(source, target):
        with tf.GradientTape() as tape:
            hidden, _ = model(source, target, tf.constant([1, 2]))
            loss = tf.reduce_sum(hidden)
        return tape.gradient(loss, [weight.value for weight in model.trainable_variables])

    ids = tf.TensorSpec([None, None], tf.int32)
    return model, [operation.type for operation in run.get_concrete_function(ids, ids).graph.get_operations()]


def test_the_path_is_chosen_by_layer_and_told():
    model, operations = _traced(True, input_feeding=True)
    assert operations.count("CudnnRNNV3") == 2 == operations.count("CudnnRNNBackpropV3")  # both directions
    told = ways_of(model)
    assert "cuDNN: seq2seq/encoder/stack/layers/0/0, seq2seq/encoder/stack/layers/0/1" in told
    assert "step: seq2seq/decoder/stack/layers/0/0" in told and "loop" not in told
    model, operations = _traced(True, cell="normed_lstm")
    assert "CudnnRNNV3" not in operations and "loop (its cell is not one of cuDNN's, lstm and gru):" in ways_of(model)


def test_nothing_is_cudnn_where_it_is_not_wanted():
    model, operations = _traced(False)
    assert "CudnnRNNV3" not in operations and "cuDNN" not in ways_of(model)


def _run(layer, x, mask, states, is_used, seed):
    use_cudnn(layer, is_used)
    weights = [weight.value for weight in layer.weights]
    coefficients = tf.random.stateless_normal([B, T, UNITS], [3, 4])
    if seed is None:  # cuDNN keeps nothing for a gradient
        return layer(x, mask, states, seed)
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        outputs, last = layer(x, mask, states, seed)
        loss = tf.reduce_sum(outputs * coefficients) + sum(tf.reduce_sum(s * s) for s in last)
    return outputs, last, tape.gradient(loss, [x, *states, *weights])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("bfloat16", 0.1), ("float16", 0.02)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_cudnn_is_the_loop(cell, reverse, dtype, tolerance):
    """Outputs, last states and gradients, with padding, in both directions."""
    import keras

    tf.config.experimental.enable_tensor_float_32_execution(False)
    if dtype != "float32":
        keras.config.set_dtype_policy(f"mixed_{dtype}")
    layer = _layer(cell, reverse)
    x, mask, states = _inputs(cell)
    with tf.device("GPU:0"):
        for seed in (None, tf.constant([1, 2])):
            ours, theirs = (_run(layer, x, mask, states, is_used, seed) for is_used in (True, False))
            for own, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
                np.testing.assert_allclose(own, other, atol=tolerance, rtol=tolerance)
    assert not ours[0].numpy()[~mask.numpy()].any()


@pytest.mark.gpu
def test_no_mask_is_no_padding():
    layer = _layer("lstm")
    x, _, states = _inputs("lstm")
    ours, theirs = (_run(layer, x, None, states, is_used, tf.constant([1, 2])) for is_used in (True, False))
    for own, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-3)
