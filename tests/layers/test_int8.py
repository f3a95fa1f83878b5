"""Products in int8, beside those in float64."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.layers import dense, int8
from nmt_keras.layers.embeddings import OutputProjection, TokenEmbedding
from nmt_keras.serving.compression import compress_kernels

ROWS, WIDTH, OUTPUTS = 7, 48, 21
RNG = np.random.default_rng(1)
X = (RNG.normal(size=(ROWS, WIDTH)) * RNG.uniform(0.01, 30.0, [ROWS, 1])).astype(np.float32)
KERNEL = (RNG.normal(size=(WIDTH, OUTPUTS)) * RNG.uniform(0.01, 3.0, [1, OUTPUTS])).astype(np.float32)
BIAS = RNG.normal(size=OUTPUTS).astype(np.float32)


def _layer(activation=None, dtype="float32"):
    """A dense layer, and itself in int8."""
    keras.config.set_dtype_policy(dtype)
    try:
        layer = dense.Dense(OUTPUTS, activation=activation)
        layer.build((None, WIDTH))
    finally:
        keras.config.set_dtype_policy("float32")
    layer.kernel.assign(KERNEL)
    layer.bias.assign(BIAS)
    _, kernels = compress_kernels([layer.kernel], {layer.kernel.path: False})
    return layer, kernels


def _bound(x, kernel):
    """What rounding a row and a column to within half a step each may change, [rows, O]."""
    row_steps = np.abs(x).max(1, keepdims=True) / 127
    column_steps = np.abs(kernel).max(0, keepdims=True) / 127
    return (
        0.5 * row_steps * np.abs(kernel).sum(0)
        + 0.5 * column_steps * np.abs(x).sum(1, keepdims=True)
        + 0.25 * x.shape[1] * row_steps * column_steps
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("activation", [None, tf.nn.relu, tf.tanh], ids=["none", "relu", "tanh"])
def test_a_product_is_within_the_steps_of_its_operands(activation, dtype):
    layer, kernels = _layer(activation, dtype)
    expected = X.astype(np.float64) @ KERNEL + BIAS
    if activation is not None:
        expected = activation(tf.constant(expected)).numpy()
    found = dense.cast_once(layer, kernels)(tf.constant(X))
    assert found.dtype == tf.float32 and found.shape == (ROWS, OUTPUTS)
    assert (np.abs(found - expected) <= _bound(X, KERNEL) * 1.001 + 1e-4).all()
    typical = np.abs(found - expected).mean() / np.abs(expected).mean()
    assert typical < 0.01


@pytest.mark.parametrize("is_transposed", [False, True])
def test_the_sums_are_exact(is_transposed):
    """With operands that are integers times a scale, nothing is rounded."""
    integers = RNG.integers(-127, 128, (ROWS, WIDTH)).astype(np.float32)
    integers[:, 0] = 127
    values = RNG.integers(-127, 128, (WIDTH, OUTPUTS)).astype(np.int8)
    scales = RNG.uniform(0.1, 2.0, OUTPUTS).astype(np.float32)
    kernel = int8.Int8Kernel(values.T if is_transposed else values, scales, is_transposed)
    x, bias, ids = int8.quantized(tf.constant(integers)), tf.constant(BIAS), [3, 0, 20, 11]
    expected = integers @ values.astype(np.float64) * scales + BIAS
    np.testing.assert_allclose(kernel.columns().affine(x, bias), expected, rtol=1e-6, atol=1e-2)
    found = kernel.gather(tf.constant(ids)).affine(x, tf.gather(bias, ids))
    np.testing.assert_allclose(found, expected[:, ids], rtol=1e-6, atol=1e-2)


def test_rows_are_rounded_to_the_nearest_of_255_steps():
    x = tf.constant([[127.0, -127.0, 0.49, 0.51, -0.49, -0.51, 0.0], [0.5, 0.25, -0.5, 0.0, 0.0, 0.0, 0.0]])
    values, scales, is_shifted = int8.quantized(x)
    assert is_shifted and values.numpy().tolist()[0] == [255, 1, 128, 129, 128, 127, 128]
    np.testing.assert_allclose(scales[:, 0], [1.0, 0.5 / 127], rtol=1e-6)


def test_rows_without_negative_numbers_have_255_steps_above_0():
    values, scales, is_shifted = int8.quantized(tf.constant([[0.0, 0.49, 0.51, 254.0, 255.0], [0.0] * 5]), True)
    assert not is_shifted and values.numpy().tolist() == [[0, 0, 1, 254, 255], [0] * 5]
    np.testing.assert_allclose(scales[0], [1.0], rtol=1e-6)


@pytest.mark.parametrize("is_rectified", [True, False])
def test_what_a_relu_gives_is_known_by_the_graph(is_rectified):
    """In another shape too; a difference from it is not."""
    (inner, kernels), outer = _layer(tf.nn.relu), dense.Dense(5)
    outer.build((None, OUTPUTS))
    kernels |= compress_kernels([outer.kernel], {outer.kernel.path: False})[1]

    @tf.function(autograph=False)
    def both(x):
        first, second = (dense.with_int8(layer, kernels) for layer in (inner, outer))
        between = first(x) if is_rectified else first(x) - 1.0
        return second(between), between

    graph = both.get_concrete_function(tf.TensorSpec([None, 1, WIDTH])).graph
    assert sum(node.op == "Min" for node in graph.as_graph_def().node) == (1 if is_rectified else 2)
    found, between = both(tf.constant(X[:, None]))
    expected = between.numpy().astype(np.float64) @ outer.kernel.numpy()
    steps = _bound(between.numpy()[:, 0], outer.kernel.numpy())[:, None]
    assert (np.abs(found - expected) <= steps * 1.001 + 1e-4).all()


@pytest.mark.parametrize("other", [0.0, 1e9, np.nan, np.inf, -np.inf], ids=str)
def test_a_row_does_not_depend_on_the_others(other):
    layer, kernels = _layer(tf.nn.relu)
    cast = dense.cast_once(layer, kernels)
    expected = cast(tf.constant(X)).numpy()
    beside = np.concatenate([np.full([3, WIDTH], other, np.float32), X, np.full([80, WIDTH], other, np.float32)])
    np.testing.assert_array_equal(cast(tf.constant(beside))[3 : 3 + ROWS], expected)
    np.testing.assert_array_equal(cast(tf.constant(X[2:3])), expected[2:3])


def test_a_row_of_zeros_is_the_bias_and_a_tiny_one_is_near_it():
    layer, kernels = _layer()
    for value in (0.0, 1e-38):
        found = dense.cast_once(layer, kernels)(tf.fill([2, WIDTH], value))
        np.testing.assert_allclose(found, np.tile(BIAS, [2, 1]), atol=1e-6)


def test_leading_axes_stay():
    layer, kernels = _layer()
    x = tf.constant(X[:6].reshape(2, 3, WIDTH))
    cast = dense.cast_once(layer, kernels)
    np.testing.assert_array_equal(cast(x), tf.reshape(cast(X[:6]), [2, 3, OUTPUTS]))
    assert cast(tf.zeros([0, 4, WIDTH])).shape == (0, 4, OUTPUTS)


def _projection(is_tied):
    """An output projection of its own kernel or a tied table, and itself in int8."""
    embedding = TokenEmbedding(OUTPUTS, WIDTH, name="table")
    embedding.build(None)
    layer = OutputProjection(OUTPUTS, embedding if is_tied else None, name="output")
    layer.build((None, None, WIDTH))
    layer.bias.assign(BIAS)
    weight = embedding.table if is_tied else layer.kernel
    weight.assign(KERNEL.T if is_tied else KERNEL)
    _, kernels = compress_kernels([weight], {weight.path: is_tied})
    return layer, kernels


@pytest.mark.parametrize("is_tied", [False, True])
def test_an_output_projection_may_be_transposed(is_tied):
    layer, kernels = _projection(is_tied)
    found = dense.cast_once(layer, kernels)(tf.constant(X[:, None]))
    assert (np.abs(found[:, 0] - (X.astype(np.float64) @ KERNEL + BIAS)) <= _bound(X, KERNEL) * 1.001 + 1e-4).all()
    assert np.abs(found - layer(tf.constant(X[:, None]))).max() > 0.0  # it was in int8


@pytest.mark.parametrize("is_tied", [False, True])
def test_the_columns_of_a_shortlist_are_those_of_all(is_tied):
    layer, kernels = _projection(is_tied)
    ids = tf.constant([3, 0, 20, 11])
    cast = dense.cast_once(layer, kernels)
    columns = cast.columns(ids, tf.zeros([ROWS, 1, 4]))
    found = cast.call(tf.constant(X[:, None]), columns)
    np.testing.assert_allclose(found, tf.gather(cast(tf.constant(X[:, None])), ids, axis=2), rtol=1e-5, atol=1e-5)
    beside = np.concatenate([np.full([3, WIDTH], np.nan, np.float32), X[2:3], np.full([3, WIDTH], 1e9, np.float32)])
    np.testing.assert_array_equal(cast.call(tf.constant(beside[:, None]), columns)[3], found[2])


def test_a_weight_is_multiplied_as_before_the_way_it_was_not_quantized():
    layer, kernels = _layer()
    weight = dense.cast_once(layer, kernels).kernel
    x = tf.constant(X[:, :OUTPUTS])
    found = dense.product(x, weight, "float32", transpose_kernel=True)
    np.testing.assert_allclose(found, x.numpy() @ layer.kernel.numpy().T, rtol=1e-4, atol=1e-3)


def test_products_of_one_tensor_quantize_it_once():
    layer, kernels = _layer()

    @tf.function(autograph=False)
    def three(x):
        cast = dense.cast_once(layer, kernels)
        return cast.call(x), cast.call(x), cast.call(x + 1.0)

    nodes = three.get_concrete_function(tf.constant(X)).graph.as_graph_def().node
    assert sum(node.op == "Cast" and node.attr["DstT"].type == tf.uint8.as_datatype_enum for node in nodes) == 2


def test_a_tensor_that_an_inner_graph_reads_is_quantized_there():
    layer, kernels = _layer()

    @tf.function(autograph=False)
    def run(x):
        cast = dense.cast_once(layer, kernels)
        _, total = tf.while_loop(
            lambda i, _: i < 3, lambda i, t: (i + 1, t + cast.call(x)), (0, tf.zeros_like(X[:, :21]))
        )
        return total, cast.call(x)

    total, once = run(tf.constant(X))
    np.testing.assert_allclose(total, 3 * once, rtol=1e-6)


def test_a_constant_is_saved_once_whatever_number_of_functions_read_it(tmp_path):
    constant = int8.GraphConstant(RNG.integers(-127, 128, (300, 1000)).astype(np.int8))
    module = tf.Module()
    module.functions = [
        tf.function(lambda x, n=n: tf.reduce_sum(tf.cast(tf.convert_to_tensor(constant), tf.int32)) * n + x)
        for n in range(4)
    ]
    for function in module.functions:
        function.get_concrete_function(tf.TensorSpec([], tf.int32))
    tf.saved_model.save(module, str(tmp_path))
    assert 300_000 < (tmp_path / "saved_model.pb").stat().st_size < 400_000
    assert int(tf.saved_model.load(str(tmp_path)).functions[3](0)) == 3 * constant.array.sum(dtype=np.int64)


def test_it_is_known_whether_it_runs():
    assert int8.is_available()
    program = "from nmt_keras.layers import int8; print(int8.is_available())"
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.slow
def test_sums_that_are_not_exact_are_found_out():
    """A processor without VNNI adds pairs in 16 bits: there an export must not be made, and one that was must fail."""
    program = """
import tensorflow as tf
from nmt_keras.layers import int8
print(int8.is_available())
try:
    tf.function(int8.require)()
except tf.errors.InvalidArgumentError as error:
    print("This export needs" in error.message)
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
