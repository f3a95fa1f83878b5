"""Texts longer than a sentence: where they are split, how they are joined, and that all of them is translated."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.errors import UserError
from nmt_keras.inference.paragraphs import join_sentences, split_sentences
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translator import Translator
from nmt_keras.serving.export import TranslationModule
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


@pytest.mark.slow
def test_a_sentence_over_the_limit_is_translated_in_parts(parts):
    single, split = (Translator(*parts, _config(min_length=4, split_sentences=value)) for value in (False, True))
    sentence = "abcdefgfedcbabcdefga"  # 20 characters: 8, 8 and 4
    cut = [t.text for t in single.translate([sentence[:8], sentence[8:16], sentence[16:]])]
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
