"""How systems differ, against counts by hand and against sacreBLEU."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from nmt_keras.inference.comparison import (
    Metrics,
    System,
    by_frequency,
    by_length,
    most_different,
    scores,
    significance,
)

METRICS = Metrics(BLEU(), CHRF(), TER())
REFERENCES = [f"the dog number {i} runs to house {i % 7} and sleeps there" for i in range(60)]
GOOD = System("good", list(REFERENCES))
HALF = System("half", [text if i % 2 else text.replace("dog", "cat") for i, text in enumerate(REFERENCES)])
SAME = System("same", list(HALF.translations))


def test_scores_are_those_of_sacrebleu():
    good, half = scores([GOOD, HALF], [REFERENCES], METRICS)
    assert good["bleu"] == pytest.approx(100.0) and good["ter"] == 0.0
    assert half["chrf"] == CHRF().corpus_score(HALF.translations, [REFERENCES]).score
    assert half["name"] == "half" and half["bleu_signature"].startswith("nrefs:1|case:mixed")


def test_a_difference_is_significant_and_none_is_not():
    tests = significance([HALF, SAME, GOOD], [REFERENCES], METRICS, 200, 500)
    for name in ("bleu", "chrf"):
        baseline, same, good = tests[name]
        assert baseline.keys() == {"bootstrap_mean", "bootstrap_interval"} and baseline["bootstrap_interval"] > 0
        assert same["randomisation_p"] == same["bootstrap_p"] == 1.0
        assert good["randomisation_p"] < 0.01 and good["bootstrap_p"] < 0.01
        assert good["bootstrap_mean"] == pytest.approx(100.0)


def test_parts_by_length_hold_every_sentence_once_and_have_scores_of_their_own():
    words = [i // 15 + 3 for i in range(60)]
    broken = System("broken", [text if i < 45 else "no" for i, text in enumerate(REFERENCES)])
    rows = by_length([GOOD, broken], words, [REFERENCES], METRICS)
    assert [(row["from"], row["to"], row["sentences"]) for row in rows] == [(n, n, 15) for n in (3, 4, 5, 6)]
    assert all(row["systems"][0]["bleu"] == pytest.approx(100.0) for row in rows)
    assert [row["systems"][1]["chrf"] == pytest.approx(100.0) for row in rows] == [True] * 3 + [False]
    assert rows[3]["systems"][1]["ter"] > 90


def test_sentences_of_one_length_are_one_part():
    [row] = by_length([GOOD], [7] * 60, [REFERENCES], METRICS)
    assert (row["from"], row["to"], row["sentences"]) == (7, 7, 60)


def test_words_are_right_as_often_as_their_reference_has_them():
    frequent = ["a a a b"] * 3 + ["c"]  # a 9 times, b 3, c 1, d never
    given = System("x", ["a a b", "c e"])
    rows = by_frequency([given], ["a b b d", "c c"], frequent, METRICS)
    assert [(row["from"], row["to"], row["words"]) for row in rows] == [(0, 0, 1), (1, 1, 2), (2, 4, 2), (5, 9, 1)]
    # d and e: 0 right; c: 1 of 2, one given; b: 1 of 2, one given; a: 1 of 1, two given
    np.testing.assert_allclose([row["f1"][0] for row in rows], [0.0, 200 / 3, 200 / 3, 200 / 3])


def test_the_sentences_that_differ_most_come_first():
    broken = System("broken", [*REFERENCES])
    broken.translations[7], broken.translations[30] = "nothing", REFERENCES[30].replace("sleeps", "slept")
    rows = most_different([GOOD, broken], [REFERENCES], METRICS, 5)
    assert [row["line"] for row in rows] == [7, 30]
    assert rows[0]["chrf"][0] == pytest.approx(100.0) and rows[0]["chrf"][1] < 30
    assert most_different([GOOD, GOOD], [REFERENCES], METRICS, 5) == []
