"""Characters that are written as several ids, as the bytes of rare ones are: a hypothesis leaves none half done.

A model has its probabilities for each byte by itself. So a search could end inside a character, or go on with a byte
that belongs to none, and a reader would see U+FFFD. The automaton here is that of well-formed UTF-8 (The Unicode
Standard 15.0, table 3-7), followed through the bytes of each piece.
"""

from collections.abc import Sequence

import numpy as np

_TAIL = range(0x80, 0xC0)
# The state after each byte that may follow a state. Between characters it is 0; 1, 2 and 3 wait for as many bytes of
# any kind, the others for a first one of fewer kinds: after E0, ED, F0 and F4.
_FOLLOWING: list[dict[range, int]] = [
    {
        range(0x80): 0,
        range(0xC2, 0xE0): 1,
        range(0xE1, 0xED): 2,
        range(0xEE, 0xF0): 2,
        range(0xF1, 0xF4): 3,
        range(0xE0, 0xE1): 4,
        range(0xED, 0xEE): 5,
        range(0xF0, 0xF1): 6,
        range(0xF4, 0xF5): 7,
    },
    {_TAIL: 0},
    {_TAIL: 1},
    {_TAIL: 2},
    {range(0xA0, 0xC0): 1},
    {range(0x80, 0xA0): 1},
    {range(0x90, 0xC0): 2},
    {range(0x80, 0x90): 2},
]


def automaton(surfaces: Sequence[bytes]) -> np.ndarray | None:
    """Builds the table of next states, for each state and each piece.

    Args:
        surfaces: the text of each id, V of them; empty for those that add none, as EOS.

    Returns:
        int32 [states, V]: the next state, negative where the piece may not follow; a text begins in state 0. None where
        each surface is of whole characters, so that nothing can be half done.
    """
    steps = np.full((len(_FOLLOWING), 256), -1, np.int32)
    for state, following in enumerate(_FOLLOWING):
        for values, target in following.items():
            steps[state, values] = target
    table = np.full((len(_FOLLOWING), len(surfaces)), -1, np.int32)
    for number, surface in enumerate(surfaces):
        for state in range(len(_FOLLOWING)) if surface else [0]:  # nothing may stand within a character
            reached = state
            for byte in surface:
                reached = int(steps[reached, byte])
                if reached < 0:
                    break
            table[state, number] = reached
    return table if table[0].any() else None
