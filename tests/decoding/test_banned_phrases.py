"""The automaton of banned phrases against a search in the text."""

import itertools

import numpy as np
import pytest

from nmt_keras.decoding.banned_phrases import automaton


@pytest.mark.parametrize("phrases", [["ab"], ["aba", "bb"], ["abab", "ba", "c"], ["aa", "aab"], ["好a", "a"]])
def test_a_piece_is_banned_exactly_where_it_completes_a_phrase(phrases):
    surfaces = [b"", *(text.encode() for text in ("a", "b", "c", "ab", "ba", "bc", "aab", "好")), "好".encode()[1:]]
    table = automaton(phrases, surfaces)
    wanted = [phrase.encode() for phrase in phrases]
    for ids in itertools.product(range(len(surfaces)), repeat=3):
        state, text = 0, b""
        for piece in ids:
            text += surfaces[piece]
            state = table[state, piece]
            assert (state < 0) == any(phrase in text for phrase in wanted)
            if state < 0:
                break
    assert table.dtype == np.int32 and not table[0, 0]
