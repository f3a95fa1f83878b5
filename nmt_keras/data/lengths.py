"""Lengths of lines in ids."""

import numpy as np

from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.tokenizers.base import Tokenizers

_SAMPLED_LINES = 10_000


def sampled_length_factor(tokenizers: Tokenizers, corpus: ParallelCorpus, alpha: float) -> float:
    """How much longer sampled segmentations are than best ones, on 10,000 pairs; 1 where nothing is sampled."""
    if not alpha:
        return 1.0
    texts = corpus.fetch(np.arange(min(len(corpus), _SAMPLED_LINES)))
    sampled = best = 0
    for tokenizer, lines in zip(tokenizers, texts):
        if tokenizer.samples:
            sampled += sum(len(ids) for ids in tokenizer.sample(lines, alpha, range(len(lines))))
            best += sum(len(tokenizer.encode(line)) for line in lines)
    return sampled / max(best, 1)
