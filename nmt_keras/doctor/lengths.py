"""Lengths of a corpus in ids, and what they suggest for a recipe."""

from typing import Any

import numpy as np

from nmt_keras.data.batch_plan import LARGEST_WORTHY_BUDGET, MIN_WORTHY_BATCHES
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.tokenizers.base import Tokenizers

_SAMPLE = 50_000  # pairs whose lengths in ids are counted, evenly spaced


def lengths_of(corpus: ParallelCorpus, tokenizers: Tokenizers, num_tags: int = 0) -> dict[str, Any]:
    """Percentiles of the lengths of a corpus, and what they suggest: see `lengths_report`. `num_tags` more ids are
    before the pieces of a source."""
    texts = corpus.fetch(np.arange(0, len(corpus), max(-(-len(corpus) // _SAMPLE), 1)))
    lengths = [
        np.array([len(ids) + 1 for ids in map(tokenizer.encode, lines)]) for tokenizer, lines in zip(tokenizers, texts)
    ]
    return lengths_report(lengths[0] + num_tags, lengths[1], len(corpus))


def lengths_report(source_lengths: np.ndarray, target_lengths: np.ndarray, num_pairs: int) -> dict[str, Any]:
    """Percentiles of lengths in ids with EOS, and what they suggest for the recipe.

    Args:
        source_lengths: integer [N], of a sample.
        target_lengths: the same of the target.
        num_pairs: of the corpus.
    """
    quantiles = (50, 90, 99, 99.9, 100)
    table = {
        side: {f"p{q:g}": int(np.percentile(lengths, q, method="higher")) for q in quantiles}
        for side, lengths in (("source", source_lengths), ("target", target_lengths))
    }
    longest = [min(-(-table[side]["p99.9"] // 8) * 8, 512) for side in ("source", "target")]
    mean = float(target_lengths.mean())
    enough = max(200 * mean, 8 * max(longest))  # some 200 sentences, and some of the longest
    most = max(num_pairs * mean / MIN_WORTHY_BATCHES, 512, longest[1])
    budget = 1 << int(np.log2(min(2 * max(enough, 512) - 1, most, LARGEST_WORTHY_BUDGET)))
    budget = max(budget, longest[1])
    suggested = {"max_source_length": longest[0], "max_target_length": longest[1], "batch_tokens": budget}
    return {"lengths": table, "suggested": suggested}
