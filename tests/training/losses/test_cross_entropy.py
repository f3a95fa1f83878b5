"""The loss against its formula in NumPy, and what must not change it."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.data.batching import Batch
from nmt_keras.layers import fusion
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.training.dev_loss import compile_dev_loss, perplexity
from nmt_keras.training.losses.chunks import sums_over_chunks
from nmt_keras.training.losses.cross_entropy import label_smoothed_cross_entropy
from tests.cross_entropy_of import SOURCE_V, D, V, cross_entropy_of, small_batch, small_model

N = 5


@pytest.fixture(autouse=True)
def compile_narrow_arrays_too(monkeypatch):
    monkeypatch.setattr(fusion, "_MIN_WIDTH", 1)


def _logits_and_labels():
    rng = np.random.default_rng(1)
    return rng.normal(size=(N, V)) * 3, np.array([0, 6, 3, 3, 1], np.int32)


def _log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _formula(logits, labels, smoothing):
    """Smoothed and plain cross entropy, float64 [N] each."""
    log_probs = _log_softmax(logits)
    smooth = np.full(log_probs.shape, smoothing / log_probs.shape[1])
    smooth[np.arange(len(labels)), labels] += 1 - smoothing
    return -(smooth * log_probs).sum(-1), -log_probs[np.arange(len(labels)), labels]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 0.9])
def test_label_smoothed_cross_entropy_follows_its_formula(smoothing):
    logits, labels = _logits_and_labels()
    smooth, plain, correct = label_smoothed_cross_entropy(tf.constant(logits), tf.constant(labels), smoothing)
    expected_smooth, expected_plain = _formula(logits, labels, smoothing)
    np.testing.assert_allclose(smooth, expected_smooth, rtol=1e-5)
    np.testing.assert_allclose(plain, expected_plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(correct, logits.argmax(-1) == labels)
    if not smoothing:
        np.testing.assert_allclose(smooth, plain, rtol=1e-5, atol=1e-6)


def test_large_logits_give_a_finite_loss_and_gradient():
    logits = tf.constant([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        smooth, plain, _ = label_smoothed_cross_entropy(logits, tf.constant([1, 2]), 0.1)
        total = tf.reduce_sum(smooth)
    np.testing.assert_allclose(plain, [2e4, np.log(3.0)], rtol=1e-4)
    assert np.isfinite(tape.gradient(total, logits)).all()


def _projected(inputs, kernel, bias, labels, weights, smoothing, gradient_scale=1.0, **options):
    """Sums over chunks of the smoothed and the plain cross entropy, and of right predictions."""

    def values_of(logits, labels, weights):
        values = label_smoothed_cross_entropy(logits[0], labels, smoothing)
        return tuple(tf.reduce_sum(weights * value) for value in values)

    return sums_over_chunks(values_of, [inputs], kernel, bias, (labels, weights), gradient_scale, **options)


def _plain_sums(inputs, kernel, bias, labels, weights, smoothing, transpose_kernel):
    """What `_projected` is, by TensorFlow's own functions and gradients."""
    logits = tf.matmul(inputs, kernel, transpose_b=transpose_kernel) + bias
    log_probs = tf.nn.log_softmax(logits)
    at_labels = tf.gather(log_probs, labels, batch_dims=1)
    smooth = -(1 - smoothing) * at_labels - smoothing * tf.reduce_mean(log_probs, -1)
    right = tf.cast(tf.argmax(logits, -1, tf.int32) == labels, logits.dtype)
    return [tf.reduce_sum(weights * value) for value in (smooth, -at_labels, right)]


_OTHERS = ((128, True), (2048, False))
_ROWS = 300  # in chunks of 128 at most: 128, 128 and 44


def _factors(transpose_kernel, rows=_ROWS):
    rng = np.random.default_rng(4)
    inputs, kernel, bias = rng.normal(size=(rows, D)), rng.normal(size=(D, V)), rng.normal(size=V)
    labels, weights = rng.integers(0, V, rows), rng.choice([0.0, 0.5, 1.0, 2.0], rows)
    kernel = kernel.T if transpose_kernel else kernel
    return *(tf.constant(x) for x in (inputs, kernel, bias)), tf.constant(labels, tf.int32), tf.constant(weights)


@pytest.mark.parametrize(
    "chunk_rows, static",
    [(128, False), (2048, True), *(pytest.param(*each, marks=pytest.mark.slow) for each in _OTHERS)],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_cross_entropy_in_chunks_is_the_plain_one_in_float64(transpose_kernel, smoothing, static, chunk_rows):
    """The plain form takes the gradient of all rows at once, in which each has its weight."""
    *factors, labels, weights = _factors(transpose_kernel)
    plain = functools.partial(_plain_sums, smoothing=smoothing, transpose_kernel=transpose_kernel)
    fused = functools.partial(
        _projected,
        smoothing=smoothing,
        gradient_scale=tf.constant(3.0, tf.float64),
        transpose_kernel=transpose_kernel,
        dtype="float64",
        chunk_rows=chunk_rows,
    )

    def run(function, *arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments[:3])
            sums = function(*arguments)
            total = sums[0] * 2.0
        return sums, tape.gradient(total, arguments[:3])

    expected, expected_gradients = run(plain, *factors, labels, weights)
    arguments = (*factors, labels, weights)
    unknown = _ROWS if static else None
    signature = [tf.TensorSpec([unknown if n == _ROWS else n for n in a.shape], a.dtype) for a in arguments]
    compiled = tf.function(functools.partial(run, fused), input_signature=signature, autograph=False)
    sums, gradients = compiled(*arguments)
    np.testing.assert_allclose(sums, expected, rtol=1e-12)
    for own, other in zip(gradients, expected_gradients, strict=True):
        assert np.abs(other).max() > 1.0
        np.testing.assert_allclose(own, 3.0 * other, rtol=1e-9, atol=1e-10)


def test_no_row_is_a_loss_of_nothing():
    inputs, kernel, bias, labels, weights = _factors(False, rows=0)
    factors = [tf.cast(factor, tf.float32) for factor in (inputs, kernel, bias)]
    with tf.GradientTape() as tape:
        tape.watch(factors)
        sums = _projected(*factors, labels, tf.cast(weights, tf.float32), 0.1)
    assert [float(value) for value in sums] == [0.0, 0.0, 0.0]
    for gradient, factor in zip(tape.gradient(sums[0], factors), factors, strict=True):
        assert gradient.shape == factor.shape and not gradient.numpy().any()


def test_a_step_compiled_as_a_whole_takes_any_number_of_rows():
    """As for a TPU: no array changes its shape from chunk to chunk."""
    specs = [tf.TensorSpec(shape, tf.float32) for shape in ([None, D], [D, V], [V])]
    loss = functools.partial(_projected, smoothing=0.1, chunk_rows=128)

    def run(inputs, kernel, bias, labels, weights):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            sums = loss(inputs, kernel, bias, labels, weights)
        return sums, tape.gradient(sums[0], inputs)

    signature = [*specs, tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float32)]
    compiled = tf.function(run, input_signature=signature, autograph=False, jit_compile=True)
    for rows in (100, _ROWS):
        *factors, labels, weights = _factors(False, rows)
        arguments = [*(tf.cast(factor, tf.float32) for factor in factors), labels, tf.cast(weights, tf.float32)]
        for own, expected in zip(tf.nest.flatten(compiled(*arguments)), tf.nest.flatten(run(*arguments)), strict=True):
            np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)


def test_chunks_are_taken_one_after_the_other():
    """Else the logits of several are there together where operations run side by side."""
    *factors, labels, weights = _factors(False)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, D], tf.float64)])
    def run(inputs):
        return _projected(inputs, *factors[1:], labels, weights, 0.1, dtype="float64", chunk_rows=128)

    nodes = run.get_concrete_function().graph.as_graph_def().node
    [loop] = [node for node in nodes if node.op in ("While", "StatelessWhile")]
    assert loop.attr["parallel_iterations"].i == 1
    places = [node for node in nodes if node.op == "Const" and any(name.startswith("^") for name in node.input)]
    assert any(node.name in {name.split(":")[0] for name in loop.input} for node in places)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 2e-2), ("float16", 2e-3)])
def test_products_of_lower_precision_give_nearly_the_same_gradient(dtype, tolerance):
    *factors, labels, weights = _factors(False)
    factors = [tf.cast(factor, tf.float32) for factor in factors]
    results = []
    for kind in ("float32", dtype):
        with tf.GradientTape() as tape:
            tape.watch(factors)
            sums = _projected(*factors, labels, tf.cast(weights, tf.float32), 0.1, dtype=kind)
        results.append((sums, tape.gradient(sums[0], factors)))
    (expected, expected_gradients), (sums, gradients) = results
    np.testing.assert_allclose(sums[:2], expected[:2], rtol=tolerance)
    for own, other in zip(gradients, expected_gradients, strict=True):
        assert own.dtype == tf.float32
        np.testing.assert_allclose(own, other, atol=tolerance * np.abs(other).max())


def test_sums_over_positions_are_float32_where_products_are_float16():
    """With the loss scale that float16 starts with, the gradient of a frequent label's bias is beyond float16."""
    rows, scale = 64, 2.0**15
    inputs, kernel, bias = tf.zeros([rows, D]), tf.zeros([D, V]), tf.zeros([V])
    with tf.GradientTape() as tape:
        tape.watch(bias)
        loss, *_ = _projected(inputs, kernel, bias, tf.fill([rows], 3), tf.ones([rows]), 0.0, scale, dtype="float16")
    expected = rows * scale * (np.full(V, 1 / V) - np.eye(V)[3])
    np.testing.assert_allclose(tape.gradient(loss, bias), expected, rtol=1e-5)


def test_no_gradient_flows_through_the_plain_cross_entropy():
    logits, labels = (tf.constant(x, d) for x, d in zip(_logits_and_labels(), (tf.float32, tf.int32)))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        plain = tf.reduce_sum(label_smoothed_cross_entropy(logits, labels, 0.1)[1])
    assert tape.gradient(plain, logits) is None


@pytest.fixture(scope="module")
def model():
    return small_model()


def _values(sums):
    """The smoothed and the plain loss, right tokens, and the weight."""
    return [sums.loss, sums.scalars["loss"], sums.scalars["token_accuracy"], sums.weight]


def _direct(model, batch, smoothing):
    """The four sums, token by token, from the model's logits."""
    logits = model.project(model(batch.source_ids, batch.target_input_ids)[0]).numpy()
    sums = np.zeros(4)
    for row, weight in enumerate(batch.weights.numpy()):
        for position, label in enumerate(batch.target_output_ids[row].numpy()):
            if label:
                smooth, plain = _formula(logits[row, position][None], [label], smoothing)
                right = logits[row, position].argmax() == label
                sums += weight * np.array([smooth[0], plain[0], right, 1])
    return sums


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 0.0, 2.0)])
def test_sums_are_those_of_the_tokens_one_by_one(model, weights):
    batch = small_batch(weights)
    sums = cross_entropy_of(model, batch, None, 0.1)
    np.testing.assert_allclose(_values(sums), _direct(model, batch, 0.1), rtol=1e-5)
    assert float(sums.weight) == 5 * weights[0] + 2 * weights[1] + 3 * weights[2]
    assert all(value.dtype == tf.float32 and value.shape == () for value in _values(sums))


def test_the_number_of_right_tokens_is_counted(model):
    """The model's own best ids as labels are all right, others all wrong."""
    batch = small_batch()
    best = tf.argmax(model.project(model(batch.source_ids, batch.target_input_ids)[0])[:, :, 1:], -1, tf.int32) + 1
    real = tf.cast(batch.target_output_ids > 0, tf.int32)
    right = cross_entropy_of(model, batch._replace(target_output_ids=best * real), None, 0.0)
    wrong = cross_entropy_of(model, batch._replace(target_output_ids=(best % 6 + 1) * real), None, 0.0)
    wrong, right = (sums.scalars["token_accuracy"] for sums in (wrong, right))
    assert 0 <= float(wrong) < float(right) <= 10
    np.testing.assert_allclose(right, _direct(model, batch._replace(target_output_ids=best * real), 0.0)[2])


@pytest.mark.parametrize("tie_output, d_embedding, frozen", [(0, 0, 0), (1, 0, 0), (1, 4, 0), (1, 4, 1)])
def test_where_nothing_is_dropped_the_loss_of_training_and_its_gradient_are_those_without(
    tie_output, d_embedding, frozen
):
    options = {"input_dropout_rate": 0.0, "output_dropout_rate": 0.0, "tie_output": bool(tie_output)}
    model = build_seq2seq(
        ModelConfig(
            d_model=D,
            d_embedding=d_embedding,
            freeze_vectors=bool(frozen),
            target_vectors="a file" if frozen else "",
            **options,
        ),
        SOURCE_V,
        V,
    )
    rng = np.random.default_rng(3)
    if frozen:
        model.target_embedding.frozen.assign(tf.cast(tf.range(V)[:, None] % 2, tf.float32))
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    results = []
    for seed in (None, tf.constant([1, 2])):
        with tf.GradientTape() as tape:
            sums = cross_entropy_of(model, small_batch((0.5, 1.0, 2.0)), seed, 0.1)
        gradients = tape.gradient(sums.loss, [weight.value for weight in model.trainable_variables])
        results.append((sums, [tf.convert_to_tensor(gradient) for gradient in gradients]))
    np.testing.assert_allclose(_values(results[1][0]), _values(results[0][0]), rtol=1e-5)
    for own, expected in zip(results[1][1], results[0][1], strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-5)


def test_a_batch_of_padding_rows_alone_has_sums_of_zero(model):
    sums = cross_entropy_of(model, small_batch((0.0, 0.0, 0.0)), None, 0.1)
    np.testing.assert_array_equal(_values(sums), [0, 0, 0, 0])


def test_more_tokens_than_the_row_multiple_are_all_counted(model):
    many = Batch(*(tf.repeat(leaf, 29, 0) for leaf in small_batch()))  # 290 tokens
    one, all_of_them = cross_entropy_of(model, small_batch(), None, 0.1), cross_entropy_of(model, many, None, 0.1)
    np.testing.assert_allclose(_values(all_of_them), 29 * np.array(_values(one)), rtol=1e-4)
    assert float(all_of_them.weight) == 290


def test_dev_loss_is_the_mean_over_tokens_of_all_batches_without_smoothing(model):
    first, second = small_batch(), Batch(*(leaf[1:] for leaf in small_batch((1.0, 1.0, 0.5))))
    sums = _direct(model, first, 0.0) + _direct(model, second, 0.0)
    dev_loss = compile_dev_loss(model)
    assert dev_loss([first, second]) == pytest.approx(sums[1] / sums[3], rel=1e-5)
    assert dev_loss(iter([second, first])) == pytest.approx(sums[1] / sums[3], rel=1e-5)


def test_perplexity_is_the_exponential_and_stays_finite():
    assert perplexity(0.0) == 1.0
    assert perplexity(np.log(50.0)) == pytest.approx(50.0)
    assert perplexity(1e6) == pytest.approx(np.exp(80.0))
