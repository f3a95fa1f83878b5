"""Exact search: the most probable string of all, depth first, bounded by the best found so far (Stahlberg and Byrne
2019). It is for analysis: a sentence may take thousands of steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID

# Takes the last id, its position and the state before it; returns log probabilities of all ids, float [V], and the
# state after it.
Step = Callable[[int, int, Any], tuple[np.ndarray, Any]]


class ExactHypothesis(NamedTuple):
    """What exact search found."""

    ids: list[int]  # ends with EOS; none where nothing was found
    log_prob: float
    steps: int  # of the model
    is_proved: bool  # whether no string within the limit is more probable; false where steps ran out


def log_probs_of(step: Step, state: Any, ids: Sequence[int]) -> list[float]:
    """The log probability of each id of a string, which ends with EOS."""
    found, last = [], BOS_ID
    for position, number in enumerate(ids):
        log_probs, state = step(last, position, state)
        found.append(float(log_probs[number]))
        last = number
    return found


class _Node(NamedTuple):
    """A beginning of strings, and the ids that may follow it."""

    ids: tuple[int, ...]
    state: Any  # after these ids
    following: list[tuple[float, int]]  # totals and ids, the most probable last


def exact_search(
    step: Step,
    state: Any,
    *,
    max_length: int,
    max_steps: int,
    min_length: int = 0,
    known: Sequence[int] = (),
    known_log_prob: float = float("-inf"),
) -> ExactHypothesis:
    """The string of highest log probability. The log probability of a string only falls as it grows, so that whatever
    begins with a less probable one than the best complete string need not be looked at.

    Args:
        step: of the model.
        state: before BOS.
        max_length: of a string, EOS included.
        min_length: the same.
        max_steps: after which the best so far is returned.
        known: a string that another search found, a bound from the start.
        known_log_prob: its log probability.
    """
    best, bound, steps = list(known), known_log_prob, 0

    def expand(ids: tuple[int, ...], total: float, state: Any) -> _Node:
        """A step of the model; a string that ends here may be the new best."""
        nonlocal best, bound, steps
        steps += 1
        log_probs, state = step(ids[-1] if ids else BOS_ID, len(ids), state)
        totals = total + np.asarray(log_probs, np.float64)
        if totals[EOS_ID] > bound and len(ids) + 1 >= min_length:
            best, bound = [*ids, EOS_ID], float(totals[EOS_ID])
        totals[[PAD_ID, BOS_ID, EOS_ID]] = -np.inf
        is_full = len(ids) + 2 > max_length  # another id would leave no room for EOS
        places = np.flatnonzero(totals > (np.inf if is_full else bound))
        following = sorted((float(totals[place]), int(place)) for place in places)
        return _Node(ids, state, following)

    path = [expand((), 0.0, state)]
    while path:
        node = path[-1]
        if not node.following or node.following[-1][0] <= bound:  # the others are less probable
            path.pop()
        elif steps >= max_steps:
            return ExactHypothesis(best, bound, steps, False)
        else:
            total, number = node.following.pop()
            path.append(expand((*node.ids, number), total, node.state))
    return ExactHypothesis(best, bound, steps, True)
