"""What every encoder, decoder and attention must do. Parametrised over the registries."""

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig
from nmt_keras.config.fields import fields_of
from nmt_keras.config.rules import RECURRENT_DECODERS, RECURRENT_ENCODERS, model_problems
from nmt_keras.constants import BOS_ID, EOS_ID, UNK_ID
from nmt_keras.data.batching import Batch
from nmt_keras.decoding.beam_search import beam_search
from nmt_keras.decoding.constraints import Constraints
from nmt_keras.decoding.hypotheses import reorder_state, repeat_state
from nmt_keras.decoding.ranking import Ranking
from nmt_keras.decoding.sampling import greedy, sample
from nmt_keras.errors import UserError
from nmt_keras.inference.translator import Translator
from nmt_keras.models.decoders import RecurrentDecoder
from nmt_keras.models.encoders import GNMTEncoder, RNNEncoder
from nmt_keras.models.presets import PRESETS, apply_preset
from nmt_keras.models.registry import ATTENTIONS, DECODERS, ENCODERS
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.serving.export import TranslationModule
from nmt_keras.tokenizers.building import train_tokenizer
from nmt_keras.training.checkpoints import by_path
from tests.cross_entropy_of import cross_entropy_of

B, S, T, K, D, H, SOURCE_V, TARGET_V = 3, 6, 5, 7, 8, 4, 11, 13  # C = D / H = 2
SOURCE = tf.constant([[5, 6, 7, 8, 9, EOS_ID], [7, 8, 4, EOS_ID, 0, 0], [4, EOS_ID, 0, 0, 0, 0]])
TARGET = tf.constant([[BOS_ID, 4, 5, 6, 7], [BOS_ID, 9, 8, 0, 0], [BOS_ID, 10, 11, 12, 0]])
OUTPUT = tf.constant([[4, 5, 6, 7, EOS_ID], [9, 8, EOS_ID, 0, 0], [10, 11, 12, EOS_ID, 0]])

SMALL = {
    "d_model": D,
    "num_heads": H,
    "d_ff": 12,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "max_positions": 4,  # fewer than there are: those beyond must work
}
# What a component asks of the configuration, or what shows all of it: the third layer of GNMT is the first residual.
NEEDS: dict[str, dict] = {
    "conditional_gru": {"cell": "gru", "num_decoder_layers": 1},
    "gnmt": {"num_encoder_layers": 3, "num_decoder_layers": 3},
    "rnmt_plus": {"num_decoder_layers": 3},
}
DROPOUT_RATES = ("input_dropout_rate", "state_dropout_rate", "output_dropout_rate", "attention_dropout_rate")


def _preset(name):
    """The network of a preset, narrow, with unequal depths and some dropout."""
    config = vars(apply_preset(ExperimentConfig(DataConfig(joint_vocabulary=True)), name).model)
    changes = {"num_encoder_layers": 3, "num_decoder_layers": 4, "input_dropout_rate": 0.1}
    return {**config, **SMALL, **changes, "d_embedding": 10 if config["d_embedding"] else 0}


PAIRS = [
    {"encoder": encoder, "decoder": decoder, **NEEDS.get(encoder, {}), **NEEDS.get(decoder, {})}
    for encoder, decoder in itertools.product(ENCODERS, DECODERS)
]
# Each component once, with the recurrent partner.
COMPONENTS = (
    [pair for pair in PAIRS if "rnn" in (pair["encoder"], pair["decoder"])]
    + [{"attention": attention} for attention in ATTENTIONS if attention != ModelConfig.attention]
    + [{"attention": attention, "input_feeding": True} for attention in ("luong_general", "bahdanau", "coverage")]
    + [
        {"cell": "gru"},
        {"cell": "rnn", "input_feeding": True},
        {"cell": "normed_lstm"},
        {"bidirectional": False},
        {"bridge": "copy"},
        {"bridge": "zeros"},
        {"share_embeddings": True, "tie_output": True, "d_embedding": 10},
        {"residual": True, "num_encoder_layers": 3},
        {"residual": True, "num_encoder_layers": 3, "first_residual_layer": 3},
        {"num_encoder_layers": 1, "num_decoder_layers": 3},
    ]
    + [
        {
            "encoder": "transformer",
            "decoder": "transformer",
            "positions": kind,
            "pre_norm": pre,
            "activation": activation,
        }
        for kind, pre, activation in (
            ("learned", False, "relu"),
            ("rotary", True, "swiglu"),
            ("relative", False, "gelu"),
            ("none", True, "relu"),
        )
    ]
    + [{"encoder": "conv", "decoder": "conv", "positions": "learned"}]
)
# What `make test` takes: each encoder and decoder, and of what else differs one of a kind. The rest is slow; each
# attention answers alone in tests/layers/test_attention.py.
IN_SHORT = [pair for pair in PAIRS if "rnn" in (pair["encoder"], pair["decoder"])] + [
    {"attention": "none"},
    {"attention": "monotonic_hard"},
    {"attention": "bahdanau", "input_feeding": True},
    {"cell": "normed_lstm"},
    {"share_embeddings": True, "tie_output": True, "d_embedding": 10},
    {"residual": True, "num_encoder_layers": 3},
]
ALL = COMPONENTS + [pair for pair in PAIRS if pair not in COMPONENTS] + [_preset(name) for name in PRESETS]
# Weights whose gradient is zero by construction: a bias of all keys alike shifts all scores of a softmax.
WITHOUT_GRADIENT = ("attention/key/bias",)
AT_MOST_ONE = ("local_p", "monotonic", "monotonic_hard")  # what their weights sum to


def _name(fields):
    for name in PRESETS:
        if fields == _preset(name):
            return name
    return "-".join(f"{k}={v}" for k, v in fields.items())


def _model(seed=1, **fields):
    config = ModelConfig(**{**SMALL, **fields})
    assert not model_problems(config)
    model = build_seq2seq(config, TARGET_V if config.share_embeddings else SOURCE_V, TARGET_V)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    return model


def batch_of_three():
    return Batch(SOURCE, TARGET, OUTPUT, tf.ones([B]), tf.range(B, dtype=tf.int64))


@pytest.fixture(
    params=[fields if fields in IN_SHORT else pytest.param(fields, marks=pytest.mark.slow) for fields in ALL],
    ids=_name,
    scope="module",
)
def model(request):
    return _model(**request.param)


def test_output_shapes(model):
    hidden, weights = model(SOURCE, TARGET)
    assert hidden.shape == (B, T, D) and weights.shape == (B, T, S)
    assert model.project(hidden).shape == (B, T, TARGET_V)


def _assert_steps_equal_the_call(model, tolerance=2e-5):
    hidden, weights = model(SOURCE, TARGET)
    memory, searching = model.prepare(SOURCE), model.for_search()
    state = model.init_state(memory)
    for position in range(T):
        logits, step_weights, state = searching.step(
            TARGET[:, position : position + 1], tf.constant(position), state, memory
        )
        np.testing.assert_allclose(logits[:, 0], model.project(hidden)[:, position], atol=tolerance)
        np.testing.assert_allclose(step_weights[:, 0], weights[:, position], atol=tolerance / 20)


def test_stacked_steps_equal_the_full_call(model):
    _assert_steps_equal_the_call(model)


@pytest.mark.parametrize("fields", ALL[len(COMPONENTS) :], ids=_name)
def test_every_pair_and_preset_steps_as_it_is_called(fields):
    _assert_steps_equal_the_call(_model(**fields))


def test_beams_step_independently_and_share_the_memory(model):
    memory = model.prepare(SOURCE)
    state = repeat_state(model.init_state(memory), K)
    ids = tf.constant([[4, 5, 6, 7, 8, 9, 10], [8, 9, 4, 5, 6, 7, 11], [12, 11, 10, 9, 8, 7, 6]])
    logits, weights, new = model.step(ids, tf.constant(0), state, memory)
    assert logits.shape == (B, K, TARGET_V) and weights.shape == (B, K, S)
    tf.nest.assert_same_structure(state, new)
    # One hypothesis a row, and as many rows as there are hypotheses, so that products have one shape and one rounding.
    alone = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, K, axis=0), memory)
    one, _, state = model.step(tf.repeat(ids[:, 2:3], K, axis=0), tf.constant(0), model.init_state(alone), alone)
    np.testing.assert_allclose(one[::K, 0], logits[:, 2], atol=1e-6)
    logits, _, _ = model.step(ids[:, ::-1], tf.constant(1), new, memory)
    one, _, _ = model.step(tf.repeat(ids[:, 4:5], K, axis=0), tf.constant(1), state, alone)
    np.testing.assert_allclose(one[::K, 0], logits[:, 2], atol=1e-6)


def test_hypotheses_go_on_from_their_parents(model):
    """As in a beam search: twice, from one hypothesis to seven to three; some have no descendants, some several."""
    memory = model.prepare(SOURCE)
    ids = [tf.constant([[BOS_ID]] * B)]
    ids += [tf.constant([[4, 5, 6, 7, 8, 9, 10], [8, 9, 4, 5, 6, 7, 11], [12, 11, 10, 9, 8, 7, 6]])]
    ids += [tf.constant([[4, 7, 4], [6, 5, 4], [9, 4, 5]]), tf.constant([[5, 5, 9], [4, 8, 9], [10, 11, 4]])]
    parents = [tf.zeros([B, 7], tf.int32), tf.constant([[6, 2, 2], [0, 1, 5], [3, 3, 3]])]
    parents += [tf.constant([[1, 2, 2], [0, 0, 2], [2, 1, 0]])]
    state = model.init_state(memory)
    for position, (next_ids, after) in enumerate(zip(ids, [*parents, None])):
        logits, _, state = model.step(next_ids, tf.constant(position), state, memory)
        if after is not None:
            state = reorder_state(state, after)
    for row, last in itertools.product(range(B), range(3)):
        path, place = [], last
        for next_ids, before in zip(ids[::-1], [None, *parents[::-1]]):
            place = place if before is None else int(before[row, place])
            path.insert(0, int(next_ids[row, place]))
        alone = model.init_state(memory)
        for position, number in enumerate(path):
            expected, _, alone = model.step(tf.fill([B, 1], number), tf.constant(position), alone, memory)
        np.testing.assert_allclose(logits[row, last], expected[row, 0], atol=2e-6)


def test_padding_changes_nothing(model):
    hidden, weights = model(SOURCE, TARGET)
    wider_source = tf.pad(SOURCE, [[0, 0], [0, 4]])
    wider_target = tf.pad(TARGET, [[0, 0], [0, 2]])
    wide_hidden, wide_weights = model(wider_source, wider_target)
    np.testing.assert_allclose(wide_hidden[:, :T], hidden, atol=2e-6)
    np.testing.assert_allclose(wide_weights[:, :T, :S], weights, atol=1e-6)
    assert not wide_weights[:, :, S:].numpy().any()
    alone, _ = model(SOURCE[2:, :2], TARGET[2:])
    np.testing.assert_allclose(alone[0], hidden[2], atol=2e-6)


def test_later_target_ids_change_nothing_before_them(model):
    hidden, _ = model(SOURCE, TARGET)
    changed, _ = model(SOURCE, tf.concat([TARGET[:, :3], 12 - TARGET[:, 3:] % 3], 1))
    np.testing.assert_allclose(changed[:, :3], hidden[:, :3], atol=1e-6)
    assert (changed[:, 3:].numpy() != hidden[:, 3:].numpy()).any()


def test_the_source_matters(model):
    hidden, _ = model(SOURCE, TARGET)
    other, _ = model(tf.where(SOURCE > EOS_ID, 13 - SOURCE, SOURCE), TARGET)
    assert np.abs(hidden - other).max() > 1e-3


def _block(path):
    """Of a weight: what its layer is a part of."""
    return path.rsplit("/", 2)[0]


def test_gradient_reaches_every_weight(model):
    with tf.GradientTape() as tape:
        loss = cross_entropy_of(model, batch_of_three(), tf.constant([1, 2]), 0.1).loss
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    sizes = {
        v.path: 0.0 if g is None else float(np.abs(tf.convert_to_tensor(g)).max())
        for v, g in zip(model.trainable_variables, gradients)
    }
    rotary = model.config.positions == "rotary"
    for path, size in sizes.items():
        turned = rotary and "cross_attention" not in path  # then a key's bias depends on its position
        block = max(
            other for name, other in sizes.items() if _block(name) == _block(path)
        )  # its rounding is of this size
        assert (size < 1e-6 * min(block, 1.0)) == (path.endswith(WITHOUT_GRADIENT) and not turned), (path, size, block)


def test_attention_weights_are_a_distribution_over_real_positions(model):
    _, weights = model(SOURCE, TARGET)
    assert (weights.numpy() >= 0).all() and not weights[1, :, 4:].numpy().any() and not weights[2, :, 2:].numpy().any()
    sums, recurrent = tf.reduce_sum(weights, -1).numpy(), model.config.decoder in RECURRENT_DECODERS
    if recurrent and model.config.attention in AT_MOST_ONE:
        assert (sums <= 1 + 1e-6).all() and ((sums > 0.01).all() or model.config.attention == "monotonic_hard")
    else:
        expected = 0.0 if recurrent and model.config.attention == "none" else 1.0
        np.testing.assert_allclose(sums, np.full((B, T), expected), atol=1e-6)


def test_dropout_follows_its_seed(model):
    a, b, c = (model(SOURCE, TARGET, tf.constant(seed))[0] for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(a, b)
    assert (a.numpy() != c.numpy()).any()


@pytest.mark.parametrize("policy, tolerance", [("mixed_bfloat16", 0.15), ("mixed_float16", 0.02)])
@pytest.mark.parametrize(
    "fields",
    [
        {"input_feeding": True, "attention": "bahdanau"},
        {"encoder": "conv", "decoder": "conv"},
        {"encoder": "transformer", "decoder": "transformer", "positions": "relative"},
        *(pytest.param(fields, marks=pytest.mark.slow) for fields in ALL),
    ],
    ids=_name,
)
def test_mixed_precision_agrees_with_float32_and_returns_it(fields, policy, tolerance):
    import keras

    expected, _ = _model(**fields)(SOURCE, TARGET)
    keras.config.set_dtype_policy(policy)
    model = _model(**fields)
    hidden, weights = model(SOURCE, TARGET)
    _assert_steps_equal_the_call(model, tolerance)
    assert hidden.dtype == weights.dtype == tf.float32
    difference = np.abs(hidden - expected).max()
    assert 0 < difference < tolerance


@pytest.mark.parametrize(
    "fields",
    [
        {"encoder": "transformer", "decoder": "transformer", "positions": "relative"},
        *(pytest.param(fields, marks=pytest.mark.slow) for fields in ALL),
    ],
    ids=_name,
)
def test_a_search_whose_arrays_do_not_grow_compiles_and_finds_the_same(fields):
    model, length = _model(**fields), 7

    def beams(*parts, **size):
        return beam_search(*parts, beam_size=3, num_hypotheses=2, **size)

    def samples(*parts, **size):
        return sample(*parts, seeds=tf.constant([[1, 2], [3, 4], [5, 6]]), num_samples=2, **size)

    for search in (beams, greedy, samples):

        def find(search=search, **size):
            memory, searching = model.prepare(SOURCE), model.for_search()
            constraints = Constraints(tf.constant([length, 4, 6]))

            def step(ids, position, state):
                return searching.step(ids, position, state, memory)

            return search(step, model.init_state(memory), constraints, Ranking(1.0), **size)

        expected = find()
        _assert_same_hypotheses(expected, find(max_positions=length), length)
        compiled = tf.function(lambda: find(max_positions=length), jit_compile=True, autograph=False)()
        if search is samples:  # XLA draws other numbers
            assert compiled.ids.shape == (B, 2, length)
        else:
            _assert_same_hypotheses(expected, compiled, length)


def _assert_same_hypotheses(expected, found, length):
    """Those of arrays that grew to what was needed, and of arrays of a fixed length."""
    assert found.ids.shape[2] == found.attention_weights.shape[2] == length
    longest = expected.ids.shape[2]
    np.testing.assert_array_equal(found.ids[:, :, :longest], expected.ids[:, :, :length])
    assert not found.ids[:, :, longest:].numpy().any()
    for name in ("score", "log_prob", "lengths"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-4)
    for name in ("token_log_probs", "attention_weights"):
        ours, theirs = getattr(found, name)[:, :, :longest], getattr(expected, name)[:, :, :length]
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("rate", ["input_dropout_rate", "state_dropout_rate", "output_dropout_rate"])
@pytest.mark.parametrize("feeding", [False, True])
def test_each_dropout_alone_changes_training_and_only_training(rate, feeding):
    off = {"input_dropout_rate": 0.0, "state_dropout_rate": 0.0, "output_dropout_rate": 0.0, "input_feeding": feeding}
    model, plain = _model(**{**off, rate: 0.5}), _model(**off)
    decoder_inputs = model.target_embedding(TARGET), model.prepare(SOURCE)
    trained, rested = (model.decoder(*decoder_inputs, seed)[0] for seed in (tf.constant([1, 2]), None))
    assert (trained.numpy() != rested.numpy()).any()
    np.testing.assert_allclose(model(SOURCE, TARGET)[0], plain(SOURCE, TARGET)[0], atol=1e-6)


def test_word_dropout_takes_whole_ids_in_training_alone():
    """Where every vector is lost but few, hidden states of different text are the same."""
    model = _model(source_word_dropout_rate=0.99, input_dropout_rate=0.0, output_dropout_rate=0.0)
    other, seed = tf.where(SOURCE > EOS_ID, 13 - SOURCE, SOURCE), tf.constant([1, 2])
    for same, dropout_seed in ((True, seed), (False, None)):
        first, second = (model.encode(ids, dropout_seed).embedded for ids in (SOURCE, other))
        assert (first.numpy() == second.numpy()).all() == same
    kept = _model(source_word_dropout_rate=0.5, input_dropout_rate=0.0).encode(tf.tile(SOURCE, [40, 9]), seed).embedded
    zero = (kept.numpy() == 0.0).all(-1)
    assert (zero == (kept.numpy() == 0.0).any(-1)).all() and 0.4 < zero.mean() < 0.6


@pytest.mark.parametrize("side", ["source", "target"])
def test_word_dropout_of_a_side_alone_changes_training(side):
    off = dict.fromkeys(DROPOUT_RATES, 0.0)
    model, plain = _model(**{**off, f"{side}_word_dropout_rate": 0.5}), _model(**off)
    trained, untouched = (each(SOURCE, TARGET, tf.constant([1, 2]))[0] for each in (model, plain))
    assert np.abs(trained - untouched).max() > 1e-3
    np.testing.assert_allclose(model(SOURCE, TARGET)[0], plain(SOURCE, TARGET)[0], atol=1e-6)
    if side == "target":  # BOS is drawn like any other
        encoded = [each.encode(SOURCE, tf.constant([1, 2])).states for each in (model, plain)]
        np.testing.assert_array_equal(*encoded)


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
    choices = {field.path: field.spec.choices for field in fields_of(ExperimentConfig)}
    for name, table in (("encoder", ENCODERS), ("decoder", DECODERS), ("attention", ATTENTIONS)):
        assert choices[f"model.{name}"] == tuple(table)
    assert {name for name, d in DECODERS.items() if issubclass(d, RecurrentDecoder)} == set(RECURRENT_DECODERS)
    assert {name for name, e in ENCODERS.items() if issubclass(e, (RNNEncoder, GNMTEncoder))} == set(RECURRENT_ENCODERS)


@pytest.mark.parametrize(
    "field, valid", [("encoder", "rnn, gnmt"), ("decoder", "rnn, gnmt"), ("attention", "none, bahdanau")]
)
def test_an_unknown_component_is_refused_with_the_valid_ones(field, valid):
    with pytest.raises(UserError, match=f"`model.{field}` must be one of {valid}.*Received: 'foo'"):
        build_seq2seq(ModelConfig(**{field: "foo"}), SOURCE_V, TARGET_V)


def test_learned_positions_without_a_number_are_refused():
    config = ModelConfig(**{**SMALL, "encoder": "conv", "positions": "learned", "max_positions": 0})
    with pytest.raises(UserError, match="`model.max_positions` must be positive when `model.positions` is learned"):
        build_seq2seq(config, SOURCE_V, TARGET_V)


def test_sharing_tables_of_different_sizes_is_refused():
    with pytest.raises(UserError, match="Received: 11 source ids and 13 target ids"):
        build_seq2seq(ModelConfig(d_model=D, share_embeddings=True), SOURCE_V, TARGET_V)


def test_shared_and_tied_tables_are_one_weight():
    separate, shared = _model(), _model(share_embeddings=True, tie_output=True)
    assert len(separate.trainable_variables) - len(shared.trainable_variables) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"attention": "bahdanau", "input_feeding": True},
        *(pytest.param(fields, marks=pytest.mark.slow) for fields in ALL),
    ],
    ids=_name,
)
def test_a_compiled_model_agrees(fields):
    """With static shapes, as a TPU would need: a training step's loss and gradients, and the steps of a search."""
    model = _model(**{**fields, **dict.fromkeys(DROPOUT_RATES, 0.0)})
    weights = [v.value for v in model.trainable_variables]
    draws_noise = model.config.attention.startswith("monotonic")  # the compiler's generator draws another

    def train():
        with tf.GradientTape() as tape:
            sums = cross_entropy_of(model, batch_of_three(), None if draws_noise else tf.constant([1, 2]), 0.1)
        return sums, tape.gradient(sums.loss, weights, unconnected_gradients="zero")

    def search():
        memory = model.prepare(SOURCE)
        state, results = model.init_state(memory), []
        for position in range(T):
            logits, weights, state = model.step(TARGET[:, position, None], tf.constant(position), state, memory)
            results.append((logits, weights))
        return results

    for run in (train, search):
        plain, compiled = run(), tf.function(run, jit_compile=True, autograph=False)()
        for one, other in zip(tf.nest.flatten(plain), tf.nest.flatten(compiled), strict=True):
            one, other = np.array(tf.convert_to_tensor(one)), np.array(tf.convert_to_tensor(other))
            np.testing.assert_allclose(other, one, atol=2e-4 * max(1.0, np.abs(one).max()))


@pytest.mark.parametrize(
    "fields",
    [
        *({"encoder": encoder, **NEEDS.get(encoder, {})} for encoder in ("rnn", "conv")),
        *({"decoder": decoder, **NEEDS.get(decoder, {})} for decoder in ("gnmt", "transformer")),
        *(pytest.param(fields, marks=pytest.mark.slow) for fields in ALL),
    ],
    ids=_name,
)
def test_a_translation_depends_on_its_own_text_alone(fields):
    translator = Translator(*_translating(fields))
    together = translator.translate_batch(TEXTS)
    assert len({(t.text, round(t.best.log_prob, 2)) for t in together}) > 1
    for text, among in zip(TEXTS, together):
        [alone] = translator.translate_batch([text])
        assert (alone.text, alone.best.ids) == (among.text, among.best.ids)
        assert alone.best.log_prob == pytest.approx(among.best.log_prob, abs=1e-5)


TEXTS = ["abc", "g", "fedcbagfedcba", "bb", "cag"]


def _translating(fields):
    """A model whose translations differ and do not end at once, with all that a translator takes."""
    config = ModelConfig(**{**SMALL, **fields})
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    model = build_seq2seq(config, 11, 11)
    rng = np.random.default_rng(3)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.6)
    output = model.output_projection
    if not config.tie_output:
        output.kernel.assign(output.kernel * 5.0)
    output.bias.assign(tf.one_hot(EOS_ID, 11) * -6.0 + tf.one_hot(UNK_ID, 11) * -20.0)
    return model, tokenizer, tokenizer, DecodingConfig(beam_size=3, max_length=6, length_penalty=1.0, terms_beam_size=0)


@pytest.mark.parametrize(
    "fields",
    [
        *({"decoder": decoder, **NEEDS.get(decoder, {})} for decoder in ("transformer",)),
        *(pytest.param(fields, marks=pytest.mark.slow) for fields in ALL),
    ],
    ids=_name,
)
def test_a_model_returns_from_a_saved_model_with_its_search(fields, tmp_path):
    parts = _translating(fields)
    tf.saved_model.save(TranslationModule(*parts), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    served = loaded.serve(tf.constant(TEXTS))
    expected = Translator(*parts).translate_batch(TEXTS)
    assert [text.decode() for text in served["translation"].numpy()] == [t.text for t in expected]
    np.testing.assert_allclose(served["log_prob"], [t.best.log_prob for t in expected], atol=1e-5)


def test_weights_return_from_a_checkpoint(model, tmp_path):
    saved = tf.train.Checkpoint(model=by_path(model.variables)).write(str(tmp_path / "weights"))
    other = build_seq2seq(model.config, model.source_embedding.vocab_size, TARGET_V)
    assert (np.array(other(SOURCE, TARGET)[0]) != np.array(model(SOURCE, TARGET)[0])).any()
    tf.train.Checkpoint(model=by_path(other.variables)).read(saved).assert_consumed()
    np.testing.assert_array_equal(other(SOURCE, TARGET)[0], model(SOURCE, TARGET)[0])


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"d_model": 9}, "must be even when the encoder reads both ways"),
        ({"encoder": "transformer", "num_heads": 3}, "`model.num_heads` must divide `model.d_model`"),
        ({"attention": "multi_head", "num_heads": 3}, "`model.num_heads` must divide `model.d_model`"),
        ({"encoder": "transformer", "positions": "rotary", "d_model": 12}, "comes in pairs of channels"),
        ({"encoder": "conv", "positions": "rotary"}, "rotary is of self-attention: a convolution needs"),
        ({"encoder": "conv", "kernel_size": 4}, "must be odd in a convolutional encoder"),
        ({"encoder": "gnmt", "num_encoder_layers": 1}, "must be at least 2 with encoder gnmt"),
        ({"decoder": "gnmt", "num_decoder_layers": 1}, "must be at least 2 with decoder gnmt"),
        ({"decoder": "rnmt_plus", "attention": "none"}, "must not be none with decoder rnmt_plus"),
        ({"decoder": "transformer", "input_feeding": True}, "needs a recurrent decoder; transformer attends"),
        ({"encoder": "conv", "bridge": "copy"}, "copy needs a recurrent encoder"),
        ({"decoder": "ssru", "attention": "none"}, "none is of recurrent decoders: leave it out"),
        ({"positions": "rotary"}, "is of Transformers and convolutions: leave it out with encoder rnn"),
        ({"decoder": "conditional_gru"}, "it needs `model.cell` gru and `model.num_decoder_layers` 1"),
        ({"decoder": "conditional_gru", **NEEDS["conditional_gru"], "input_feeding": True}, "leave it off"),
        ({"freeze_vectors": True}, "needs `model.source_vectors` or `model.target_vectors`"),
        ({"share_embeddings": True, "target_vectors": "a.vec"}, "`model.source_vectors` fills the one table"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_go_together_is_refused_with_the_reason(fields, reason):
    config = ModelConfig(**{**SMALL, **fields})
    problems = model_problems(config)
    assert len(problems) == 1 and reason in problems[0]
    with pytest.raises(UserError, match=re.escape(problems[0])):
        build_seq2seq(config, SOURCE_V, TARGET_V)
