"""The client against a double of TensorFlow Serving that runs a real export: both transports, all errors."""

import http.server
import itertools
import json
import pathlib
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_service_pb2_grpc

from nmt_keras.config import DecodingConfig
from nmt_keras.errors import UserError
from nmt_keras.inference.glossary import stands_in
from nmt_keras.inference.protection import Protection
from nmt_keras.inference.translation import NOTHING
from nmt_keras.runs.loading import load
from nmt_keras.serving import client as client_module
from nmt_keras.serving import export, proof
from nmt_keras.serving.client import Client, TranslateOptions
from nmt_keras.serving.local import LocalTransport, load_export
from nmt_keras.serving.local_server import Servicer, serving
from nmt_keras.tokenizers.building import train_tokenizer
from tests.serving.serving_double import Double

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = ["abc", "", "g", "fedcbagfedcba", "bb", "\N{GRINNING FACE} gac", "a\udcffb\udcfe", "  "]
OPTIONS = {"beam_size": 4, "num_hypotheses": 3, "max_length": 8, "length_penalty": 0.6, "temperature": 0.0, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, varied_transformer):
    """An export of an untrained transformer that makes varied translations."""
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    model = varied_transformer(11, end=-8.0)
    decoding = DecodingConfig(beam_size=3, max_length=9, max_source_length=16, max_beam_size=6)
    return export.save(
        export.TranslationModule(model, tokenizer, tokenizer, decoding), tmp_path_factory.mktemp("export")
    )


@pytest.fixture(scope="module")
def served(folder):
    double = Double(folder, "a model", version=3)
    with serving(double) as ports:
        yield double, ports


@pytest.fixture
def double(served, monkeypatch):
    """The double, in the state it started in; what a test changes with `monkeypatch` is changed back."""
    double, _ = served
    double.batches.clear()
    double.in_flight = double.most_in_flight = 0
    for name in ("max_batch", "max_body", "fail_first", "state"):
        monkeypatch.setattr(double, name, getattr(double, name))
    monkeypatch.setattr(client_module, "_FIRST_DELAY", 0.01)
    return double


@pytest.fixture(params=["http", "grpc"])
def address(request, served):
    """The server's address by each transport."""
    return f"{request.param}://127.0.0.1:{served[1].rest if request.param == 'http' else served[1].grpc}/a%20model"


@pytest.fixture
def client(address, double):
    with Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def few_module(varied_transformer):
    """What an export of two rows a call is made of; its tests share the graphs."""
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    decoding = DecodingConfig(beam_size=2, max_length=9, max_source_length=16, batch_sentences=2)
    decoding.max_request_sentences = 2
    return export.TranslationModule(varied_transformer(11, end=-8.0), tokenizer, tokenizer, decoding)


def _few(module, is_old=False):
    """A client of such an export, in this process; an old one has no limits, prefixes and terms."""
    functions = export.signatures_of(module)
    if is_old:
        del functions["limits"]
        functions["translate"] = lambda text, **inputs: module.translate(
            text=text,
            **{name: tf.fill(tf.shape(text), "") for name in ("prefix", "terms")},
            attention=tf.fill(tf.shape(text), False),
            **inputs,
        )
    return Client("few", transport=LocalTransport(functions, module))


def test_the_languages_of_an_export_are_those_of_its_run_and_unknown_of_an_older_one(few_module, trained_copy):
    with _few(few_module) as silent, _few(few_module, is_old=True) as old:
        assert silent.language_pair == old.language_pair == ("", "")
        assert silent.max_beam_size == 16 and old.max_beam_size is None
    assert load(trained_copy / "run").client().language_pair == ("xx", "yy")


@pytest.mark.slow
def test_no_more_rows_are_asked_at_once_than_the_export_answers(few_module):
    texts = ["abc", "g", "", "bb", "fed"]
    with _few(few_module) as client:
        alone = [client.translate([text])[0] for text in texts]
        assert [t.text for t in client.translate(texts)] == [t.text for t in alone] and all(alone[0].text)
        assert not any(t.truncated for t in client.translate(texts, beam_size=2))
        assert [row["num_pieces"] for row in client.score(texts, texts)] == [4, 2, 1, 3, 4]
        assert np.array([row["vector"] for row in client.encode(texts)]).any(1).all()


@pytest.mark.slow
def test_an_export_that_cannot_tell_its_limit_loses_no_row(few_module):
    texts = ["abc", "g", "", "bb", "fed"]
    with _few(few_module) as new, _few(few_module, is_old=True) as old:
        for request_options in ({}, {"beam_size": 2}):
            found, wanted = (client.translate(texts, **request_options) for client in (old, new))
            assert [t.text for t in found] == [t.text for t in wanted]
            assert not any(t.truncated for t in found)
        rows = zip(old.score(texts, texts), new.score(texts, texts), strict=True)
        assert all(a["log_prob"] == pytest.approx(b["log_prob"], abs=1e-5) for a, b in rows)
        rows = zip(old.encode(texts), new.encode(texts), strict=True)
        assert all(a["vector"] == pytest.approx(b["vector"], abs=1e-5) for a, b in rows)


def test_beginnings_go_with_their_texts_and_an_older_export_takes_none(few_module):
    with _few(few_module) as client:
        texts, prefixes = ["abc", "g", "bb"], ["fe", "", "X"]
        found = client.translate(texts, prefixes=iter(prefixes))
        assert found[0].text.startswith("fe") and found[1].text == client.translate(["g"], beam_size=0)[0].text
        assert [each.outputs["is_prefix_kept"] for each in found] == [True, True, False]
        with pytest.raises(UserError, match="prefixes is one text"):
            client.translate(texts, prefixes="abc")
        with pytest.raises(UserError, match="the prefixes end at number 1: give as many of texts and prefixes"):
            client.translate(texts, prefixes=["a"])
        with pytest.raises(UserError, match="the texts end at number 3: give"):
            client.translate(texts, prefixes=["a"] * 4)
        with pytest.raises(UserError, match="a prefix, number 1, is 7: give a text"):
            client.translate(texts, prefixes=["", 7, ""])
        [blank] = client.translate([" "], prefixes=["a"])
        assert blank.text == "" and not blank.outputs["is_prefix_kept"]
    with _few(few_module, is_old=True) as old:
        with pytest.raises(UserError, match="few takes no prefixes: .*export the run again"):
            old.translate(["abc"], prefixes=["a"])


def test_attention_weights_are_those_of_each_text_alone_and_an_older_export_has_none(few_module):
    texts = ["abc", "g", "bb"]
    with _few(few_module) as client:
        assert client.gives_attention
        found = client.attention(texts, prefixes=["fe", "", "d"], num_hypotheses=2)
        searched = client.translate(texts, prefixes=["fe", "", "d"], num_hypotheses=2)
        alone = [client.attention([text], prefixes=[prefix])[0] for text, prefix in zip(texts, ("fe", "", "d"))]
        assert all(one.attention_weights is None for each in searched for one in each.hypotheses)
        assert client.attention([""])[0].best.attention_weights.shape == (0, 1)
        for one, other, own in zip(found, searched, alone, strict=True):
            assert [each.text for each in one.hypotheses] == [each.text for each in other.hypotheses]
            for each in one.hypotheses:
                assert each.attention_weights.shape == (len(each.pieces), len(one.source_pieces))
                np.testing.assert_allclose(each.attention_weights.sum(-1), 1.0, atol=1e-5)
                assert each.attention_weights.argmax(-1)[:-1].tolist() == each.alignment
            np.testing.assert_allclose(one.best.attention_weights, own.best.attention_weights, atol=1e-5)
        assert len({each.best.attention_weights.shape for each in found}) > 1
        with pytest.raises(UserError, match="There is no option 'beams'"):
            client.attention(texts, beams=2)
        with pytest.raises(UserError, match="prefixes"):
            client.attention(texts, prefixes=["f"])
    with _few(few_module, is_old=True) as old:
        assert not old.gives_attention
        with pytest.raises(
            UserError, match="few gives no attention weights, it is of an older version: export the run again"
        ):
            old.attention(texts)


def test_terms_go_with_their_texts_and_an_older_export_places_none(few_module, varied_transformer):
    with _few(few_module) as client:
        texts, terms = ["abc", "g", "bb"], [["fe", ["XX", "gg"]], [], ["X"]]
        found = client.translate(texts, terms=iter(terms), num_hypotheses=2)
        assert "fe" in found[0].text and "gg" in found[0].text
        assert found[1].text == client.translate(["g"], beam_size=0)[0].text
        assert [each.best.outputs["is_term_placed"] for each in found] == [[True, True], [], [False]]
        for wrong, message in (
            ("abc", "terms is one text"),
            ([["a"]], "the terms end at number 1: give as many of texts and terms"),
            (["a", [], []], "The terms of a text must be a list"),
            ([[""], [], []], "none empty"),
        ):
            with pytest.raises(UserError, match=message):
                client.translate(texts, terms=wrong)
        with pytest.raises(UserError, match="samples place none: leave out terms or temperature"):
            client.translate(texts, terms=[["a"], [], []], temperature=0.5)
    with _few(few_module, is_old=True) as old:
        with pytest.raises(UserError, match="few places no terms: .* older version, export the run again"):
            old.translate(["abc"], terms=[["a"]])
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    for options in ({"split_sentences": True}, {"recombine": 2}, {"beam_groups": 2}, {"terms_beam_size": 0}):
        parts = varied_transformer(11, end=-8.0), tokenizer, tokenizer, DecodingConfig(max_length=9, **options)
        module = export.TranslationModule(*parts)
        with Client("other", transport=LocalTransport(export.signatures_of(module), module)) as other:
            with pytest.raises(UserError, match="other places no terms: it splits texts, .*: export the run without"):
                other.translate(["abc"], terms=[["a"]])


def test_what_is_protected_comes_back(few_module):
    with _few(few_module) as client:
        texts = ["a <b>bc</b>", "", "<i>g</i> {x}"]
        found = client.translate(iter(texts), protect=Protection(["tag", "placeholder"]), num_hypotheses=2)
        plain = client.translate(["a bc", "", "g "], num_hypotheses=2)
        for one, other in zip(found, plain):
            assert [h.outputs["plain"] for h in one.hypotheses] == [h.text for h in other.hypotheses]
        for hypothesis in found[0].hypotheses:
            assert hypothesis.text.count("<b>") == hypothesis.text.count("</b>") == 1
        assert found[1].text == "" and found[2].text.count("{x}") == found[2].text.count("<i>") == 1
        [best] = client.translate(texts[:1], protect=["tag"])
        assert best.text == found[0].text and best.outputs["is_protected"]
        slow = Protection([r"(?:(?:a|aa)+)+\d"])
        others = client.translate(["a" * 10_000, "abc"], protect=slow)  # a row that takes too long is no other's
        assert [each.outputs["is_protected"] for each in others] == [False, True]
        begun = client.translate(texts, protect=["tag"], prefixes=["d<b>", "", "<i>fe"])
        assert begun[0].text.startswith("d<b>") and begun[0].text.count("<b>") == begun[0].text.count("</b>") == 1
        assert begun[1].text == "" and begun[2].text.startswith("<i>fe") and begun[2].text.count("<i>") == 1
        with pytest.raises(UserError, match="is a list"):
            client.stream(["abc"], protect="tag")
        with pytest.raises(UserError, match="a text, number 0, is None"):
            client.translate([None], protect=["tag"])


def test_an_export_says_what_it_protects(varied_transformer):
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    decoding = DecodingConfig(beam_size=2, max_length=9, protect=("tag,url",))
    module = export.TranslationModule(varied_transformer(11, end=-8.0), tokenizer, tokenizer, decoding)
    with _few(module) as client:
        assert client.protect == ("tag", "url") and client.placeholders == ()
        for options in ({}, {"beam_size": 2}, {"terms": [["gg"]]}):
            [found] = client.translate(["a <b>bc</b>"], **options)
            [plain] = client.translate(["a bc"], protect=[], **options)
            assert found.text.count("<b>") == found.text.count("</b>") == 1
            assert found.best.outputs["plain"] == plain.text
            assert stands_in("gg", found.text) or "terms" not in options
        [drawn] = client.attention(["a <b>bc</b>"])
        assert drawn.text == client.translate(["a <b>bc</b>"])[0].text
        assert drawn.best.attention_weights.shape == (len(drawn.best.pieces), len(drawn.source_pieces))
        [none] = client.translate(["a <b>bc</b>"], protect=[])
        assert "<b>" not in none.text
        [other] = client.translate(["<b>a</b> {x}"], protect=["placeholder"])
        assert other.text.count("{x}") == 1 and "<b>" not in other.text
        begun = client.translate(["a <b>bc</b>"] * 2, prefixes=["g", "e<b>f"])
        assert begun[0].text.startswith("g") and begun[1].text.startswith("e<b>f")
        assert all(each.text.count("<b>") == each.text.count("</b>") == 1 for each in begun)
        with pytest.raises(UserError, match="terms is 5: give a list, with one for each text"):
            client.translate(["abc"], terms=5)
        [begun] = client.translate(["abc"], prefixes=["a"], protect=[])
        assert begun.text.startswith("a")


def test_one_text_for_several_and_values_of_another_shape_are_refused(few_module):
    with _few(few_module) as client:
        for ask in (lambda: client.translate("abc"), lambda: client.encode("abc"), lambda: client.score("abc", ["a"])):
            with pytest.raises(UserError, match="is one text, 'abc': give a list of texts"):
                ask()
        for values, shape in (("abc", "one value"), ([["a"], ["b"]], r"the shape \[2, 1\]"), (3, "one value")):
            with pytest.raises(UserError, match=f"'text' of a signature has one value a row, .*{shape}: give a list"):
                client.call("serving_default", {"text": values})
        with pytest.raises(UserError, match="these differ: source 2, target 1; give as many"):
            client.call("score", {"source": ["a", "b"], "target": ["a"]})
        for options in ({"beam_size": 2**31}, {"seed": -(2**31)}, {"beam_size": 1.5}, {"length_penalty": "x"}):
            with pytest.raises(UserError, match="and must be a .*number"):
                client.translate(["a"], **options)


def test_names_of_outputs_need_no_encoding(folder):
    """TF Serving's REST interface writes what is called *_bytes in base 64."""
    for signature in proof.signatures(folder).values():
        assert not any(name.endswith("_bytes") for name in (*signature["inputs"], *signature["outputs"]))


def _expected(double, signature, texts, **inputs):
    """What the C library answers, strings as the client gives them."""
    outputs = double.predict(signature, {"text": [_bytes(text) for text in texts], **inputs})
    return {name: _decoded(value) for name, value in outputs.items()}


def _bytes(text):
    return text.encode("utf-8", "surrogateescape")


def _decoded(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [_decoded(each) for each in value] if isinstance(value, list) else value


def _request_options(rows):
    kinds = {"length_penalty": np.float32, "temperature": np.float32}
    options = {name: np.full(rows, value, kinds.get(name, np.int32)) for name, value in OPTIONS.items()}
    strings = {name: np.array([""] * rows, object) for name in ("prefix", "terms")}
    return {**options, **strings, "attention": np.zeros(rows, bool)}


def _message(call):
    """Of the one-line error that a call ends with."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "; " in message and "Traceback" not in message
    return message


def test_an_answer_is_that_of_the_c_library(client, double):
    for signature, inputs in (("serving_default", {}), ("translate", _request_options(len(TEXTS))), ("encode", {})):
        expected = _expected(double, signature, TEXTS, **inputs)
        outputs = client.call(signature, {"text": TEXTS, **inputs})
        assert list(double.inputs["text"]) == [_bytes(text) for text in TEXTS]
        assert set(outputs) == set(expected)
        for name, value in outputs.items():
            dtype = object if isinstance(expected[name], list) else expected[name].dtype
            assert value.dtype == dtype or value.size == 0, name  # JSON has no type without a value
            np.testing.assert_array_equal(value, np.array(expected[name], value.dtype), err_msg=name)


def test_translations_without_options_are_those_of_the_default_signature(client, double):
    expected = _expected(double, "serving_default", TEXTS)
    for row, translation in enumerate(client.translate(TEXTS, seed=None)):
        [hypothesis] = translation.hypotheses
        assert (hypothesis.log_prob, hypothesis.score) == (expected["log_prob"][row], expected["score"][row])
        assert translation.truncated == bool(expected["truncated"][row])
        assert translation.text == hypothesis.text == expected["translation"][row]
        for more in (hypothesis.pieces, hypothesis.outputs, translation.source_pieces, translation.outputs):
            assert not more


def test_terms_and_beginnings_that_are_none_harm_no_other_row(client, double):
    options = [0, 1, 0, -1.0, 0.0, 0]
    bad = [
        ("abc", "", "\t\t\n\n\t"),  # empty terms
        ("abc", "", "x" * 201),
        ("abc", "", "a" * 5_000 + "\n" + "b"),
        ("abc", "", "\n".join("abcdefg"[number % 7] * (1 + number % 3) for number in range(40))),
        ("abc", "", "\t".join(["b", *"cdefg" * 30])),  # one term in many ways
        ("abc", "\udcff\udcfe", "b\udcff"),  # no UTF-8
        ("a\udcff", "", "\udcff"),
        ("abc", "g" * 500, "d"),  # longer than a translation may be
        ("abc", "\x00\n", "\x00"),
    ]
    good = ("fed", "b", "g")

    def asked(rows):
        texts, prefixes, terms = zip(*rows)
        columns = {name: [value] * len(rows) for name, value in zip(TranslateOptions._fields, options)}
        columns["attention"] = [False] * len(rows)
        return client.call("translate", {"text": texts, **columns, "prefix": prefixes, "terms": terms})

    merged, alone = asked([good, *bad, good]), asked([good])
    for row in (0, -1):
        assert merged["translation"][row][0] == alone["translation"][0][0] and merged["is_term_placed"][row][0][0]
        np.testing.assert_allclose(merged["log_prob"][row], alone["log_prob"][0], atol=1e-5)
    assert merged["num_terms"].max() == 16 and not merged["is_prefix_kept"][8]
    assert merged["is_term_placed"][5][0][0] and not merged["is_term_placed"][2].any()


def test_a_caller_that_was_merged_with_one_that_asks_for_attention_gets_none(few_module):
    class Merged(LocalTransport):
        def predict(self, signature, inputs):
            asks = {"attention": np.ones_like(inputs["attention"])} if "attention" in inputs else {}
            return super().predict(signature, {**inputs, **asks})

    with Client("few", transport=Merged(export.signatures_of(few_module), few_module)) as client:
        [translation] = client.translate(["abc"], beam_size=2)
        assert translation.best.attention_weights is None and "attention_weights" not in translation.best.outputs
        assert client.attention(["abc"])[0].best.attention_weights.any()


@pytest.fixture(scope="module")
def local_attention(folder):
    """Texts, and what the export says of them in this process."""
    texts = ["abc", "gfedc", "b"]
    return texts, load_export(folder).attention(texts)


def test_attention_weights_come_from_a_server(client, local_attention):
    texts, translations = local_attention
    for found, expected in zip(client.attention(texts), translations, strict=True):
        assert found.best.pieces == expected.best.pieces and found.source_pieces == expected.source_pieces
        np.testing.assert_allclose(found.best.attention_weights, expected.best.attention_weights, atol=1e-5)


def test_a_row_is_cut_to_what_is_no_padding(client, double):
    expected = _expected(double, "translate", TEXTS, **_request_options(len(TEXTS)))
    translations = client.translate(TEXTS, **OPTIONS)
    assert [len(t.hypotheses) for t in translations] == np.maximum(expected["num_hypotheses"], 1).tolist()
    assert [translation.text for translation in translations] == [row[0] for row in expected["translation"]]
    assert len(translations[0].hypotheses) == 3 and translations[1].hypotheses == [NOTHING]
    for row, translation in enumerate(translations):
        length = expected["num_source_pieces"][row]
        assert translation.source_pieces == expected["source_pieces"][row][:length]
        assert translation.truncated == bool(expected["truncated"][row])
        assert translation.outputs == {
            "num_hypotheses": expected["num_hypotheses"][row],
            "num_source_pieces": length,
            "source_piece_starts": expected["source_piece_starts"][row][:length].tolist(),
            "source_piece_ends": expected["source_piece_ends"][row][:length].tolist(),
            "is_prefix_kept": True,
            "num_terms": 0,
        }
        for number, hypothesis in enumerate(translation.hypotheses[: expected["num_hypotheses"][row]]):
            length = expected["num_pieces"][row, number]
            assert hypothesis.score == expected["score"][row, number]
            assert hypothesis.log_prob == expected["log_prob"][row, number]
            assert hypothesis.outputs["num_pieces"] == length == len(hypothesis.pieces) == len(hypothesis.alignment) + 1
            assert hypothesis.pieces == expected["pieces"][row][number][:length]
            assert hypothesis.token_log_probs == expected["token_log_probs"][row, number, :length].tolist()
            assert hypothesis.alignment == expected["alignment"][row, number, : length - 1].tolist()
            assert set(hypothesis.outputs) == {"num_pieces", "piece_starts", "piece_ends", "is_term_placed"}
    json.dumps(translations)


def test_a_new_output_is_handed_on_with_the_others():
    outputs = {
        "num_hypotheses": np.int32(1),
        "num_pieces": np.array([2, 0]),
        "num_source_pieces": np.int32(1),
        "translation": np.array(["ab", ""], object),
        "piece_starts": np.arange(6).reshape(2, 3),
        "source_piece_starts": np.arange(4),
        "cost": np.float32(0.5),
    }
    translation = client_module._translation(client_module._row(outputs))
    [hypothesis] = translation.hypotheses
    assert hypothesis.text == "ab" and hypothesis.outputs == {"num_pieces": 2, "piece_starts": [0, 1]}
    about = {"num_hypotheses": 1, "num_source_pieces": 1, "source_piece_starts": [0], "cost": 0.5}
    assert translation.outputs == about


def test_scores_and_vectors(client, double):
    sources, targets = ["abc", "g\udcff", ""], ["gg", "", "abcabc"]
    inputs = {"source": [_bytes(text) for text in sources], "target": [_bytes(text) for text in targets]}
    expected = double.predict("score", inputs)
    for row, scored in enumerate(client.score(sources, targets)):
        length = expected["num_pieces"][row]
        assert scored == {
            "log_prob": expected["log_prob"][row],
            "num_pieces": length,
            "pieces": _decoded(expected["pieces"][row][:length]),
            "token_log_probs": expected["token_log_probs"][row, :length].tolist(),
            "truncated": False,
        }
    vectors = _expected(double, "encode", sources)["vector"]
    assert [row["vector"] for row in client.encode(sources)] == vectors.tolist()
    for pair, message in (
        ((["a", "b"], ["a"]), "2 sources and 1 target;"),
        (([], iter("a")), "0 sources and 1 target;"),
    ):
        assert message in _message(lambda: client.score(*pair))


def test_a_text_that_something_was_taken_out_of_asks_for_its_protection(client):
    taken = Protection(["tag"]).take_out("a <b>b</b>")
    with pytest.raises(UserError, match="number 1, is what Protection.take_out gave: give its Protection too, as pro"):
        client.translate(["a", taken])


@pytest.mark.parametrize("value", [None, 3, b"abc", float("nan")])
def test_what_is_no_text_is_one_line(client, value):
    message = re.escape(f'a text, number 1, is {value!r}: give a text, "" where there is none')
    for ask in (
        lambda: client.translate(["a", value]),
        lambda: client.translate(["a", value], beam_size=2),
        lambda: client.translate(["a", value], protect=["tag"]),
        lambda: client.encode(["a", value]),
        lambda: client.score(["a", value], ["a", "b"]),
        lambda: client.score(["a", "b"], ["a", value]),
    ):
        with pytest.raises(UserError, match=message):
            ask()
    with pytest.raises(UserError, match="The input 'text' of a signature has strings alone or numbers alone"):
        client.call("serving_default", {"text": ["a", value]})


def test_no_texts_are_no_requests(client, double):
    assert client.translate([]) == client.translate([], beam_size=2) == client.score([], []) == client.encode([]) == []
    assert not double.batches


def test_a_stream_keeps_the_order_with_many_requests_at_once(address, double):
    texts = ["".join(letters) for letters in itertools.islice(itertools.product("abcdefg", repeat=3), 43)]
    outputs = _expected(double, "serving_default", texts)
    assert len(set(outputs["log_prob"].tolist())) > 40 and len(set(outputs["translation"])) > 1
    double.batches.clear()
    double.most_in_flight = 0
    with Client(address, batch_sentences=4, concurrency=3) as client:
        translations = list(client.stream(iter(texts)))
    assert [translation.text for translation in translations] == outputs["translation"]
    log_probs = [translation.best.log_prob for translation in translations]
    np.testing.assert_allclose(log_probs, outputs["log_prob"], atol=1e-5)
    assert sorted(double.batches) == [3] + [4] * 10
    assert double.most_in_flight <= 3


def test_a_stream_reads_no_further_than_its_requests_in_flight(address, double):
    read = []
    texts = (read.append(number) or "abc" for number in range(12))
    with Client(address, batch_sentences=2, concurrency=3) as client:
        stream = client.stream(texts, beam_size=1)
        assert not read
        for count, most in ((1, 6), (2, 6), (3, 8)):
            assert next(stream).hypotheses
            assert len(read) == most, count
        assert len(list(stream)) == 9  # to its end: a request left in flight would reach the next test's double


def test_what_passes_is_tried_again(client, double):
    assert client.translate(["abc"])[0].hypotheses  # and has asked for the limits
    double.fail_first = 2
    assert client.translate(["abc"])[0].hypotheses
    assert double.batches == [1] + [1, 1, 1]


def test_a_closed_client_says_so(address, double):
    with Client(address) as client:
        pass
    assert "is closed; open another" in _message(lambda: client.translate(["abc"]))


@pytest.mark.parametrize("option", ["length_penalty", "temperature"])
def test_an_option_that_is_no_number_is_refused(client, option):
    assert f"{option} is nan and must be a number" in _message(
        lambda: client.translate(["a"], **{option: float("nan")})
    )


def test_what_does_not_pass_is_said_after_the_last_try(address, double):
    with Client(address, retries=1) as client:
        assert client.translate(["abc"])[0].hypotheses
        double.fail_first = 9
        message = _message(lambda: client.translate(["abc"]))
    assert "unavailable 2 times" in message and "queue" in message and "concurrency" in message
    assert double.batches == [1] + [1, 1]


def test_a_model_that_is_not_there(address, double):
    for wrong, said in ((address.replace("model", "mode"), "mode"), (address + "/7", "7")):
        with Client(wrong) as client:
            message = _message(lambda: client.translate(["abc"]))
        assert message.startswith(wrong) and "is not loaded: Servable not found" in message and said in message
        assert "give the name under which" in message
    with Client(address + "/3") as client:
        assert client.translate(["abc"])[0].hypotheses


def test_a_model_that_is_being_loaded_is_waited_for(address, double):
    double.state = "LOADING"
    with Client(address, retries=1) as client:
        message = _message(lambda: client.translate(["abc"]))
    assert "is still being loaded" in message and "version 3 is LOADING" in message and "try later" in message
    double.state = "END"
    with Client(address, retries=9) as client:
        assert "version 3 is END" in _message(lambda: client.translate(["abc"]))


def test_too_large_for_the_batcher(client, double):
    double.max_batch = 2
    message = _message(lambda: client.translate(["a", "b", "c"]))
    assert "3 rows" in message and "maximum input batch size 2" in message and "smaller batch_sentences" in message
    assert double.batches == [3]


def test_too_large_for_http(served, double):
    double.max_body = 1000
    with Client(f"http://127.0.0.1:{served[1].rest}/a%20model") as client:
        message = _message(lambda: client.translate(["a" * 2000]))
    assert "1 rows" in message and "HTTP 413" in message and "smaller batch_sentences" in message


def test_too_large_for_a_grpc_server_with_a_limit(double):
    """As proxies have one; TensorFlow Serving has none."""
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", 1 << 20)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(double), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"grpc://127.0.0.1:{port}/a%20model") as client:
        message = _message(lambda: client.translate(["a" * (2 << 20)]))
    server.stop(None).wait()
    assert "larger than max" in message and "smaller batch_sentences" in message
    assert not double.batches


def test_a_signature_that_is_not_there(client):
    message = _message(lambda: client.call("summarize", {"text": ["a"]}))
    assert "has no signature 'summarize'" in message and "not found" in message and "this toolkit exported" in message


def test_inputs_that_are_not_the_signatures(client):
    message = _message(lambda: client.call("score", {"source": ["a"]}))
    assert "failed in 'score'" in message and "inputs are those of the signature" in message


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nothing_listens(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Client(f"{scheme}://127.0.0.1:{port}/m", retries=0) as client:
        message = _message(lambda: client.translate(["abc"]))
    assert f"127.0.0.1:{port}/m cannot be reached" in message and "refused" in message and "8501" in message
    assert "start TensorFlow Serving or pipelines.serve there" in message


def test_pauses_between_tries_grow(monkeypatch):
    pauses = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, pause=None: pause and pauses.append(pause))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = []
    with Client(f"http://127.0.0.1:{port}/m", retries=7, report=said.append) as client:
        _message(lambda: client.translate(["abc"]))
    assert len(said) == 1 and "refused" in said[0] and said[0].endswith("; trying 7 times again")
    longest = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert len(pauses) == 7 and all(most / 2 <= pause <= most for pause, most in zip(pauses, longest))


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_host_that_does_not_exist(scheme):
    with Client(f"{scheme}://no.such.host.invalid:1/m", timeout=30.0) as client:
        message = _message(lambda: client.translate(["abc"]))
    assert message.startswith("The host of ") and "is unknown" in message and "give the name" in message


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_answer_in_time(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:  # which accepts, and says nothing
        with Client(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/m", timeout=0.2) as client:
            message = _message(lambda: client.translate(["abc"]))
    assert "did not answer within 0.2 s" in message and "longer timeout" in message


@pytest.fixture
def canned():
    """A server that answers every path with `(status, content type, body)` as they are set."""
    replies = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, kind, body = replies[self.path]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}/m", replies
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "reply",
    [
        (200, "text/html", b"<html>welcome</html>"),
        (404, "text/html", b"<html>not found</html>"),
        (301, "text/html", b""),
        (200, "application/json", b'{"predictions": []}'),
        (200, "application/json", b'{"outputs": {"translation": [null]}}'),
        (404, "application/json", b'["error"]'),
    ],
    ids=lambda reply: f"{reply[0]}-{reply[2].decode()}",
)
def test_what_is_no_tensorflow_serving(canned, reply):
    place, replies = canned
    replies["/v1/models/m:predict"] = reply
    with Client("http://" + place) as client:
        message = _message(lambda: client.translate(["abc"]))
    assert "not as TensorFlow Serving does" in message and "give the host and port" in message


@pytest.mark.parametrize(
    "scheme, interface", [("http", "grpc"), ("grpc", "rest"), ("https", "rest"), ("grpcs", "grpc")]
)
def test_a_port_of_another_interface(served, scheme, interface):
    with Client(f"{scheme}://127.0.0.1:{getattr(served[1], interface)}/m") as client:
        message = _message(lambda: client.translate(["abc"]))
    assert "answers, but not as TensorFlow Serving does" in message
    assert "gRPC and REST have a port each, usually 8500 and 8501" in message


def test_another_grpc_server():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"grpc://127.0.0.1:{port}/m") as client:
        message = _message(lambda: client.translate(["abc"]))
    server.stop(None).wait()
    assert "answers, but not as TensorFlow Serving does: Method not found" in message


def test_numbers_and_names_as_rest_writes_them(canned):
    place, replies = canned
    replies["/v1/models/m:predict"] = 200, "application/json", b'{"outputs": [1e-07, NaN, -Infinity, 9e+06]}'
    signature = {"inputs": {"text": {}}, "outputs": {"cost": {"dtype": "DT_FLOAT"}}}
    metadata = {"metadata": {"signature_def": {"signature_def": {"price": signature}}}}
    replies["/v1/models/m/metadata"] = 200, "application/json", json.dumps(metadata).encode()
    with Client("http://" + place) as client:
        outputs = client.call("price", {"text": ["a", "b", "c", "d"]})
        replies["/v1/models/m:predict"] = 200, "application/json", b'{"outputs": {"a": [[]], "b": ["\xff\xe4"]}}'
        others = client.call("price", {"text": ["a"]})
    assert outputs["cost"].dtype == np.float32
    np.testing.assert_array_equal(outputs["cost"], np.array([1e-7, np.nan, -np.inf, 9e6], np.float32))
    assert others["a"].shape == (1, 0) and others["b"].tolist() == ["\udcff\udce4"]


@pytest.mark.parametrize(
    "server",
    ["", "localhost:8500/m", "ftp://h:1/m", "grpc://h/m", "grpc://h:1", "http://h:1/m/x", "http://h:1/m:predict", "h"],
)
def test_a_server_that_is_none(server):
    message = _message(lambda: Client(server))
    assert repr(server) in message and "grpc://localhost:8500/en_zh" in message


def test_arguments_out_of_range():
    assert "batch_sentences must be at least 1, it is 0" in _message(lambda: Client("http://h:1/m", batch_sentences=0))
    assert "concurrency must be at least 1" in _message(lambda: Client("http://h:1/m", concurrency=-1))
    for timeout in (0, float("nan")):
        assert "timeout must be above 0" in _message(lambda: Client("http://h:1/m", timeout=timeout))
    with Client("http://h:1/m") as client:
        for name, value in (("seed", 1 << 32), ("beam_size", 1.5), ("max_length", float("nan"))):
            message = _message(lambda: client.translate(["a"], **{name: value}))
            assert f"{name} is {value} and must be a whole number below 2 ** 31" in message
        assert "temperature is 'hot' and must be a number" in _message(lambda: client.translate([], temperature="hot"))
        assert "There is no option 'beam_sise'" in _message(lambda: client.translate(["a"], beam_sise=2))


def test_grpc_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    assert "pip install tensorflow-serving-api" in _message(lambda: Client("grpc://h:1/m"))


def test_rest_imports_no_tensorflow():
    program = (
        "import sys; from nmt_keras.serving.client import Client; Client('http://h:1/m').close(); "
        "sys.exit('tensorflow' in sys.modules or 'grpc' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
