"""Converts a trained model for another program, and proves that it translates there as it does here."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from nmt_keras import files
from nmt_keras.config import ExperimentConfig
from nmt_keras.conversion import ctranslate2, ctranslate2_proof, pytorch, pytorch_proof
from nmt_keras.conversion.source import Converter, DevLines, Source, import_packages, require_packages
from nmt_keras.errors import UserError
from nmt_keras.experiment.text import open_dev
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.reports import Report, silent
from nmt_keras.runs.loading import config_of, load
from nmt_keras.runs.tokenizers import load_tokenizers
from nmt_keras.tokenizers.target_tags import tag_ids
from nmt_keras.tokenizers.white_space import is_blank

CONVERTERS = {
    "ctranslate2": Converter(
        "Transformers with SentencePiece tokenizers",
        ("ctranslate2",),
        ("ctranslate2",),
        ctranslate2.reasons_against,
        ctranslate2.write,
        ctranslate2_proof.prove,
    ),
    "pytorch": Converter(
        "Transformers, and recurrent models with an attention of Bahdanau or Luong",
        ("torch", "safetensors"),
        ("safetensors",),  # PyTorch runs in a process of its own
        pytorch.reasons_against,
        pytorch.write,
        pytorch_proof.prove,
    ),
}


def convert(
    run_dirs: Sequence[pathlib.Path],
    checkpoint: str,
    to: str,
    output: pathlib.Path,
    *,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    data_dir: str | None = None,
    proof_lines: int = 200,
    report: Report = silent,
) -> dict[str, Any]:
    """Converts a run into a new folder; what differs from the run by more than rounding is not kept.

    Args:
        run_dirs: of a training job, one.
        checkpoint: `best`, `latest`, `averaged`, `ema` or a step.
        to: a key of `CONVERTERS`.
        output: the folder, which is made.
        overrides: limits of the search and the target language instead of the recipe's, by the paths of their fields.
        data_dir: where the dev set, which is translated for the proof, is now; instead of the recipe's.
        proof_lines: lines of the dev set that are compared; of each language as many, of a model of several.
        report: takes a line for the user.

    Returns:
        What `conversion.json` holds: the run, its step and the hash of its weights, and the figures of the proof; and
        `output`, the folder, None where the proof failed.

    Raises:
        UserError: a package is missing; `output` is there or cannot be written; the run cannot be used, or has what
            cannot be converted.
    """
    converter = CONVERTERS[to]
    require_packages(to, converter)
    if len(run_dirs) != 1:
        raise UserError(
            f"an ensemble cannot be converted: give one --run_dir. Received: {', '.join(map(str, run_dirs))}"
        )
    if output.exists():
        raise UserError(f"{output} is there already: give a new folder, or remove it")
    files.require_writable(output)
    overrides = {**overrides, "training.precision": "float32", "decoding.shortlist": 0}  # which no converted model has
    if data_dir is not None:
        overrides["data.data_dir"] = data_dir
    config = config_of(run_dirs[0], overrides)
    reasons = converter.reasons_against(config, load_tokenizers(run_dirs[0]))
    if reasons:
        raise UserError(
            f"--to={to} takes {converter.takes}: give another run, or serve this one by pipelines.export. "
            f"Received: {'; '.join(reasons)}, of {run_dirs[0]}"
        )
    if config.data.placeholders or config.data.annotated_terms:
        report(
            "warning: the run has data.placeholders or data.annotated_terms: what is written takes text as it is, so "
            "put their symbols into it yourself (docs/search.md)"
        )
    if config.decoding.protect:
        report(
            "warning: the run has decoding.protect: what is written protects nothing, so take out of the text what is "
            "to stay as it is, and put it back yourself"
        )
    dev = _dev_lines(config, run_dirs[0], proof_lines, report)
    import_packages(to, converter)
    run = load(run_dirs, overrides, checkpoint, report=report, portable=True)
    assert isinstance(run.model, Seq2Seq)
    source = Source(run_dirs[0].resolve().name, run.config, run.tokenizers, run.model)
    [weights] = run.weights_sha256
    result: dict[str, Any] = {
        "to": to,
        "run_dir": str(run_dirs[0]),
        "checkpoint": checkpoint,
        "step": run.step,
        "weights_sha256": weights,
    }
    with _new_folder(output) as folder:
        converter.write(source, folder, dev[0].texts[0])
        report(f"comparing {sum(len(part.texts) for part in dev):,} dev lines with the converted model's")
        result |= converter.prove(source, folder, dev)
        if result["different"]:
            report(f"the proof failed: {result['different']} of {result['compared']} differ; nothing was kept")
            return {"output": None, **result}
        files.write_json(folder / "conversion.json", result)
        folder.rename(output)
    return {"output": str(output), **result}


def _dev_lines(config: ExperimentConfig, run_dir: pathlib.Path, count: int, report: Report) -> list[DevLines]:
    """The first `count` lines of the dev sets that are not blank, as many of each."""
    data = config.data
    tags = tag_ids(data, load_tokenizers(run_dir).source, data.languages_of_dev)
    dev = open_dev(data, report, run_dir)
    share = -(-count // len(data.languages_of_dev))
    parts = []
    for number in range(len(data.languages_of_dev)):
        text = dev.part(number).sources[0]
        lines = [line for line in text.lines(range(min(share, len(text)))) if not is_blank(line)]
        if lines:
            parts.append(DevLines(tags[number : number + 1], lines))
    if not parts:
        raise UserError("the first lines of the dev set are blank: give a --data_dir whose dev set can be translated")
    return parts


@contextlib.contextmanager
def _new_folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder beside `output`, to be renamed to it, which is removed if it was not.

    Raises:
        UserError: it cannot be written.
    """
    files.make_folder(output.parent)
    folder = None
    try:
        folder = pathlib.Path(tempfile.mkdtemp(dir=output.parent, prefix=".tmp-"))
        folder.chmod(0o755)
        yield folder
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(output.parent)):
            raise
        raise UserError(f"Cannot write {output}: {error.strerror or error}; give another --output") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
