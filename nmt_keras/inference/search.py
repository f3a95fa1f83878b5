"""Searches (greedy, beam search or sampling) as a configuration and the request options of each row say."""

import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.decoding import banned_phrases, characters
from nmt_keras.decoding.beam_search import beam_search
from nmt_keras.decoding.constraints import Constraints
from nmt_keras.decoding.hypotheses import Hypotheses
from nmt_keras.decoding.prefixes import Prefix, Surfaces
from nmt_keras.decoding.ranking import Ranking
from nmt_keras.decoding.sampling import greedy, sample
from nmt_keras.decoding.shortlist import Shortlist, make_shortlist
from nmt_keras.decoding.terms import Terms
from nmt_keras.errors import UserError
from nmt_keras.inference.prefixes import tokenize_prefixes
from nmt_keras.inference.terms import letters_of, num_terms, tokenize_terms
from nmt_keras.inference.text import surfaces_of
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.tokenizers.base import Tokenizer


class Sampling(NamedTuple):
    """How to sample instead of searching: see `nmt_keras.decoding.sampling.sample`."""

    seed: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class RequestOptions(NamedTuple):
    """What a caller asks of each row, all [B]. A value out of range is moved into it."""

    beam_size: tf.Tensor  # int32, 1 to `max_beam_size`; the configuration's where it is 0 or less
    num_hypotheses: tf.Tensor  # int32, 1 to the beam size, or to `max_beam_size` where the row is sampled
    max_length: tf.Tensor  # int32, 1 to what the configuration allows; that where it is 0 or less
    length_penalty: tf.Tensor  # float32, 0 to 10; the configuration's where it is negative or no number
    temperature: tf.Tensor  # float32, at most 100; above 0 the row is sampled; 0, a negative value or NaN searches
    seed: tf.Tensor  # int32, of samples


class Search:
    """Searches as a configuration says.

    Args:
        model: built.
        target_tokenizer: of the target.
        config: of the search; `beam_size` 1 is greedy.
        num_hypotheses: of each source, at most the beam size unless sampled.
        sampling: sample instead of searching.
        lexicon: what `decoding.shortlist` takes its ids from.

    Raises:
        UserError: the configuration asks for a shortlist, and there is no lexicon.
    """

    def __init__(
        self,
        model: Seq2Seq | Ensemble,
        target_tokenizer: Tokenizer,
        config: DecodingConfig,
        num_hypotheses: int = 1,
        sampling: Sampling | None = None,
        lexicon: Lexicon | None = None,
    ):
        if config.shortlist and lexicon is None:
            raise UserError("`decoding.shortlist` needs a lexicon: python -m pipelines.lexicon makes one, of one run")
        self._model = model
        self._tokenizer = target_tokenizer
        self._config = config
        self._num_hypotheses = num_hypotheses
        self._sampling = sampling
        self._lexicon = lexicon if config.shortlist else None
        self._beams: dict[str, Any] = {
            "recombine": config.recombine,
            "groups": config.beam_groups,
            "diversity_penalty": config.diversity_penalty,
        }
        self.takes_terms = config.terms_beam_size > 0 and not (sampling or config.recombine or config.beam_groups > 1)
        self._banned: np.ndarray | None = None
        if config.banned_phrases:
            self._banned = banned_phrases.automaton(config.banned_phrases, surfaces_of(target_tokenizer))
        # Hypotheses that recombination takes as one may be inside different characters.
        self._characters = None if config.recombine else characters.automaton(surfaces_of(target_tokenizer))

    def __call__(
        self, source_ids: tf.Tensor, prefix: tf.Tensor | None, numbers: tf.Tensor, terms: tf.Tensor | None = None
    ) -> tuple[Hypotheses, tf.Tensor]:
        """Hypotheses of a batch.

        Args:
            source_ids: int32 [B, S], each with EOS.
            prefix: string [B], what translations begin with; None where no row has one.
            numbers: int32 [B], such as line numbers: rows with different numbers draw different samples.
            terms: string [B], what translations must contain, as `tokenize_terms` takes it; None where no row has any.
                Such a row is searched with `decoding.terms_beam_size` beams at least.

        Returns:
            The hypotheses, and whether they begin with all of `prefix`, bool [B]; see `tokenize_prefixes`.
        """
        config = self._config
        beginnings, is_kept = None, tf.fill([tf.shape(source_ids)[0]], True)
        if prefix is not None:
            beginnings, is_kept = self._tokenized(prefix)
        placed = None if terms is None else self._terms(terms)
        problem, shortlist = self._begin(source_ids, beginnings, placed)
        if beginnings is not None:
            is_kept &= beginnings.num_positions < problem[2].max_length
        if self._sampling is not None:
            seed, temperature, top_k, top_p = self._sampling
            found = sample(
                *problem,
                seeds=tf.stack([tf.fill(tf.shape(numbers), seed), numbers], 1),
                num_samples=self._num_hypotheses,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                among=self._among(shortlist),
            )
        elif config.beam_size == 1 and placed is None:
            found = greedy(*problem)
        else:
            found = beam_search(
                *problem,
                beam_size=self._beam_size(config.beam_size, placed),
                num_hypotheses=min(self._num_hypotheses, config.beam_size),
                **self._beams,
            )
        return _with_ids_of(shortlist, found), is_kept

    def with_options(
        self, source_ids: tf.Tensor, request_options: RequestOptions, prefix: tf.Tensor, terms: tf.Tensor
    ) -> tuple[Hypotheses, tf.Tensor]:
        """Hypotheses of a batch, each row by its own options and with the result of a call of its own.

        Args:
            source_ids: int32 [B, S], each with EOS.
            request_options: of each row.
            prefix: string [B], what translations begin with.
            terms: string [B], as in a call. A row that is sampled places none, nor does one of a search that does not
                take terms.

        Returns:
            The hypotheses, and whether they begin with all of `prefix`, bool [B]; see `tokenize_prefixes`.
        """
        config = self._config
        most = config.most_beams
        temperature = _within(request_options.temperature, 0.0, 100.0)
        is_sampled = temperature > 0.0
        beam_size = tf.where(
            request_options.beam_size > 0, tf.minimum(request_options.beam_size, most), config.beam_size
        )
        beam_size = tf.where(is_sampled, 1, beam_size)
        count = tf.clip_by_value(request_options.num_hypotheses, 1, tf.where(is_sampled, most, beam_size))
        beginnings, is_kept = self._tokenized(prefix)
        placed = self._terms(tf.where(is_sampled, "", terms)) if self.takes_terms else None
        beam_size = self._beam_size(beam_size, placed)
        (step_fn, state, constraints, ranking), shortlist = self._begin(source_ids, beginnings, placed)
        limit = tf.where(request_options.max_length > 0, request_options.max_length, config.max_length)
        constraints = constraints._replace(max_length=tf.minimum(constraints.max_length, limit))
        is_kept &= beginnings.num_positions < constraints.max_length
        penalty = tf.where(
            request_options.length_penalty >= 0.0,
            tf.minimum(request_options.length_penalty, 10.0),
            config.length_penalty,
        )
        ranking = ranking._replace(length_penalty=penalty)

        def search():
            wanted = tf.where(is_sampled, 1, count)
            return beam_search(
                step_fn, state, constraints, ranking, beam_size=beam_size, num_hypotheses=wanted, **self._beams
            )

        def draw():
            found = sample(
                step_fn,
                state,
                constraints._replace(terms=None),
                ranking,
                seeds=tf.stack([request_options.seed, tf.zeros_like(request_options.seed)], 1),
                num_samples=tf.reduce_max(tf.where(is_sampled, count, 1)),
                temperature=tf.where(is_sampled, tf.maximum(temperature, 1e-3), 1.0),
                among=self._among(shortlist),
            )
            return found if placed is None else _with_none_placed(found, placed.count)

        def nothing():
            none = _no_hypotheses(source_ids)
            return none if placed is None else _with_none_placed(none, placed.count)

        searched = tf.cond(tf.reduce_any(~is_sampled), search, nothing)
        drawn = tf.cond(tf.reduce_any(is_sampled), draw, nothing)
        found = _first(_with_ids_of(shortlist, _joined(is_sampled, drawn, searched)), count)
        if placed is None:  # one column at least: the type of an empty list is lost in JSON
            found = _with_none_placed(found, tf.maximum(tf.reduce_max(num_terms(terms)), 1))
        return found, is_kept

    def shortlist_ids(self, source_ids: tf.Tensor) -> tf.Tensor | None:
        """The target ids, int32 [U], that a batch of sources, int32 [B, S], is searched among; None for all."""
        shortlist = self._shortlist(source_ids, padding_mask(source_ids), None, None)
        return None if shortlist is None else shortlist.ids

    def _among(self, shortlist: Shortlist | None) -> tuple[tf.Tensor, int] | None:
        return None if shortlist is None else (shortlist.ids, self._model.target_vocab_size)

    def _tokenized(self, prefix: tf.Tensor) -> tuple[Prefix, tf.Tensor]:
        return tokenize_prefixes(self._tokenizer, Surfaces.of(surfaces_of(self._tokenizer)), prefix, self._config)

    def _terms(self, terms: tf.Tensor) -> Terms:
        if not self.takes_terms:
            raise UserError(
                "Terms are placed by plain beam search alone: leave out sampling, decoding.recombine, "
                "decoding.beam_groups and decoding.terms_beam_size=0"
            )
        return tokenize_terms(self._tokenizer, letters_of(self._tokenizer), terms, self._config)

    def _beam_size(self, beam_size: int | tf.Tensor, terms: Terms | None) -> int | tf.Tensor:
        """The beams of each row, [] or [B]."""
        if terms is None:
            return beam_size
        least = tf.where(tf.reduce_any(terms.is_possible, 1), self._config.terms_beam_size, 1)
        return tf.maximum(beam_size, least)

    def _begin(self, source_ids: tf.Tensor, prefix: Prefix | None, terms: Terms | None):
        """Prepares a batch: returns (step function, state before BOS, constraints, ranking), and the shortlist or None.

        With a shortlist, the ids of the search are places in it.
        """
        config, source_mask = self._config, padding_mask(source_ids)
        shortlist = self._shortlist(source_ids, source_mask, prefix, terms)
        constraints = self._constraints(source_mask, prefix, shortlist, terms)
        ranking = Ranking(config.length_penalty, config.length_penalty_kind, config.coverage_penalty, source_mask)
        memory = self._model.prepare(source_ids)
        columns = None if shortlist is None else self._model.columns(*shortlist)
        model = self._model.for_search()

        def step(ids, position, state):
            ids = ids if shortlist is None else tf.gather(shortlist.ids, ids)
            return model.step(ids, position, state, memory, columns)

        return (step, self._model.init_state(memory), constraints, ranking), shortlist

    def _shortlist(
        self, source_ids: tf.Tensor, source_mask: tf.Tensor, prefix: Prefix | None, terms: Terms | None
    ) -> Shortlist | None:
        if self._lexicon is None:
            return None
        proposals = tf.constant(self._lexicon.proposals[:, : self._config.shortlist])
        common = tf.constant(self._lexicon.common)
        size = self._model.target_vocab_size
        given = [each.possible_ids() for each in (prefix, terms) if each is not None]
        forced = functools.reduce(tf.logical_or, given) if given else None
        return make_shortlist(proposals, common, source_ids, source_mask, size, forced)

    def _constraints(
        self, source_mask: tf.Tensor, prefix: Prefix | None, shortlist: Shortlist | None, terms: Terms | None
    ) -> Constraints:
        config = self._config
        source_lengths = tf.reduce_sum(tf.cast(source_mask, tf.float32), 1)
        min_length, max_length = length_limits(config, source_lengths, 0 if prefix is None else prefix.num_positions)
        banned, whole = (None if each is None else tf.constant(each) for each in (self._banned, self._characters))
        if shortlist is not None:
            prefix = None if prefix is None else prefix.among(shortlist.ids, shortlist.places)
            terms = None if terms is None else terms.among(shortlist.ids, shortlist.places)
            banned, whole = (
                None if each is None else tf.gather(each, shortlist.ids, axis=1) for each in (banned, whole)
            )
        repetition = config.no_repeat_ngram, config.repetition_penalty
        return Constraints(max_length, min_length, prefix, *repetition, banned, terms, whole)


def length_limits(
    config: DecodingConfig, source_lengths: tf.Tensor, prefix_lengths: tf.Tensor | int = 0
) -> tuple[tf.Tensor, tf.Tensor]:
    """The least and the most ids of a translation, int32 [B] each, EOS included; the most wins over the least.

    Args:
        config: of the search.
        source_lengths: float32 [B], ids of the source with EOS.
        prefix_lengths: int32 [B], of what translations begin with.
    """
    most = tf.cast(source_lengths * config.max_length_ratio, tf.int32) + 10 + prefix_lengths
    least = tf.cast(tf.math.ceil(source_lengths * config.min_length_ratio), tf.int32)
    return tf.maximum(least, config.min_length), tf.minimum(most, config.max_length)


def _with_ids_of(shortlist: Shortlist | None, hypotheses: Hypotheses) -> Hypotheses:
    """Turns the places in a shortlist that a search found into ids."""
    return hypotheses if shortlist is None else hypotheses._replace(ids=tf.gather(shortlist.ids, hypotheses.ids))


def _within(values: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.clip_by_value(tf.where(tf.math.is_nan(values), 0.0, values), low, high)


def _no_hypotheses(source_ids: tf.Tensor) -> Hypotheses:
    """One hypothesis of length 0 for each row."""
    batch, source_length = tf.shape(source_ids)[0], tf.shape(source_ids)[1]
    none, ids = tf.fill([batch, 1], float("-inf")), tf.zeros([batch, 1, 1], tf.int32)
    zeros = tf.zeros([batch, 1, 1])
    return Hypotheses(ids, ids[:, :, 0], none, none, zeros, tf.zeros([batch, 1, 1, source_length]))


def _with_none_placed(hypotheses: Hypotheses, count: tf.Tensor) -> Hypotheses:
    """Hypotheses in which none of C = `count` terms is placed."""
    shape = [*tf.unstack(tf.shape(hypotheses.lengths)), count]
    return hypotheses._replace(is_placed=tf.zeros(shape, tf.bool))


def _joined(condition: tf.Tensor, first: Hypotheses, second: Hypotheses) -> Hypotheses:
    """Takes each row's hypotheses from `first` where `condition` [B], else from `second`; pads both to one shape."""
    number, length = (tf.maximum(*(tf.shape(h.ids)[axis] for h in (first, second))) for axis in (1, 2))

    def padded(leaf):
        missing = [[0, 0], [0, number - tf.shape(leaf)[1]]]
        is_of_pieces = leaf.shape.rank > 2 and leaf.dtype != tf.bool  # not of terms
        missing += [[0, length - tf.shape(leaf)[2]]] if is_of_pieces else []
        missing += [[0, 0]] * (leaf.shape.rank - len(missing))
        return tf.pad(leaf, missing)

    return tf.nest.map_structure(
        lambda a, b: tf.where(tf.reshape(condition, [-1] + [1] * (a.shape.rank - 1)), padded(a), padded(b)),
        first,
        second,
    )


def _first(hypotheses: Hypotheses, count: tf.Tensor) -> Hypotheses:
    """Keeps the first `count` [B] hypotheses of each row that exist; all numbers of the others become 0."""
    kept = (tf.range(tf.shape(hypotheses.lengths)[1]) < count[:, None]) & (hypotheses.lengths > 0)

    def masked(leaf):
        shape = [*tf.unstack(tf.shape(kept)), *[1] * (leaf.shape.rank - 2)]
        return tf.where(tf.reshape(kept, shape), leaf, tf.zeros([], leaf.dtype))

    return tf.nest.map_structure(masked, hypotheses)
