"""The signatures of an export: what they say of a text, alone and merged with others, and through the C library."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig, ModelConfig
from nmt_keras.constants import EOS_ID
from nmt_keras.inference.translator import Translator
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.serving import export, proof
from nmt_keras.tokenizers.building import train_tokenizer

TEXTS = ["abc", "", "g", "fedcbagfedcba", "bb", "gac"]
CONFIG = DecodingConfig(beam_size=3, length_penalty=0.6, max_length=9, max_source_length=16, max_beam_size=6)
OPTIONS = {
    "beam_size": [3, 3, 1, 6, 99, 0],
    "num_hypotheses": [3, 1, 1, 2, 99, 4],
    "max_length": [9, 9, 4, 9, 9, 0],
    "length_penalty": [0.6, 0.6, 0.0, 1.0, float("nan"), -3.0],
    "temperature": [0.0, 0.0, 0.0, 0.7, 1e9, float("nan")],
    "seed": [1, 1, 1, 5, 6, 7],
    "prefix": ["", "ab", "a", "g ", "", "aXc"],
    "terms": ["fa\nc\tbb", "a", "d", "c", "X", "ga\tgX\n\nXX"],
    "attention": [True, False, True, True, False, False],
}
DTYPES = {
    "length_penalty": tf.float32,
    "temperature": tf.float32,
    "prefix": tf.string,
    "terms": tf.string,
    "attention": tf.bool,
}


@pytest.fixture(scope="module")
def parts(varied_transformer):
    """A transformer whose weights make varied translations."""
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    model = varied_transformer(11, end=-2.0)
    return model, tokenizer, tokenizer, CONFIG


@pytest.fixture(scope="module")
def module(parts):
    return export.TranslationModule(*parts)


def _call(module, rows, **changes):
    """The `translate` signature on rows of TEXTS with their request options, as NumPy arrays."""
    own = [{**{name: values[row] for name, values in OPTIONS.items()}, **changes} for row in rows]
    request_options = [tf.constant([row[name] for row in own], DTYPES.get(name, tf.int32)) for name in OPTIONS]
    outputs = module.translate(tf.constant([TEXTS[row] for row in rows]), *request_options)
    return {name: value.numpy() for name, value in outputs.items()}


def _assert_is_row(outputs, row, alone):
    """Row `row` of `outputs` says what the only row of `alone` says, beyond which there is padding."""
    for name, value in alone.items():
        ours, own = outputs[name][row], value[0]
        said = tuple(slice(size) for size in own.shape)
        beyond = np.ones(ours.shape, bool)
        beyond[said] = False
        assert set(ours[beyond].tolist()) <= {-1 if name == "alignment" else b"" if ours.dtype == object else 0}, name
        ours = ours[said]
        if ours.dtype == np.float32:
            np.testing.assert_allclose(ours, own, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(ours, own, err_msg=name)


def test_a_row_is_as_in_a_call_of_its_own_whatever_it_is_merged_with(module):
    rows = range(len(TEXTS))
    together = _call(module, rows)
    reversed_ = _call(module, rows[::-1])
    for row in rows:
        alone = _call(module, [row])
        _assert_is_row(together, row, alone)
        _assert_is_row(reversed_, len(TEXTS) - 1 - row, alone)


def test_options_out_of_range_are_moved_into_it(module):
    outputs = _call(module, range(len(TEXTS)))
    assert outputs["num_hypotheses"].tolist() == [3, 0, 1, 2, 6, 3]
    assert (outputs["num_pieces"][2] <= 4).all() and (outputs["num_pieces"] <= 9).all()
    _assert_is_row(_call(module, [4]), 0, _call(module, [4], temperature=100.0, num_hypotheses=6, length_penalty=0.6))
    own = {"beam_size": 3, "num_hypotheses": 3, "max_length": 9, "length_penalty": 0.6, "temperature": 0.0}
    assert outputs["num_terms"].tolist() == [2, 1, 1, 1, 1, 3]
    placed = outputs["is_term_placed"][:, 0].tolist()  # none of a blank text, none of a sampled one, none unknown
    assert placed == [
        [True, True, False],
        [False] * 3,
        [True, False, False],
        [False] * 3,
        [False] * 3,
        [True, False, False],
    ]
    assert outputs["is_prefix_kept"].tolist() == [True, False, True, False, True, False]  # blank; no space
    _assert_is_row(_call(module, [5]), 0, _call(module, [5], **own))


def test_a_search_is_the_translators(module, parts):
    outputs = _call(
        module, [0, 3], beam_size=3, num_hypotheses=3, length_penalty=0.6, temperature=0.0, prefix="", terms=""
    )
    for row, translation in enumerate(Translator(*parts, num_hypotheses=3).translate([TEXTS[0], TEXTS[3]])):
        for number, hypothesis in enumerate(translation.hypotheses):
            length = outputs["num_pieces"][row, number]
            assert outputs["translation"][row, number].decode() == hypothesis.text
            assert length == len(hypothesis.ids)
            assert outputs["alignment"][row, number].tolist()[: length - 1] == hypothesis.alignment
            assert (outputs["alignment"][row, number, length - 1 :] == -1).all()
            np.testing.assert_allclose(outputs["score"][row, number], hypothesis.score, atol=1e-5)
            np.testing.assert_allclose(
                outputs["token_log_probs"][row, number, :length], hypothesis.token_log_probs, atol=1e-5
            )
            pieces = outputs["pieces"][row, number].tolist()
            assert b"".join(pieces[: length - 1]).decode() == hypothesis.text
            assert pieces[length - 1] == b"</s>" and set(pieces[length:]) <= {b""}


def test_samples_repeat_with_their_seed_and_are_not_those_of_another(module):
    one, again, other = (_call(module, [3], temperature=1.0, num_hypotheses=6, seed=seed) for seed in (1, 1, 2))
    assert one["translation"].tolist() == again["translation"].tolist() != other["translation"].tolist()
    fewer = _call(module, [3], temperature=1.0, num_hypotheses=2, seed=1)
    assert fewer["translation"].tolist()[0] == one["translation"].tolist()[0][:2]


def test_no_number_of_a_reply_is_infinite(module):
    for outputs in (_call(module, range(len(TEXTS))), _call(module, [1])):
        for name, value in outputs.items():
            assert value.dtype != np.float32 or np.isfinite(value).all(), name


def test_the_score_of_a_translation_is_its_log_prob(module):
    found = _call(module, [0, 3], num_hypotheses=1, temperature=0.0)
    scored = module.score(tf.constant([TEXTS[0], TEXTS[3]]), tf.constant(found["translation"][:, 0]))
    np.testing.assert_allclose(scored["log_prob"], found["log_prob"][:, 0], atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(scored["token_log_probs"], -1), scored["log_prob"], atol=1e-5)
    np.testing.assert_array_equal(scored["num_pieces"], found["num_pieces"][:, 0])


def test_many_pairs_are_scored_a_batch_at_a_time(module, parts):
    small = export.TranslationModule(*parts[:3], dataclasses.replace(CONFIG, batch_sentences=2))
    for count in range(1, len(TEXTS) + 1):
        pairs = tf.constant(TEXTS[:count]), tf.constant(TEXTS[::-1][:count])
        scored = small.score(*pairs)
        for name, value in module.score(*pairs).items():
            np.testing.assert_array_equal(np.shape(scored[name]), np.shape(value))
            if value.dtype == tf.float32:
                np.testing.assert_allclose(scored[name], value, atol=1e-5)


def test_a_sentence_vector_is_the_mean_of_the_encoders_states(module, parts):
    model, tokenizer, *_ = parts
    vectors = module.encode(tf.constant(["abc", "fedcbagf"]))["vector"]
    ids = tf.constant([[*tokenizer.encode("abc"), EOS_ID]])
    np.testing.assert_allclose(vectors[0], tf.reduce_mean(model.encode(ids).states[0], 0), atol=1e-5)
    assert vectors.shape == (2, 16) and np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_attention_weights_are_of_the_rows_that_ask_for_them(module):
    together = _call(module, range(len(TEXTS)))
    weights = together["attention_weights"]
    assert weights.shape == (*together["pieces"].shape, together["source_pieces"].shape[1])
    for row, is_asked in enumerate(OPTIONS["attention"]):
        for number in range(together["num_hypotheses"][row]):
            sums = weights[row, number].sum(-1)[: together["num_pieces"][row, number]]
            np.testing.assert_allclose(sums, float(is_asked), atol=1e-5)
    none = _call(module, range(len(TEXTS)), attention=False)
    assert none["attention_weights"].shape == (*none["pieces"].shape, 0)


@pytest.mark.slow
def test_all_signatures_run_through_the_c_library(module, tmp_path):
    folder = export.save(module, tmp_path)
    request_options = {
        name: values if name in ("prefix", "terms", "attention") else np.nan_to_num(values, nan=-1.0).tolist()
        for name, values in OPTIONS.items()
    }
    with proof.FreshProcess(folder) as process:
        served = process.ask("serving_default", {"text": TEXTS})
        reply = process.ask("translate", {"text": TEXTS, **request_options})
        scored = process.ask("score", {"source": ["abc"], "target": ["gg"]})
        encoded = process.ask("encode", {"text": ["abc", ""]})
    expected = module.serve(tf.constant(TEXTS))
    assert served["translation"] == [text.decode() for text in expected["translation"].numpy()]
    together = _call(module, range(len(TEXTS)))
    assert reply["translation"] == [[text.decode() for text in row] for row in together["translation"].tolist()]
    assert reply["num_hypotheses"] == together["num_hypotheses"].tolist()
    np.testing.assert_allclose(reply["token_log_probs"], together["token_log_probs"], atol=1e-5)
    expected = module.score(tf.constant(["abc"]), tf.constant(["gg"]))
    np.testing.assert_allclose(scored["log_prob"], expected["log_prob"], atol=1e-5)
    np.testing.assert_allclose(encoded["vector"], module.encode(tf.constant(["abc", ""]))["vector"], atol=1e-5)


@pytest.mark.slow
def test_what_reads_nothing_is_aligned_with_nothing(parts):
    tokenizer = parts[1]
    model = build_seq2seq(ModelConfig(attention="none", d_model=16), 11, 11)
    model.output_projection.bias.assign(tf.one_hot(EOS_ID, 11) * -20.0)
    module, translator = (make(model, tokenizer, tokenizer, CONFIG) for make in (export.TranslationModule, Translator))
    assert (_call(module, [0, 3])["alignment"] == -1).all()
    [translation] = translator.translate(["abc"])
    assert set(translation.best.alignment) <= {-1} and len(translation.best.ids) > 1


@pytest.mark.slow
def test_rows_beyond_the_limit_of_a_call_are_left_out_and_say_so(parts):
    few = export.TranslationModule(*parts[:3], dataclasses.replace(CONFIG, max_request_sentences=2))
    outputs = _call(few, [0, 3, 4], temperature=0.0)
    assert outputs["truncated"].tolist() == [False, False, True] and outputs["num_hypotheses"][2] == 0
    assert (outputs["alignment"][2] == -1).all() and set(outputs["translation"][2].tolist()) == {b""}
    served = few.serve(tf.constant(["abc"] * 3))
    assert served["translation"].numpy()[2] == b"" and served["truncated"].numpy().tolist() == [False, False, True]
    assert few.encode(tf.constant(["abc"] * 3))["vector"].shape == (3, 16)
    assert few.score(tf.constant(["abc"] * 3), tf.constant(["a"] * 3))["num_pieces"].numpy().tolist() == [2, 2, 0]
