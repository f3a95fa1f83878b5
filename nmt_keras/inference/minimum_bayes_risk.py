"""Minimum Bayes risk decoding: of several translations of a text, the one that is most like the others."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.helpers import extract_all_char_ngrams

from nmt_keras.errors import UserError
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translation import Translation
from nmt_keras.inference.translator import Translator

# Takes M texts; returns the utility of each (first axis) where each other is the reference, float64 [M, M].
Utility = Callable[[Sequence[str]], np.ndarray]
UTILITIES = ("chrf", "bleu")


class MBROptions(NamedTuple):
    """What is chosen from, and by what."""

    number: int  # of candidates of a text, of each model where `each`
    utility: str = "chrf"  # one of `UTILITIES`
    sampling: Sampling | None = None  # None takes the best that beam search finds
    each: bool = False  # every member of an ensemble finds candidates of its own

    def as_json(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {**self._asdict(), "sampling": self.sampling and self.sampling._asdict()}


class MinimumBayesRisk:
    """Translates as a `Translator` does; the best hypothesis is the one with the greatest expected utility.

    With candidates y_1..y_N of a text, y_n has the mean of u(y_n, y_m) over all m other than n (Kumar and Byrne 2004;
    Eikema and Aziz 2020, eq. 6). It is the `score` of a hypothesis, from 0 to 100, and 0 where it is alone; equal
    candidates are one hypothesis, which counts as often as it was found.

    Args:
        translators: find candidates, which are put together.
        utility: of a candidate against another.
    """

    def __init__(self, translators: Sequence[Translator], utility: Utility):
        self._translators = list(translators)
        self._utility = utility

    def translate(
        self, texts: Sequence[str], report: Callable[[int], object] = lambda count: None, first_number: int = 0
    ) -> list[Translation]:
        """The translations of `texts`, in their order. Arguments as for `Translator.translate`."""
        *others, last = self._translators
        found = [translator.translate(texts, first_number=first_number) for translator in others]
        found.append(last.translate(texts, report, first_number))
        return [self._chosen(row) for row in zip(*found)]

    def stream(self, texts: Iterable[str], *, first_number: int = 0) -> Iterator[Translation]:
        """Translates texts as they come; see `Translator.stream`."""
        copies = itertools.tee(texts, len(self._translators))
        streams = [
            translator.stream(copy, first_number=first_number) for translator, copy in zip(self._translators, copies)
        ]
        for row in zip(*streams):
            yield self._chosen(row)

    def _chosen(self, row: Sequence[Translation]) -> Translation:
        """The translations of a text by all translators as one, with the best hypothesis first."""
        hypotheses = [each for translation in row for each in translation.hypotheses]
        counts = collections.Counter(each.text for each in hypotheses)
        first = {each.text: each for each in reversed(hypotheses)}
        expected = np.zeros(1)
        if len(hypotheses) > 1:
            expected = expected_utilities(self._utility(list(counts)), np.array(list(counts.values())))
        ranked = sorted(zip(expected.tolist(), counts), key=lambda pair: -pair[0])
        return row[0]._replace(hypotheses=[first[text]._replace(score=score) for score, text in ranked])


def expected_utilities(utilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean utility of each text against all candidates but itself.

    Args:
        utilities: [M, M], of each distinct text (first axis) where each is the reference.
        counts: integer [M], how often each was found; at least two in all.

    Returns:
        float64 [M].
    """
    return (utilities @ counts - np.diag(utilities)) / (counts.sum() - 1)


def utility(name: str, bleu: BLEU) -> Utility:
    """One of `UTILITIES`.

    Args:
        name: chrf or bleu.
        bleu: of sentences, with the tokenizer of the language.
    """
    return chrf_utilities if name == "chrf" else lambda texts: _by_sacrebleu(texts, bleu)


def _by_sacrebleu(texts: Sequence[str], metric: BLEU) -> np.ndarray:
    return np.array([[metric.sentence_score(text, [other]).score for other in texts] for text in texts])


def chrf_utilities(texts: Sequence[str]) -> np.ndarray:
    """The chrF of each text where each other is the reference, from 0 to 100, float64 [M, M].

    The numbers of sacreBLEU's `CHRF().sentence_score` (Popovic 2015; character n-grams of 1 to 6, beta 2), for all
    pairs at once.
    """
    order = CHRF.CHAR_ORDER
    ngrams = [extract_all_char_ngrams(text, order) for text in texts]
    precision, recall, orders = (np.zeros([len(texts)] * 2) for _ in range(3))
    for place in range(order):
        places = {ngram: i for i, ngram in enumerate({ngram for own in ngrams for ngram in own[place]})}
        counts = np.zeros([len(texts), len(places)], np.int32)
        for row, own in enumerate(ngrams):
            counts[row, [places[ngram] for ngram in own[place]]] = list(own[place].values())
        totals = counts.sum(1)
        matches = np.stack([np.minimum(own, counts).sum(1) for own in counts]).astype(np.float64)
        both = (totals[:, None] > 0) & (totals[None, :] > 0)
        precision += np.where(both, matches / np.maximum(totals[:, None], 1), 0.0)
        recall += np.where(both, matches / np.maximum(totals[None, :], 1), 0.0)
        orders += both
    precision, recall = (np.divide(x, orders, out=np.zeros_like(x), where=orders > 0) for x in (precision, recall))
    factor = CHRF.BETA**2
    sums = factor * precision + recall
    return 100.0 * np.divide((1 + factor) * precision * recall, sums, out=np.zeros_like(sums), where=sums > 0)


def require_enough(options: MBROptions, beam_size: int) -> None:
    """Checks that there is something to choose from.

    Raises:
        UserError: there is one candidate, or a beam is smaller than what it shall find.
    """
    if options.number < 2:
        raise UserError(
            f"--mbr is how many translations of each line one is chosen from, at least 2. Received: {options.number}"
        )
    if options.sampling is None and options.number > beam_size:
        raise UserError(
            f"--mbr={options.number} with --mbr_candidates=beam needs as many beams: give --beam_size={options.number}"
        )
