"""Translations that begin with given characters."""

import random

import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.constants import UNK_ID
from nmt_keras.decoding.prefixes import Surfaces
from nmt_keras.errors import UserError
from nmt_keras.inference.prefixes import tokenize_prefixes
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.text import surfaces_of
from nmt_keras.inference.translator import Translator
from tests.inference.conftest import TEXT


def _translator(parts, number=1, sampling=None, **options):
    return Translator(*parts, DecodingConfig(**{"beam_size": 3, "max_length": 40, **options}), number, sampling)


@pytest.fixture(scope="module")
def translator(parts):
    return _translator(parts, number=3)


def _beginnings(texts, seed):
    """Beginnings of texts, cut anywhere between two characters."""
    rng = random.Random(seed)
    return [text[: rng.randint(0, len(text))] for text in texts]


def test_any_beginning_of_text_is_kept_and_rows_do_not_see_each_other(translator):
    sources = ["der hund", "die katze bellt", "", "ein pferd"] * 3
    prefixes = _beginnings((TEXT * 4)[: len(sources)], 1)
    together = translator.translate(sources, prefixes=prefixes)
    for source, prefix, translation in zip(sources, prefixes, together):
        assert translation.text.startswith(prefix.rstrip() if source else ""), (prefix, translation.text)
    for number in (0, 5, 11):
        [alone] = translator.translate([sources[number]], prefixes=[prefixes[number]])
        assert alone.text == together[number].text
    plain = translator.translate(sources)
    forced = translator.translate(sources, prefixes=["", "d"] * 6)
    assert [t.text for t in forced[::2]] == [t.text for t in plain[::2]]


@pytest.mark.slow
def test_a_greedy_search_keeps_them_too(parts):
    prefixes = _beginnings(TEXT[:9], 2)
    found = _translator(parts, beam_size=1).translate(["die katze"] * 9, prefixes=prefixes)
    assert all(each.text.startswith(prefix.rstrip()) for each, prefix in zip(found, prefixes))


def test_what_follows_may_complete_a_word_and_a_space_begins_another(translator):
    [inside] = translator.translate(["die katze"], prefixes=["der hun"])
    [after] = translator.translate(["die katze"], prefixes=["der hund "])
    assert all(hypothesis.text.startswith("der hun") for hypothesis in inside.hypotheses)
    assert all(
        hypothesis.text.rstrip() == "der hund" or hypothesis.text.startswith("der hund ")
        for hypothesis in after.hypotheses
    )


@pytest.mark.slow
def test_samples_have_the_beginning_too(parts):
    translator = _translator(parts, number=4, sampling=Sampling(3))
    [found] = translator.translate(["die katze"], prefixes=["der hu"])
    assert len(found.hypotheses) == 4 and all(each.text.startswith("der hu") for each in found.hypotheses)


def test_what_cannot_be_written_is_said(parts):
    tokenizer = parts[1]
    texts = [b"der hund", "der \U0001f600 hund".encode(), b"der hu", b" der  hund ", b"", b"\xff", b"der hund \xff"]
    surfaces = Surfaces.of(surfaces_of(tokenizer))
    prefix, is_whole = tokenize_prefixes(tokenizer, surfaces, tf.constant(texts), DecodingConfig())
    writes_all = UNK_ID not in tokenizer.encode("\U0001f600")
    assert is_whole.numpy().tolist() == [True, writes_all, True, True, True, writes_all, writes_all]
    assert prefix.num_positions.numpy()[4] == 0
    assert prefix.num_positions.numpy()[[1, 6]].all()  # what is before the unknown character is kept


@pytest.mark.slow
def test_a_beginning_as_long_as_a_translation_may_be_is_cut_and_said(parts):
    translator = _translator(parts, max_length=4)
    texts = ["der hund rennt schnell nach hause", "", "d"]
    cut, plain, short = translator.translate(["die katze"] * 3, prefixes=texts)
    assert len(cut.best.ids) == 4 and cut.text.strip() and texts[0].startswith(cut.text.strip())
    assert [each.outputs["is_prefix_kept"] for each in (cut, plain, short)] == [False, True, True]


def test_prefixes_that_are_no_list_of_texts_are_refused(translator):
    for prefixes, message in (
        ("xy", "must be a list of texts"),
        (["a"], "1 prefixes for 2 texts"),
        (["a", None], "None"),
    ):
        with pytest.raises(UserError, match=message):
            translator.translate(["a", "b"], prefixes=prefixes)
    [blank] = translator.translate([" "], prefixes=["der"])
    assert blank.text == "" and not blank.outputs["is_prefix_kept"]
