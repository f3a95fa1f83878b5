"""Compares systems on a test set: trained models, and files of translations."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sacrebleu.metrics import CHRF

from nmt_keras import files
from nmt_keras.config import DataConfig
from nmt_keras.data.corpus import TextFile
from nmt_keras.errors import UserError
from nmt_keras.experiment.comparison_page import p_values, page_of, span_of
from nmt_keras.experiment.text import open_references
from nmt_keras.inference.comparison import (
    Metrics,
    System,
    by_frequency,
    by_length,
    most_different,
    scores,
    significance,
)
from nmt_keras.inference.evaluation import bleu_metric, ter_metric
from nmt_keras.pipes import default_cache_dir
from nmt_keras.reports import Report, counted, silent
from nmt_keras.runs.layout import read_config
from nmt_keras.runs.loading import Run, load

_FEW_DIFFERENT = 10  # lines
_DIFFERENT = 20  # sentences that are shown


def compare(
    names: Sequence[str],
    source: str,
    references: Sequence[str],
    *,
    decoding: Mapping[str, Any] = MappingProxyType({}),
    source_language: str = "",
    target_language: str = "",
    bleu_tokenizer: str = "",
    frequencies: str = "",
    data_dir: str = "",
    samples: int = 1000,
    trials: int = 10_000,
    output: str | None = None,
    page: str | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Compares systems with the first of them.

    Args:
        names: of systems, at least two: a run directory, several with commas, which are an ensemble, `@` and a
            checkpoint behind (`runs/a@ema`; without it the best one); or a file of translations, line by line.
        source: the text.
        references: its reference translations.
        decoding: options of the search instead of the recipe's.
        source_language: its tag, which decides what a word of the source is; "" is that of the first run, or any with
            words between spaces.
        target_language: its tag; "" is that of the first run. Runs of several target languages translate into it.
        bleu_tokenizer: sacreBLEU's name; "" is the language's.
        frequencies: a text in the target language whose words are counted; "" is the reference.
        data_dir: prefix of source, references and `frequencies`.
        samples: of the paired bootstrap.
        trials: of approximate randomisation.
        output: a file that the result is written to as JSON.
        page: a file that it is written to as a page for a browser.
        report: takes lines for the user.

    Returns:
        Scores, tests and tables, and the sentences that differ most; see `nmt_keras.inference.comparison`.

    Raises:
        UserError: there are fewer than two systems, one cannot be used, or the numbers of lines differ.
    """
    if len(names) < 2:
        raise UserError(
            "At least two systems must be given, run directories or files of translations, the one that the others are "
            f"compared with first. Received: {', '.join(names) or 'none'}; give another behind it, as in runs/a runs/b"
        )
    reads = [os.path.join(data_dir, name) for name in (source, *references, frequencies) if name]
    for path in filter(None, (output, page)):
        files.require_writable(path, [*reads, *names])
    data = _data(names, source_language, target_language, bleu_tokenizer, data_dir)
    corpus = open_references(data, source, references, report)
    sources, streams = corpus.text()[0], corpus.reference_streams()
    metrics = Metrics(bleu_metric(data.target_language, data.bleu_tokenizer), CHRF(), ter_metric(data.target_language))
    _require_language(names, data.target_language)
    given = {name: _read(name, len(sources)) for name in names if not _is_run(name)}  # faults are found before work
    runs = [name for name in names if name not in given]
    for name in runs[1:]:  # and opened again in its turn, since opening one sets the process to its precision
        _load(name, data.target_language, decoding, silent)
    for name in runs:
        given[name] = _translated(_load(name, data.target_language, decoding, report), name, sources, report)
    systems = [System(name, given[name]) for name in names]
    for system in systems[1:]:
        others = sum(one != other for one, other in zip(systems[0].translations, system.translations))
        if 0 < others < _FEW_DIFFERENT:
            report(
                f"warning: {system.name} differs from {systems[0].name} in {counted(others, 'line')}: p-values of so "
                "few say nothing; compare on more text"
            )
    cut = bleu_metric(data.source_language).tokenizer
    words = [len(cut(text).split()) for text in sources]
    target = corpus.targets[0]
    if frequencies:
        target = TextFile(os.path.join(data_dir, frequencies), default_cache_dir())
    result: dict[str, Any] = {
        "source": source,
        "references": list(references),
        "source_language": data.source_language,
        "target_language": data.target_language,
        "sentences": len(sources),
        "systems": scores(systems, streams, metrics),
        "tests": significance(systems, streams, metrics, samples, trials),
        "bootstrap_samples": samples,
        "randomisation_trials": trials,
        "by_source_length": by_length(systems, words, streams, metrics),
        "by_word_frequency": by_frequency(systems, streams[0], target.lines(range(len(target))), metrics),
        "most_different": most_different(systems, streams, metrics, _DIFFERENT),
    }
    for row in result["most_different"]:
        place = row["line"]
        row |= {"line": place + 1, "source": sources[place], "references": [stream[place] for stream in streams]}
        row["translations"] = [system.translations[place] for system in systems]
    for line in table_of(result):
        report(line)
    if output:
        files.write_json(output, result)
    if page:
        files.write_text(page, page_of(result))
    return result


def _data(
    names: Sequence[str], source_language: str, target_language: str, bleu_tokenizer: str, data_dir: str
) -> DataConfig:
    """Languages and the place of the text."""
    runs = [_folders(name)[0] for name in names if _is_run(name)]
    if runs:
        data = read_config(runs[0]).data
        source_language = source_language or data.source_language
        target_language = target_language or data.target_language
        bleu_tokenizer = bleu_tokenizer or data.bleu_tokenizer
    elif not target_language:
        raise UserError(
            "--target_language must be given where all systems are files: it decides how BLEU cuts text into words"
        )
    return DataConfig(
        source_language=source_language,
        target_language=target_language,
        bleu_tokenizer=bleu_tokenizer,
        data_dir=data_dir,
    )


def _is_run(name: str) -> bool:
    return (_folders(name)[0] / "config.json").is_file()


def _folders(name: str) -> list[pathlib.Path]:
    return [pathlib.Path(part) for part in _parts(name)[0].split(",")]


def _parts(name: str) -> tuple[str, str]:
    """Run directories and a checkpoint. A folder may have an @ in its name."""
    folders, _, checkpoint = name.rpartition("@")
    is_whole = not folders or (pathlib.Path(name.split(",", maxsplit=1)[0]) / "config.json").is_file()
    return (name, "best") if is_whole else (folders, checkpoint)


def _require_language(names: Sequence[str], language: str) -> None:
    """Checks that runs translate into a language; it may be written otherwise where a run has no other."""
    configs = {name: read_config(_folders(name)[0]).data for name in names if _is_run(name)}
    if not any(data.target_languages for data in configs.values()):
        return
    for name, data in configs.items():
        known = data.target_languages or (data.target_language,)
        if language not in known:
            raise UserError(
                f"{name} does not translate into {language!r}, it translates into {', '.join(known)}: give "
                "--target_language that all systems have, or other systems"
            )


def _load(name: str, target_language: str, decoding: Mapping[str, Any], report: Report) -> Run:
    """A run, or an ensemble, by its name."""
    overrides: dict[str, Any] = {f"decoding.{option}": value for option, value in decoding.items()}
    if read_config(_folders(name)[0]).data.target_languages:
        overrides["data.target_language"] = target_language
    return load(_folders(name), overrides, _parts(name)[1], report=report)


def _translated(run: Run, name: str, sources: list[str], report: Report) -> list[str]:
    """What a trained model makes of the text."""
    report(f"translating {len(sources):,} lines with {name}")
    found = run.translator().translate(sources)
    truncated = sum(translation.truncated for translation in found)
    if truncated:
        report(f"warning: longer than the limit of {name}, and translated in part: {counted(truncated, 'line')}")
    return [translation.text for translation in found]


def _read(name: str, count: int) -> list[str]:
    """The lines of a file of translations."""
    if not pathlib.Path(name).is_file():
        raise UserError(
            f"{name} is no run directory, which has a config.json, and no file: give a run, or a file of translations"
        )
    text = TextFile(name, default_cache_dir())
    if len(text) != count:
        raise UserError(f"{name} has {len(text):,} lines and the source {count:,}: give a translation of each line")
    return text.lines(range(count))


def table_of(result: Mapping[str, Any]) -> list[str]:
    """The scores and tests as lines of text."""
    lines = [f"{'BLEU':>7} {'p (bs, ar)':>15} {'chrF':>7} {'p (bs, ar)':>15} {'TER':>7}  system"]
    for place, row in enumerate(result["systems"]):
        cells = [
            cell
            for name in ("bleu", "chrf")
            for cell in (f"{row[name]:7.2f}", f"{_tested(result['tests'][name][place]):>15}")
        ]
        lines.append(" ".join([*cells, f"{row['ter']:7.2f}", f" {row['name']}"]))
    for title, unit, key, value in (
        ("BLEU by words of the source", "by_source_length", "sentences", lambda row, i: row["systems"][i]["bleu"]),
        ("F1 of words by their frequency", "by_word_frequency", "words", lambda row, i: row["f1"][i]),
    ):
        lines.append(title)
        for row in result[unit]:
            cells = [f"{value(row, place):7.2f}" for place in range(len(result["systems"]))]
            lines.append(f"{span_of(row):>14} {row[key]:8,} {key:9} {' '.join(cells)}")
    return lines


def _tested(test: Mapping[str, Any]) -> str:
    return p_values(test) or f"+/- {test['bootstrap_interval']:.2f}"
