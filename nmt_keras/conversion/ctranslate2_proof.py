"""The proof of a conversion to CTranslate2: both models on the same dev lines, from text to text."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nmt_keras.constants import EOS_ID
from nmt_keras.conversion.ctranslate2 import PATIENCE
from nmt_keras.conversion.ctranslate2_search import log_softmax, search
from nmt_keras.conversion.source import DevLines, Source, translated
from nmt_keras.tokenizers.base import SPECIALS
from nmt_keras.tokenizers.white_space import fold

_TOLERANCE = 1e-3  # nats, of a translation's log probability: float32 sums in another order
_SCORE_TOLERANCE = 1e-3  # nats an id, of a beam's best translation


def prove(source: Source, folder: pathlib.Path, dev: Sequence[DevLines]) -> dict[str, Any]:
    """Compares the folder with the model on dev lines, from text to text.

    The log probabilities that both give our translations say whether they are one model. Greedy translations may differ
    where two ids are equally probable but for rounding. Those of a beam also differ because a hypothesis may end at
    any position here, there only where `</s>` is among the best ids of the whole beam. So where theirs has a score
    clearly lower than ours, it must not be lower than what a search by their rules finds with our weights.

    Returns:
        How many lines were `compared`, and how many are `different`, by log probability, in a greedy translation where
        no two ids were equal, or as one of `worse_beam`, those that break the last rule; the largest difference of log
        probability, in nats; how many greedy and beam translations are equal; and of the beam's scores, mean log
        probabilities of an id, the largest difference where translations are equal, and how much lower theirs is where
        they are not, in the mean and at most.
    """
    beam_size = source.config.decoding.beam_size
    theirs = _Folder(folder, source, dev)
    ours = {size: translated(source, dev, size) for size in {1, beam_size}}
    greedy = [hypothesis for _, hypothesis in ours[1]]
    scores = theirs.scores([_pieces(hypothesis.pieces) for hypothesis in greedy])
    distances = [abs(sum(row) - hypothesis.log_prob) for row, hypothesis in zip(scores, greedy, strict=True)]
    found = theirs.translations(1)
    equal = [text == hypothesis.text for (text, _, _), hypothesis in zip(found, greedy)]
    rescored = theirs.scores([pieces for _, pieces, _ in found])
    same = [
        is_equal or _is_tie(hypothesis.pieces, row, pieces, other)
        for is_equal, hypothesis, row, (_, pieces, _), other in zip(equal, greedy, scores, found, rescored)
    ]
    found = theirs.translations(beam_size)
    beams = [hypothesis for _, hypothesis in ours[beam_size]]
    step = _last_log_probs(source)
    worse = [
        text != hypothesis.text and _is_worse(source, step, ids, hypothesis.score, score)
        for (text, _, score), (ids, hypothesis) in zip(found, ours[beam_size], strict=True)
    ]
    result: dict[str, Any] = {
        "compared": len(greedy),
        "different": sum(
            is_worse or not (is_same and x <= _TOLERANCE) for is_worse, is_same, x in zip(worse, same, distances)
        ),
        "largest_log_prob_difference": max(distances),
        "equal_greedy": sum(equal),
        "beam_size": beam_size,
        "worse_beam": sum(worse),
    }
    pairs = [
        (text == hypothesis.text, hypothesis.score - score, len(hypothesis.ids) < source.config.decoding.max_length)
        for (text, _, score), hypothesis in zip(found, beams, strict=True)
    ]
    losses = [loss for is_equal, loss, _ in pairs if not is_equal]
    # of what is cut at the limit, the score here has an EOS, and theirs has none
    distances = [abs(loss) for is_equal, loss, is_whole in pairs if is_equal and is_whole]
    return result | {
        "equal_beam": len(beams) - len(losses),
        "largest_score_difference": max(distances, default=0.0),
        "mean_score_loss": float(np.mean(losses)) if losses else 0.0,
        "largest_score_loss": max(losses, default=0.0),
    }


_Step = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def _last_log_probs(source: Source) -> _Step:
    """A function from source ids [K, S] and target ids [K, T] to the logits of the next id, float32 [K, V]."""
    ids = tf.TensorSpec([None, None], tf.int32)

    def step(sources: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        hidden, _ = source.model(sources, targets)
        return source.model.project(hidden[:, -1:])[:, 0]

    return tf.function(step, input_signature=[ids, ids], autograph=False)


def _is_worse(source: Source, step: _Step, ids: Sequence[int], ours: float, theirs: float) -> bool:
    """Whether the score that CTranslate2 gives its translation is clearly lower than ours, and than what its rules find
    with our weights."""
    if theirs >= ours - _SCORE_TOLERANCE:
        return False
    decoding = source.config.decoding

    def log_probs(targets: np.ndarray) -> np.ndarray:
        sources = np.tile(np.array(ids, np.int32), [len(targets), 1])
        return log_softmax(step(tf.constant(sources), tf.constant(targets)).numpy())

    expected = search(log_probs, decoding.beam_size, PATIENCE, decoding.max_length - 1)
    return theirs < expected.score - _SCORE_TOLERANCE


class _Folder:
    """What was written, used as its README says."""

    def __init__(self, folder: pathlib.Path, source: Source, dev: Sequence[DevLines]):
        import ctranslate2
        import sentencepiece

        self._limits = source.config.decoding
        self._translator = ctranslate2.Translator(str(folder), device="cpu", compute_type="float32")
        encoder, self._decoder = (
            sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))
            for side in ("source", "target")
        )
        prepare = fold if source.tokenizers.source.folds else str
        self._pieces = [
            [*map(source.tokenizers.source.piece, part.tags), *encoder.encode(prepare(text), out_type=str)]
            for part in dev
            for text in part.texts
        ]

    def translations(self, beam_size: int) -> list[tuple[str, list[str], float]]:
        """The best translation of each line, its pieces, and its score."""
        results = self._translator.translate_batch(
            self._pieces,
            beam_size=beam_size,
            length_penalty=1,
            patience=PATIENCE,
            min_decoding_length=0,
            max_decoding_length=self._limits.max_length - 1,  # which does not count EOS
            max_input_length=self._limits.max_source_length,
            max_batch_size=self._limits.batch_sentences,
            return_scores=True,
        )
        best = [(result.hypotheses[0], result.scores[0]) for result in results]
        return [(self._decoder.decode(pieces), pieces, score) for pieces, score in best]

    def scores(self, targets: list[list[str]]) -> list[list[float]]:
        """The log probability of each piece of translations, and of EOS at last."""
        cut = [
            pieces[: self._limits.max_source_length - 1] for pieces in self._pieces
        ]  # max_input_length cuts targets too
        results = self._translator.score_batch(
            cut, targets, max_input_length=0, max_batch_size=self._limits.batch_sentences
        )
        return [result.log_probs for result in results]


def _pieces(pieces: Sequence[str]) -> list[str]:
    """Pieces without EOS at their end."""
    return list(pieces[:-1]) if pieces and pieces[-1] == SPECIALS[EOS_ID] else list(pieces)


def _is_tie(
    ours: Sequence[str], our_scores: Sequence[float], theirs: Sequence[str], their_scores: Sequence[float]
) -> bool:
    """Whether two translations part where both ids are equally probable, but for rounding."""
    ends = [[*_pieces(pieces), SPECIALS[EOS_ID]] for pieces in (ours, theirs)]
    place = next((i for i, (one, other) in enumerate(zip(*ends)) if one != other), None)
    return place is None or abs(our_scores[place] - their_scores[place]) <= _TOLERANCE
