"""Translates text and measures the translations against references."""

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sacrebleu.metrics import BLEU
from tqdm import tqdm

from nmt_keras import files
from nmt_keras.config import ExperimentConfig
from nmt_keras.data.batching import evaluation_batches
from nmt_keras.errors import UserError
from nmt_keras.experiment.text import open_references, with_placeholders
from nmt_keras.inference.evaluation import open_bleu, score_text
from nmt_keras.inference.glossary import Glossary, PlacedTerms, require_takes_terms
from nmt_keras.inference.minimum_bayes_risk import MBROptions, require_enough
from nmt_keras.inference.protection import protection_of
from nmt_keras.inference.translation import Translation
from nmt_keras.reports import Report, counted, shows_bars, silent
from nmt_keras.runs.loading import Run, config_of, load
from nmt_keras.tokenizers.white_space import is_blank
from nmt_keras.training.dev_loss import compile_dev_loss, perplexity

_TUNED = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)  # length penalties


def evaluate(
    run_dirs: Sequence[pathlib.Path],
    checkpoint: str,
    source: str,
    references: Sequence[str],
    *,
    decoding: Mapping[str, Any] = MappingProxyType({}),
    data_dir: str = "",
    output: str | None = None,
    translations: str | None = None,
    bleu_tokenizer: str | None = None,
    target_language: str = "",
    glossary: str | None = None,
    tune: bool = False,
    mbr: MBROptions | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Scores a trained model on a parallel test set.

    Args:
        run_dirs: of training jobs; several are an ensemble.
        checkpoint: `best`, `latest`, `averaged`, `ema` or a step.
        source: the text to translate.
        references: its reference translations; the perplexity is that of the first.
        decoding: options of the search instead of the recipe's.
        data_dir: prefix of both texts, and where `tfds:` data sets are kept.
        output: a file that the scores are written to as JSON.
        translations: a file that the translations are written to.
        bleu_tokenizer: sacreBLEU's name, instead of the run's.
        target_language: of a model of several; "" is the recipe's.
        glossary: a file of terms that translations are to contain; how many do is in the scores, and reported.
        tune: whether length penalties are tried too, and reported as a table.
        mbr: choose each translation, out of several, by minimum Bayes risk.
        report: takes a line for the user.

    Raises:
        UserError: the run, the text or the glossary cannot be used.
    """
    reads = [*(os.path.join(data_dir, name) for name in (source, *references)), glossary]
    for path in filter(None, (output, translations)):  # what cannot be written is found before the work
        files.require_writable(path, reads)
    overrides: dict[str, Any] = {f"decoding.{name}": value for name, value in decoding.items()}
    overrides["data.data_dir"] = data_dir
    if bleu_tokenizer is not None:
        overrides["data.bleu_tokenizer"] = bleu_tokenizer
    if target_language:
        overrides["data.target_language"] = target_language
    before = config_of(run_dirs[0], overrides)
    data = before.data
    terms = _terms_of(glossary, before, mbr, report) if glossary else None
    if mbr:
        require_enough(mbr, before.decoding.beam_size)
    bleu = open_bleu(data, report)
    corpus = open_references(data, source, references, report)
    streams = corpus.reference_streams()
    trained = load(run_dirs, overrides, checkpoint, report=report)
    config = trained.config
    translator = trained.mbr_translator(mbr) if mbr else trained.translator()
    sources = corpus.text()[0]
    given: dict[str, Any] = {}
    if terms and terms.is_annotated:
        sources = list(terms.annotated(sources))
    elif terms:
        protection = protection_of(config)  # of which nothing is a term
        plain = sources if protection is None else [protection.for_model(()).take_out(text).plain for text in sources]
        given["terms"] = list(terms.found(plain))
    with contextlib.ExitStack() as stack:
        scores_file, translations_file = (
            stack.enter_context(files.atomic_write(p)) if p else None for p in (output, translations)
        )
        start = time.monotonic()
        with tqdm(total=len(sources), unit="sentence", disable=not shows_bars()) as progress:
            results = translator.translate(sources, progress.update, **given)
        seconds = time.monotonic() - start
        hypotheses = [result.text for result in results]
        if translations_file:
            files.write_text(translations_file, "".join(text + "\n" for text in hypotheses))
        loss = compile_dev_loss(trained.model)(
            evaluation_batches(
                with_placeholders(data, corpus, silent),
                *trained.tokenizers,
                max_source_length=data.max_source_length,
                max_target_length=data.max_target_length,
                tags=trained.tags,
                report=report,
            )
        )
        scores: dict[str, Any] = {
            **score_text(hypotheses, streams, data.target_language, data.bleu_tokenizer),
            **(_placed(terms, results, report) if terms else {}),
            "perplexity": perplexity(loss),
            "sentences_per_s": len(sources) / seconds,
            "sentences": len(sources),
            **_odd_lines(sources, results, report),
            "run_dirs": list(map(str, run_dirs)),
            "checkpoint": checkpoint,
            "step": trained.step,
            "beam_size": config.decoding.beam_size,
            "length_penalty": config.decoding.length_penalty,
            "target_language": data.target_language,
            "decoding": dataclasses.asdict(config.decoding),
        }
        if mbr:
            scores["mbr"] = mbr.as_json()
        elif not given:  # terms that are placed, which greedy search has no room for
            scores |= _compared_with_greedy(trained, sources, streams, hypotheses, bleu, report)
        if tune:
            scores["tuned"] = _tuned(trained, sources, streams, bleu, report, given)
        if scores_file:
            files.write_text(scores_file, json.dumps(scores, ensure_ascii=False) + "\n")
        report(
            f"scores: BLEU {scores['bleu']:.2f}, chrF {scores['chrf']:.2f}, TER {scores['ter']:.2f}, perplexity "
            f"{scores['perplexity']:.3f}; {counted(len(sources), 'sentence')}, {scores['sentences_per_s']:.1f} a second"
        )
    return scores


def _terms_of(glossary: str, config: ExperimentConfig, mbr: MBROptions | None, report: Report) -> PlacedTerms:
    """What finds the terms of lines.

    Raises:
        UserError: the glossary cannot be read, or the search places no terms.
    """
    if mbr or config.decoding.split_sentences:
        raise UserError(
            f"--glossary goes with beam search of sentences: leave out {'--mbr' if mbr else 'decoding.split_sentences'}"
        )
    reads_terms = config.data.annotated_terms and not config.decoding.protect  # as `pipelines.translate` has it
    terms = PlacedTerms(Glossary.read(glossary), report, reads_terms)
    if not terms.is_annotated:
        require_takes_terms(config.decoding)
    return terms


def _placed(terms: PlacedTerms, results: Sequence[Translation], report: Report) -> dict[str, int]:
    """How many terms the lines have, and how many of them the translations; both are reported."""
    for number, result in enumerate(results, 1):
        terms.placed(number, result)
    report(terms.summary())
    return {"terms": terms.num_found, "terms_placed": terms.num_placed}


def _odd_lines(sources: Sequence[str], results: Sequence[Translation], report: Report) -> dict[str, int]:
    """How many lines were translated in part, and how many to nothing although there is text; both are reported."""
    truncated = [number for number, result in enumerate(results, 1) if result.truncated]
    lost = [
        number
        for number, (text, result) in enumerate(zip(sources, results), 1)
        if not result.text.strip() and not is_blank(text)
    ]
    slow = [number for number, result in enumerate(results, 1) if not result.outputs.get("is_protected", True)]
    for lines, what in (
        (slow, "expressions of decoding.protect took over 1 s, so that only what named patterns find is protected"),
        (truncated, "longer than the model's limit, and translated and scored in part"),
        (lost, "text, but an empty translation"),
    ):
        if lines:
            shown = ", ".join(map(str, lines[:10])) + (", ..." if len(lines) > 10 else "")
            report(f"warning: {what}: {counted(len(lines), 'line')} ({shown})")
    return {"truncated": len(truncated), "empty": len(lost)}


def _compared_with_greedy(
    trained: Run,
    sources: Sequence[str],
    streams: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    bleu: BLEU,
    report: Report,
) -> dict[str, float]:
    """BLEU of greedy search where a beam was searched; a beam that is worse is reported."""
    if trained.config.decoding.beam_size == 1:
        return {}
    greedy = _bleu_of(trained, sources, streams, bleu, {}, beam_size=1)
    beam = bleu.corpus_score(hypotheses, streams).score
    if greedy > beam:
        report(
            f"warning: greedy search has BLEU {greedy:.2f}, more than {beam:.2f} of "
            f"{trained.config.decoding.beam_size} beams with length penalty "
            f"{trained.config.decoding.length_penalty:g}: try --beam_size=1, or --tune_search on a dev set"
        )
    return {"greedy_bleu": round(greedy, 10)}


def _tuned(
    trained: Run,
    sources: Sequence[str],
    streams: Sequence[Sequence[str]],
    bleu: BLEU,
    report: Report,
    given: Mapping[str, Any],
) -> list[dict[str, float]]:
    beam_size = trained.config.decoding.beam_size
    rows: list[dict[str, float]] = []
    if not given:  # terms that are placed, which greedy search has no room for
        greedy = _bleu_of(trained, sources, streams, bleu, given, beam_size=1)
        rows.append({"length_penalty": 0.0, "beam_size": 1, "bleu": greedy})
    for penalty in _TUNED if beam_size > 1 else ():
        score = _bleu_of(trained, sources, streams, bleu, given, length_penalty=penalty)
        rows.append({"length_penalty": penalty, "beam_size": beam_size, "bleu": score})
    now = trained.config.decoding.length_penalty
    best = max(rows, key=lambda row: (row["bleu"], row["beam_size"], row["length_penalty"] == now))
    for row in rows:
        search = f"length penalty {row['length_penalty']:.1f}" if row["beam_size"] > 1 else "greedy"
        report(f"{search:20} BLEU {row['bleu']:.2f}{'  (best)' if row is best else ''}")
    return rows


def _bleu_of(
    trained: Run,
    sources: Sequence[str],
    streams: Sequence[Sequence[str]],
    bleu: BLEU,
    given: Mapping[str, Any],
    **options: Any,
) -> float:
    decoding = dataclasses.replace(trained.config.decoding, **options)
    run = trained._replace(config=dataclasses.replace(trained.config, decoding=decoding))
    hypotheses = [result.text for result in run.translator().translate(sources, **given)]
    return bleu.corpus_score(hypotheses, streams).score
