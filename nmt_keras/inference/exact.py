"""The most probable translation of all, and how often beam search finds it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.decoding.exact import ExactHypothesis, exact_search, log_probs_of
from nmt_keras.inference.search import length_limits
from nmt_keras.inference.text import CONTROL
from nmt_keras.inference.translation import Hypothesis, Translation
from nmt_keras.inference.translator import Translator
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.reports import counted


class ExactTranslator:
    """Translates by exact search, which begins with what a translator finds (Stahlberg and Byrne 2019).

    It ranks by log probability alone, over all ids, within the lengths that the configuration allows; no other rule of
    its search holds.

    Args:
        translator: a beam search, whose best hypothesis is the first bound.
        model: of it.
        config: of its search.
        max_steps: of the model for a text, after which the best so far is taken.

    Attributes:
        translated: how many texts were not blank.
        proved: for how many the best was found for certain; the next two count among these.
        found: for how many the translator's was the best.
        empty: of how many the best is the empty translation.
    """

    def __init__(self, translator: Translator, model: Seq2Seq | Ensemble, config: DecodingConfig, max_steps: int):
        self._translator = translator
        self._model = model
        self._config = config
        self._max_steps = max_steps
        self.translated = self.proved = self.found = self.empty = 0
        self._prepare = tf.function(self._prepared, autograph=False, reduce_retracing=True)
        self._step = tf.function(self._stepped, autograph=False, reduce_retracing=True)

    def stream(self, texts: Iterable[str], *, first_number: int = 0) -> Iterator[Translation]:
        """Translates texts as they come. `outputs` of a translation has `is_exact`, whether it is proved, and
        `steps`."""
        for translation in self._translator.stream(texts, first_number=first_number):
            yield self._exact(translation) if translation.best.ids else translation

    def summary(self) -> str:
        """What was found, for people."""
        return (
            f"exact search: {counted(self.translated, 'text')}, {self.proved:,} of them within {self._max_steps:,} "
            f"steps of the model; of these, beam search found the best translation of {self.found:,}, and that of "
            f"{self.empty:,} is empty"
        )

    def _exact(self, translation: Translation) -> Translation:
        best = translation.best
        source_ids = tf.constant([list(translation.source_ids)], tf.int32)
        memory, state = self._prepare(source_ids)
        length = tf.constant([len(translation.source_ids)], tf.float32)
        least, most = (int(limit[0]) for limit in length_limits(self._config, length))

        def step(number: int, position: int, state: Any) -> tuple[np.ndarray, Any]:
            log_probs, state = self._step(tf.constant([[number]]), tf.constant(position), state, memory)
            return log_probs.numpy()[0, 0], state

        found = exact_search(
            step,
            state,
            max_length=most,
            min_length=min(least, most),
            max_steps=self._max_steps,
            known=best.ids,
            known_log_prob=sum(log_probs_of(step, state, best.ids)),  # as it is computed here, to the last bit
        )
        self._count(found, best)
        hypothesis = best
        if list(found.ids) != list(best.ids):
            hypothesis = self._hypothesis(found, log_probs_of(step, state, found.ids))
        outputs = {"is_exact": found.is_proved, "steps": found.steps}
        return translation._replace(hypotheses=[hypothesis], outputs=outputs)

    def _count(self, found: ExactHypothesis, best: Hypothesis) -> None:
        self.translated += 1
        self.proved += found.is_proved
        self.found += found.is_proved and list(found.ids) == list(best.ids)
        self.empty += found.is_proved and len(found.ids) == 1

    def _hypothesis(self, found: ExactHypothesis, log_probs: list[float]) -> Hypothesis:
        tokenizer = self._translator.target_tokenizer
        pieces = [tokenizer.piece(number) for number in found.ids]
        text = re.sub(CONTROL, " ", tokenizer.decode(found.ids))
        return Hypothesis(text, found.log_prob, found.log_prob, pieces, log_probs, ids=found.ids)

    def _prepared(self, source_ids: tf.Tensor) -> tuple[Any, Any]:
        memory = self._model.prepare(source_ids)
        return memory, self._model.init_state(memory)

    def _stepped(self, ids: tf.Tensor, position: tf.Tensor, state: Any, memory: Any) -> tuple[tf.Tensor, Any]:
        logits, _, state = self._model.for_search().step(ids, position, state, memory)
        return tf.nn.log_softmax(logits), state
