"""The doctor's findings of the text that a training is about to read."""

import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from nmt_keras import files
from nmt_keras.config import DataConfig
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.doctor.examination import Doctor, HeldOut
from nmt_keras.doctor.findings import VERSION, Finding
from nmt_keras.errors import Failure
from nmt_keras.pipes import default_cache_dir
from nmt_keras.reports import Report


def examine(
    data: DataConfig, pairs: Sequence[tuple[TextFile, TextFile]], held_out: Sequence[HeldOut] = ()
) -> Iterator[Finding]:
    """Findings of each pair of texts, from the cache where the doctor has seen the same text before."""
    for source, target in pairs:
        texts = [text for held in held_out for text in (held.source, held.target)]
        names = [held.name for held in held_out]
        about = [
            VERSION,
            names,
            data.source_language,
            data.target_language,
            *[(t.path, t.sha256) for t in (source, target, *texts)],
        ]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]
        path = pathlib.Path(data.cache_dir or default_cache_dir()) / f"doctor-{key}.json"
        if path.exists():
            found = [Finding(**finding) for finding in json.loads(path.read_text(encoding="utf-8"))]
        else:
            with tqdm(total=len(source), unit="line", disable=not sys.stderr.isatty(), desc="doctor") as progress:
                doctor = Doctor(data.source_language, data.target_language, progress.update)
                found = doctor.examine(source, target, held_out)
            files.write_json(path, [finding._asdict() for finding in found])
        yield from found


def refuse_serious_findings(
    data: DataConfig, corpus: ParallelCorpus, dev: ParallelCorpus, report: Report
) -> list[Finding]:
    """Examines the text that a training is about to read; reports and returns the findings.

    Raises:
        Failure: something is serious, and `data.on_findings` is refuse.
    """
    if data.on_findings == "ignore":
        return []
    held_out = [HeldOut("dev", dev.sources[0], dev.targets[0])]
    serious = []
    findings = list(examine(data, list(zip(corpus.sources, corpus.targets)), held_out))
    for finding in findings:
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
