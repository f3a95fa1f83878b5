"""Noise for synthetic source text (Edunov et al. 2018, 3.1)."""

import random

_DROPPED = 0.1  # share of the words that are left out
_BLANKED = 0.1  # share of the others that become the filler
_FARTHEST = 3  # places that a word may move


def noised(text: str, seed: int, filler: str = "_") -> str:
    """A text with some words left out, some replaced, and all moved a little; at least one word stays.

    Args:
        text: words between spaces; a text of one word, or without spaces, stays as it is.
        seed: equal seeds, equal noise.
        filler: what stands for a replaced word.
    """
    generator = random.Random(seed)
    words = text.split()
    if len(words) < 2:
        return text
    kept = [word for word in words if generator.random() >= _DROPPED] or [generator.choice(words)]
    kept = [filler if generator.random() < _BLANKED else word for word in kept]
    places = [place + generator.uniform(0, _FARTHEST + 1) for place in range(len(kept))]
    return " ".join(word for _, word in sorted(zip(places, kept), key=lambda pair: pair[0]))
