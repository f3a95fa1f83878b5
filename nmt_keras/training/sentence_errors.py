"""The errors of translations, which minimum risk training expects."""

import numpy as np
from sacrebleu.metrics.base import Metric

from nmt_keras.tokenizers.base import Tokenizer


class SentenceErrors:
    """1 minus a sentence's score, as text.

    Args:
        tokenizer: of the target.
        metric: of sacreBLEU, with scores from 0 to 100; BLEU should have `effective_order`.
    """

    def __init__(self, tokenizer: Tokenizer, metric: Metric):
        self._tokenizer = tokenizer
        self._metric = metric

    def __call__(self, candidates: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Candidates, int32 [B, N, L], against references, int32 [B, T]; float32 [B, N], from 0 to 1."""
        errors = np.empty(candidates.shape[:2], np.float32)
        for row, (texts, reference) in enumerate(zip(candidates, references)):
            expected = [self._tokenizer.decode(reference.tolist())]
            scores: dict[str, float] = {}
            for place, ids in enumerate(texts):
                text = self._tokenizer.decode(ids.tolist())
                if text not in scores:
                    scores[text] = self._metric.sentence_score(text, expected).score
                errors[row, place] = 1.0 - scores[text] / 100.0
        return errors
