"""Opens the text that a recipe names."""

import os
from collections.abc import Sequence

from nmt_keras.config import DataConfig
from nmt_keras.data.corpus import ParallelCorpus, TextFile, open_text
from nmt_keras.doctor.encoding import encoding_findings
from nmt_keras.errors import UserError
from nmt_keras.pipes import default_cache_dir
from nmt_keras.reports import Report


def open_corpus(
    data: DataConfig, sources: Sequence[str], targets: Sequence[str], report: Report, weights: Sequence[str] = ()
) -> ParallelCorpus:
    """Opens aligned text, with files of the weights of its lines ("" is none), and reports its oddities.

    Raises:
        UserError: a file cannot be read, or two files are not aligned.
    """

    pairs = [open_texts(data, *names) for names in zip(sources, targets)]
    sides = ([source for source, _ in pairs], [target for _, target in pairs])
    for texts, language in zip(sides, (data.source_language, data.target_language)):
        for text in texts:
            for finding in text.findings:
                report(f"{text.path}: {finding}")
            advice = [found.text for found in encoding_findings(text, language) if "looks like" in found.text]
            if advice and "like UTF-" in advice[0]:
                raise UserError(advice[0])
            for line in advice:
                report(f"warning: {line}")
    return ParallelCorpus(*sides, open_weights(data) if weights else ())


def open_weights(data: DataConfig) -> list[TextFile | None]:
    """The files of `data.train_example_weights`, None where a corpus has none.

    Raises:
        UserError: a file cannot be read.
    """
    cache_dir = data.cache_dir or default_cache_dir()
    return [
        TextFile(os.path.join(data.data_dir, name), cache_dir) if name else None for name in data.train_example_weights
    ]


def dev_references(data: DataConfig) -> list[str]:
    """The files of `data.dev_target`: several with commas, unless one has that name."""
    whole = os.path.join(data.data_dir, data.dev_target)
    return [data.dev_target] if os.path.exists(whole) else data.dev_target.split(",")


def open_references(data: DataConfig, source: str, references: Sequence[str], report: Report) -> ParallelCorpus:
    """Opens text to measure on: a source with its first reference, and the others in `references`.

    Raises:
        UserError: a file cannot be read, two are not aligned, or no pair has text on both sides.
    """
    corpus = open_corpus(data, [source], references[:1], report)
    corpus.require_text()
    for reference in references[1:]:
        corpus.references += open_corpus(data, [source], [reference], report).targets
    return corpus


def open_texts(data: DataConfig, source: str, target: str) -> tuple[TextFile, TextFile]:
    """Opens both sides of a corpus, by the names that a recipe has for them.

    Raises:
        UserError: a file cannot be read.
    """
    cache_dir = data.cache_dir or default_cache_dir()
    first, second = (
        open_text(
            name if name.startswith("tfds:") else os.path.join(data.data_dir, name),
            cache_dir,
            language,
            data.data_dir or None,
        )
        for name, language in ((source, data.source_language), (target, data.target_language))
    )
    return first, second
