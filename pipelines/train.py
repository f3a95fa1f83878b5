"""Trains a model: python -m pipelines.train --config=pipelines/recipes/multi30k_en_de.py --run_dir=runs/m30k

The same command resumes a run that stopped. Any field of the recipe can be overridden, as in
--config.training.max_steps=2000 or --config.model.attention=bahdanau.
"""

import contextlib
import datetime
import pathlib
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from nmt_keras.config import ExperimentConfig
from nmt_keras.errors import UserError
from pipelines import _runtime


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    config_flags.DEFINE_config_file(
        "config", None, "The recipe: a Python file with get_config().", sys_argv=argv, flag_values=values
    )
    flags.DEFINE_string("run_dir", None, "Where everything of this run is kept.", flag_values=values)
    flags.DEFINE_string("data_dir", None, "Folder of the recipe's relative paths.", flag_values=values)


def _job(values: flags.FlagValues) -> None:
    if values["config"].present and values.config is None:
        raise UserError(
            f"{config_flags.get_config_filename(values['config'])} has no get_config() that returns an "
            "ExperimentConfig; define one, with its return"
        )
    if values.config is None or not values.run_dir:
        raise UserError(
            "--config and --run_dir must be given, for instance --config=pipelines/recipes/multi30k_en_de.py "
            "--run_dir=runs/m30k"
        )
    if not isinstance(values.config, ExperimentConfig):
        raise UserError(
            f"--config={config_flags.get_config_filename(values['config'])} is no readable recipe: give a "
            "Python file whose get_config() returns an ExperimentConfig"
        )
    if values.data_dir is not None:
        values.config.data.data_dir = values.data_dir
    try:
        train(values.config, pathlib.Path(values.run_dir))
    except KeyboardInterrupt:
        _runtime.report("the same command goes on from the latest checkpoint")
        raise


def train(config: ExperimentConfig, run_dir: pathlib.Path) -> None:
    """Trains `config` in `run_dir` until it is done. Resumes what is there.

    Raises:
        UserError: the configuration, the data or the run directory cannot be used.
    """
    config.validate()
    config.resolve_positions()
    _runtime.resolve_precision(config.training)
    strategy = _runtime.build_strategy(config.training.distribution)  # before any TensorFlow operation
    _runtime.configure(config.training)

    from nmt_keras import run_directory

    report, data = _runtime.report, config.data
    corpus = run_directory.open_corpus(data, data.train_source, data.train_target, report)
    dev = run_directory.open_corpus(data, [data.dev_source], [data.dev_target], report)
    dev.require_text()
    with contextlib.ExitStack() as stack:
        if _runtime.is_chief(strategy):
            stack.enter_context(run_directory.open_run_dir(run_dir, config, report))
            run_directory.write_data_card(run_dir, corpus, dev)
            run_directory.prepare_tokenizers(run_dir, data, corpus, report)
        _runtime.barrier(strategy)  # what the chief makes, the others find
        _train(config, run_dir, corpus, dev, strategy)
        _runtime.barrier(strategy)  # whoever leaves first would end the job of the others


def _train(config: ExperimentConfig, run_dir: pathlib.Path, corpus, dev, strategy) -> None:
    """Trains on open text in a run directory that has its tokenizers."""
    from nmt_keras import run_directory
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training.checkpoints import Checkpoints
    from nmt_keras.training.schedules import build_optimizer
    from nmt_keras.training.summaries import Summaries
    from nmt_keras.training.trainer import Trainer
    from pipelines._dev import DevEvaluator

    started, report, training = time.time(), _runtime.report, config.training
    chief = _runtime.is_chief(strategy)
    tokenizers = run_directory.load_tokenizers(run_dir)
    _report_unknown(tokenizers, dev)
    text = _training_text(config, corpus, tokenizers, strategy.num_replicas_in_sync * training.accumulation_steps)
    report(f"data: {text.plan.summary()}")

    with strategy.scope():
        model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
        trainer = Trainer(model, build_optimizer(training), training, strategy)
    report(f"model: {model.count_params():,} weights; {strategy.num_replicas_in_sync} replica(s); {training.precision}")
    checkpoints = Checkpoints(run_directory.checkpoints_of(run_dir), training.keep_checkpoints, chief, report)
    if trainer.restore(checkpoints):
        report(f"resuming at step {trainer.step:,}")
    else:
        run_directory.load_pretrained_vectors(model, tokenizers, config, report)
    summaries = Summaries(run_dir, trainer.step, chief)
    evaluate = DevEvaluator(model, tokenizers, config, dev, summaries, report)
    reason = trainer.train(_distribute(text, strategy, trainer.step), checkpoints, summaries, evaluate, report)
    best = "not measured" if trainer.best is None else f"{trainer.best:.4f}"
    report(f"done: {reason}; best {training.best_metric} {best}")
    if chief:
        _write_run_card(run_dir, trainer, text, reason, time.time() - started)


def _report_unknown(tokenizers, dev) -> None:
    from nmt_keras.data.tokenizer import unknown_rate

    rates = (
        f"{side} {unknown_rate(tokenizer, lines):.2%}"
        for side, tokenizer, lines in zip(("source", "target"), tokenizers, dev.text())
    )
    _runtime.report(f"unknown pieces in dev: {', '.join(rates)}")


def _training_text(config: ExperimentConfig, corpus, tokenizers, num_slices: int):
    """The corpus as a `TrainingText`, planned in batches of `num_slices` equal parts."""
    from nmt_keras import run_directory
    from nmt_keras.data.batch_plan import BatchPlan
    from nmt_keras.data.batching import TrainingText, token_lengths

    data, training = config.data, config.training
    limits: dict[str, Any] = {"max_source_length": data.max_source_length, "max_target_length": data.max_target_length}
    source_lengths, target_lengths = (
        [token_lengths(text, tokenizer) for text in texts]
        for texts, tokenizer in zip((corpus.sources, corpus.targets), tokenizers)
    )
    plan = BatchPlan(
        source_lengths,
        target_lengths,
        seed=training.seed,
        batch_tokens=training.batch_tokens,
        batch_sentences=training.batch_sentences,
        weights=data.train_weights,
        num_slices=num_slices,
        length_factor=run_directory.sampled_length_factor(tokenizers, corpus, data.sampling_alpha),
        **limits,
    )
    return TrainingText(
        plan, corpus, *tokenizers, static_shapes=data.static_shapes, sampling_alpha=data.sampling_alpha, **limits
    )


def _write_run_card(run_dir: pathlib.Path, trainer, text, reason: str, seconds: float) -> None:
    import tensorflow as tf

    from nmt_keras import files

    files.write_json(
        run_dir / "run_card.json",
        {
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "step": trainer.step,
            "epochs": round(trainer.step / text.plan.num_batches, 2),
            "seconds_of_this_job": round(seconds),
            "best": trainer.best,
            "weights": trainer.model.count_params(),
            "stopped": reason,
            "overlong_samples": text.num_overlong_samples,
            "machine": platform.platform(),
            "devices": [device.name for device in tf.config.list_logical_devices()],
            "tensorflow": tf.__version__,
        },
    )


def _distribute(text, strategy, first_step: int):
    """The iterator over a strategy's values of batches, from a step on."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return iter(text.dataset(first_step))

    def pipeline(context):
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local
        return text.dataset(first_step, replicas, range(first, first + local))

    return iter(strategy.distribute_datasets_from_function(pipeline))


if __name__ == "__main__":
    sys.exit(main())
