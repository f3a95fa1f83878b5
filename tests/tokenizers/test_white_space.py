"""White space and invisible characters: the same in Python and in a graph, and where spans were before."""

import sys
import unicodedata

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_keras.tokenizers.white_space import fold, has_invisible, has_odd_space
from nmt_keras.tokenizers.white_space_ops import fold_tf, spans_before_folding

CASES = [
    ("Two dogs.", "Two dogs."),
    ("\tTwo dogs.", "Two dogs."),
    ("Two dogs.\t\n", "Two dogs."),
    ("Two\u00a0dogs.", "Two dogs."),
    ("Two \u2003\u00a0 dogs.", "Two dogs."),
    ("Two\r\ndogs.", "Two dogs."),
    ("Two\u2028dogs\u0085run", "Two dogs run"),
    ("\u3000全角\u3000空格，。", "全角 空格，。"),
    ("a\x1cb\x1fc", "a b c"),
    ("Donau\u00addampf", "Donaudampf"),
    ("Two \u200b dogs", "Two dogs"),
    ("T\u200bwo\u2060 dogs\ufeff", "Two dogs"),
    ("\u200eTwo\u202a dogs\u202c\u200f", "Two dogs"),
    ("a\x00b\x07\x1b[0m\x7f", "ab[0m"),
    ("Auf\u200clage", "Auflage"),
    ("漢\u200d字。\u200c—\u200dx", "漢字。—x"),
    ("\u200dTwo\u2003\u200c dogs", "Two dogs"),
    ("می\u200cروم", "می\u200cروم"),
    ("क्\u200dष", "क्\u200dष"),
    ("👩\u200d👩\u200d👧 ok", "👩\u200d👩\u200d👧 ok"),
    ("☀\ufe0f\u0600 x", "☀\ufe0f\u0600 x"),
    ("\u180e\U000e0067", "\u180e\U000e0067"),
    ("", ""),
    (" \t\u200b\u200d\u00a0", ""),
]
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from(
    " \t\n\u00a0\u2003\u3000\u200b\u200c\u200d\u00ad\ufeffaéאक👩"
)


@pytest.mark.parametrize("text, expected", CASES)
def test_white_space_is_one_space_and_what_shows_nothing_is_gone(text, expected):
    assert fold(text) == expected
    assert fold_tf(tf.constant([text])).numpy()[0].decode() == expected


def test_every_character_is_folded_alike_in_python_and_in_a_graph():
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = [f"x{character}y" for character in characters]
    folded = [fold(text) for text in texts]
    assert [text.decode() for text in fold_tf(tf.constant(texts)).numpy()] == folded
    changed = {unicodedata.category(c) for c, text, now in zip(characters, texts, folded) if text != now}
    assert changed == {"Cc", "Cf", "Zs", "Zl", "Zp", "Cn", "Mn", "Lo"}
    letters = [c for c, text, now in zip(characters, texts, folded) if text != now and not c.isspace()]
    letters = [c for c in letters if unicodedata.category(c)[0] in "LM"]
    assert letters == ["\u034f", "\u3164", "\uffa0"]  # a grapheme joiner and fillers; no other letter, mark or sign


@given(st.text(CHARACTERS, max_size=20))
@settings(max_examples=300, deadline=None)
def test_folding_twice_is_folding_once_and_a_graph_does_the_same(text):
    folded = fold(text)
    assert fold(folded) == folded
    assert fold_tf(tf.constant(text)).numpy().decode() == folded
    assert not has_odd_space(folded) and not has_invisible(folded)
    if not has_odd_space(text) and not has_invisible(text):
        assert folded == " ".join(text.split(" ")).strip() or "  " in text


@given(st.lists(st.text(CHARACTERS, max_size=12), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_each_character_of_a_folded_text_is_found_where_it_came_from(texts):
    folded = [fold(text) for text in texts]
    bounds = []
    for text in folded:
        sizes = [len(character.encode()) for character in text]
        bounds.append([(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))])
    longest = max(map(len, bounds))
    starts, ends = (
        tf.constant([[pair[side] for pair in row] + [0] * (longest - len(row)) for row in bounds], tf.int32)
        for side in (0, 1)
    )
    found = [places.numpy() for places in spans_before_folding(tf.constant(texts), starts, ends)]
    for number, (text, now) in enumerate(zip(texts, folded)):
        raw, last = text.encode(), 0
        for place, character in enumerate(now):
            start, end = (int(side[number, place]) for side in found)
            assert last <= start < end <= len(raw)
            original = raw[start:end].decode()
            assert original == character or (character == " " and fold(f"x{original}y") == "x y")
            last = end


def test_a_span_over_several_characters_and_an_empty_one():
    text = tf.constant(["\tTwo\u00a0\u00a0dogs\u200b run"])
    starts, ends = tf.constant([[0, 3, 3, 12, 0]]), tf.constant([[3, 8, 3, 12, 0]])  # of "Two dogs run"
    first, last = spans_before_folding(text, starts, ends)
    raw = "\tTwo\u00a0\u00a0dogs\u200b run".encode()
    found = [raw[a:b].decode() for a, b in zip(first.numpy()[0], last.numpy()[0])]
    assert found == ["Two", "\u00a0\u00a0dogs", "", "", ""]
    blank = spans_before_folding(tf.constant(["", "\t"]), tf.zeros([2, 3], tf.int32), tf.zeros([2, 3], tf.int32))
    assert [places.numpy().tolist() for places in blank] == [[[0] * 3] * 2] * 2
