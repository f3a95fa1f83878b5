"""What every encoder, decoder and attention must do. Parametrised over the registries."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import CHOICES, ModelConfig
from nmt_keras.constants import BOS_ID, EOS_ID
from nmt_keras.data.batching import Batch
from nmt_keras.errors import UserError
from nmt_keras.models.registry import ATTENTIONS, DECODERS, ENCODERS
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.training.losses import batch_loss

B, S, T, D, SOURCE_V, TARGET_V = 2, 3, 5, 8, 11, 13
SOURCE = tf.constant([[5, 6, EOS_ID], [7, EOS_ID, 0]])
TARGET = tf.constant([[BOS_ID, 4, 5, 6, 7], [BOS_ID, 9, 8, 0, 0]])
OUTPUT = tf.constant([[4, 5, 6, 7, EOS_ID], [9, 8, EOS_ID, 0, 0]])

VARIANTS = [
    {"attention": attention, "input_feeding": feeding, "encoder": encoder, "decoder": decoder}
    for encoder, decoder, attention, feeding in itertools.product(ENCODERS, DECODERS, ATTENTIONS, (False, True))
    if not (attention == "none" and feeding)
] + [
    {"cell": "gru"},
    {"cell": "rnn", "input_feeding": True},
    {"bidirectional": False},
    {"bridge": "copy"},
    {"bridge": "zeros"},
    {"share_embeddings": True, "tie_output": True},
    {"residual": True, "num_encoder_layers": 3},
    {"num_encoder_layers": 1, "num_decoder_layers": 3},
]


def _model(seed=1, **fields):
    config = ModelConfig(**{"d_model": D, "num_encoder_layers": 2, "num_decoder_layers": 2, **fields})
    model = build_seq2seq(config, TARGET_V if config.share_embeddings else SOURCE_V, TARGET_V)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    return model


def _batch():
    return Batch(SOURCE, TARGET, OUTPUT, tf.ones([B]), tf.range(B, dtype=tf.int64))


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(f"{k}={x}" for k, x in v.items()), scope="module")
def model(request):
    return _model(**request.param)


def test_output_shapes(model):
    hidden, weights = model(SOURCE, TARGET)
    assert hidden.shape == (B, T, D) and weights.shape == (B, T, S)
    assert model.project(hidden).shape == (B, T, TARGET_V)


def test_stacked_steps_equal_the_full_call(model):
    hidden, weights = model(SOURCE, TARGET)
    memory = model.prepare(SOURCE)
    state = model.init_state(memory)
    for position in range(T):
        logits, step_weights, state = model.step(
            TARGET[:, position : position + 1], tf.constant(position), state, memory
        )
        np.testing.assert_allclose(logits[:, 0], model.project(hidden)[:, position], atol=1e-5)
        np.testing.assert_allclose(step_weights[:, 0], weights[:, position], atol=1e-6)


def test_beams_step_independently_and_share_the_memory(model):
    memory = model.prepare(SOURCE)
    state = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, 4, axis=1), model.init_state(memory))
    ids = tf.constant([[4, 5, 6, 7], [8, 9, 4, 5]])
    logits, weights, new = model.step(ids, tf.constant(0), state, memory)
    assert logits.shape == (B, 4, TARGET_V) and weights.shape == (B, 4, S)
    tf.nest.map_structure(lambda leaf: leaf.shape.assert_is_compatible_with([B, 4, None]), new.layers)
    one, _, _ = model.step(ids[:, 2:3], tf.constant(0), model.init_state(memory), memory)
    np.testing.assert_allclose(one[:, 0], logits[:, 2], atol=1e-6)


def test_padding_changes_nothing(model):
    hidden, weights = model(SOURCE, TARGET)
    wider_source = tf.pad(SOURCE, [[0, 0], [0, 4]])
    wider_target = tf.pad(TARGET, [[0, 0], [0, 2]])
    wide_hidden, wide_weights = model(wider_source, wider_target)
    np.testing.assert_allclose(wide_hidden[:, :T], hidden, atol=1e-6)
    np.testing.assert_allclose(wide_weights[:, :T, :S], weights, atol=1e-6)
    assert not wide_weights[:, :, S:].numpy().any()
    alone, _ = model(SOURCE[1:, :2], TARGET[1:])
    np.testing.assert_allclose(alone[0], hidden[1], atol=1e-6)


def test_later_target_ids_change_nothing_before_them(model):
    hidden, _ = model(SOURCE, TARGET)
    changed, _ = model(SOURCE, tf.concat([TARGET[:, :3], 12 - TARGET[:, 3:] % 3], 1))
    np.testing.assert_array_equal(changed[:, :3], hidden[:, :3])
    assert (changed[:, 3:].numpy() != hidden[:, 3:].numpy()).any()


def test_the_source_matters(model):
    hidden, _ = model(SOURCE, TARGET)
    other, _ = model(tf.constant([[8, 9, EOS_ID], [4, EOS_ID, 0]]), TARGET)
    assert np.abs(hidden - other).max() > 1e-3


def test_gradient_reaches_every_weight(model):
    with tf.GradientTape() as tape:
        loss = batch_loss(model, _batch(), None, 0.1).loss
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    without = [
        v.path
        for v, g in zip(model.trainable_variables, gradients)
        if g is None or not np.abs(tf.convert_to_tensor(g)).max() > 0
    ]
    assert without == []


def test_attention_weights_are_a_distribution_over_real_positions(model):
    _, weights = model(SOURCE, TARGET)
    assert (weights.numpy() >= 0).all() and not weights[1, :, 2:].numpy().any()
    expected = 0.0 if model.config.attention == "none" else 1.0
    np.testing.assert_allclose(tf.reduce_sum(weights, -1), np.full((B, T), expected), atol=1e-6)


def test_dropout_follows_its_seed(model):
    a, b, c = (model(SOURCE, TARGET, tf.constant(seed))[0] for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(a, b)
    assert (a.numpy() != c.numpy()).any()


@pytest.mark.parametrize("policy, tolerance", [("mixed_bfloat16", 0.15), ("mixed_float16", 0.02)])
@pytest.mark.parametrize("fields", VARIANTS[:9:2], ids=str)
def test_mixed_precision_agrees_with_float32_and_returns_it(fields, policy, tolerance):
    import keras

    expected, _ = _model(**fields)(SOURCE, TARGET)
    keras.config.set_dtype_policy(policy)
    hidden, weights = _model(**fields)(SOURCE, TARGET)
    assert hidden.dtype == weights.dtype == tf.float32
    difference = np.abs(hidden - expected).max()
    assert 0 < difference < tolerance


@pytest.mark.parametrize("rate", ["input_dropout_rate", "state_dropout_rate", "output_dropout_rate"])
@pytest.mark.parametrize("feeding", [False, True])
def test_each_dropout_alone_changes_training_and_only_training(rate, feeding):
    off = {"input_dropout_rate": 0.0, "state_dropout_rate": 0.0, "output_dropout_rate": 0.0, "input_feeding": feeding}
    model, plain = _model(**{**off, rate: 0.5}), _model(**off)
    decoder_inputs = model.target_embedding(TARGET), model.prepare(SOURCE)
    trained, rested = (model.decoder(*decoder_inputs, seed)[0] for seed in (tf.constant([1, 2]), None))
    assert (trained.numpy() != rested.numpy()).any()
    np.testing.assert_allclose(model(SOURCE, TARGET)[0], plain(SOURCE, TARGET)[0], atol=1e-6)


def test_state_dropout_is_one_mask_a_sentence():
    """A sequence with dropout equals steps that all take the one mask drawn from its seed."""
    stack = _model(state_dropout_rate=0.5, input_dropout_rate=0.0, output_dropout_rate=0.0).decoder.stack
    x, seed = tf.random.stateless_normal([B, T, D], [5, 6]), tf.constant([1, 2])
    outputs, _ = stack(x, dropout_seed=seed)
    masks = stack.state_masks(tf.constant(B), seed)
    states = tuple(tuple(tf.zeros([B, 1, D]) for _ in range(2)) for _ in range(2))
    for position in range(T):
        output, states = stack.step(x[:, position : position + 1], states, masks)
        np.testing.assert_allclose(output[:, 0], outputs[:, position], atol=1e-5)


def test_the_choices_of_the_configuration_are_those_of_the_registries():
    for name, table in (("encoder", ENCODERS), ("decoder", DECODERS), ("attention", ATTENTIONS)):
        assert CHOICES[f"model.{name}"] == tuple(table)


@pytest.mark.parametrize("field, valid", [("encoder", "rnn"), ("decoder", "rnn"), ("attention", "none, bahdanau")])
def test_an_unknown_component_is_refused_with_the_valid_ones(field, valid):
    with pytest.raises(UserError, match=f"`model.{field}` must be one of {valid}.*Received: 'foo'"):
        _model(**{field: "foo"})


def test_sharing_tables_of_different_sizes_is_refused():
    with pytest.raises(UserError, match="Received: 11 source ids and 13 target ids"):
        build_seq2seq(ModelConfig(d_model=D, share_embeddings=True), SOURCE_V, TARGET_V)


def test_shared_and_tied_tables_are_one_weight():
    separate, shared = _model(), _model(share_embeddings=True, tie_output=True)
    assert len(separate.trainable_variables) - len(shared.trainable_variables) == 2
