"""CTranslate2's beam search, run on our model: what it finds where its rules, and not its weights, are other than ours.

At each position the K best continuations of the whole beam are looked at. Those that are `</s>` are hypotheses that
have ended, and the next best continuations that are not live on in their place. It stops when `patience` times K have
ended, or at the limit, where what is alive ends as it is. It is written to be read, a sentence at a time.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nmt_keras.constants import BOS_ID, EOS_ID


class Found(NamedTuple):
    """The best hypothesis."""

    ids: list[int]  # without EOS
    score: float  # mean log probability of an id, EOS included where it has one


def search(log_probs: Callable[[np.ndarray], np.ndarray], beam_size: int, patience: int, max_length: int) -> Found:
    """The best translation of one sentence by the rules of CTranslate2.

    Args:
        log_probs: of the next id, float32 [K, V], after target ids int32 [K, T] that begin with BOS.
        beam_size: K.
        patience: how many times K hypotheses have to end.
        max_length: ids of a translation at most, without EOS.
    """
    live, totals, ended = [[BOS_ID]], np.zeros(1), list[Found]()
    for length in range(1, max_length + 1):
        found = totals[:, None] + log_probs(np.array(live, np.int32))
        order = np.argsort(-found, axis=None, kind="stable")[: 2 * beam_size]
        candidates = [(*divmod(int(place), found.shape[1]), float(found.flat[place])) for place in order]
        others = (each for each in candidates[beam_size:] if each[1] != EOS_ID)
        chosen = []
        for candidate in candidates[:beam_size]:
            parent, last, total = candidate
            if last == EOS_ID or length == max_length:
                ids = live[parent][1:] + [last] * (last != EOS_ID)
                ended.append(Found(ids, total / length))
                candidate = next(others, candidate)
            chosen.append(candidate)
        if len(ended) >= patience * beam_size or length == max_length:
            break
        live = [[*live[parent], last] for parent, last, _ in chosen]
        totals = np.array([total for *_, total in chosen])
    return max(ended, key=lambda each: each.score)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities, float64 [..., V]."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
