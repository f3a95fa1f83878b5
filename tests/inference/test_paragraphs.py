"""Texts longer than a sentence: where they are split, how they are joined, and that all of them is translated."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.errors import UserError
from nmt_keras.inference import paragraphs
from nmt_keras.inference.paragraphs import join_sentences, split_sentences
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translator import Translator
from nmt_keras.serving.client import Client
from nmt_keras.serving.export import TranslationModule, signatures_of
from nmt_keras.serving.local import LocalTransport
from nmt_keras.tokenizers.building import train_tokenizer

CASES = [
    line.split("\t")
    for line in (pathlib.Path(__file__).parent / "sentences.tsv").read_text(encoding="utf-8").split("\n")[:-1]
]


def _split(text):
    return [[unit.decode() for unit in units] for units in split_sentences(tf.constant([text])).to_list()][0]


@pytest.mark.parametrize("language, sentences", CASES, ids=[f"{language} {text}" for language, text in CASES])
def test_a_paragraph_is_split_into_its_sentences(language, sentences):
    between = "" if language in ("zh", "ja") else " "
    wanted = sentences.split(" | ")
    assert _split(between.join(wanted)) == wanted
    if between:
        for space in ("\u00a0", "\t", "  ", "\u2003 "):
            assert _split(space.join(wanted)) == wanted


def test_line_breaks_are_kept_between_sentences():
    assert _split("one line\n\nanother. Line \r\n last\u2028") == [
        "one line",
        "\x1f\n\n",
        "another.",
        "Line",
        "\x1f \r\n ",
        "last",
        "\x1f\u2028",
    ]
    for blank in (" \u3000 ", "", "\n", "\x1e\x1f"):
        assert _split(blank) == []
    assert _split("a\x1eb\x1f\nc") == ["a b", "\x1f \n", "c"]
    assert join_sentences(
        tf.ragged.constant([["a.", "b.", "\x1f\n\n", "", "c"], ["\x1f \r\n", "d", ""]])
    ).numpy().tolist() == [b"a. b.\n\nc", b" \r\nd"]


def test_sentences_are_joined_as_their_script_does():
    sentences = [
        ["Yes.", "No."],
        ["好。", "不！", "“好。”", "好…", "OK."],
        [],
        ["", "a", "", "b", ""],
        ["He said “Go.”", "Wait…", "the boys’", "Ja"],
    ]
    joined = [text.decode() for text in join_sentences(tf.ragged.constant(sentences)).numpy()]
    assert joined == ["Yes. No.", "好。不！“好。”好…OK.", "", "a b", "He said “Go.” Wait… the boys’ Ja"]


@pytest.fixture(scope="module")
def parts(varied_transformer):
    tokenizer = train_tokenizer("char", ["abcdefg. AB"], 15)
    model = varied_transformer(15, end=-5.0)
    return model, tokenizer, tokenizer


def _config(**values):
    return DecodingConfig(**{"beam_size": 2, "max_length": 9, "max_source_length": 9, "batch_sentences": 4, **values})


def test_a_placeholder_is_a_number_before_a_full_stop_and_may_begin_a_sentence():
    assert _split("Er kam am ｟3｠. Mai nach Hause.") == ["Er kam am ｟3｠. Mai nach Hause."]
    assert _split("Er kam. ｟1｠ Hunde bellen.") == ["Er kam.", "｟1｠ Hunde bellen."]


@pytest.mark.slow
def test_a_paragraph_is_translated_sentence_by_sentence(parts):
    single, split = (Translator(*parts, _config(split_sentences=value)) for value in (False, True))
    sentences = ["Abc.", "Bag.", "Aa.", "Bfed.", "Ace.", "Ba gad."]
    paragraphs = [" ".join(sentences), "", "Abc.", " ".join(sentences[::-1])]
    alone = single.translate(sentences)
    found = split.translate(paragraphs)
    expected = join_sentences(tf.ragged.constant([[t.text for t in alone], [t.text for t in alone[::-1]]])).numpy()
    assert [found[0].text, found[3].text] == [text.decode() for text in expected]
    assert (found[1].text, found[2].text) == ("", alone[0].text)
    np.testing.assert_allclose(found[0].best.log_prob, sum(t.best.log_prob for t in alone), atol=1e-4)
    module = TranslationModule(*parts, _config(split_sentences=True))
    served = module.serve(tf.constant(paragraphs))
    assert [text.decode() for text in served["translation"].numpy()] == [t.text for t in found]
    np.testing.assert_allclose(served["log_prob"], [t.best.log_prob for t in found], atol=1e-5)


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram", "char", "word"])
def test_long_sentences_are_cut_between_words_and_never_inside_a_character(kind):
    words = "the small dog sees 你好 two big cats and é😀x".split()
    sentences = [" ".join(words * count) for count in (1, 3, 7)] + ["a", "猫" * 100]
    tokenizer = train_tokenizer(kind, sentences, {"bpe": 320, "unigram": 320}.get(kind, 40), may_shrink=True)
    whole = tokenizer.encode_tf(tf.constant(sentences)).to_list()
    for limit in (10, 17, 40):
        parts = paragraphs._split(tokenizer, tf.ragged.constant([sentences]), tf.constant(limit, tf.int64))
        ids = iter(parts.ids.to_list()[:-1])
        texts = iter(text.decode() for text in parts.text.numpy()[:-1])
        for sentence, of_whole, count in zip(sentences, whole, parts.counts.numpy(), strict=True):
            cut, said = [next(ids) for _ in range(count)], [next(texts) for _ in range(count)]
            assert sum(cut, []) == of_whole and "".join(said).replace(" ", "") == sentence.replace(" ", "")
            assert max(map(len, cut)) <= limit and (count == 1) == (len(of_whole) <= limit)
            if limit == 40 and " " in sentence:
                assert all(word in words for text in said for word in text.split())
                assert max(map(len, cut)) - min(map(len, cut)) < 12  # about equally long
        assert next(ids, None) is next(texts, None) is None


def test_finding_where_words_begin_takes_memory_for_the_text_once():
    """Not once for each of its ids: these would be two gigabytes."""
    tokenizer = train_tokenizer("byte", ["a"], 260)
    text = tf.constant(["猫狗 " * 1500] * 16)
    ids, starts, ends = tokenizer.encode_with_offsets_tf(text)
    begin = tf.function(paragraphs._begins, autograph=False)
    strings = [
        output.shape
        for operation in begin.get_concrete_function(text, starts, ends).graph.get_operations()
        for output in operation.outputs
        if output.dtype == tf.string
    ]
    assert strings and all(shape.is_fully_defined() and shape.num_elements() <= 16 for shape in strings)
    character, word = begin(text, starts, ends)
    assert int(tf.reduce_sum(tf.cast(character, tf.int32))) == 16 * 4499  # without the space at the end
    assert int(tf.reduce_sum(tf.cast(word, tf.int32))) == 16 * 2 * 1499  # the space itself may be in a piece


@pytest.mark.slow
def test_a_sentence_over_the_limit_is_translated_in_parts(parts):
    single, split = (Translator(*parts, _config(min_length=4, split_sentences=value)) for value in (False, True))
    sentence = "abcdefgfedcbabcdefga"  # 20 characters: 6, 7 and 7
    cut = [t.text for t in single.translate([sentence[:6], sentence[6:13], sentence[13:]])]
    [found] = split.translate([sentence])
    assert all(cut) and found.text == " ".join(cut) and not found.truncated
    assert single.translate([sentence])[0].truncated


def test_no_text_at_all_is_translated_to_none(parts):
    module = TranslationModule(*parts, _config(split_sentences=True))
    assert module.serve(tf.constant([], tf.string))["translation"].shape == (0,)
    assert module.serve(tf.constant(["", " "]))["translation"].numpy().tolist() == [b"", b""]


def test_several_translations_of_a_paragraph_are_refused(parts):
    for options in ({"num_hypotheses": 2}, {"sampling": Sampling(1)}):
        with pytest.raises(UserError, match="split_sentences"):
            Translator(*parts, _config(split_sentences=True), **options)
    with pytest.raises(UserError, match="split_sentences"):
        Translator(*parts, _config(split_sentences=True)).translate(["a"], prefixes=["b"])


@pytest.fixture(scope="module")
def split_client(parts):
    module = TranslationModule(*parts, _config(split_sentences=True))
    with Client("paragraphs", transport=LocalTransport(signatures_of(module), module)) as client:
        yield client


@pytest.mark.slow
def test_what_is_protected_comes_back_across_sentences(split_client):
    texts = [
        "Abc. <b>Bagd. Ace</b> ba.",
        "",
        "<i>Abc</i>",
        "Ab. Ba\u2028 c!\n{x} gad",
        "<p>\n\n</p>",
        "abcdefg" * 3 + " {x}",
    ]
    plain = [re.sub(r"</?[bip]>|\{x\}", "", text) for text in texts]
    found = split_client.translate(texts, protect=["tag", "placeholder"])
    for one, whole in list(zip(found, split_client.translate(plain), strict=True))[:5]:
        assert one.best.outputs["plain"] == whole.text and not one.truncated
        assert one.best.log_prob == pytest.approx(whole.best.log_prob, abs=1e-4)
    text = found[0].text
    assert text.index("<b>") < text.index("</b>")
    assert re.sub("</?b>", "", text) == found[0].best.outputs["plain"]
    assert [found[3].text.count(mark) for mark in ("{x}", "\u2028", "\n")] == [1, 1, 1]
    assert found[4].text == "<p> </p>"
    assert found[5].text.count("{x}") == 1 and not found[5].truncated  # a sentence over the limit, in parts


def test_samples_and_several_translations_of_a_paragraph_are_refused_with_protect(split_client):
    for options in ({"num_hypotheses": 2}, {"temperature": 1.0}):
        with pytest.raises(UserError, match="paragraphs splits texts, .*: leave out num_hypotheses and temperature"):
            split_client.translate(["a"], protect=["tag"], **options)


def test_an_older_export_that_splits_protects_nothing(split_client, monkeypatch):
    limits = split_client._asked_limits()
    monkeypatch.setattr(split_client, "_limits", limits._replace(splits=False))
    with pytest.raises(UserError, match="has no signature 'translate': .* for protect one of this version"):
        split_client.translate(["a"], protect=["tag"])
