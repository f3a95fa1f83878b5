"""Examines parallel text before it is trained on: python -m pipelines.doctor --source=train.en --target=train.de
or --data=pairs.tsv --source_language=en --target_language=de

Prints what it finds, by line: shifted lines, empty or untranslated ones, duplicates, lengths that do not fit, a wrong
script, broken encoding, test sentences in the training text; then the lengths in ids, and what they suggest for the
recipe. The status is 1 where a finding is serious. The last line of stdout is all of it as JSON, with the first lines
of each finding; --output has all. --config examines the text of a recipe. --fix=DIR writes a copy without duplicates,
lines with an empty side, of the wrong script or shifted, and those of dev and test, and DIR/dropped.tsv with what was
dropped.
"""

import dataclasses
import json
import os
import pathlib
import sys
import typing
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from nmt_keras.config import DataConfig
from nmt_keras.errors import UserError
from pipelines import _cli, _process

if typing.TYPE_CHECKING:
    from nmt_keras.data.corpus import TextFile
    from nmt_keras.doctor.findings import Finding

_SOURCES = ("source", "dev_source", "test_source")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    config_flags.DEFINE_config_file(
        "config", None, "A recipe, whose text and languages are examined.", sys_argv=argv, flag_values=values
    )
    flags.DEFINE_string("data_dir", "", "Folder of relative paths.", flag_values=values)
    flags.DEFINE_multi_string(
        "data",
        [],
        "Text to train on: a file of pairs, or two files with a comma; repeated for more.",
        flag_values=values,
    )
    for name, what in zip(_SOURCES, ("train on", "choose checkpoints by", "measure on")):
        flags.DEFINE_string(name, None, f"Text to {what}: its source side.", flag_values=values)
        target = name.replace("source", "target")
        flags.DEFINE_string(target, None, f"The target side of --{name}. Default: the same file.", flag_values=values)
    flags.DEFINE_string(
        "source_language", "", "Its code, such as en; the script is compared with it.", flag_values=values
    )
    flags.DEFINE_string("target_language", "", "The same of the target.", flag_values=values)
    flags.DEFINE_string(
        "run_dir", None, "A run whose tokenizers count the ids; else some are trained on a sample.", flag_values=values
    )
    flags.DEFINE_string("output", None, "A file for the JSON, with all lines of each finding.", flag_values=values)
    flags.DEFINE_string("fix", None, "A folder for a clean copy of the training text.", flag_values=values)


def _job(values: flags.FlagValues) -> int:
    from nmt_keras import files

    data = _data_of(values)
    data.data_dir = values.data_dir or data.data_dir
    names = [*data.train_source, *data.train_target, *data.dev_source, *data.dev_target]
    reads = [os.path.join(data.data_dir, name) for several in names for name in several.split(",")]
    for path in (values.output, values.fix and pathlib.Path(values.fix) / "dropped.tsv"):
        if path:
            files.require_writable(path, reads)
    findings, result = _examine(data, values)
    if values.output:
        files.write_json(values.output, {**result, "findings": [f.card(all_lines=True) for f in findings]})
    print(json.dumps({**result, "findings": [finding.card() for finding in findings]}, ensure_ascii=False))
    return _cli.STATUS_FINDINGS if result["serious"] else 0


def _data_of(values: flags.FlagValues) -> DataConfig:
    given = [f"--{name}" for name in ("config", "source", "data") if values[name].value]
    if len(given) != 1:
        said = f"{' and '.join(given)} are; leave one out" if given else "none is; give one of these"
        if given == ["--source", "--data"]:
            said += ", and give the codes of languages as --source_language and --target_language"
        raise UserError(
            "The text that is to be examined must be given in one way, as --source=train.en --target=train.de, as "
            f"--data=pairs.tsv or as the recipe, --config: {said}"
        )
    if values["config"].present:
        return _cli.recipe(values).data
    for name in _SOURCES:
        if values[name.replace("source", "target")].value and not values[name].value:
            raise UserError(f"--{name} and --{name.replace('source', 'target')} must be given together")
    pairs = [(values.source, values.target or "")] if values.source else list(map(_cli.pair_of, values.data))
    return DataConfig(
        source_language=values.source_language,
        target_language=values.target_language,
        train_source=tuple(source for source, _ in pairs),
        train_target=tuple(target for _, target in pairs),
        dev_source=(values.dev_source,) if values.dev_source else (),
        dev_target=(values.dev_target or "",) if values.dev_source else (),
    )


def _examine(data: DataConfig, values: flags.FlagValues) -> tuple[list, dict]:
    """The findings, and what else is printed."""
    _process.load_tensorflow()
    from nmt_keras.data.corpus import ParallelCorpus
    from nmt_keras.data.scripts import ScriptCheck
    from nmt_keras.doctor.before_training import different, examine
    from nmt_keras.doctor.examination import HeldOut
    from nmt_keras.doctor.findings import unknown_pieces
    from nmt_keras.doctor.lengths import lengths_of
    from nmt_keras.experiment.text import dev_references, open_beside, open_texts
    from nmt_keras.runs.tokenizers import load_tokenizers
    from nmt_keras.tokenizers.base import unknown_rate
    from nmt_keras.tokenizers.building import sample_tokenizers

    def opened(source: str, target: str, language: str) -> "tuple[TextFile, TextFile]":
        return open_texts(dataclasses.replace(data, target_language=language), source, target)

    measured = [
        ("dev", source, references[0], language)
        for source, references, language in zip(data.dev_source, dev_references(data), data.languages_of_dev)
    ]
    if values.test_source:
        measured.append(("test", values.test_source, values.test_target or "", data.target_language))
    held_out = different(HeldOut(name, *opened(*names)) for name, *names in measured)
    languages = data.languages_of_train
    pairs = [opened(*names) for names in zip(data.train_source, data.train_target, languages)]
    of_pairs = [examine(data, pair, language, held_out) for pair, language in zip(pairs, languages)]
    findings = [finding for found in of_pairs for finding in found]
    for line in dict.fromkeys(f"{finding.severity}: {finding.text}" for finding in findings):
        _process.report(line)
    for language in dict.fromkeys((data.source_language, *languages)):
        if language and not ScriptCheck(language).scripts:
            _process.report(f"the script of language {language!r} is not known: that of its lines is not examined")
    report: dict = {}
    if all(len(source) == len(target) for source, target in pairs):
        corpus = ParallelCorpus(*map(list, zip(*pairs)))
        tokenizers = (
            load_tokenizers(pathlib.Path(values.run_dir)) if values.run_dir else sample_tokenizers(data, corpus)
        )
        report = lengths_of(corpus, tokenizers, num_tags=1 if data.target_languages else 0)
        _report_lengths(report, bool(values.run_dir))
        for text in held_out:
            for side, tokenizer in zip((text.source, text.target), tokenizers):
                rate = unknown_rate(tokenizer, side.lines(range(len(side))))
                found = unknown_pieces(
                    f"{text.name} {side.path}", rate, bool(values.run_dir or data.source_tokenizer_model)
                )
                report.setdefault("unknown_pieces", {})[side.path] = rate
                if found is not None:
                    findings.append(found)
                    _process.report(f"{found.severity}: {found.text}")
    if not findings:
        _process.report("nothing found")
    lines = {text.path: len(text) for pair in pairs for text in pair}
    serious = sum(finding.severity == "serious" for finding in findings)
    if values.fix:
        report["fixed"] = [
            _fix(pathlib.Path(values.fix), *pair, found, f"{number}-" if len(pairs) > 1 else "", beside)
            for number, (pair, found, beside) in enumerate(zip(pairs, of_pairs, open_beside(data)), 1)
        ]
    return findings, {"serious": serious, "lines": lines, **report}


def _fix(
    folder: pathlib.Path,
    source: "TextFile",
    target: "TextFile",
    findings: "Sequence[Finding]",
    prefix: str,
    beside: "Sequence[TextFile]",
) -> dict[str, int]:
    from nmt_keras.doctor.cleaning import DROPPED, write_clean_copy

    counts = write_clean_copy(source, target, findings, folder, prefix, beside)
    dropped = ", ".join(f"{count:,} for {kind}" for kind, count in counts.items() if kind != "kept")
    left = ", ".join(dict.fromkeys(f.kind for f in findings if f.kind not in DROPPED and f.severity != "note"))
    rest = f"; still there, see above: {left}" if left else ""
    _process.report(f"fixed: {counts['kept']:,} pairs are in {folder}; dropped: {dropped or 'none'}{rest}")
    return counts


def _report_lengths(report: dict, own: bool) -> None:
    unit = "ids of the run's tokenizers" if own else "ids of tokenizers trained on a sample"
    for side, table in report["lengths"].items():
        numbers = ", ".join(f"{name} {value}" for name, value in table.items())
        _process.report(f"{side} lengths in {unit}: {numbers}")
    fields = ", ".join(f"{name}={value}" for name, value in report["suggested"].items())
    _process.report(f"suggested: {fields}")


if __name__ == "__main__":
    sys.exit(main())
