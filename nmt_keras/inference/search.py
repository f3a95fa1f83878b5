"""From a configuration and what a caller asks of each row to a search: greedy, beam search or sampling."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.constants import PAD_ID
from nmt_keras.data.tokenizer import Tokenizer
from nmt_keras.decoding import banned_phrases
from nmt_keras.decoding.beam_search import beam_search
from nmt_keras.decoding.constraints import Constraints
from nmt_keras.decoding.hypotheses import Hypotheses
from nmt_keras.decoding.ranking import Ranking
from nmt_keras.decoding.sampling import greedy, sample
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.seq2seq import Seq2Seq


class Sampling(NamedTuple):
    """How to sample instead of searching: see `nmt_keras.decoding.sampling.sample`."""

    seed: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class Search:
    """Searches as a configuration says.

    Args:
        model: built.
        target_tokenizer: of the target.
        config: of the search; `beam_size` 1 is greedy.
        num_hypotheses: of each source, at most the beam size unless sampled.
        sampling: sample instead of searching.
    """

    def __init__(
        self,
        model: Seq2Seq,
        target_tokenizer: Tokenizer,
        config: DecodingConfig,
        num_hypotheses: int = 1,
        sampling: Sampling | None = None,
    ):
        self._model = model
        self._config = config
        self._num_hypotheses = num_hypotheses
        self._sampling = sampling
        self._banned: np.ndarray | None = None
        if config.banned_phrases:
            surfaces = [target_tokenizer.surface(number) for number in range(target_tokenizer.vocab_size)]
            self._banned = banned_phrases.automaton(config.banned_phrases, surfaces)

    def __call__(self, source_ids: tf.Tensor, prefix_ids: tf.Tensor, numbers: tf.Tensor) -> Hypotheses:
        """Hypotheses of a batch.

        Args:
            source_ids: int32 [B, S], each with EOS.
            prefix_ids: int32 [B, P], what translations begin with, then PAD; P may be 0.
            numbers: int32 [B], what tells the rows' samples apart, such as their line numbers.
        """
        config, source_mask = self._config, padding_mask(source_ids)
        constraints = self._constraints(source_mask, prefix_ids)
        ranking = Ranking(config.length_penalty, config.length_penalty_kind, config.coverage_penalty, source_mask)
        memory = self._model.prepare(source_ids)
        state = self._model.init_state(memory, tf.reduce_max(constraints.max_length))

        def step_fn(ids, position, state):
            return self._model.step(ids, position, state, memory)

        if self._sampling is not None:
            seed, temperature, top_k, top_p = self._sampling
            return sample(
                step_fn,
                state,
                constraints,
                ranking,
                seeds=tf.stack([tf.fill(tf.shape(numbers), seed), numbers], 1),
                num_samples=self._num_hypotheses,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
            )
        if config.beam_size == 1:
            return greedy(step_fn, state, constraints, ranking)
        return beam_search(
            step_fn,
            state,
            constraints,
            ranking,
            beam_size=config.beam_size,
            num_hypotheses=min(self._num_hypotheses, config.beam_size),
        )

    def _constraints(self, source_mask: tf.Tensor, prefix_ids: tf.Tensor) -> Constraints:
        config = self._config
        source_lengths = tf.reduce_sum(tf.cast(source_mask, tf.float32), 1)
        prefix_lengths = tf.reduce_sum(tf.cast(prefix_ids != PAD_ID, tf.int32), 1)
        max_length = tf.cast(source_lengths * config.max_length_ratio, tf.int32) + 10 + prefix_lengths
        min_length = tf.cast(tf.math.ceil(source_lengths * config.min_length_ratio), tf.int32)
        return Constraints(
            tf.minimum(max_length, config.max_length),
            tf.maximum(min_length, config.min_length),
            prefix_ids,
            config.no_repeat_ngram,
            config.repetition_penalty,
            None if self._banned is None else tf.constant(self._banned),
        )


def padded_ids(ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Ids of several texts as one array, int32 [B, longest], PAD after each."""
    result = np.full((len(ids), max(map(len, ids), default=0)), PAD_ID, np.int32)
    for row, own in zip(result, ids):
        row[: len(own)] = own
    return result
