"""The doctor's findings of the text that a training is about to read."""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from nmt_keras import files
from nmt_keras.config import DataConfig
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.doctor.examination import Doctor, HeldOut
from nmt_keras.doctor.findings import VERSION, Finding
from nmt_keras.errors import Failure
from nmt_keras.pipes import default_cache_dir
from nmt_keras.reports import Report, shows_bars


def examine(
    data: DataConfig, pair: tuple[TextFile, TextFile], target_language: str, held_out: Sequence[HeldOut] = ()
) -> list[Finding]:
    """Findings of a pair of texts, from the cache where the doctor has seen the same text before.

    Args:
        data: says which language the source is in, which symbols look like tags, and where the cache is.
        pair: source and target.
        target_language: its code.
        held_out: text to measure on, of any target language.
    """
    texts = [*pair, *(text for held in held_out for text in (held.source, held.target))]
    names = [held.name for held in held_out]
    about = [VERSION, names, data.source_language, target_language, *[(text.path, text.sha256) for text in texts]]
    about += [list(data.user_symbols)] if data.user_symbols else []
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]
    path = pathlib.Path(data.cache_dir or default_cache_dir()) / f"doctor-{key}.json"
    if path.exists():
        return [Finding(**finding) for finding in json.loads(path.read_text(encoding="utf-8"))]
    with tqdm(total=len(pair[0]), unit="line", disable=not shows_bars(), desc="doctor") as progress:
        found = Doctor(data.source_language, target_language, progress.update, data.user_symbols).examine(
            *pair, held_out
        )
    files.write_json(path, [finding._asdict() for finding in found])
    return found


def different(held_out: Iterable[HeldOut]) -> list[HeldOut]:
    """Text to measure on, without that whose source is there already, with another translation."""
    return list({text.source.sha256: text for text in reversed(list(held_out))}.values())[::-1]


def held_out_of(dev: ParallelCorpus) -> list[HeldOut]:
    """The dev sets as text that should not be in the training text."""
    return different(HeldOut("dev", *texts) for texts in zip(dev.sources, dev.targets))


def refuse_serious_findings(
    data: DataConfig, corpus: ParallelCorpus, dev: ParallelCorpus, report: Report
) -> list[Finding]:
    """Examines the text that a training is about to read; reports and returns the findings.

    Raises:
        Failure: something is serious, and `data.on_findings` is refuse.
    """
    if data.on_findings == "ignore":
        return []
    held_out = held_out_of(dev)
    findings = [
        finding
        for source, target, language in zip(corpus.sources, corpus.targets, data.languages_of_train)
        for finding in examine(data, (source, target), language, held_out)
    ]
    serious = []
    said: set[str] = set()  # of a file that several corpora share
    for finding in findings:
        if finding.text in said:
            continue
        said.add(finding.text)
        if finding.kind != "encoding" or finding.severity == "serious":  # opening the text reported the rest
            report(f"doctor, {finding.severity}: {finding.text}")
        if finding.severity == "serious":
            serious.append(finding.kind)
    if serious and data.on_findings == "refuse":
        raise Failure(
            f"The training text has serious faults, listed above: {', '.join(dict.fromkeys(serious))}; mend it, or go "
            "on with --config.data.on_findings=report"
        )
    return findings
