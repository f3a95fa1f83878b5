"""Lengths of lines in ids."""

import numpy as np

from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.tokenizers.base import Tokenizer, Tokenizers
from nmt_keras.tokenizers.white_space import is_blank

_SAMPLED_LINES = 10_000


def sampled_length_factor(tokenizers: Tokenizers, corpus: ParallelCorpus, alpha: float) -> float:
    """How much longer sampled segmentations are than best ones, on 10,000 pairs; 1 where nothing is sampled."""
    if not alpha:
        return 1.0
    texts = corpus.fetch(np.arange(min(len(corpus), _SAMPLED_LINES)))
    sampled = best = 0
    for tokenizer, lines in zip(tokenizers, texts):
        if tokenizer.samples:
            sampled += sum(len(ids) for ids in tokenizer.sample(lines, alpha, seed=1))
            best += sum(len(tokenizer.encode(line)) for line in lines)
    return sampled / max(best, 1)


def token_lengths(text: TextFile, tokenizer: Tokenizer) -> np.ndarray:
    """int32 [lines]: ids of each line with EOS, memory-mapped from the cache beside the line index.

    An empty or blank line has length 1, its EOS, however the tokenizer treats blanks.
    """

    def write(path) -> None:
        lengths = np.ones(len(text), np.int32)
        for start in range(0, len(text), 10_000):
            lines = text.lines(range(start, min(start + 10_000, len(text))))
            lengths[start : start + len(lines)] = [1 if is_blank(s) else len(tokenizer.encode(s)) + 1 for s in lines]
        np.save(path, lengths)

    return np.load(text.cached(text.cache_name(f"{tokenizer.sha256[:16]}.lengths.npy"), write), mmap_mode="r")
