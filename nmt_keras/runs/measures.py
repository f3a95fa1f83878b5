"""What a training's evaluations measure, so that a best value is compared only with values measured the same way."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from nmt_keras.config import ExperimentConfig
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.data.languages import language_of
from nmt_keras.runs.data_card import texts_of
from nmt_keras.runs.layout import read_config

# Options of the search that dev BLEU is not measured with, or that change no translation.
_NOT_OF_DEV_SEARCH = (
    "beam_size",
    "shortlist",
    "max_beam_size",
    "max_request_sentences",
    "batch_sentences",
    "split_sentences",
)
_OF_BEAMS = ("length_penalty", "length_penalty_kind", "recombine", "beam_groups", "diversity_penalty")


def measure_of(config: ExperimentConfig, dev: ParallelCorpus) -> dict[str, Any]:
    """What evaluations measure, as JSON values by name: dev text, how much of it, by which search and metric."""
    data, training = config.data, config.training
    tokenizers = [data.bleu_tokenizer or language_of(language).bleu_tokenizer for language in data.languages_of_dev]
    about = _measure(config, [text.sha256 for text in texts_of(dev)], len(dev), ", ".join(tokenizers))
    if len(dev.sources) > 1:
        most = training.dev_sentences or len(dev)
        about["training.dev_sentences"] = [min(most, len(text)) for text in dev.sources]
    if data.target_languages:
        about["data.dev_languages"] = list(data.languages_of_dev)
    return about


def _measure(config: ExperimentConfig, hashes: Sequence[str], lines: int, tokenizer: str) -> dict[str, Any]:
    training, decoding = config.training, dataclasses.asdict(config.decoding)
    ignored = _NOT_OF_DEV_SEARCH + (_OF_BEAMS if training.dev_beam_size == 1 else ())
    about = {
        "dev text": list(hashes),
        "training.dev_sentences": min(training.dev_sentences or lines, lines),
        "training.dev_beam_size": training.dev_beam_size,
        "training.best_metric": training.best_metric,
        "bleu_tokenizer": tokenizer,
        **{f"decoding.{name}": value for name, value in decoding.items() if name not in ignored},
    }
    return json.loads(json.dumps(about))


def measure_before(run_dir: pathlib.Path) -> dict[str, Any]:
    """Rebuilds `measure_of` from the configuration and data card of a run, for checkpoints that do not record it; empty
    where these cannot be read."""
    try:
        config = read_config(run_dir)
        language = config.data.target_language.partition("-")[0].partition("_")[0].lower()
        tokenizer = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}.get(language, "13a")  # as it was chosen then
        card = json.loads((run_dir / "data_card.json").read_text(encoding="utf-8"))
        return _measure(config, [text["sha256"] for text in card["dev"]], card["dev"][0]["lines"], tokenizer)
    except (OSError, ValueError, LookupError, TypeError):
        return {}
