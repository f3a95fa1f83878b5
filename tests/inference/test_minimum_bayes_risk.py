"""Of several translations, the one that is most like the others."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from nmt_keras.errors import UserError
from nmt_keras.inference.minimum_bayes_risk import (
    MBROptions,
    MinimumBayesRisk,
    chrf_utilities,
    expected_utilities,
    require_enough,
    utility,
)
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translation import Hypothesis, Translation
from nmt_keras.runs.loading import load

TEXTS = [
    "a man rides a horse.",
    "a man rides horses",
    "",
    " ",
    "\u4e00\u4e2a\u4eba\u9a91\u9a6c\u3002",
    "xy",
    "aaaa aaaa",
    "A man\u2028rides",
]


def test_chrf_of_all_pairs_is_that_of_sacrebleu():
    metric = CHRF()
    expected = [[metric.sentence_score(text, [other]).score for other in TEXTS] for text in TEXTS]
    np.testing.assert_allclose(chrf_utilities(TEXTS), expected, rtol=1e-12, atol=1e-12)
    assert 0 < expected[0][1] < 100 and expected[0][1] != expected[1][0]


def test_chrf_of_random_text_is_that_of_sacrebleu():
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("abc d"), rng.integers(0, 30))) for _ in range(12)]
    metric = CHRF()
    expected = [[metric.sentence_score(text, [other]).score for other in texts] for text in texts]
    np.testing.assert_allclose(chrf_utilities(texts), expected, rtol=1e-12, atol=1e-12)


def test_the_expected_utility_is_the_mean_over_all_other_candidates():
    utilities = np.array([[100.0, 20.0, 40.0], [30.0, 100.0, 10.0], [50.0, 60.0, 100.0]])
    counts = np.array([2, 1, 1])
    found = [0, 0, 1, 2]  # each candidate's text
    expected = [
        np.mean([utilities[text, other] for place, other in enumerate(found) if place != found.index(text)])
        for text in range(3)
    ]
    np.testing.assert_allclose(expected_utilities(utilities, counts), expected)


class _Fixed:
    """A translator whose hypotheses are given."""

    def __init__(self, texts):
        self.texts = texts

    def translate(self, texts, report=lambda count: None, first_number=0):
        del first_number
        report(len(texts))
        return list(self.stream(texts))

    def stream(self, texts, *, first_number=0):
        del first_number
        for _ in texts:
            yield Translation([Hypothesis(text, -float(place), 0.0) for place, text in enumerate(self.texts)], False)


@pytest.mark.parametrize("name, metric", [("chrf", CHRF()), ("bleu", BLEU(effective_order=True))])
def test_the_most_like_the_others_is_chosen_by_brute_force(name, metric):
    one, two = ["a dog runs", "a cat sleeps", "a dog runs home"], ["the dog runs", "a dog runs", "a dog ran"]
    translator = MinimumBayesRisk([_Fixed(one), _Fixed(two)], utility(name, BLEU(effective_order=True)))
    [translation] = translator.translate(["x"])
    pool = [*one, *two]
    means = {
        text: np.mean([metric.sentence_score(text, [other]).score for j, other in enumerate(pool) if j != i])
        for i, text in reversed(list(enumerate(pool)))
    }
    assert translation.text == max(means, key=means.get)
    assert {each.text: pytest.approx(each.score) for each in translation.hypotheses} == means
    assert [each.score for each in translation.hypotheses] == pytest.approx(sorted(means.values(), reverse=True))
    assert list(translator.stream(iter(["x", "y"]))) == [translation] * 2


def test_candidates_that_are_all_the_same_are_one_hypothesis():
    [translation] = MinimumBayesRisk([_Fixed(["a", "a"])], chrf_utilities).translate(["x"])
    assert [each.text for each in translation.hypotheses] == ["a"]


def test_the_first_of_equals_is_chosen():
    [translation] = MinimumBayesRisk([_Fixed(["ab cd", "cd ab"])], lambda texts: np.ones([2, 2])).translate(["x"])
    assert translation.text == "ab cd"


@pytest.mark.parametrize(
    "options, message",
    [
        (MBROptions(1), "^--mbr is how many .* at least 2. Received: 1$"),
        (MBROptions(6), "^--mbr=6 with --mbr_candidates=beam needs as many beams: give --beam_size=6$"),
    ],
)
def test_nothing_to_choose_from_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        require_enough(options, 5)


@pytest.mark.slow
def test_a_run_chooses_among_samples_the_same_way_each_time(trained_copy):
    run = load(trained_copy / "run")
    lines = (trained_copy / "text" / "dev.src").read_text().split("\n")[:6]
    options = MBROptions(4, sampling=Sampling(3, temperature=2.0))
    first, again = (run.mbr_translator(options).translate(lines) for _ in range(2))
    assert [each.text for each in first] == [each.text for each in again]
    assert [each.text for each in run.mbr_translator(options).stream(lines)] == [each.text for each in first]
    samples = run.translator(4, options.sampling).translate(lines)
    for chosen, drawn in zip(first, samples):
        assert {each.text for each in chosen.hypotheses} == {each.text for each in drawn.hypotheses}
    assert any(len(each.hypotheses) > 1 for each in first)
    searched = run.mbr_translator(MBROptions(2)).translate(lines)
    assert all(len(each.hypotheses) == 2 for each in searched)


@pytest.mark.slow
def test_each_run_of_an_ensemble_finds_candidates_of_its_own(trained_copy):
    run, line = load([trained_copy / "run"] * 2), "ab cd"
    options = MBROptions(2)
    [together], [each] = (run.mbr_translator(options._replace(each=each)).translate([line]) for each in (False, True))
    assert [hypothesis.text for hypothesis in together.hypotheses] == [
        hypothesis.text for hypothesis in each.hypotheses
    ]
    assert len(run.mbr_translator(options._replace(each=True))._translators) == 2
    for weight in run.model.members[1].trainable_variables:
        weight.assign(weight * 0.2)
    alone = [run._replace(model=member).translator(2).translate([line])[0] for member in run.model.members]
    [pooled] = run.mbr_translator(options._replace(each=True)).translate([line])
    assert {each.text for each in pooled.hypotheses} == {each.text for own in alone for each in own.hypotheses}
    assert len(pooled.hypotheses) > 2
