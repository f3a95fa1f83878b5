"""Opens what a loss needs beside the configuration."""

import pathlib

from sacrebleu.metrics import CHRF

from nmt_keras.config import ExperimentConfig
from nmt_keras.errors import UserError
from nmt_keras.inference.evaluation import bleu_metric
from nmt_keras.reports import Report
from nmt_keras.runs.loading import load
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.training.losses import Resources
from nmt_keras.training.precision import configure
from nmt_keras.training.sentence_errors import SentenceErrors


def open_resources(config: ExperimentConfig, tokenizers: Tokenizers, report: Report) -> Resources:
    """What `training.loss` needs.

    Args:
        config: of the experiment.
        tokenizers: of the run.
        report: takes a line for the user.

    Raises:
        UserError: the teacher cannot be loaded, or has other tokenizers.
    """
    if config.training.loss == "minimum_risk":
        data = config.data
        bleu = bleu_metric(data.target_language, data.bleu_tokenizer, of_sentences=True)
        metric = CHRF() if config.training.risk_error == "chrf" else bleu
        return Resources(errors=SentenceErrors(tokenizers.target, metric))
    if config.training.loss == "distillation":
        folders = [pathlib.Path(folder) for folder in config.training.teacher]
        overrides = {
            "training.precision": config.training.precision,
            "training.deterministic": config.training.deterministic,
        }
        teacher = load(folders, overrides, config.training.teacher_checkpoint, report=report)
        configure(config.training)  # the seed of this run's weights
        for side, own, theirs in zip(("source", "target"), tokenizers, teacher.tokenizers):
            if own.sha256 != theirs.sha256:
                raise UserError(
                    f"The teacher {folders[0]} has another {side} tokenizer than this run, and must give probabilities "
                    f"to the same ids: begin another run with data.tokenizer_from={folders[0]}"
                )
        return Resources(teacher=teacher.model)
    return Resources()
