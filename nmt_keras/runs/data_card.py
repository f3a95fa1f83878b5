"""`data_card.json`: the text that a run was trained on."""

import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from nmt_keras import files
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.doctor.findings import Finding
from nmt_keras.errors import UserError


def check_data_card(run_dir: pathlib.Path, train: ParallelCorpus, dev: ParallelCorpus) -> None:
    """Compares text with the `data_card.json` of a run, if it has one.

    Raises:
        UserError: the card shows other content, or cannot be read.
    """
    path = run_dir / "data_card.json"
    if not path.exists():
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        hashes = {name: [(text["path"], text["sha256"]) for text in old[name]] for name in ("train", "dev")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or give another --run_dir") from error
    for name, corpus in (("train", train), ("dev", dev)):
        for before, now in itertools.zip_longest(hashes[name], texts_of(corpus)):
            if before is None or now is None or before[1] != now.sha256:
                raise UserError(
                    f"{run_dir} was trained on other {name} text: {now.path if now else before[0]} has changed; "
                    "restore the file, give --allow_config_change to go on with it, or another --run_dir"
                )


def write_data_card(
    run_dir: pathlib.Path, train: ParallelCorpus, dev: ParallelCorpus, findings: Sequence[Finding] = ()
) -> None:
    """Writes `data_card.json`: each file with its lines, SHA-256 and oddities, and what the doctor found."""
    card: dict[str, Any] = {
        name: [
            {"path": text.path, "lines": len(text), "sha256": text.sha256, "findings": list(map(str, text.findings))}
            for text in texts_of(corpus)
        ]
        for name, corpus in (("train", train), ("dev", dev))
    }
    card["findings"] = [finding.card() for finding in findings]
    files.write_json(run_dir / "data_card.json", card)


def texts_of(corpus: ParallelCorpus) -> list[TextFile]:
    """All files of a corpus: sources, targets, further references, weights, alignments."""
    beside = [text for text in (*corpus.weight_texts, *corpus.alignments) if text is not None]
    return [*corpus.sources, *corpus.targets, *itertools.chain(*corpus.references), *beside]
