"""The quickstart's test set is not to be had by triviality."""

import pytest

from benchmarks.quickstart_baselines import nearest_neighbour, word_for_word
from examples.quickstart.corpus import demo_corpus, lexicon
from nmt_keras.inference.evaluation import score_text


@pytest.mark.slow
def test_lookup_and_word_for_word_substitution_stay_low():
    corpus = demo_corpus()
    sources, references = ([pair[side] for pair in corpus.test] for side in (0, 1))
    lookup = score_text(nearest_neighbour(corpus.train, sources), [references], "zh")["bleu"]
    substitution = score_text(word_for_word(lexicon(), sources), [references], "zh")["bleu"]
    print(f"nearest neighbour {lookup:.2f}, word for word {substitution:.2f}")
    assert lookup < 60 and substitution < 50
