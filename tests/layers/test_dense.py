"""Products in a loop: operands that are cast once before it, gradients that wait for its end."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.layers import dense

KERNEL = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)


def _loop(kernel, cast):
    """Three products with the kernel, one after the other, as a graph."""

    def run(x):
        once = dense.CastOnce([kernel] if cast else [], "bfloat16")

        def body(i, x):
            with once:
                return i + 1, tf.math.tanh(dense.product(x, kernel, "bfloat16"))

        return tf.while_loop(lambda i, x: i < 3, body, (0, x))[1]

    return tf.function(run, autograph=False, input_signature=[tf.TensorSpec([None, 8])]).get_concrete_function()


def _casts_of_the_kernel(graph):
    return [
        node.name
        for function in graph.graph.as_graph_def().library.function
        for node in function.node_def
        if node.op == "Cast" and any("ReadVariableOp" in name or "kernel" in name for name in node.input)
    ]


def test_a_loop_that_casts_its_weight_once_has_no_cast_of_it_and_the_same_values():
    kernel = tf.Variable(KERNEL, name="kernel")
    each, once = _loop(kernel, cast=False), _loop(kernel, cast=True)
    assert _casts_of_the_kernel(each) and not _casts_of_the_kernel(once)
    x = tf.constant(KERNEL[:3])
    np.testing.assert_array_equal(each(x), once(x))


@pytest.mark.parametrize("operand", [tf.constant(KERNEL), tf.Variable(KERNEL)])
def test_outside_of_it_an_operand_is_what_it_is(operand):
    with dense.CastOnce([operand], "bfloat16"):
        inside = dense.product(tf.constant(KERNEL), operand, "bfloat16")
    np.testing.assert_array_equal(inside, dense.product(tf.constant(KERNEL), operand, "bfloat16"))
    exact = dense.product(tf.constant(KERNEL), operand, "float32")
    np.testing.assert_allclose(exact, KERNEL @ KERNEL, rtol=1e-5, atol=1e-5)


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
            with gradients.at(t, arrays) as position:
                inner = tf.tanh(dense.product(h, kernels[1], dtype))
                h = tf.tanh(dense.product(x[t], kernels[0], dtype) + dense.product(inner, kernels[1], dtype))
            return t + 1, h, position.arrays

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
            with late.at(t, arrays) as position:
                return t + 1, tf.tanh(x[t] + dense.product(h, kernel, "float32")), position.arrays

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
    """Also among operands that are cast once, where they are part of the product."""
    rng = np.random.default_rng(2)
    x, kernel, bias = (rng.normal(size=shape) for shape in ((3, 2, 8), (8, 5), (5,)))
    expected = (activation or tf.identity)(x @ kernel + (bias if with_bias else 0.0)).numpy()
    kernel, bias = (tf.Variable(value, dtype=tf.float32) for value in (kernel, bias))
    options = {"bias": bias if with_bias else None, "activation": activation, "is_operand": is_operand}
    for operands in ([], [kernel, bias]):
        with dense.CastOnce(operands, kind):
            result = dense.product(tf.constant(x, tf.float32), kernel, kind, **options)
        is_whole = activation is not tf.tanh and (bool(operands) or not with_bias)
        assert result.shape == (3, 2, 5) and result.dtype == (kind if is_operand and is_whole else "float32")
        np.testing.assert_allclose(tf.cast(result, tf.float64), expected, rtol=tolerance, atol=4 * tolerance)


def test_nothing_is_between_a_product_its_bias_and_its_relu():
    """Where operands are cast once; Grappler looks for the three in a row, to make one operation of them."""
    layer = dense.Dense(8, activation=tf.nn.relu)
    layer.build((None, 8))
    x = tf.TensorSpec([None, 8])

    @tf.function(autograph=False, input_signature=[x])
    def run(x):
        cast = dense.CastOnce(layer.variables, "bfloat16")
        with cast:
            return dense.product(x, layer.kernel, "bfloat16", bias=layer.bias, activation=layer.activation)

    nodes = {node.name: node for node in run.get_concrete_function().graph.as_graph_def().node}
    [relu] = [node for node in nodes.values() if node.op == "Relu"]
    assert nodes[relu.input[0]].op == "BiasAdd" and nodes[nodes[relu.input[0]].input[0]].op == "MatMul"
