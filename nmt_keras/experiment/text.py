"""Opens the text that a recipe names."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from nmt_keras import files
from nmt_keras.config import DataConfig
from nmt_keras.data import placeholders
from nmt_keras.data.alignments import links_of
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.sources import open_pair
from nmt_keras.data.split import Split, split
from nmt_keras.doctor.encoding import encoding_findings
from nmt_keras.errors import UserError
from nmt_keras.inference.protection import placeholders_of
from nmt_keras.pipes import default_cache_dir
from nmt_keras.reports import Report, silent


def open_corpus(
    data: DataConfig,
    sources: Sequence[str],
    targets: Sequence[str],
    report: Report,
    weights: Sequence[str] = (),
    alignments: Sequence[str] = (),
    languages: Sequence[str] = (),
) -> ParallelCorpus:
    """Opens aligned text, and reports its oddities.

    Args:
        data: says where the files are, and in which languages.
        sources: names of files.
        targets: of their translations.
        report: takes a line for the user.
        weights: files of the weights of their lines; "" is none.
        alignments: files of the alignments of their words; "" is none.
        languages: of `targets`; none where all have the recipe's.

    Raises:
        UserError: a file cannot be read, or two files are not aligned.
    """
    languages = languages or [data.target_language] * len(targets)
    pairs = [
        open_texts(dataclasses.replace(data, target_language=language), *names)
        for *names, language in zip(sources, targets, languages, strict=True)
    ]
    sides = ([source for source, _ in pairs], [target for _, target in pairs])
    for remark in dict.fromkeys(r for text in sides[0] + sides[1] if text.origin for r in text.origin.remarks):
        report(remark)
    for texts, codes in zip(sides, ([data.source_language] * len(sources), languages)):
        for text, language in {text.path: (text, language) for text, language in zip(texts, codes)}.values():
            for finding in text.findings:
                report(f"{text.path}: {finding}")
            advice = [found.text for found in encoding_findings(text, language) if "looks like" in found.text]
            if advice and "like UTF-" in advice[0]:
                raise UserError(advice[0])
            for line in advice:
                report(f"warning: {line}")
    return ParallelCorpus(*sides, *(_open_beside(data, names) for names in (weights, alignments)))


def open_beside(data: DataConfig) -> list[list[TextFile]]:
    """The files of weights and alignments of each corpus.

    Raises:
        UserError: a file cannot be read.
    """
    found: list[list[TextFile]] = [[] for _ in data.train_source]
    for names in (data.train_example_weights, data.train_alignments):
        for own, text in zip(found, _open_beside(data, names)):
            own += [] if text is None else [text]
    return found


def _open_beside(data: DataConfig, names: Sequence[str]) -> list[TextFile | None]:
    """Files that stand beside corpora, None where a name is ""."""
    cache_dir = data.cache_dir or default_cache_dir()
    return [TextFile(os.path.join(data.data_dir, name), cache_dir) if name else None for name in names]


def open_train(data: DataConfig, report: Report) -> ParallelCorpus:
    """Opens the training text.

    Raises:
        UserError: as `open_corpus`; or alignments do not fit.
    """
    corpus = _open_whole(data, report)
    if data.dev_pairs:
        pairs, beside = split_of(data, corpus)[:2]
        corpus = ParallelCorpus(*zip(*pairs), *zip(*beside))
    links_of(corpus)  # a mistake is found before the work
    return corpus


def with_placeholders(data: DataConfig, corpus: ParallelCorpus, report: Report) -> ParallelCorpus:
    """A corpus in which what `data.placeholders` finds on both sides of a pair is placeholders.

    Raises:
        UserError: one of the patterns is none.
    """
    protection = placeholders_of(data)
    if protection is None:
        return corpus
    cache_dir = data.cache_dir or default_cache_dir()
    return placeholders.in_corpus(corpus, protection.expressions, protection.spans_of, cache_dir, report)


def _open_whole(data: DataConfig, report: Report) -> ParallelCorpus:
    """The training text, with what is taken out of it."""
    return open_corpus(
        data,
        data.train_source,
        data.train_target,
        report,
        data.train_example_weights,
        data.train_alignments,
        data.languages_of_train,
    )


def split_of(data: DataConfig, whole: ParallelCorpus | None = None) -> Split:
    """The parts of the training text where `data.dev_pairs` takes a dev set out of it.

    Raises:
        UserError: the text cannot be read, or has too few sentences.
    """
    whole = whole or _open_whole(data, silent)
    return split(
        list(zip(whole.sources, whole.targets)),
        list(zip(whole.weight_texts, whole.alignments)),
        data.languages_of_train,
        data.source_language,
        data.dev_pairs,
        data.test_pairs,
        data.cache_dir or default_cache_dir(),
    )


def split_paths(data: DataConfig, run_dir: pathlib.Path, name: str, language: str) -> list[pathlib.Path]:
    """Where `write_split` writes both sides of a set, `dev` or `test`, of a target language."""
    stem = f"{name}-{language}" if len(data.languages_of_dev) > 1 else name
    return [run_dir / "split" / f"{stem}.{code}" for code in (data.source_language, language)]


def write_split(data: DataConfig, run_dir: pathlib.Path, report: Report) -> None:
    """Writes the dev and test sets that were taken out of the training text to `split/` of a run."""
    parts = split_of(data)
    for name, sets in (("dev", parts.dev), ("test", parts.test)):
        for language, texts in zip(data.languages_of_dev, sets):
            paths = split_paths(data, run_dir, name, language)
            for path, text in zip(paths, texts):
                with files.atomic_write(path) as temporary, open(temporary, "wb") as file:
                    file.writelines(text.raw_lines(range(len(text))))
            report(
                f"{name}: {len(texts[0]):,} pairs are taken out of the training text: --source={paths[0]} "
                f"--reference={paths[1]}"
            )


def open_dev(data: DataConfig, report: Report, run_dir: pathlib.Path | None = None) -> ParallelCorpus:
    """Opens the dev sets, each a corpus; where they were taken out of the training text, as `write_split` wrote them to
    a run, so that the text is not needed any more.

    Raises:
        UserError: as `open_references`.
    """
    places = [split_paths(data, run_dir, "dev", language) for language in data.languages_of_dev] if run_dir else []
    if data.dev_pairs and places and all(path.exists() for paths in places for path in paths):
        there = dataclasses.replace(data, data_dir="")
        pairs = [open_texts(there, *map(str, paths)) for paths in places]
        return ParallelCorpus([source for source, _ in pairs], [target for _, target in pairs])
    if data.dev_pairs:
        sets = split_of(data).dev
        return ParallelCorpus([source for source, _ in sets], [target for _, target in sets])
    parts = [
        open_references(dataclasses.replace(data, target_language=language), source, references, report)
        for source, references, language in zip(
            data.dev_source, dev_references(data), data.languages_of_dev, strict=True
        )
    ]
    dev = ParallelCorpus([part.sources[0] for part in parts], [part.targets[0] for part in parts])
    dev.references = [part.references[0] for part in parts]
    return dev


def dev_references(data: DataConfig) -> list[list[str]]:
    """The files of each of `data.dev_target`: several with commas, unless one has that name."""
    return [
        [names] if os.path.exists(os.path.join(data.data_dir, names)) else names.split(",") for names in data.dev_target
    ]


def open_references(data: DataConfig, source: str, references: Sequence[str], report: Report) -> ParallelCorpus:
    """Opens text to measure on: a source with its first reference, and the others in `references`.

    Raises:
        UserError: a file cannot be read, two are not aligned, or no pair has text on both sides.
    """
    corpus = open_corpus(data, [source], references[:1], report)
    corpus.require_text()
    for reference in references[1:]:
        other = open_corpus(data, [source], [reference], report)
        if other.sources[0].sha256 != corpus.sources[0].sha256:
            raise UserError(
                f"{reference} and {references[0]} translate other sentences of {source}: give references of all of them"
            )
        corpus.references[0] += other.targets
    return corpus


def open_texts(data: DataConfig, source: str, target: str) -> tuple[TextFile, TextFile]:
    """Opens both sides of a corpus, by the names that a recipe has for them.

    Raises:
        UserError: a file cannot be read.
    """
    source, target = (
        name if not name or name.startswith("tfds:") else os.path.join(data.data_dir, name) for name in (source, target)
    )
    languages = data.source_language, data.target_language
    cache_dir = data.cache_dir or default_cache_dir()
    return open_pair(source, target, languages, cache_dir, data.data_dir or None, data.inline_tags == "placeholders")
