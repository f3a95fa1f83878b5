"""Phrases that no translation may contain, as an automaton over pieces.

A phrase can be cut into pieces in many ways, so banning one way bans little. The automaton follows the text itself,
byte by byte (Aho and Corasick 1975): a piece is banned where it would complete a phrase, however the text is cut.
"""

from collections.abc import Sequence

import numpy as np


def automaton(phrases: Sequence[str], surfaces: Sequence[bytes]) -> np.ndarray:
    """Builds the table of next states, for each state and each piece.

    Args:
        phrases: texts, none of them empty; case and spaces count.
        surfaces: the text of each id, V of them; empty for those that add none.

    Returns:
        int32 [states, V]: the next state, or its bitwise complement, which is negative, where the piece would complete
        a phrase. A text begins in state 0.
    """
    following, complete = _match([phrase.encode("utf-8") for phrase in phrases])
    table = np.empty((len(following), len(surfaces)), np.int32)
    for number, surface in enumerate(surfaces):
        states, banned = np.arange(len(following)), np.zeros(len(following), bool)
        for byte in surface:
            states = following[states, byte]
            banned |= complete[states]
        table[:, number] = np.where(banned, ~states, states)
    return table


def _match(patterns: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The automaton over bytes: next states, int32 [states, 256], and which states end a pattern, bool [states]."""
    children: list[dict[int, int]] = [{}]
    ends = [False]
    for pattern in patterns:
        node = 0
        for byte in pattern:
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
                ends.append(False)
            node = children[node][byte]
        ends[node] = True
    following, complete = np.zeros((len(children), 256), np.int32), np.array(ends)
    waiting = [(0, 0)]  # a node, and the longest proper suffix of its text that is a node too
    for node, suffix in waiting:  # breadth first: a suffix is shorter, and done before
        complete[node] |= complete[suffix]
        if node:
            following[node] = following[suffix]
        for byte, child in children[node].items():
            waiting.append((child, following[suffix][byte] if node else 0))
            following[node, byte] = child
    return following, complete
