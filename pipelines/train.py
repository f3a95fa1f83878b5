"""Trains a model: python -m pipelines.train --config=pipelines/recipes/multi30k_en_de.py --run_dir=runs/m30k

The same command resumes a run that stopped, as if it had not; SIGINT and SIGTERM save and stop. Any field of the recipe
can be overridden, as in --config.training.max_steps=2000 or --config.model.attention=bahdanau.
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

from nmt_keras.config import ExperimentConfig, TrainingConfig
from nmt_keras.errors import UserError
from pipelines import _runtime
from pipelines.doctor import refuse_serious_findings


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _runtime.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    config_flags.DEFINE_config_file(
        "config",
        None,
        "The recipe: a Python file with get_config(), or a run (its config.json).",
        sys_argv=argv,
        flag_values=values,
    )
    flags.DEFINE_string("run_dir", None, "Where everything of this run is kept.", flag_values=values)
    flags.DEFINE_string("data_dir", None, "Folder of the recipe's relative paths.", flag_values=values)
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Go on with other data or another schedule than the run began with; what a checkpoint holds stays refused.",
        flag_values=values,
    )


def _job(values: flags.FlagValues) -> int:
    if not values["config"].present or not values.run_dir:
        raise UserError(
            "--config and --run_dir must be given, for instance --config=pipelines/recipes/multi30k_en_de.py "
            "--run_dir=runs/m30k"
        )
    config = _runtime.recipe(values)
    if values.data_dir is not None:
        config.data.data_dir = values.data_dir
    is_done = train(config, pathlib.Path(values.run_dir), values.allow_config_change)
    return 0 if is_done else _runtime.STATUS_STOPPED


def train(config: ExperimentConfig, run_dir: pathlib.Path, allow_change: bool = False) -> bool:
    """Trains `config` in `run_dir` until it is done, or until a signal stops it. Resumes what is there.

    Args:
        config: of the experiment.
        run_dir: where everything of the run is kept.
        allow_change: whether a run that is there may go on with other data or another schedule.

    Returns:
        Whether it is done.

    Raises:
        UserError: the configuration, the data or the run directory cannot be used.
    """
    config.validate()
    config.resolve_positions()
    with _runtime.stopping() as stop:
        _runtime.resolve_precision(config.training)
        strategy = _runtime.build_strategy(config.training.distribution)  # before any TensorFlow operation
        _runtime.handle_signals(stop)
        _runtime.configure(config.training)

        from nmt_keras import run_directory

        report, data = _runtime.report, config.data
        if _runtime.is_chief(strategy):
            run_directory.require_same_experiment(run_dir, config, allow_change)
        run_directory.open_bleu(data, report)
        if data.sampling_alpha and data.source_tokenizer_model and not (run_dir / "tokenizer").exists():
            run_directory.require_sampling(run_directory.own_tokenizers(data), data)
        corpus = run_directory.open_corpus(
            data, data.train_source, data.train_target, report, data.train_example_weights
        )
        dev = run_directory.open_references(data, data.dev_source, run_directory.dev_references(data), report)
        is_font_noted = _report_font(dev)
        measured = run_directory.measure_before(run_dir), run_directory.measure_of(config, dev)
        _runtime.barrier(strategy)  # all have read what the chief will write over
        with contextlib.ExitStack() as stack:
            if _runtime.is_chief(strategy):
                findings = refuse_serious_findings(data, corpus, dev)

                def check() -> None:
                    if not allow_change:
                        run_directory.check_data_card(run_dir, corpus, dev)

                stack.enter_context(run_directory.open_run_dir(run_dir, config, report, allow_change, check))
                run_directory.write_data_card(run_dir, corpus, dev, findings)
                run_directory.prepare_tokenizers(run_dir, data, corpus, report)
            _runtime.barrier(strategy)  # what the chief makes, the others find
            is_done = _train(config, run_dir, corpus, dev, strategy, stop, allow_change, measured, is_font_noted)
            _runtime.barrier(strategy)  # whoever leaves first would end the job of the others
    return is_done


def _train(
    config: ExperimentConfig,
    run_dir: pathlib.Path,
    corpus,
    dev,
    strategy,
    stop,
    allow_change: bool,
    measured,
    is_font_noted,
) -> bool:
    """Trains on open text in a run directory that has its tokenizers."""
    from nmt_keras import files, run_directory
    from nmt_keras.models.seq2seq import build_seq2seq
    from nmt_keras.training import memory
    from nmt_keras.training.bad_batches import BadBatches
    from nmt_keras.training.checkpoints import Checkpoints
    from nmt_keras.training.feed import Feed
    from nmt_keras.training.summaries import Summaries
    from nmt_keras.training.trainer import Trainer
    from pipelines._dev import DevEvaluator

    started, report, training = time.time(), _runtime.report, config.training
    chief = _runtime.is_chief(strategy)
    tokenizers = run_directory.load_tokenizers(run_dir)
    run_directory.require_sampling(tokenizers, config.data)
    _report_unknown(tokenizers, dev)
    bad_batches = BadBatches(run_dir / "bad_batches", _runtime.task_of(strategy), report)
    with strategy.scope():
        model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
        trainer = Trainer(model, training, strategy, bad_batches)
    replicas = strategy.num_replicas_in_sync
    report(f"model: {model.count_params():,} weights; {replicas} replica(s); {training.precision}")
    if not training.batch_tokens and not training.batch_sentences:
        training.batch_tokens = _budget(config, corpus, tokenizers, replicas, trainer, strategy)
        files.write_text(run_dir / "config.json", config.to_json())
    feed = Feed(_training_text(config, corpus, tokenizers, replicas), strategy)
    plan = feed.text.plan
    report(f"data: {plan.summary()}")
    if plan.num_long:
        report(
            f"data: the limits are data.max_source_length={config.data.max_source_length} and "
            f"data.max_target_length={config.data.max_target_length} ids; pipelines.doctor suggests some"
        )
    checkpoints = Checkpoints(run_directory.checkpoints_of(run_dir), training.keep_checkpoints, chief, report)
    checkpoints.clean_up()
    _runtime.barrier(strategy)
    before, trainer.measured = measured
    if trainer.restore(checkpoints, plan.fingerprint, allow_change, trainer.measured, before):
        report(f"resuming at step {trainer.step:,}")
        if trainer.new_measures:
            report(
                f"what is measured has changed ({', '.join(trainer.new_measures)}): the best checkpoint "
                "and the patience begin anew"
            )
    else:
        run_directory.load_pretrained_vectors(model, tokenizers, config, report)
    if trainer.step < training.max_steps:
        trainer.train_step.compile(feed.element_spec)
        if memory.is_told():
            bucket, need = memory.estimate(trainer.train_step, feed)
            report(memory.describe(bucket, need, memory.limit_of_process(), plan.num_batches, training.max_steps))
        else:
            report("memory and time are not planned: this system does not tell (Linux does, in /proc)")
    summaries = Summaries(run_dir, trainer.step, trainer.owes_evaluation, chief)
    evaluate = DevEvaluator(model, tokenizers, config, dev, summaries, report, is_font_noted)
    stop.interrupts = False  # from here on it is the trainer that stops, and saves
    reason = trainer.train(feed, checkpoints, summaries, evaluate, report, stop)
    best = "not measured" if trainer.best is None else f"{trainer.best:.4f}"
    if trainer.is_stopped:
        report(f"{reason}; the same command goes on; best {training.best_metric} so far {best}")
    else:
        report(f"done: {reason}; best {training.best_metric} {best}")
    if chief:
        _write_run_card(run_dir, trainer, feed.text, reason, time.time() - started)
    return not trainer.is_stopped


def _budget(config: ExperimentConfig, corpus, tokenizers, replicas: int, trainer, strategy) -> int:
    """The largest `batch_tokens` that fits, or is worth its time; the default's where memory is not told."""
    from nmt_keras.training import memory
    from nmt_keras.training.feed import Feed

    if not memory.is_told():
        slices = replicas * config.training.accumulation_steps
        budget = max(TrainingConfig.batch_tokens, slices * config.data.max_target_length)
        _runtime.report(f"training.batch_tokens: {budget}; what fits is not known, this system does not tell")
        return budget
    feed = Feed(_training_text(config, corpus, tokenizers, replicas), strategy)
    trainer.train_step.compile(feed.element_spec)
    budget = max(memory.find_budget(trainer.train_step, feed), config.data.max_target_length)
    _runtime.report(f"training.batch_tokens: {budget} is the largest that fits, or that is worth its time")
    return budget


def _report_font(dev) -> bool:
    """Says what attention pictures will lack; whether there was anything to say."""
    from nmt_keras.training.summaries import font_note

    note = font_note("".join([*dev.sources[0].lines([0]), *dev.targets[0].lines([0])]))
    if note:
        _runtime.report(f"attention pictures: {note}")
    return bool(note)


def _report_unknown(tokenizers, dev) -> None:
    from nmt_keras.data.tokenizer import unknown_rate

    rates = (
        f"{side} {unknown_rate(tokenizer, lines):.2%}"
        for side, tokenizer, lines in zip(("source", "target"), tokenizers, dev.text())
    )
    _runtime.report(f"unknown pieces in dev: {', '.join(rates)}")


def _training_text(config: ExperimentConfig, corpus, tokenizers, num_replicas: int):
    """The corpus as a `TrainingText`, planned for so many replicas; in small batches where their size is not known."""
    from nmt_keras import run_directory
    from nmt_keras.data.batch_plan import BatchPlan
    from nmt_keras.data.batching import TrainingText, token_lengths

    data, training = config.data, config.training
    limits: dict[str, Any] = {"max_source_length": data.max_source_length, "max_target_length": data.max_target_length}
    source_lengths, target_lengths = (
        [token_lengths(text, tokenizer) for text in texts]
        for texts, tokenizer in zip((corpus.sources, corpus.targets), tokenizers)
    )
    num_slices = num_replicas * training.accumulation_steps
    plan = BatchPlan(
        source_lengths,
        target_lengths,
        seed=training.seed,
        batch_tokens=training.batch_tokens or num_slices * data.max_target_length,
        batch_sentences=training.batch_sentences,
        weights=data.train_weights,
        num_slices=num_slices,
        length_factor=run_directory.sampled_length_factor(tokenizers, corpus, data.sampling_alpha),
        example_weights=corpus.weights,
        **limits,
    )
    return TrainingText(
        plan, corpus, *tokenizers, static_shapes=data.static_shapes, sampling_alpha=data.sampling_alpha, **limits
    )


def _write_run_card(run_dir: pathlib.Path, trainer, text, reason: str, seconds: float) -> None:
    import tensorflow as tf

    from nmt_keras import files
    from nmt_keras.training.checkpoints import weights_sha256

    files.write_json(
        run_dir / "run_card.json",
        {
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "step": trainer.step,
            "epochs": round(trainer.step / text.plan.num_batches, 2),
            "seconds_of_this_job": round(seconds),
            "best": trainer.best,
            "restarts": trainer.restarts,
            "weights": trainer.model.count_params(),
            "weights_sha256": weights_sha256(trainer.model),
            "stopped": reason,
            "overlong_samples": text.num_overlong_samples,
            "machine": platform.platform(),
            "devices": [device.name for device in tf.config.list_logical_devices()],
            "tensorflow": tf.__version__,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
