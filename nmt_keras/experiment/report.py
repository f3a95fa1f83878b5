"""A report on a run: how it was trained and what it translates, as one page for a browser."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from sacrebleu.metrics import CHRF

from nmt_keras import files
from nmt_keras.config import DataConfig
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.errors import UserError
from nmt_keras.experiment.curves import rows_of
from nmt_keras.experiment.report_page import page_of
from nmt_keras.experiment.text import dev_references, open_dev, open_references, open_train
from nmt_keras.inference.comparison import Metrics, System, by_frequency, by_length
from nmt_keras.inference.evaluation import bleu_metric, score_text, ter_metric
from nmt_keras.inference.translation import Translation
from nmt_keras.reports import Report, silent
from nmt_keras.runs.layout import checkpoints_of
from nmt_keras.runs.loading import Run, config_of, load

_SAMPLES = 6  # translations of either kind that are shown
_ATTENTION = 3  # pictures
_LONGEST = 28  # pieces of either side of such a picture
_COUNTED = 200_000  # lines of the training text whose words are counted


def write_report(
    run_dir: pathlib.Path,
    output: pathlib.Path | None = None,
    *,
    checkpoint: str = "best",
    source: str = "",
    references: Sequence[str] = (),
    sentences: int = 1000,
    data_dir: str | None = None,
    target_language: str = "",
    decoding: Mapping[str, Any] = MappingProxyType({}),
    report: Report = silent,
) -> dict[str, Any]:
    """Writes a page on a run: curves, scores by length, samples, attention, corpus, settings, machine, commands.

    Args:
        run_dir: of a training job; one that goes on training will do.
        output: the page; None is `report.html` in the run directory.
        checkpoint: `best`, `latest`, `averaged`, `ema` or a step: what translates.
        source: a text to translate; "" is the dev set of the run.
        references: its reference translations.
        sentences: of that text, at most; 0 translates none, and the page has what training wrote.
        data_dir: prefix of the texts; None is the run's own.
        target_language: of a model of several; "" is the recipe's.
        decoding: options of the search instead of the recipe's.
        report: takes a line for the user.

    Returns:
        `report`, where the page is, and what was measured for it.

    Raises:
        UserError: there is no such run, or it is not trained yet; or the text that was asked for cannot be read. Where
            the run's own dev set cannot be read, the page says so.
    """
    output = output or run_dir / "report.html"
    files.require_writable(output)
    overrides: dict[str, Any] = {f"decoding.{name}": value for name, value in decoding.items()}
    if data_dir is not None:
        overrides["data.data_dir"] = data_dir
    if target_language:
        overrides["data.target_language"] = target_language
    config = config_of(run_dir, overrides)
    result: dict[str, Any] = {
        "run_dir": str(run_dir),
        "config": config,
        "rows": rows_of(run_dir),
        "cards": {name: _card(run_dir / f"{name}.json") for name in ("run_card", "data_card")},
        "best": _card(checkpoints_of(run_dir) / "best.json"),
        "scores": {},
    }
    if sentences:
        try:
            name, corpus = _text(config.data, run_dir, source, references, report)
        except UserError as error:
            if source:
                raise
            result["no_scores"] = f"The dev set was not translated: {error}"
            report(f"warning: {result['no_scores']}; give --source and --reference")
        else:
            trained = load(run_dir, overrides, checkpoint, report=report)
            result |= {"text": name, "step": trained.step, "checkpoint": checkpoint}
            result |= _measured(trained, corpus, min(sentences, len(corpus)), report)
    files.write_text(output, page_of(result))
    told = {"no_scores": result["no_scores"]} if "no_scores" in result else {}
    return {"report": str(output), **result["scores"], **told}


def _card(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object of a run; an empty one where it is not there, as while training goes on."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _text(
    data: DataConfig, run_dir: pathlib.Path, source: str, references: Sequence[str], report: Report
) -> tuple[str, ParallelCorpus]:
    """The text that is translated, with a name for people."""
    if source:
        return source, open_references(data, source, references or [""], report)
    number = data.languages_of_dev.index(data.target_language) if len(data.languages_of_dev) > 1 else 0
    if data.dev_pairs:
        return "dev set, taken out of the training text", open_dev(data, silent, run_dir).part(number)
    name = data.dev_source[number]
    return f"dev set, {name}", open_references(data, name, dev_references(data)[number], silent)


def _measured(trained: Run, corpus: ParallelCorpus, count: int, report: Report) -> dict[str, Any]:
    """Scores, tables and samples of the first `count` sentences."""
    data = trained.config.data
    sources, streams = corpus.sources[0].lines(range(count)), corpus.reference_streams(count)
    report(f"translating {count:,} sentences")
    found = trained.translator().translate(sources)
    texts = [translation.text for translation in found]
    metrics = Metrics(bleu_metric(data.target_language, data.bleu_tokenizer), CHRF(), ter_metric(data.target_language))
    cut = bleu_metric(data.source_language).tokenizer
    systems = [System("", texts)]
    counted, is_of_training = _counted(data, streams[0])
    chrf = [CHRF().sentence_score(text, list(refs)).score for text, refs in zip(texts, zip(*streams))]
    worst = [place for place in sorted(range(count), key=lambda place: (chrf[place], place)) if chrf[place] < 100.0]
    spread = [int(place) for place in np.unique(np.linspace(0, count - 1, _SAMPLES).round())]
    scores = score_text(texts, streams, data.target_language, data.bleu_tokenizer)
    scores |= {"sentences": count, "truncated": sum(translation.truncated for translation in found)}

    def sample(place: int) -> dict[str, Any]:
        return {
            "line": place + 1,
            "source": sources[place],
            "references": [stream[place] for stream in streams],
            "chrf": chrf[place],
            "translation": texts[place],
            "pieces": _confidence(found[place]),
        }

    return {
        "scores": scores,
        "weights": trained.model.count_params(),
        "by_source_length": by_length(systems, [len(cut(text).split()) for text in sources], streams, metrics),
        "by_word_frequency": by_frequency(systems, streams[0], counted, metrics),
        "is_of_training": is_of_training,
        "samples": [sample(place) for place in spread],
        "worst": [sample(place) for place in worst[:_SAMPLES]],
        "attention": _attention(found),
    }


def _counted(data: DataConfig, references: Sequence[str]) -> tuple[Sequence[str], bool]:
    """Text whose words are counted: the training text's, or where that cannot be read the references."""
    try:
        targets = open_train(data, silent).targets
    except UserError:
        return references, False
    share = max(_COUNTED // len(targets), 1)
    return [line for text in targets for line in text.lines(range(min(len(text), share)))], True


def _confidence(translation: Translation) -> list[tuple[str, float]]:
    """The pieces of a translation but `</s>`, with the probability of each."""
    best = translation.best
    return [(piece, math.exp(value)) for piece, value in zip(best.pieces[:-1], best.token_log_probs)]


def _attention(found: Sequence[Translation]) -> list[dict[str, Any]]:
    """Attention of sentences that are long enough to say something and short enough to be seen; none of a model that
    has no attention."""
    fit = [
        each
        for each in found
        if 3 < len(each.best.pieces) <= _LONGEST
        and 3 < len(each.source_pieces) <= _LONGEST
        and each.best.attention_weights is not None
        and np.any(each.best.attention_weights)
    ]
    chosen = [fit[len(fit) * number // _ATTENTION] for number in range(min(_ATTENTION, len(fit)))]
    return [
        {"source": each.source_pieces, "target": each.best.pieces, "weights": np.asarray(each.best.attention_weights)}
        for each in chosen
    ]
