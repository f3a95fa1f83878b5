"""Operands that are cast once, before a loop."""

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
