"""Translations that contain given terms."""

import random
import re

import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.data.scripts import is_letter
from nmt_keras.decoding.terms import Letters
from nmt_keras.errors import UserError
from nmt_keras.inference.glossary import stands_in
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.terms import letters_of, num_terms, tokenize_terms
from nmt_keras.inference.translator import Translator
from tests.inference.conftest import TEXT


def _translator(parts, number=1, sampling=None, **options):
    return Translator(*parts, DecodingConfig(**{"beam_size": 3, "max_length": 60, **options}), number, sampling)


@pytest.fixture(scope="module")
def translator(parts):
    return _translator(parts, number=2)


def _has(text, term):
    """Whether a text has a term as whole words."""
    for match in re.finditer(re.escape(term), text):
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        if not (is_letter(before) and is_letter(term[0])) and not (is_letter(term[-1]) and is_letter(after)):
            return True
    return False


def _some_terms(count, seed):
    """For each of several texts, words and pairs of words of the vocabulary, some in several ways."""
    rng = random.Random(seed)
    words = TEXT[0].split()
    pairs = [f"{words[i]} {words[i + 1]}" for i in range(len(words) - 1)]
    choices = [*words, *pairs, "katze", ["bellt", "pferd"], ["hund bellt", "katze", "ein"]]
    return [rng.sample(choices, rng.randint(0, 2)) for _ in range(count)]


def test_all_terms_are_placed_and_rows_do_not_see_each_other(translator):
    sources = ["der hund rennt", "die katze bellt und schläft", "", "ein pferd rennt nach hause"] * 2
    terms = _some_terms(len(sources), 1)
    together = translator.translate(sources, terms=terms)
    for source, needed, translation in zip(sources, terms, together):
        for hypothesis in translation.hypotheses[:1]:
            ways = [[term] if isinstance(term, str) else term for term in needed]
            placed = hypothesis.outputs.get("is_term_placed", [])
            assert placed == [bool(source)] * len(needed), (needed, hypothesis.text)
            assert all(any(_has(hypothesis.text, way) for way in term) for term in ways) or not source
    for number in (0, 3):
        [alone] = translator.translate([sources[number]], terms=[terms[number]])
        assert [h.text for h in alone.hypotheses] == [h.text for h in together[number].hypotheses]
    plain = translator.translate(sources)
    mixed = translator.translate(sources, terms=[[], ["hund"]] * 4)
    assert [t.text for t in mixed[::2]] == [t.text for t in plain[::2]]


def test_a_beginning_and_terms_go_together(translator):
    [found] = translator.translate(["die katze"], prefixes=["der hu"], terms=[["katze"]])
    assert found.text.startswith("der hu") and _has(found.text, "katze")
    assert found.outputs["is_prefix_kept"] and found.best.outputs["is_term_placed"] == [True]


def test_a_term_that_cannot_be_written_is_said_and_holds_nobody_up(translator, parts):
    tokenizer = parts[1]
    writes_all = 1 not in tokenizer.encode("\U0001f600")
    long = "hund " * 39 + "hund"  # 199 characters, of more pieces than a term may have
    terms = [["\U0001f600", "hund"], [long], ["hund"] * 3, [], ["x" * 201], ["x\udcff"]]
    found = translator.translate(["die katze schläft"] * 6, terms=terms)
    placed = [translation.best.outputs.get("is_term_placed") for translation in found]
    assert placed == [[writes_all, True], [False], [True] * 3, None, [False], [False]]
    [plain] = translator.translate(["die katze schläft"])
    assert [found[row].text for row in (1, 3, 4, 5)] == [plain.text] * 4


@pytest.mark.slow
def test_a_term_that_has_no_room_is_said(parts):
    terms = [["hund katze pferd"], ["hund"], []]
    found = _translator(parts, max_length=4).translate(["die katze"] * 3, terms=terms)
    assert [each.best.outputs.get("is_term_placed", []) for each in found][::2] == [[False], []]


def test_a_term_in_a_script_without_spaces_may_stand_within_a_text(translator, parts):
    tokenizer = parts[1]
    if 1 in tokenizer.encode("马") + tokenizer.encode("好的"):
        pytest.skip("the vocabulary has no such words")
    [found] = translator.translate(["die katze"], terms=[["马", "好的"]])
    assert "马" in found.text and "好的" in found.text and found.best.outputs["is_term_placed"] == [True, True]


def test_terms_are_read_as_lines_of_ways(parts):
    tokenizer = parts[1]
    texts = [b"hund\nkatze\tder hund", b"", b"\xff\n\n \thund\t", b"hund\n" * 40]
    terms = tokenize_terms(tokenizer, letters_of(tokenizer), tf.constant(texts), DecodingConfig())
    possible = terms.is_possible.numpy()
    assert possible.shape == (4, 16)
    assert possible[0, :3].tolist() == [True, True, False] and not possible[1].any() and possible[2, 2]
    assert possible[3].all()
    assert num_terms(tf.constant(texts)).numpy().tolist() == [2, 0, 3, 16]


def test_terms_that_are_no_lists_of_texts_are_refused(parts):
    translator = _translator(parts)
    for terms, message in (
        ("xy", "must be a list with the terms of each text"),
        ([["a"]], "terms of 1 texts for 2 texts"),
        (["a", []], "The terms of a text must be a list"),
        ([[""], []], "none empty"),
        ([[["a", 7]], []], "A term must be a text"),
        ([[[]], []], "A term must be a text"),
    ):
        with pytest.raises(UserError, match=message):
            translator.translate(["a", "b"], terms=terms)


def test_samples_and_searches_of_other_kinds_place_none(parts):
    for options in ({"sampling": Sampling(1)}, {"recombine": 2}, {"beam_groups": 3}, {"terms_beam_size": 0}):
        with pytest.raises(UserError, match="placed by plain beam search alone"):
            _translator(parts, **options).translate(["a"], terms=[["hund"]])
    with pytest.raises(UserError, match="split_sentences"):
        _translator(parts, split_sentences=True).translate(["a"], terms=[["hund"]])


def test_too_many_ways_are_left_out_and_no_term_of_its_only_one(parts):
    tokenizer = parts[1]
    words = ["hund", "katze", "pferd", "haus", "der", "die", "ein", "und"]
    text = "\n".join("\t".join(words[number % 8 :] + words[: number % 8]) for number in range(16))
    terms = tokenize_terms(tokenizer, letters_of(tokenizer), tf.constant([text, "hund"]), DecodingConfig())
    known = [1 not in tokenizer.encode(word) for word in words]
    assert terms.phrases.shape[1] <= 64 and terms.is_possible.numpy()[0].all()
    assert terms.is_possible.numpy()[1].tolist() == [known[0]] + [False] * 15


def test_a_term_is_placed_where_it_stands_in_the_text(parts):
    """Also after a hyphen, a bracket or a quotation mark, and not within a word."""
    tokenizer = parts[1]
    letters = letters_of(tokenizer)
    rng = random.Random(1)
    words = ["hund", "katze", "ein", "hunde", "马", "好", "und hund"]
    for _ in range(60):
        text = "".join(
            rng.choice(words) + rng.choice([" ", " ", "", "-", "! ", " „", "“ ", "(", ") ", "/", "，"])
            for _ in range(rng.randint(1, 6))
        ).strip()
        phrases = rng.sample(["hund", "katze", "ein", "und", "马", "hund katze", "!"], 4)
        ids = tokenizer.encode(text)
        if 1 in ids or any(1 in tokenizer.encode(phrase) for phrase in phrases):
            continue
        terms = tokenize_terms(tokenizer, letters, tf.constant(["\n".join(phrases)]), DecodingConfig())
        progress = terms.begin()
        for each in ids:
            progress = terms.advance(progress, tf.constant([[each]]))
        placed = terms.placed_at_end(progress)[0, 0, :4].numpy().tolist()
        assert placed == [stands_in(phrase, tokenizer.decode(ids)) for phrase in phrases], (text, phrases)


def test_what_no_space_is_before_is_offered_where_a_script_has_none_or_no_letter_begins_it(parts):
    tokenizer = parts[1]
    terms = tokenize_terms(tokenizer, letters_of(tokenizer), tf.constant(["hund\n马\n!"]), DecodingConfig())
    said = {}
    for ids, owner, offered in zip(
        *(leaf[0].numpy().tolist() for leaf in (terms.phrases, terms.owners, terms.is_offered))
    ):
        said.setdefault(owner, []).append((offered, tokenizer.decode([i for i in ids if i])))
    assert set(text for ways in said.values() for _, text in ways) <= {"hund", "马", "!"}
    assert all(offered for offered, text in said.get(1, []) + said.get(2, []))
    assert [offered for offered, _ in said[0]] in ([True], [True, False])


def test_a_mark_belongs_to_its_word(parts):
    """Of a script whose vowels are marks, and of letters that are written as two characters."""
    surfaces = [b" hi", "\u0301".encode(), " हिन्द".encode(), "ी".encode(), b" x"]
    letters = Letters.of(surfaces, is_letter)
    assert letters.first.numpy().tolist() == [False, True, False, True, False]
    assert letters.last.numpy().tolist() == [True] * 5
