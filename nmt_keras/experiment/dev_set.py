"""Measures a model on the dev set while it trains."""

import dataclasses

from nmt_keras.config import ExperimentConfig
from nmt_keras.data.batching import evaluation_batches
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.inference.evaluation import bleu_metric
from nmt_keras.inference.translation import Translation
from nmt_keras.inference.translator import Translator
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.reports import Report
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.white_space import is_blank
from nmt_keras.training.dev_loss import compile_dev_loss, perplexity
from nmt_keras.training.summaries import Summaries, attention_picture
from nmt_keras.training.trainer import Evaluation

_NUM_SAMPLES = 5


def draw_attention(translation: Translation) -> tuple[bytes, str]:
    """The attention of a translation as a PNG, and a note on its labels: see `attention_picture`."""
    best = translation.best
    assert best.attention_weights is not None, "it is of a model in this process"
    source, target = translation.source_pieces, best.pieces
    return attention_picture(best.attention_weights, source, target, translation.source_ids, best.ids)


class DevEvaluator:
    """Dev loss, dev BLEU by the real decoder, sample translations and an attention picture.

    Call it with a step; it returns an `Evaluation`.
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
        self._loss = compile_dev_loss(model)
        self._batches = list(
            evaluation_batches(
                dev, *tokenizers, max_source_length=data.max_source_length, max_target_length=data.max_target_length
            )
        )
        count = min(training.dev_sentences or len(dev), len(dev))
        self._sources, self._references = dev.sources[0].lines(range(count)), dev.reference_streams(count)
        # the lexicon of a shortlist is learned when the run has ended
        decoding = dataclasses.replace(config.decoding, beam_size=training.dev_beam_size, shortlist=0)
        self._translator = Translator(model, *tokenizers, decoding)
        self._bleu = bleu_metric(data.target_language, data.bleu_tokenizer)
        self._font_noted = is_font_noted

    def __call__(self, step: int) -> Evaluation:
        loss = self._loss(self._batches)
        translations = self._translator.translate(self._sources)
        hypotheses = [translation.text for translation in translations]
        bleu = self._bleu.corpus_score(hypotheses, self._references)
        self._summaries.translations(step, self._sources[:_NUM_SAMPLES], self._references[0], hypotheses)
        picture, note = draw_attention(next((t for t in translations if t.best.ids), translations[0]))
        self._summaries.attention(step, picture)
        if note and not self._font_noted:
            self._report(f"attention pictures: {note}")
            self._font_noted = True
        scalars = {"dev_loss": loss, "dev_perplexity": perplexity(loss), "dev_bleu": bleu.score}
        truncated = sum(translation.truncated for translation in translations)
        if truncated:
            scalars["dev_truncated"] = float(truncated)
            self._report(
                f"dev BLEU: {truncated:,} line(s) are longer than the model's limit and were translated in part"
            )
        lost = sum(not text.strip() and not is_blank(source) for source, text in zip(self._sources, hypotheses))
        if lost:
            self._report(f"dev BLEU: {lost:,} line(s) have text, and an empty translation")
        return Evaluation(
            scalars,
            f"dev loss {loss:.3f}  perplexity {perplexity(loss):.2f}  BLEU {bleu.score:.2f} "
            f"({self._bleu.get_signature()})\n  {self._sources[0]}\n  {hypotheses[0]}",
        )
