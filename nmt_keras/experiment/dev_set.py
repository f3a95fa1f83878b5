"""Measures a model on the dev set while it trains."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from sacrebleu.metrics import BLEU

from nmt_keras.config import ExperimentConfig
from nmt_keras.constants import BOS_ID
from nmt_keras.data.batching import evaluation_batches
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.experiment.text import with_placeholders
from nmt_keras.inference.evaluation import bleu_metric
from nmt_keras.inference.protection import protection_of
from nmt_keras.inference.translation import Translation
from nmt_keras.inference.translator import Translator
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.reports import Report, counted, silent
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.target_tags import tag_ids
from nmt_keras.tokenizers.white_space import is_blank
from nmt_keras.training.dev_loss import compile_dev_loss, perplexity
from nmt_keras.training.summaries import Summaries, attention_picture, heads_picture
from nmt_keras.training.trainer import Evaluation

_NUM_SAMPLES = 5


def draw_attention(translation: Translation) -> tuple[bytes, str]:
    """The attention of a translation as a PNG, and a note on its labels: see `attention_picture`."""
    best = translation.best
    assert best.attention_weights is not None, "it is of a model in this process"
    source, target = translation.source_pieces, best.pieces
    return attention_picture(best.attention_weights, source, target, translation.source_ids, best.ids)


class _DevSet(NamedTuple):
    """A dev set, or its beginning."""

    name: str  # of its scalars, "" of the only one: the target language, numbered where several sets have it
    sources: list[str]
    references: list[list[str]]
    bleu: BLEU
    translator: Translator


class DevEvaluator:
    """Dev loss, dev BLEU by the real decoder, sample translations and an attention picture.

    Of several dev sets the loss is that of all, and the BLEU the mean of theirs. Call it with a step; it returns an
    `Evaluation`.
    """

    def __init__(
        self,
        model: Seq2Seq,
        tokenizers: Tokenizers,
        config: ExperimentConfig,
        dev: ParallelCorpus,
        summaries: Summaries,
        report: Report,
        is_font_noted: bool = False,
    ):
        data, training = config.data, config.training
        self._summaries = summaries
        self._report = report
        self._model = model
        self._loss = compile_dev_loss(model)
        tags = tag_ids(data, tokenizers.source, data.languages_of_dev)
        self._batches = list(
            evaluation_batches(
                with_placeholders(data, dev, silent),
                *tokenizers,
                max_source_length=data.max_source_length,
                max_target_length=data.max_target_length,
                tags=tags,
            )
        )
        # the lexicon of a shortlist is learned when the run has ended
        decoding = dataclasses.replace(config.decoding, beam_size=training.dev_beam_size, shortlist=0)
        translator = Translator(model, *tokenizers, decoding, protection=protection_of(config))
        self._sets: list[_DevSet] = []
        self._samples: list[str] = []  # of the evaluation before
        for number, (name, language) in enumerate(zip(_names(data.languages_of_dev), data.languages_of_dev)):
            part = dev.part(number)
            count = min(training.dev_sentences or len(part), len(part))
            self._sets.append(
                _DevSet(
                    name,
                    part.sources[0].lines(range(count)),
                    part.reference_streams(count),
                    bleu_metric(language, data.bleu_tokenizer),
                    translator.with_tags(tags[number : number + 1]),
                )
            )
        self._font_noted = is_font_noted

    def __call__(self, step: int) -> Evaluation:
        loss = self._loss(self._batches)
        found = [each.translator.translate(each.sources) for each in self._sets]
        hypotheses = [[translation.text for translation in translations] for translations in found]
        bleus = [each.bleu.corpus_score(texts, each.references) for each, texts in zip(self._sets, hypotheses)]
        self._log(step, found)
        scalars = {
            "dev_loss": loss,
            "dev_perplexity": perplexity(loss),
            "dev_bleu": sum(bleu.score for bleu in bleus) / len(bleus),
        }
        if len(self._sets) > 1:
            scalars |= {f"dev_bleu_{each.name}": bleu.score for each, bleu in zip(self._sets, bleus)}
        self._note_odd_lines(scalars, found)
        lines = [
            f"{'  ' + each.name if each.name else ''}  BLEU {bleu.score:.2f} ({each.bleu.get_signature()})"
            for each, bleu in zip(self._sets, bleus)
        ]
        if len(bleus) > 1:
            lines = [f"  BLEU {scalars['dev_bleu']:.2f}, the mean of", *("\n" + line for line in lines)]
        samples = [
            f"\n  {each.sources[0]}\n  {f'{each.name}: ' if each.name else ''}{texts[0]}"
            for each, texts in zip(self._sets, hypotheses)
        ]
        return Evaluation(
            scalars, f"dev loss {loss:.3f}  perplexity {perplexity(loss):.2f}{''.join(lines)}{''.join(samples)}"
        )

    def _log(self, step: int, found: Sequence[Sequence[Translation]]) -> None:
        """Sample translations and an attention picture for TensorBoard."""
        rows = [
            (source, reference, translation.text)
            for each, translations in zip(self._sets, found)
            for source, reference, translation in zip(each.sources[:_NUM_SAMPLES], each.references[0], translations)
        ]
        sources, references, hypotheses = zip(*rows)
        self._summaries.translations(step, sources, references, hypotheses, self._samples)
        self._samples = list(hypotheses)
        shown = next((t for t in found[0] if t.best.ids), found[0][0])
        picture, note = draw_attention(shown)
        self._summaries.attention(step, picture)
        target = tf.constant([[BOS_ID, *list(shown.best.ids)[:-1]]])
        by_head = self._model.attention_by_head(tf.constant([list(shown.source_ids)]), target) if shown.best.ids else []
        if by_head:
            self._summaries.attention(step, heads_picture([own[0].numpy() for own in by_head]), "attention_by_head")
        if note and not self._font_noted:
            self._report(f"attention pictures: {note}")
            self._font_noted = True

    def _note_odd_lines(self, scalars: dict[str, float], found: Sequence[Sequence[Translation]]) -> None:
        """Reports lines that were translated in part, which `scalars` counts, or to nothing."""
        truncated = sum(translation.truncated for translations in found for translation in translations)
        if truncated:
            scalars["dev_truncated"] = float(truncated)
            self._report(
                f"dev BLEU: longer than the model's limit, and translated in part: {counted(truncated, 'line')}"
            )
        lost = sum(
            not translation.text.strip() and not is_blank(source)
            for each, translations in zip(self._sets, found)
            for source, translation in zip(each.sources, translations)
        )
        if lost:
            self._report(f"dev BLEU: text, but an empty translation: {counted(lost, 'line')}")


def _names(languages: Sequence[str]) -> list[str]:
    """What dev sets are called: nothing where there is one."""
    if len(languages) == 1:
        return [""]
    return [
        language if languages.count(language) == 1 else f"{language}_{1 + languages[:number].count(language)}"
        for number, language in enumerate(languages)
    ]
