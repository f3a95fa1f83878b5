"""The translator on a model that was trained: order, empty lines, batches, limits; and a SavedModel of it."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text

from nmt_keras.config import DecodingConfig, ModelConfig
from nmt_keras.constants import EOS_ID, UNK_ID
from nmt_keras.errors import UserError
from nmt_keras.inference.protection import Protection
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translator import Translator
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.serving import export, proof
from nmt_keras.serving.client import Client
from nmt_keras.serving.export import TranslationModule, signatures_of
from nmt_keras.serving.local import LocalTransport, load_export
from nmt_keras.serving.proof import FreshProcess
from nmt_keras.tokenizers.building import train_tokenizer

TEXTS = ["a b c", "", "h", "a b c d e f g h a b", "  ", "b", "\u3000", "d e f", "c c c c"]


@pytest.fixture(scope="module")
def parts():
    """A model with weights that make long, varied outputs, and separate tokenizers."""
    source = train_tokenizer("unigram", ["a b c d e f g h", "h g f e d c b a"] * 9, 15, byte_fallback=False)
    target = train_tokenizer("char", ["abcdefghij xyz"], 20)
    model = build_seq2seq(
        ModelConfig(d_model=16, num_encoder_layers=1, num_decoder_layers=2), source.vocab_size, target.vocab_size
    )
    rng = np.random.default_rng(5)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.7)
    ids = tf.range(target.vocab_size)  # no empty outputs, and ASCII ones for the command line tool
    model.output_projection.bias.assign(tf.where((ids == EOS_ID) | (ids == UNK_ID), -30.0, 0.0))
    return model, source, target


def _translator(parts, sampling=None, num_hypotheses=1, **decoding):
    config = DecodingConfig(**{"beam_size": 3, "max_length": 20, "max_source_length": 16, **decoding})
    return Translator(*parts, config, num_hypotheses, sampling)


@pytest.mark.parametrize("options", [{"beam_size": 1}, {"beam_size": 3}, {"beam_size": 3, "recombine": 2}], ids=str)
def test_a_batchs_composition_changes_no_translation(parts, options):
    translator = _translator(parts, **options)
    alone = [translator.translate([text])[0] for text in TEXTS]
    assert len({t.text for t in alone}) > 3
    for batch in (2, 7, 64):
        translator.config.batch_sentences = batch
        together = translator.translate(TEXTS[::-1])[::-1]
        for a, b in zip(alone, together):
            assert (a.text, a.best.ids, a.source_ids) == (b.text, b.best.ids, b.source_ids)
            np.testing.assert_allclose(a.best.log_prob, b.best.log_prob, atol=1e-5)
            np.testing.assert_allclose(a.best.attention_weights, b.best.attention_weights, atol=1e-5)


def test_recombined_hypotheses_differ_and_are_ranked(parts):
    plain, recombined = (
        _translator(parts, beam_size=6, num_hypotheses=6, recombine=n).translate(TEXTS) for n in (0, 1)
    )
    for translation in recombined:
        scores = [hypothesis.score for hypothesis in translation.hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(hypothesis.ids) for hypothesis in translation.hypotheses}) == len(scores)
        for hypothesis in translation.hypotheses:
            assert hypothesis.log_prob == pytest.approx(sum(hypothesis.token_log_probs), abs=1e-4)
    assert [each.best.ids for each in plain] != [each.best.ids for each in recombined]


def test_one_line_out_per_line_in_and_blank_stays_empty(parts):
    results = _translator(parts).translate(TEXTS)
    assert len(results) == len(TEXTS)
    assert [bool(r.text) for r in results] == [bool(text.strip()) for text in TEXTS]
    assert _translator(parts).translate([]) == []


def test_odd_input_is_translated_without_a_crash(parts):
    odd = ["\ud800", "a\udcffb", "a\nb", "\U0001f600 \u05e9\u05dc", "a b " * 800, "a\x00b"]
    results = _translator(parts).translate(odd)
    assert len(results) == len(odd) and not any("\n" in r.text or "\r" in r.text for r in results)
    assert [r.truncated for r in results] == [False, False, False, False, True, False]


def test_attention_and_probabilities_belong_to_the_pieces(parts):
    for result in _translator(parts, num_hypotheses=3).translate(["a b c", "d e f g"]):
        assert len({h.text for h in result.hypotheses}) == 3
        for best, next_best in zip(result.hypotheses, result.hypotheses[1:]):
            assert best.score >= next_best.score
        for h in result.hypotheses:
            assert h.attention_weights.shape == (len(h.ids), len(result.source_ids))
            np.testing.assert_allclose(h.attention_weights.sum(-1), 1.0, atol=1e-5)
            assert h.log_prob < 0 and h.score >= h.log_prob and len(h.token_log_probs) == len(h.ids)
            np.testing.assert_allclose(sum(h.token_log_probs), h.log_prob, atol=1e-5)
            assert len(h.alignment) == len(h.ids) - 1 and max(h.alignment) < len(result.source_ids)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_blank_line_has_no_ids_and_no_log_prob(parts, beam_size):
    full, blank = _translator(parts, beam_size=beam_size).translate(["a b c", " \u3000 "])
    assert blank.text == "" and blank.best.ids == [] and (blank.best.log_prob, blank.best.score) == (0.0, 0.0)
    assert blank.best.attention_weights.shape[0] == 0 and blank.best.alignment == [] and full.best.ids


def test_a_greedy_score_has_the_length_penalty_too(parts):
    [result] = _translator(parts, beam_size=1, length_penalty=0.6).translate(["a b c d e f g"])
    assert result.best.score == pytest.approx(result.best.log_prob / ((5 + len(result.best.ids)) / 6) ** 0.6)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_forced_beginning_begins_the_translation_of_its_own_text(parts, beam_size):
    translator = _translator(parts, beam_size=beam_size)
    plain = translator.translate(TEXTS)
    forced = translator.translate(TEXTS, prefixes=["xyz" if number == 3 else "" for number in range(len(TEXTS))])
    assert forced[3].text.startswith("xyz") and not plain[3].text.startswith("xyz")
    assert [t.text for t in forced[:3] + forced[4:]] == [t.text for t in plain[:3] + plain[4:]]


def test_a_banned_phrase_is_in_no_translation(parts):
    plain = _translator(parts).translate(TEXTS)
    phrase = plain[0].text[1:3]
    banned = _translator(parts, banned_phrases=(phrase,)).translate(TEXTS)
    assert len(phrase) == 2 and not any(phrase in t.text for t in banned) and any(t.text for t in banned)


def test_a_minimum_length_is_kept(parts):
    short, long = (_translator(parts, min_length=size, max_length=size).translate(TEXTS[:1]) for size in (4, 12))
    assert (len(short[0].best.ids), len(long[0].best.ids)) == (4, 12)


def test_streams_keep_their_order(parts):
    translator = _translator(parts)
    texts = TEXTS * 3
    assert [t.text for t in translator.stream(iter(texts), chunk=4)] == [t.text for t in translator.translate(texts)]


def test_sampling_repeats_with_its_seed(parts):
    one, again, other = (_translator(parts, Sampling(seed)).translate(TEXTS) for seed in (1, 1, 2))
    assert [t.text for t in one] == [t.text for t in again] != [t.text for t in other]


@pytest.mark.slow
def test_a_sample_depends_on_its_line_and_on_nothing_else(parts):
    texts = ["a b c d", "h g f"] * 3
    samples = [
        [t.text for t in _translator(parts, Sampling(1), batch_sentences=size).translate(texts)] for size in (2, 4, 6)
    ]
    assert samples[0] == samples[1] == samples[2]
    assert len(set(samples[0])) > 2
    streamed = _translator(parts, Sampling(1)).stream(iter(texts), chunk=2)
    assert [t.text for t in streamed] == samples[0]


@pytest.mark.slow
def test_an_export_equals_the_translator_in_a_fresh_process(parts, tmp_path):
    """Two tokenizers in one export: each must keep its own model."""
    other = train_tokenizer("unigram", ["x y z w v u", "u v w x y z"] * 9, 12, byte_fallback=False)
    model, source, _ = parts
    target_model = build_seq2seq(model.config, source.vocab_size, other.vocab_size)
    config = DecodingConfig(beam_size=2, max_length=20, max_source_length=16)
    module = export.TranslationModule(target_model, source, other, config)
    folder = export.publish(export.save(module, tmp_path / "name"), tmp_path / "name")
    assert folder == tmp_path / "name" / "1"
    translator = Translator(target_model, source, other, config)
    expected = translator.translate_batch(TEXTS)
    with FreshProcess(folder) as process:
        served = process.ask("serving_default", {"text": TEXTS})
    assert served["translation"] == [t.text for t in expected]
    np.testing.assert_allclose(served["log_prob"], [t.best.log_prob for t in expected], atol=1e-5)
    assert [t.text for t in load_export(folder).translate(TEXTS)] == [t.text for t in expected]
    assert export.publish(export.save(module, tmp_path / "name"), tmp_path / "name").name == "2"
    names = {path.name for path in (tmp_path / "name").iterdir()}
    assert names == {"1", "2"}


@pytest.fixture(scope="module")
def saved(parts, tmp_path_factory):
    """An export."""
    config = DecodingConfig(beam_size=2, max_length=20, max_source_length=16)
    return export.save(export.TranslationModule(*parts, config), tmp_path_factory.mktemp("saved"))


@pytest.mark.slow
def test_saved_model_cli_runs_an_export(parts, saved):
    """The C++ loader restores every variable (a tracked Keras model would break it)."""
    program = (
        "import sys, tensorflow_text; from tensorflow.python.tools import saved_model_cli; "
        "sys.exit(saved_model_cli.main())"
    )
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "run",
            "--dir",
            str(saved),
            "--tag_set",
            "serve",
            "--signature_def",
            "serving_default",
            "--input_exprs",
            "text=[b'a b c', b'd e f']",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for translation in _translator(parts, beam_size=2).translate(["a b c", "d e f"]):
        assert translation.text in result.stdout


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no export of this toolkit; give saved_models/<name>, or a version of it"):
        load_export(tmp_path)


def test_a_damaged_export_is_refused(tmp_path):
    from nmt_keras.errors import UserError

    (tmp_path / "saved_model.pb").write_bytes(b"nothing of the kind")
    with pytest.raises(
        UserError, match="is no export of this toolkit, or it is damaged; give another, or export the mo"
    ):
        load_export(tmp_path)


def test_a_broken_export_is_noticed(tmp_path):
    with pytest.raises(RuntimeError, match="the export does not load"):
        FreshProcess(tmp_path)


@pytest.mark.slow
def test_the_export_holds_no_function_that_must_be_compiled(saved, tmp_path):
    assert proof.functions_that_must_compile(saved) == [] == proof.unsupported_operations(saved)
    assert sorted(proof.signatures(saved)) == [
        "__saved_model_init_op",
        "encode",
        "limits",
        "score",
        "serving_default",
        "translate",
    ]
    compiled = tf.Module()
    compiled.run = tf.function(lambda x: x + 1, jit_compile=True, input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(compiled, str(tmp_path / "compiled"))
    assert len(proof.functions_that_must_compile(tmp_path / "compiled")) >= 1


def test_an_operation_that_a_server_does_not_link_is_found(tmp_path):
    foreign = tf.Module()
    foreign.run = tf.function(
        lambda text: tf_text.WhitespaceTokenizer().tokenize(text).flat_values,
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    tf.saved_model.save(foreign, str(tmp_path))
    assert any("Whitespace" in name for name in proof.unsupported_operations(tmp_path))


@pytest.mark.slow
def test_a_seed_that_destroys_resources_is_not_seen(parts, tmp_path):
    import keras

    from nmt_keras.serving.client import Client
    from nmt_keras.serving.local import LocalTransport

    _, source, target = parts
    translator = _translator(parts)
    expected = [translation.text for translation in translator.translate(TEXTS)]

    def make():
        for tokenizer in (source, target):
            tokenizer.renew()
        module = export.TranslationModule(*parts, translator.config)
        return export.signatures_of(module), module

    functions, module = make()
    clients = [
        Client("here", transport=LocalTransport(functions, module, make), concurrency=1),
        load_export(export.save(module, tmp_path)),
    ]
    for client in clients:
        assert [translation.text for translation in client.translate(TEXTS)] == expected
    for destroy in (lambda: keras.utils.set_random_seed(1), keras.backend.clear_session):
        destroy()
        assert [translation.text for translation in translator.translate(TEXTS)] == expected
        for client in clients:
            assert [translation.text for translation in client.translate(TEXTS)] == expected


@pytest.mark.slow
def test_a_translator_places_what_is_protected_as_an_export_does(varied_transformer):
    tokenizer = train_tokenizer("unigram", ["abc def gab cab fed 12"] * 9, 275, may_shrink=True)
    model, config = varied_transformer(tokenizer.vocab_size, end=-8.0), DecodingConfig(max_length=9, terms_beam_size=0)
    parts = model, tokenizer, tokenizer, config
    protection, texts = Protection(["number"], has_placeholders=True), ["a 12 bc", "", "34 cab 5"]
    translator = Translator(*parts, protection=protection)
    module = TranslationModule(*parts, placeholders=["number"])
    with Client("export", transport=LocalTransport(signatures_of(module), module)) as client:
        assert client.placeholders == ("number",)
        found = [each.text for each in client.translate(texts)]
        assert [each.text for each in translator.translate(texts)] == found
        assert all(found[row].count(number) == 1 for row, number in ((0, "12"), (2, "34")))
        begun = [each.text for each in client.translate(texts, prefixes=["b 12", "", ""])]
        assert [each.text for each in translator.translate(texts, prefixes=["b 12", "", ""])] == begun
    without = Translator(*parts, protection=Protection(["number"])).translate(texts, prefixes=["b 12", "", "c"])
    assert [each.text[:4] for each in without[:2]] == ["b 12", ""] and without[2].text.startswith("c")
    assert all(without[row].text.count(number) == 1 for row, number in ((0, "12"), (2, "34")))
