"""Opens what a loss needs beside the configuration."""

import json
import pathlib

from sacrebleu.metrics import CHRF

from nmt_keras import files
from nmt_keras.config import ExperimentConfig
from nmt_keras.data.languages import language_of
from nmt_keras.errors import UserError
from nmt_keras.inference.evaluation import bleu_metric
from nmt_keras.reports import Report
from nmt_keras.runs.loading import Run, load
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.training.losses import Resources
from nmt_keras.training.precision import configure
from nmt_keras.training.sentence_errors import SentenceErrors


def open_resources(
    config: ExperimentConfig,
    tokenizers: Tokenizers,
    report: Report,
    run_dir: pathlib.Path | None = None,
    allow_change: bool = False,
) -> Resources:
    """What `training.loss` needs.

    Args:
        config: of the experiment.
        tokenizers: of the run.
        report: takes a line for the user.
        run_dir: keeps the hash of the teacher's weights, `teacher.json`, so that a run goes on with the same; None
            keeps and checks nothing.
        allow_change: whether the run may go on with another teacher.

    Raises:
        UserError: the teacher cannot be loaded, has other tokenizers, or is another one than before.
    """
    if config.training.loss == "minimum_risk":
        data = config.data
        known = {language_of(language).bleu_tokenizer for language in data.target_languages}
        if config.training.risk_error == "bleu" and len(known) > 1 and not data.bleu_tokenizer:
            raise UserError(
                "training.risk_error=bleu cuts all target languages into words alike, and theirs are cut otherwise "
                f"({', '.join(sorted(known))}): give training.risk_error=chrf, or data.bleu_tokenizer"
            )
        bleu = bleu_metric(data.target_language, data.bleu_tokenizer, of_sentences=True)
        metric = CHRF() if config.training.risk_error == "chrf" else bleu
        return Resources(errors=SentenceErrors(tokenizers.target, metric))
    if config.training.loss == "distillation":
        folders = [pathlib.Path(folder) for folder in config.training.teacher]
        overrides = {
            "training.precision": config.training.precision,
            "training.deterministic": config.training.deterministic,
            "decoding.shortlist": 0,
        }
        compiled = config.training.compile == "step"  # which has no place for cuDNN
        teacher = load(folders, overrides, config.training.teacher_checkpoint, report=report, portable=compiled)
        configure(config.training)  # the seed of this run's weights
        for side, own, theirs in zip(("source", "target"), tokenizers, teacher.tokenizers):
            if own.sha256 != theirs.sha256:
                raise UserError(
                    f"The teacher {folders[0]} has another {side} tokenizer than this run, and must give probabilities "
                    f"to the same ids: begin another run with data.tokenizer_from={folders[0]}"
                )
        missing = set(config.data.target_languages) ^ set(teacher.config.data.target_languages)
        if missing:
            raise UserError(
                f"The teacher {folders[0]} has other target languages than this run, {', '.join(sorted(missing))}: "
                "train both with the same data.train_languages"
            )
        if run_dir is not None:
            _require_same_teacher(run_dir, teacher, allow_change)
        return Resources(teacher=teacher.model)
    return Resources()


def _require_same_teacher(run_dir: pathlib.Path, teacher: Run, allow_change: bool) -> None:
    place, now = run_dir / "teacher.json", teacher.weights_sha256
    if place.exists() and not allow_change:
        before = json.loads(place.read_text(encoding="utf-8"))["weights_sha256"]
        if before != now:
            raise UserError(
                f"{run_dir} learned from other weights of the teacher than {teacher.folder} has now: give the "
                "checkpoint that it had as training.teacher_checkpoint, or --allow_config_change to go on with these"
            )
    files.write_json(place, {"weights_sha256": now})
