"""Products in a loop: weights that are cast once before it, gradients that wait for its end."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.layers import dense

KERNEL = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)


@pytest.fixture
def layer():
    """A dense layer with a ReLU that computes in bfloat16."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = dense.Dense(8, activation=tf.nn.relu)
        layer.build((None, 8))
    finally:
        keras.config.set_dtype_policy("float32")
    layer.kernel.assign(KERNEL)
    layer.bias.assign(KERNEL[0])
    return layer


def _loop(layer, cast):
    """The layer three times, one after the other, as a graph."""

    def run(x):
        used = dense.cast_once(layer) if cast else layer
        return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, used(x)), (0, x))[1]

    return tf.function(run, autograph=False, input_signature=[tf.TensorSpec([None, 8])]).get_concrete_function()


def _casts_in_loops(graph):
    """How many tensors become bfloat16 in them."""
    functions = graph.graph.as_graph_def().library.function
    nodes = [node for function in functions for node in function.node_def]
    return sum(node.op == "Cast" and node.attr["DstT"].type == tf.bfloat16.as_datatype_enum for node in nodes)


def test_a_loop_that_casts_its_weight_once_has_no_cast_of_it_and_the_same_values(layer):
    each, once = _loop(layer, cast=False), _loop(layer, cast=True)
    assert _casts_in_loops(each) == 2 and _casts_in_loops(once) == 1  # of x, and of the kernel
    x = tf.constant(KERNEL[:3])
    np.testing.assert_allclose(each(x), once(x), rtol=0.02, atol=0.02)  # the bias is added in bfloat16


def test_the_layer_itself_stays_as_it_is(layer):
    x = tf.constant(KERNEL)
    before, weights, attributes = layer(x), layer.weights, dict(vars(layer))
    cast = dense.cast_once(layer)
    cast(x)
    assert cast is not layer and cast.kernel is not layer.kernel
    assert all(vars(layer)[name] is value for name, value in attributes.items()) and layer.weights == weights
    np.testing.assert_array_equal(layer(x), before)
    layer.kernel.assign(tf.zeros([8, 8]))
    assert not (layer(x) == before).numpy().all()


def test_what_reads_a_cast_weight_beside_products_reads_the_weight(layer):
    cast = dense.cast_once(layer).kernel
    for read in (tf.convert_to_tensor(cast), tf.constant(1.0) * cast, tf.gather(tf.convert_to_tensor(cast), range(8))):
        np.testing.assert_array_equal(read, KERNEL)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 0.03)])
@pytest.mark.parametrize("as_graph", [False, True])
def test_late_gradients_are_those_of_the_loop_in_float64(as_graph, dtype, tolerance):
    """A recurrence that takes one kernel twice, one once, and one not at all."""
    rng = np.random.default_rng(1)
    length, rows, width = 5, 3, 4
    inputs, first = rng.normal(size=(length, rows, 2)), rng.normal(size=(rows, width))
    kernels = [tf.Variable(rng.normal(size=shape) * 0.5, dtype=tf.float32) for shape in [(2, width), (width, width)]]
    kernels.append(tf.Variable(tf.ones([width, width])))

    def plain(x, h, kernels):
        for t in range(length):
            h = tf.tanh(x[t] @ kernels[0] + tf.tanh(h @ kernels[1]) @ kernels[1])
        return tf.reduce_sum(tf.sin(h))

    def late(x, h, _):
        gradients = dense.LateGradients(kernels, dtype, tf.constant(length), rows)

        def body(t, h, arrays):
            here = gradients.at(t, arrays)
            first, second = map(here.weight, kernels[:2])
            inner = tf.tanh(dense.product(h, second, dtype))
            h = tf.tanh(dense.product(x[t], first, dtype) + dense.product(inner, second, dtype))
            return t + 1, h, here.arrays

        _, h, arrays = tf.while_loop(lambda t, *_: t < length, body, (0, h, gradients.arrays()))
        gradients.end(arrays)
        return tf.reduce_sum(tf.sin(h))

    def gradients_of(loss, operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            total = loss(*operands)
        return total, tape.gradient(total, tf.nest.flatten(operands), unconnected_gradients="zero")

    exact = (tf.constant(inputs), tf.constant(first), [tf.cast(kernel, tf.float64) for kernel in kernels])
    expected = gradients_of(plain, exact)
    operands = (tf.constant(inputs, tf.float32), tf.constant(first, tf.float32), kernels)
    compute = tf.function(gradients_of, autograph=False) if as_graph else gradients_of
    total, found = compute(late, operands)
    np.testing.assert_allclose(total, expected[0], atol=tolerance)
    for own, other in zip(found, expected[1], strict=True):
        np.testing.assert_allclose(own, other, atol=tolerance)
    assert all(np.abs(gradient).max() > 1e-3 for gradient in expected[1][:-1])


def test_a_late_gradient_is_one_product():
    kernel = tf.Variable(KERNEL)

    def step(x):
        def body(t, h, arrays):
            here = late.at(t, arrays)
            return t + 1, tf.tanh(x[t] + dense.product(h, here.weight(kernel), "float32")), here.arrays

        with tf.GradientTape() as tape:
            late = dense.LateGradients([kernel], "float32", tf.shape(x)[0], 3)
            _, h, arrays = tf.while_loop(lambda t, *_: t < tf.shape(x)[0], body, (0, x[0], late.arrays()))
            late.end(arrays)
            total = tf.reduce_sum(h)
        return tape.gradient(total, kernel)

    function = tf.function(step, autograph=False, input_signature=[tf.TensorSpec([None, 3, 8])])
    graph = function.get_concrete_function().graph.as_graph_def()
    inside = [node for f in graph.library.function for node in f.node_def if node.op == "MatMul"]
    assert inside and not any(node.attr["transpose_a"].b for node in inside)
    assert [node.attr["transpose_a"].b for node in graph.node if node.op == "MatMul"] == [True]


@pytest.mark.parametrize("kind, tolerance", [("float32", 1e-6), ("bfloat16", 0.02)])
@pytest.mark.parametrize("activation", [None, tf.nn.relu, tf.tanh])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("is_operand", [False, True])
def test_bias_and_activation_are_those_of_the_plain_form_in_float64(with_bias, activation, is_operand, kind, tolerance):
    """Also with weights that are cast once, where they are part of the product."""
    rng = np.random.default_rng(2)
    x, kernel, bias = (rng.normal(size=shape) for shape in ((3, 2, 8), (8, 5), (5,)))
    expected = (activation or tf.identity)(x @ kernel + (bias if with_bias else 0.0)).numpy()
    layer = dense.Dense(5, use_bias=with_bias, activation=activation)
    layer.dtype_policy = keras.DTypePolicy("float32" if kind == "float32" else "mixed_bfloat16")
    layer.build((None, None, 8))
    layer.kernel.assign(kernel)
    if with_bias:
        layer.bias.assign(bias)
    for is_cast in (False, True):
        result = (dense.cast_once(layer) if is_cast else layer)(tf.constant(x, tf.float32), is_operand=is_operand)
        is_whole = activation is not tf.tanh and (is_cast or kind == "float32" or not with_bias)
        assert result.shape == (3, 2, 5) and result.dtype == (kind if is_operand and is_whole else "float32")
        np.testing.assert_allclose(tf.cast(result, tf.float64), expected, rtol=tolerance, atol=4 * tolerance)


def test_nothing_is_between_a_product_its_bias_and_its_relu(layer):
    """Where weights are cast once; Grappler looks for the three in a row, to make one operation of them."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 8])])
    def run(x):
        return dense.cast_once(layer)(x)

    nodes = {node.name: node for node in run.get_concrete_function().graph.as_graph_def().node}
    [relu] = [node for node in nodes.values() if node.op == "Relu"]
    assert nodes[relu.input[0]].op == "BiasAdd" and nodes[nodes[relu.input[0]].input[0]].op == "MatMul"
