"""Noise for synthetic text."""

import collections

from nmt_keras.data.noise import noised

WORDS = [f"w{number}" for number in range(20)]
TEXT = " ".join(WORDS)


def test_words_are_dropped_replaced_and_moved_a_little_as_often_as_they_should():
    counts, moves = collections.Counter(), []
    for seed in range(500):
        words = noised(TEXT, seed).split()
        kept = [word for word in words if word != "_"]
        assert len(set(kept)) == len(kept) and set(kept) <= set(WORDS)
        counts.update(dropped=20 - len(words), blanked=words.count("_"), all=20)
        order = [int(word[1:]) for word in kept]
        moves.append(max(sum(other > number for other in order[:place]) for place, number in enumerate(order)))
    assert 0.08 < counts["dropped"] / counts["all"] < 0.12
    assert 0.07 < counts["blanked"] / counts["all"] < 0.11  # of the 90% that stay
    assert max(moves) <= 4 and sum(moves) > 500


def test_noise_repeats_with_its_seed_and_leaves_short_text_alone():
    assert noised(TEXT, 3) == noised(TEXT, 3) != noised(TEXT, 4)
    assert noised("word", 1) == "word" and noised("", 1) == "" and noised(" ", 1) == " "
    assert all(noised("a b", seed) for seed in range(200))
