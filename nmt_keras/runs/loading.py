"""Opens a trained model."""

import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.config import DecodingConfig, ExperimentConfig
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.errors import UserError
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translator import Translator
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq, build_seq2seq
from nmt_keras.reports import Report
from nmt_keras.runs.layout import checkpoints_of, lexicon_of, read_config
from nmt_keras.runs.tokenizers import load_tokenizers
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.training.checkpoints import Checkpoints, by_path
from nmt_keras.training.precision import configure


class Run(NamedTuple):
    """A trained model and all that belongs to it."""

    config: ExperimentConfig
    tokenizers: Tokenizers
    model: Seq2Seq | Ensemble
    step: int
    folder: pathlib.Path  # where it was loaded from

    @property
    def lexicon(self) -> Lexicon | None:
        """What the configuration's search takes its shortlist from; None where it has none.

        Raises:
            UserError: the run has no lexicon, a broken one, one that proposes too little, or that of another run.
        """
        if not self.config.decoding.shortlist:
            return None
        lexicon = Lexicon.read(lexicon_of(self.folder))
        lexicon.require(
            self.config.decoding.shortlist,
            self.tokenizers,
            f"make it anew with python -m pipelines.lexicon --run_dir={self.folder}",
        )
        return lexicon

    def translator(self, num_hypotheses: int = 1, sampling: Sampling | None = None) -> Translator:
        """A translator with the configuration's search."""
        return Translator(self.model, *self.tokenizers, self.config.decoding, num_hypotheses, sampling, self.lexicon)


def load_run(run_dir: pathlib.Path, checkpoint: str = "best", report: Report = lambda line: None) -> Run:
    """Loads a trained model.

    Args:
        run_dir: of a training job.
        checkpoint: `best`, `latest`, a step, `averaged`, the mean of the latest `training.keep_checkpoints`, or `ema`,
            the moving average that `training.ema_decay` keeps, as it is in the latest.
        report: takes a line for the user.

    Raises:
        UserError: the directory is not a run's, or has no such checkpoint.
    """
    config = read_config(run_dir)
    tokenizers = load_tokenizers(run_dir)
    model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    if checkpoint not in ("best", "latest", "averaged", "ema") and not checkpoint.isdecimal():
        raise UserError(f"`checkpoint` must be best, latest, averaged, ema or a step. Received: {checkpoint!r}")
    if checkpoint == "ema" and not config.training.ema_decay:
        raise UserError(
            f"{run_dir} keeps no moving average of its weights, which checkpoint ema asks for: train with "
            "training.ema_decay=0.999, or give --checkpoint=averaged"
        )
    checkpoints, variables = Checkpoints(checkpoints_of(run_dir), report=report), by_path(model.variables)
    if checkpoint == "averaged":
        steps = checkpoints.restore_average(variables, "model", config.training.keep_checkpoints)
        report(f"checkpoint: averaged, steps {', '.join(map(str, steps))} of {run_dir}")
        return Run(config, tokenizers, model, steps[-1], run_dir)
    objects = {"model": variables}
    if checkpoint == "ema":
        averaged = by_path(model.trainable_variables)
        objects = {"ema": averaged, "model": {path: variables[path] for path in variables.keys() - averaged.keys()}}
    which = "latest" if checkpoint == "ema" else checkpoint
    manifest = checkpoints.restore(tf.train.Checkpoint(**objects), which, partial=True)
    if manifest is None or not manifest["step"]:
        raise UserError(f"{run_dir} has no checkpoint of a trained model yet; train it first")
    report(f"checkpoint: {checkpoint}, step {manifest['step']:,} of {run_dir}")
    return Run(config, tokenizers, model, manifest["step"], run_dir)


def load_runs(run_dirs: Sequence[pathlib.Path], checkpoint: str = "best", report: Report = lambda line: None) -> Run:
    """Loads trained models as one, an ensemble where they are several; what is not the model is of the first.

    Args:
        run_dirs: of training jobs with the same tokenizers.
        checkpoint: of each, as for `load_run`.
        report: takes a line for the user.

    Raises:
        UserError: as `load_run`, or their tokenizers differ.
    """
    runs = [load_run(run_dir, checkpoint, report) for run_dir in run_dirs]
    fingerprints = [[tokenizer.sha256 for tokenizer in run.tokenizers] for run in runs]
    for run_dir, fingerprint in zip(run_dirs, fingerprints):
        if fingerprint != fingerprints[0]:
            raise UserError(
                f"{run_dir} has other tokenizers than {run_dirs[0]}, and an ensemble needs the same ones: train on the "
                "same text with the same options of data, and another training.seed"
            )
    members = [run.model for run in runs if isinstance(run.model, Seq2Seq)]
    return runs[0] if len(runs) == 1 else runs[0]._replace(model=Ensemble(members))


def require_lexicon(run_dir: pathlib.Path, decoding: DecodingConfig) -> None:
    """Sees that a search among a shortlist has the lexicon that it needs, before anything is loaded.

    Raises:
        UserError: it has none, or a broken one.
    """
    if decoding.shortlist:
        Lexicon.read(lexicon_of(run_dir))


def inference_config(config: ExperimentConfig, decoding: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Applies the options of `decoding` that a job was given, and configures the process."""
    for name, value in decoding.items():
        setattr(config.decoding, name, value)
    config.validate()
    configure(config.training)
