"""Strings in, strings out: one graph function, used by the translator, by evaluation and by the export."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.decoding.hypotheses import Hypotheses
from nmt_keras.errors import UserError
from nmt_keras.inference.paragraphs import translate_paragraphs
from nmt_keras.inference.protection import Protection, protected_again
from nmt_keras.inference.search import Sampling, Search
from nmt_keras.inference.strings import TermsOfText, join_terms, require_as_many, require_terms, to_bytes
from nmt_keras.inference.text import (
    Source,
    at_least_two_rows,
    detokenize,
    is_blank,
    source_spans,
    target_spans,
    tokenize,
)
from nmt_keras.inference.translation import Hypothesis, Translation
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.tokenizers.base import Tokenizer

# What a translation, and a hypothesis, say of the bytes of pieces, as an export does.
_SOURCE_SPANS = ("source_piece_starts", "source_piece_ends")
_SPANS = ("piece_starts", "piece_ends")


class Translations(NamedTuple):
    """The translations of B texts: N hypotheses each, L ids at most, S source ids at most."""

    text: tf.Tensor  # string [B, N]; empty for an empty or blank source
    hypotheses: Hypotheses  # all zeros for an empty or blank source
    source_ids: tf.Tensor  # int32 [B, S]
    truncated: tf.Tensor  # bool [B], whether the source was longer than the limit
    is_prefix_kept: tf.Tensor  # bool [B], whether the translations begin with all that they were to begin with
    spans: tuple[tf.Tensor, ...] = ()  # bytes where pieces start and end, int32: source [B, S] twice, [B, N, L] twice


def translate_text(
    search: Search,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    config: DecodingConfig,
    text: tf.Tensor,
    prefix: tf.Tensor | None = None,
    numbers: tf.Tensor | None = None,
    tags: tf.Tensor | None = None,
    terms: tf.Tensor | None = None,
    with_spans: bool = False,
) -> Translations:
    """The whole of inference as graph operations: tokenize, encode, search, detokenize.

    Args:
        search: what finds hypotheses.
        source_tokenizer: of the source.
        target_tokenizer: of the target.
        config: of the search. With `split_sentences` a text has one hypothesis without ids.
        text: string [B].
        prefix: string [B], what translations begin with; "" is nothing.
        numbers: int32 [B], such as line numbers: rows with different numbers draw different samples.
        tags: int32 [B, K], before the ids of each text.
        terms: string [B], what translations must contain, as `tokenize_terms` takes it.
        with_spans: whether the bytes of pieces are wanted; of texts that are split there are none.
    """
    num_tags = 0 if tags is None else tf.shape(tags)[1]

    def translate(source: Source, prefix=None, numbers=None, terms=None) -> Translations:
        rows = tf.shape(source.text)[0]
        numbers = tf.zeros([rows], tf.int32) if numbers is None else numbers
        source, (numbers, prefix, terms) = at_least_two_rows(source, (numbers, prefix, terms))
        hypotheses, is_kept = search(source.ids, prefix, numbers, terms)
        if prefix is not None:
            is_kept &= ~is_blank(source.text) | (prefix == "")
        found, hypotheses = detokenize(source_tokenizer, target_tokenizer, config, source, hypotheses)
        translations = Translations(found, hypotheses, source.ids, source.truncated, is_kept)
        if with_spans:
            of_batch = (source_tokenizer, target_tokenizer, config, source)
            spans = *source_spans(source_tokenizer, source, num_tags), *target_spans(*of_batch, hypotheses, found)
            translations = translations._replace(spans=spans)
        return tf.nest.map_structure(lambda leaf: leaf[:rows], translations)

    if not config.split_sentences:
        return translate(tokenize(source_tokenizer, text, config, tags), prefix, numbers, terms)

    def translate_part(source: Source) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        found = translate(source)._replace(spans=())
        return found.text[:, 0], found.hypotheses.log_prob[:, 0], found.hypotheses.score[:, 0]

    rows = tf.shape(text)[0]
    tags = tf.zeros([rows, 0], tf.int32) if tags is None else tags
    found, log_prob, score, truncated = translate_paragraphs(translate_part, source_tokenizer, config, text, tags)
    nothing, zeros = tf.zeros([rows, 1, 1], tf.int32), tf.zeros([rows, 1, 1])
    hypotheses = Hypotheses(nothing, nothing[:, 0], log_prob[:, None], score[:, None], zeros, zeros[:, :, :, None])
    return Translations(found[:, None], hypotheses, nothing[:, 0], truncated, tf.fill([rows], True))


class Translator:
    """Translates strings: one out per one in, in order; an empty one stays empty.

    Example:
        translator = Translator(model, tokenizer, tokenizer, DecodingConfig(beam_size=5))
        [translation] = translator.translate(["A man rides a horse."])

    Args:
        model: built.
        source_tokenizer: of the source.
        target_tokenizer: of the target.
        config: of the search.
        num_hypotheses: of each text, at most the beam size unless sampled.
        sampling: sample instead of searching.
        lexicon: what `decoding.shortlist` takes its ids from.
        tags: the id before each source, for a model of several target languages.
        protection: what translations have as the texts have it, without `decoding.split_sentences`; of a model that was
            trained with placeholders what becomes one.

    Raises:
        UserError: several translations, or samples, are asked of texts that are split into sentences; or a shortlist
            without a lexicon.
    """

    def __init__(
        self,
        model: Seq2Seq | Ensemble,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        config: DecodingConfig,
        num_hypotheses: int = 1,
        sampling: Sampling | None = None,
        lexicon: Lexicon | None = None,
        tags: Sequence[int] = (),
        protection: Protection | None = None,
    ):
        if config.split_sentences and (num_hypotheses > 1 or sampling):
            raise UserError(
                "`decoding.split_sentences` joins the best translations of sentences: leave it off to sample, or for "
                "several translations of a text"
            )
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.config = config
        self._tags = list(tags)
        self._protection = protection
        self._with_spans = protection is not None and not config.split_sentences
        self._search = Search(model, target_tokenizer, config, num_hypotheses, sampling, lexicon)
        self._functions = self._compiled()

    def _compiled(self) -> dict[tuple[str, ...], Callable[..., Translations]]:
        """The functions of texts, by what else is given of each text; traced when first called."""
        parts = self._search, self.source_tokenizer, self.target_tokenizer, self.config
        text = tf.TensorSpec([None], tf.string)
        others = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
        with_spans = self._with_spans

        def of(names: tuple[str, ...]) -> Callable[..., Translations]:
            return tf.function(
                lambda text, numbers, tags, *given: translate_text(
                    *parts, text, numbers=numbers, tags=tags, with_spans=with_spans, **dict(zip(names, given))
                ),
                input_signature=(text, *others, *[text] * len(names)),
                autograph=False,
            )

        return {names: of(names) for names in ((), ("prefix",), ("terms",), ("prefix", "terms"))}

    def with_tags(self, tags: Sequence[int]) -> "Translator":
        """The same with other tags; what is compiled is shared."""
        other = copy.copy(self)
        other._tags = list(tags)
        return other

    def translate(
        self,
        texts: Sequence[str],
        report: Callable[[int], object] = lambda count: None,
        first_number: int = 0,
        prefixes: Sequence[str] | None = None,
        terms: Sequence[TermsOfText] | None = None,
    ) -> list[Translation]:
        """The translations of `texts`, in their order.

        Batches are formed of texts of similar length, and their composition does not change a result.

        Args:
            texts: strings of any length; what is over `max_source_length` ids is not translated.
            report: is told after each batch how many texts it held.
            first_number: the number of the first text in its stream; a sample depends on its text's number.
            prefixes: characters that each translation begins with, which may end inside a word; none where None. Not of
                texts that are split. `outputs["is_prefix_kept"]` of a translation says whether it does.
            terms: of each text the terms that its translation must contain as whole words, each a text, or several
                ways to say it of which one is enough; see `Glossary`. Not of texts that are split, nor of samples.
                `outputs["is_term_placed"]` of a hypothesis says of each of the first 16 terms whether it is there.

        Raises:
            UserError: `prefixes` or `terms` is not a list of as many, or the texts are split.
        """
        if prefixes is not None:
            require_as_many("prefixes", prefixes, len(texts))
        if terms is not None:
            require_terms(terms, len(texts))
        limit = self.config.max_source_characters
        lengths = [len(self.source_tokenizer.encode(text[:limit])) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: -lengths[i])
        results: dict[int, Translation] = {}
        for start in range(0, len(order), self.config.batch_sentences):
            rows = order[start : start + self.config.batch_sentences]
            numbers = [first_number + i for i in rows]
            own = None if prefixes is None else [prefixes[i] for i in rows]
            needed = None if terms is None else [terms[i] for i in rows]
            results.update(zip(rows, self.translate_batch([texts[i] for i in rows], numbers, own, needed)))
            report(len(rows))
        return [results[i] for i in range(len(texts))]

    def translate_batch(
        self,
        texts: Sequence[str],
        numbers: Sequence[int] | None = None,
        prefixes: Sequence[str] | None = None,
        terms: Sequence[TermsOfText] | None = None,
    ) -> list[Translation]:
        """The translations of `texts` as one batch, however many and however long they are.

        Samples depend on `numbers`, one for each text; 0, 1, 2, ... if None. `prefixes` and `terms` as for
        `translate`.
        """
        joined = [join_terms(each) for each in terms or ()]
        given = {name: each for name, each in (("prefix", prefixes), ("terms", joined)) if any(each or ())}
        if given and self.config.split_sentences:
            raise UserError(
                "`decoding.split_sentences` leaves no one translation that begins with a prefix, or has terms: give "
                "sentences, or neither"
            )
        if self._protection is not None:
            return self._protected(self._protection, texts, numbers, prefixes, terms)
        encoded = tf.constant([to_bytes(text) for text in texts], tf.string)
        numbers = range(len(texts)) if numbers is None else numbers
        tags = tf.constant(np.tile(np.array(self._tags, np.int32), [len(texts), 1]))
        inputs = [encoded, tf.constant(list(numbers), tf.int32), tags]
        inputs += [tf.constant([to_bytes(text) for text in each or ()], tf.string) for each in given.values()]
        counts = [len(each) for each in terms or [()] * len(texts)]
        names = tuple(given)
        try:
            return list(self._unpack(self._functions[names](*inputs), names, counts))
        except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):  # a resource was destroyed
            for tokenizer in (self.source_tokenizer, self.target_tokenizer):
                tokenizer.renew()
            self._functions = self._compiled()
            return list(self._unpack(self._functions[names](*inputs), names, counts))

    def _protected(
        self,
        protection: Protection,
        texts: Sequence[str],
        numbers: Sequence[int] | None,
        prefixes: Sequence[str] | None,
        terms: Sequence[TermsOfText] | None,
    ) -> list[Translation]:
        """Translates as `translate_batch` does, without what is protected; translations have it again."""
        inside = copy.copy(self)
        inside._protection = None
        protected = [protection.take_out(text) for text in texts]
        begun = prefixes and [text.beginning(prefix) for text, prefix in zip(protected, prefixes)]
        found = inside.translate_batch([each.plain for each in protected], numbers, begun, terms)
        self._functions = inside._functions  # those of tokenizers that were renewed
        rows = zip(found, protected, terms or itertools.repeat(()), prefixes or itertools.repeat(None))
        return [protected_again(*row) for row in rows]

    def stream(
        self,
        texts: Iterable[str],
        *,
        prefixes: Iterable[str] | None = None,
        terms: Iterable[TermsOfText] | None = None,
        first_number: int = 0,
        chunk: int = 2048,
    ) -> Iterator[Translation]:
        """Translates texts as they come, in order and in constant memory. `prefixes`, `terms` and `first_number` as for
        `translate`.

        A batch of texts is read first, then twice as many each time, `chunk` at most, of which those of similar length
        make batches: whoever waits sees the first ones soon.
        """
        given: dict[str, Any] = {"prefixes": prefixes, "terms": terms}
        given = {name: each for name, each in given.items() if each is not None}
        rows = zip(texts, *given.values(), strict=True)
        start, size = first_number, min(self.config.batch_sentences, chunk)
        while buffer := list(itertools.islice(rows, size)):
            sources, *columns = zip(*buffer)
            given_here: dict[str, Any] = dict(zip(given, columns))
            yield from self.translate(sources, first_number=start, **given_here)
            start, size = start + len(buffer), min(2 * size, chunk)

    def _unpack(self, batch: Translations, given: Sequence[str], num_terms: Sequence[int]) -> Iterator[Translation]:
        is_kept, spans = batch.is_prefix_kept.numpy(), [each.numpy() for each in batch.spans]
        text, hypotheses, source_ids, truncated = (
            batch.text.numpy(),
            tf.nest.map_structure(lambda leaf: leaf.numpy(), batch.hypotheses),
            batch.source_ids.numpy(),
            batch.truncated.numpy(),
        )
        source_lengths = padding_mask(batch.source_ids).numpy().sum(1)
        for row, length in enumerate(source_lengths):
            found = max(int((hypotheses.lengths[row] > 0).sum()), 1)
            ids = source_ids[row, :length].tolist()
            numbers = list(range(found))
            if self.config.beam_groups > 1:  # several groups may find one translation
                first = {hypotheses.ids[row, number].tobytes(): number for number in reversed(numbers)}
                numbers = sorted(first.values())
            yield Translation(
                [
                    self._hypothesis(text[row], hypotheses, row, number, length, num_terms[row], spans[2:])
                    for number in numbers
                ],
                bool(truncated[row]),
                [self.source_tokenizer.piece(each) for each in ids],
                ids,
                {
                    **({"is_prefix_kept": bool(is_kept[row])} if "prefix" in given else {}),
                    **dict(zip(_SOURCE_SPANS, (each[row, :length].tolist() for each in spans[:2]))),
                },
            )

    def _hypothesis(
        self,
        text: np.ndarray,
        hypotheses: Hypotheses,
        row: int,
        number: int,
        source_length: int,
        num_terms: int,
        spans: Sequence[np.ndarray],
    ) -> Hypothesis:
        length = hypotheses.lengths[row, number]
        ids = hypotheses.ids[row, number, :length].tolist()
        weights = hypotheses.attention_weights[row, number, :length, :source_length]
        read = weights[:-1]
        outputs: dict[str, Any] = dict(zip(_SPANS, (each[row, number, :length].tolist() for each in spans)))
        if num_terms:
            is_placed = hypotheses.is_placed
            placed = is_placed[row, number].tolist() if isinstance(is_placed, np.ndarray) else [False] * num_terms
            outputs["is_term_placed"] = placed[:num_terms]
        return Hypothesis(
            text[number].decode("utf-8", errors="replace"),
            float(hypotheses.log_prob[row, number]),
            float(hypotheses.score[row, number]),
            [self.target_tokenizer.piece(each) for each in ids],
            hypotheses.token_log_probs[row, number, :length].tolist(),
            np.where(read.any(-1), read.argmax(-1), -1).tolist() if len(ids) > 1 else [],
            ids,
            weights,
            outputs,
        )
