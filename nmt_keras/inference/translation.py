"""What a translation is, whoever made it: a run, an export, or a server."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class Hypothesis(NamedTuple):
    """One translation of a text."""

    text: str
    log_prob: float  # the sum of `token_log_probs`; -inf where the search found none
    score: float  # what is ranked
    pieces: Sequence[str] = ()  # with </s>; none where an export was asked for no more than its best translation
    token_log_probs: Sequence[float] = ()  # of `pieces`
    alignment: Sequence[int] = ()  # of each piece but </s>, the source piece read most; -1 where it reads none
    ids: Sequence[int] = ()  # of `pieces`; of a `Translator` alone
    attention_weights: np.ndarray | None = None  # float32 [pieces, source pieces]; where they were asked for
    outputs: Mapping[str, Any] = MappingProxyType({})  # what else an export gives of a hypothesis, by name


class Translation(NamedTuple):
    """The translation of one text."""

    hypotheses: list[Hypothesis]  # best first, at least one
    truncated: bool  # whether the text was longer than the limit
    source_pieces: Sequence[str] = ()  # with </s>
    source_ids: Sequence[int] = ()  # of a `Translator` alone
    outputs: Mapping[str, Any] = MappingProxyType({})  # what else an export gives of a text, by name

    @property
    def best(self) -> Hypothesis:
        """The first hypothesis."""
        return self.hypotheses[0]

    @property
    def text(self) -> str:
        """The text of the best hypothesis."""
        return self.best.text


NOTHING = Hypothesis("", 0.0, 0.0)  # of an empty or blank text
