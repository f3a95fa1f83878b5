"""Where two texts are shifted against each other, by the lengths of their lines and the words that go together.

Line i of a source belongs to line i + d of its target. The cheapest path through the values of d (Viterbi 1967) is
found first, over blocks of lines by the lengths alone, as Gale and Church (1993) align sentences. Then the words
around each change of d find its exact line; which words go together is learned from the aligned part of the text.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nmt_keras.data.scripts import words

MAX_SHIFT = 10  # lines
_BLOCK = 32  # lines
_SWITCH = 20.0  # nats that a change of d costs
_DOUBT = 3.0  # nats by which a line may cost more than the best line of a change, and still be its line
_CAP = 4.5  # nats that a pair costs at most: three standard deviations
_WINDOW = 96  # lines on each side of a change among which its exact line is looked for
_SAMPLE = 8_000  # pairs that teach which words go together
_VOCABULARY = 1_500
_ENOUGH = 500  # aligned pairs that are enough to learn from; only the even ones are used
_EXAMINED = 1_000  # lines whose words are compared with chance
_FAR = 38  # lines between a line's partner and its chance partner; even, so that neither taught (odd lines do not)
_GOOD_PART = 0.2  # share of the gain of aligned lines that a part must reach
_PART = 1_500  # lines that are judged together where lengths tell nothing
_TOGETHER = 0.7  # lengths go together where their ratios spread less than this share of chance ratios' spread
_MIN_SIGNAL = 0.3  # nats by which an aligned pair's lengths must be likelier than a chance pair's

Fetch = Callable[[np.ndarray, np.ndarray], tuple[list[str], list[str]]]  # by source and target line numbers [N]


class Segment(NamedTuple):
    """Lines `start` to `stop` (0-based, exclusive) of a source; line i belongs to line i + `shift` of the target.

    A shift of None: they belong to no lines near them. Up to `before` lines before the segment and `after` lines after
    it may be part of it too: lengths and words hardly tell them apart.
    """

    start: int
    stop: int
    shift: int | None
    before: int = 0
    after: int = 0


def segments(source_lengths: np.ndarray, target_lengths: np.ndarray, fetch: Fetch) -> list[Segment]:
    """Cuts a text where its alignment changes; one segment of shift 0 is a text that is aligned all along.

    Args:
        source_lengths: characters of each line, [lines].
        target_lengths: the same of the target, of any length.
        fetch: reads source lines and target lines by their numbers [N] and [N].

    Returns:
        The segments, in order. Where lengths tell nothing, as in a text of one length, that is one segment.
    """
    source, target = (np.log(lengths.astype(np.float32) + 1.0) for lengths in (source_lengths, target_lengths))
    whole = [Segment(0, len(source), 0)]
    if min(len(source), len(target)) < 2 * _BLOCK:
        return whole
    costs = _LengthCosts(source, target)
    if costs.signal < _MIN_SIGNAL:
        aligned = np.full(-(-len(source) // _BLOCK), MAX_SHIFT)
        lexicon = _Lexicon(aligned, len(source), len(target), fetch)
        return whole if lexicon.tells_nothing else _by_words(lexicon, len(source))
    # 1. Lengths say which shift each block of 32 lines has: cheap, exact to a block.
    path = _block_path(costs, len(source))
    if (path == MAX_SHIFT).all():
        return whole
    lexicon = _Lexicon(path, len(source), len(target), fetch)
    # 2. Words, learned from the blocks that are aligned, must confirm it.
    path = _confirmed(path, costs, lexicon)
    changes = np.flatnonzero(path[1:] != path[:-1]) + 1
    edges, bounds, doubts = [0, *(changes * _BLOCK), len(source)], [0], [(0, 0)]
    # 3. Around each change both together find its line, not further than half-way into the parts beside it.
    for number, change in enumerate(changes, 1):
        first, last = (edges[number] + edges[number + step] for step in (-1, 1))
        low = max(edges[number] - _WINDOW, first // 2, bounds[-1])
        high = min(edges[number] + _WINDOW, max(last // 2, edges[number] + 1), len(source))
        first, best, last = _best_line(int(path[change - 1]), int(path[change]), low, high, costs, lexicon)
        bounds.append(best)
        doubts.append((best - first, last - best))
    doubts.append((0, 0))
    states = path[[0, *changes]]
    found = [
        Segment(int(start), int(stop), _shift(state), begin[0], end[1])
        for start, stop, state, begin, end in zip(bounds, [*bounds[1:], len(source)], states, doubts, doubts[1:])
    ]
    return _merged([segment for segment in found if segment.stop > segment.start])


def _by_words(lexicon: "_Lexicon", size: int) -> list[Segment]:
    """Finds the aligned parts of a text by words alone, where lengths tell nothing; parts have 1,500 lines or more."""
    if not lexicon.favours(MAX_SHIFT, None, 0, size):
        return [Segment(0, size, None)]
    edges = np.linspace(0, size, max(size // _PART, 1) + 1).astype(int)
    parts = list(zip(edges[:-1].tolist(), edges[1:].tolist()))
    is_aligned = [lexicon.favours(MAX_SHIFT, None, *part) for part in parts]
    if np.mean(is_aligned) > 0.75:  # a part that words do not judge well
        return [Segment(0, size, 0)]
    return _merged([Segment(*part, 0 if aligned else None) for part, aligned in zip(parts, is_aligned)])


def _merged(parts: list[Segment]) -> list[Segment]:
    """Neighbours of one shift as one segment."""
    merged = parts[:1]
    for part in parts[1:]:
        if part.shift == merged[-1].shift:
            merged[-1] = merged[-1]._replace(stop=part.stop, after=part.after)
        else:
            merged.append(part)
    return merged


def _confirmed(path: np.ndarray, costs: "_LengthCosts", lexicon: "_Lexicon") -> np.ndarray:
    """Corrects the parts of a path that their words do not confirm.

    A shift that brings no words together is dropped. Lines that belong nowhere by their lengths count as aligned if
    their words go together, or if their lengths vary together in their own way, as in a table of contents.
    """
    path = path.copy()
    edges = [0, *(np.flatnonzero(path[1:] != path[:-1]) + 1), len(path)]
    for first, last in zip(edges, edges[1:]):
        state, low, high = int(path[first]), first * _BLOCK, min(last * _BLOCK, costs.size)
        if state not in (MAX_SHIFT, _NONE) and not lexicon.favours(state, MAX_SHIFT, low, high):
            state = _NONE
        if state == _NONE and (costs.go_together(low, high) or lexicon.favours(MAX_SHIFT, None, low, high)):
            state = MAX_SHIFT
        path[first:last] = state
    return path


_NONE = 2 * MAX_SHIFT + 1  # the state of lines that belong nowhere near; the others are d + MAX_SHIFT


def _shift(state: int) -> int | None:
    return None if state == _NONE else int(state) - MAX_SHIFT


class _LengthCosts:
    """Nats that pairs cost by their lengths: half the square of their standardised log ratio, up to a cap."""

    def __init__(self, source: np.ndarray, target: np.ndarray):
        self._source, self._target = source, target
        self.size = len(source)
        size = min(len(source), len(target))
        spread, shift, self._centre = min(self._spread(shift) for shift in range(-MAX_SHIFT, MAX_SHIFT + 1))
        self._deviation = max(1.4826 * spread, 0.02)
        chance = np.random.default_rng(1).integers(0, size, (2, 10_000))
        aligned = float(self._cost(self._residuals(shift, 0, size)[1]).mean())
        random = float(self._cost(target[chance[0]] - source[chance[1]]).mean())
        # An aligned pair must be likelier than a chance pair, or lengths tell nothing. What belongs nowhere costs
        # half-way between the two: it is cheaper than any shift only where no shift explains the lengths.
        self.signal = random - aligned
        self.of_none = (random + aligned) / 2

    def _residuals(self, shift: int, low: int, high: int) -> tuple[int, np.ndarray]:
        """The first of source lines `low` to `high` that has a partner at a shift, and the log ratios from there on."""
        start, stop = max(low, -shift), min(high, len(self._target) - shift)
        return start, self._target[start + shift : max(stop, start) + shift] - self._source[start : max(stop, start)]

    def _spread(self, shift: int) -> tuple[float, int, float]:
        """How far log ratios are from their median at a shift, the shift, and that median."""
        _, residual = self._residuals(shift, 0, len(self._source))
        centre = float(np.median(residual))
        return float(np.median(np.abs(residual - centre))), shift, centre

    def _cost(self, residual: np.ndarray) -> np.ndarray:
        return np.minimum(((residual - self._centre) / self._deviation) ** 2 / 2, _CAP)

    def go_together(self, low: int, high: int) -> bool:
        """Whether the lengths of lines `low` to `high` and of those beside them vary together, or hardly vary."""
        _, residual = self._residuals(0, low, high)
        if len(residual) < _BLOCK:
            return True
        beside = np.roll(self._target[low : low + len(residual)], len(residual) // 2)
        chance = beside - self._source[low : low + len(residual)]
        spreads = [float(np.median(np.abs(r - np.median(r)))) for r in (residual, chance)]
        return spreads[0] < _TOGETHER * spreads[1] or spreads[1] < self._deviation

    def of(self, state: int, low: int, high: int) -> np.ndarray:
        """The costs in nats of source lines `low` to `high` in a state, float [high - low]."""
        costs = np.full(high - low, self.of_none, np.float32)
        if state != _NONE:
            start, residual = self._residuals(state - MAX_SHIFT, low, high)
            costs[start - low : start - low + len(residual)] = self._cost(residual)
        return costs


def _block_path(costs: _LengthCosts, size: int) -> np.ndarray:
    """int [blocks]: the state of each block on the path that costs least."""
    starts = np.arange(0, size, _BLOCK)
    blocks = np.stack([np.add.reduceat(costs.of(state, 0, size), starts) for state in range(_NONE + 1)], 1)
    best = blocks[0].copy()
    best[np.arange(_NONE + 1) != MAX_SHIFT] += _SWITCH  # a text begins aligned, unless much speaks against it
    came_from = np.empty(blocks.shape, np.int8)
    stay = np.arange(_NONE + 1, dtype=np.int8)
    # Viterbi's recursion: a block stays in its state, or comes from the cheapest one for a fixed price; one number is
    # enough to find the best switch, since the price is the same from everywhere.
    for number in range(1, len(blocks)):
        cheapest = int(best.argmin())
        switch = best[cheapest] + _SWITCH < best
        came_from[number] = np.where(switch, cheapest, stay)
        best = np.where(switch, best[cheapest] + _SWITCH, best) + blocks[number]
    path = np.empty(len(blocks), np.int64)
    path[-1] = best.argmin()
    for number in range(len(blocks) - 1, 0, -1):
        path[number - 1] = came_from[number, path[number]]
    return path


def _best_line(
    before: int, after: int, low: int, high: int, costs: _LengthCosts, lexicon: "_Lexicon"
) -> tuple[int, int, int]:
    """Finds the line between `low` and `high` where a path changes its state: the first possible, the best, the last.

    Where the shift falls by n, n lines of the source have no translation and are in neither part.
    """
    cost_before, cost_after = (costs.of(state, low, high) + lexicon.of(state, low, high) for state in (before, after))
    gap = before - after if _NONE not in (before, after) and before > after else 0
    # Of each line at which the state may change: the cost of all lines before it in the old state, of the n lines that
    # are in neither part, and of all others in the new state.
    ahead = np.concatenate([[0.0], np.cumsum(cost_before)])
    behind = np.concatenate([np.cumsum(cost_after[::-1])[::-1], np.zeros(gap + 1)])
    nowhere = np.minimum(gap, np.arange(high - low, -1, -1)) * costs.of_none
    total = ahead + behind[gap : gap + len(ahead)] + nowhere
    best = int(total.argmin())
    far = np.flatnonzero(total > total[best] + _DOUBT)  # the change is between the nearest of these
    first = int(far[far < best].max(initial=-1)) + 1
    last = int(far[far > best].min(initial=len(total))) - 1
    return low + first, low + best, low + last


class _Lexicon:
    """The costs of pairs by their words, in nats: low where they stand in one pair more often than by chance."""

    def __init__(self, path: np.ndarray, size: int, target_size: int, fetch: Fetch):
        self._fetch = fetch
        states = np.repeat(path, _BLOCK)[:size]
        lines = np.flatnonzero(states == MAX_SHIFT)
        if len(lines) < _ENOUGH:  # what is shifted teaches too
            lines = np.flatnonzero(states != _NONE)
        lines = lines[lines % 2 == 0]
        lines = lines[:: max(len(lines) // _SAMPLE, 1)]
        partners = lines + states[lines] - MAX_SHIFT
        inside = (partners >= 0) & (partners < target_size)
        source, target = self._words(lines[inside], partners[inside])
        self._rows = [_frequent(texts) for texts in (source, target)]
        counts = [self._bags(texts, rows) for texts, rows in zip((source, target), self._rows)]
        together = counts[0].T @ counts[1]
        chance = np.outer(counts[0].sum(0), counts[1].sum(0)) / max(len(source), 1)  # pairs if words were independent
        with np.errstate(divide="ignore", invalid="ignore"):
            association = np.log(np.maximum(together - 0.5, 1e-9) / np.maximum(chance, 1e-9))
        self._association = np.where(together >= 2, np.clip(association, 0.0, 4.0), 0.0).astype(np.float32)
        aligned = self._scores(*counts)
        chanced = self._scores(counts[0], np.roll(counts[1], len(counts[1]) // 2, 0))
        self._means = (float(aligned.mean()), float(chanced.mean())) if len(source) else (0.0, 0.0)
        self._deviation = max(float(aligned.std() + chanced.std()) / 2, 1e-3) if len(source) else 1.0
        self.tells_nothing = 2 * len(source) < _ENOUGH or not self._association.any()

    def favours(self, state: int, other: int | None, low: int, high: int) -> bool:
        """Whether the words of lines `low` to `high` go together in a state more than in another, or than by chance.

        Only odd lines are compared, since even ones taught the associations. The mean gain must exceed three standard
        errors and a fifth of the gain of aligned lines.
        """
        lines = np.arange(low | 1, high, 2)
        lines = lines[:: max(len(lines) // _EXAMINED, 1)]
        scores = []
        for shift in (state - MAX_SHIFT, _FAR if other is None else other - MAX_SHIFT):
            source, target = self._words(lines, lines + shift)
            scores.append(self._scores(*(self._bags(texts, rows) for texts, rows in zip((source, target), self._rows))))
        gains = scores[0] - scores[1]
        gains = gains[(scores[0] > 0) | (scores[1] > 0)]
        if len(gains) < 3:
            return False
        error = float(gains.std()) / len(gains) ** 0.5
        return float(gains.mean()) > max(3.0 * error, _GOOD_PART * (self._means[0] - self._means[1]), 1e-6)

    def of(self, state: int, low: int, high: int) -> np.ndarray:
        """The costs in nats of source lines `low` to `high` in a state, float [high - low]; 0 favours no state."""
        costs = np.zeros(high - low, np.float32)
        if state == _NONE:
            return costs
        lines = np.arange(low, high)
        source, target = self._words(lines, lines + state - MAX_SHIFT)
        scores = self._scores(*(self._bags(texts, rows) for texts, rows in zip((source, target), self._rows)))
        aligned, chance = self._means
        return np.clip((((aligned + chance) / 2) - scores) * (aligned - chance) / self._deviation**2, -6.0, 6.0)

    def _words(self, lines: np.ndarray, partners: np.ndarray) -> list[list[list[str]]]:
        sides = self._fetch(lines, partners)
        return [[words(text) for text in side] for side in sides]

    def _bags(self, texts: list[list[str]], rows: dict[str, int]) -> np.ndarray:
        """float32 [N, W]: 1 where a text has a word."""
        bags = np.zeros((len(texts), len(rows)), np.float32)
        for number, text in enumerate(texts):
            bags[number, [rows[word] for word in text if word in rows]] = 1.0
        return bags

    def _scores(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """float [N]: the mean over both sides' words of the strongest association with a word of the other side."""
        scores = np.zeros(len(source), np.float32)
        for number, (mine, yours) in enumerate(zip(source, target)):
            block = self._association[np.ix_(np.flatnonzero(mine), np.flatnonzero(yours))]
            if block.size:
                scores[number] = (block.max(0).mean() + block.max(1).mean()) / 2
        return scores


def _frequent(texts: list[list[str]]) -> dict[str, int]:
    """The most frequent words, each with a number, among those in at least two texts and at most half of them."""
    counts = Counter(word for text in texts for word in set(text))
    kept = [word for word, count in counts.most_common(_VOCABULARY + 50) if 2 <= count <= 0.5 * len(texts)]
    return {word: number for number, word in enumerate(kept[:_VOCABULARY])}
