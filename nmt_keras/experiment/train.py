"""Trains a model in a run directory."""

import contextlib
import dataclasses
import datetime
import pathlib
import platform
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from nmt_keras import files
from nmt_keras.config import DataConfig, ExperimentConfig, TrainingConfig
from nmt_keras.config.data import tag_of
from nmt_keras.config.rules import training_doubts
from nmt_keras.data.alignments import Alignments
from nmt_keras.data.batch_plan import BatchPlan, visits_at_temperature
from nmt_keras.data.batching import TrainingText
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.data.encoded import EncodedCorpus, lines_to_encode
from nmt_keras.data.lengths import sampled_length_factor
from nmt_keras.doctor.before_training import refuse_serious_findings
from nmt_keras.errors import UserError
from nmt_keras.experiment.dev_set import DevEvaluator
from nmt_keras.experiment.resources import open_resources
from nmt_keras.experiment.text import open_dev, open_train, with_placeholders, write_split
from nmt_keras.inference.evaluation import open_bleu
from nmt_keras.inference.protection import protection_of
from nmt_keras.layers.recurrent import use_cudnn, ways_of
from nmt_keras.models.seq2seq import Seq2Seq, build_seq2seq
from nmt_keras.reports import Report, counted, shows_bars, silent
from nmt_keras.runs.data_card import check_data_card, texts_of, write_data_card
from nmt_keras.runs.fine_tuning import initialise
from nmt_keras.runs.layout import checkpoints_of, open_run_dir, read_config, require_same_experiment
from nmt_keras.runs.measures import measure_before, measure_of
from nmt_keras.runs.tokenizers import load_tokenizers, prepare_tokenizers
from nmt_keras.tokenizers.base import Tokenizers, unknown_rate
from nmt_keras.tokenizers.building import own_tokenizers, require_sampling
from nmt_keras.tokenizers.target_tags import tag_ids
from nmt_keras.training import memory
from nmt_keras.training.checkpoints import Checkpoints, weights_sha256
from nmt_keras.training.cluster import SIGNS_OF_LOSS, connected, serve
from nmt_keras.training.dashboards import StepProfile
from nmt_keras.training.feed import Feed
from nmt_keras.training.freezing import freeze
from nmt_keras.training.losses import build_loss
from nmt_keras.training.non_finite_steps import NonFiniteSteps
from nmt_keras.training.precision import configure, resolve_compile, resolve_precision
from nmt_keras.training.pretrained_vectors import load_pretrained_vectors
from nmt_keras.training.stopping import StopRequest
from nmt_keras.training.summaries import Summaries, font_note
from nmt_keras.training.trainer import Evaluation, Trainer
from nmt_keras.training.workers import Workers


def train(
    config: ExperimentConfig,
    run_dir: pathlib.Path,
    *,
    allow_change: bool = False,
    report: Report = silent,
    stop: StopRequest | None = None,
    profile: tuple[int, int] | None = None,
) -> bool:
    """Trains `config` in `run_dir` until it is done, or until it is asked to stop. Resumes what is there.

    Args:
        config: of the experiment.
        run_dir: where everything of the run is kept.
        allow_change: whether a run that is there may go on with other data or another schedule.
        report: takes a line for the user.
        stop: asks training to save and stop.
        profile: the first and the last step of a profile for TensorBoard.

    Returns:
        Whether it is done.

    Raises:
        UserError: the configuration, the data or the run directory cannot be used.
    """
    config.validate()
    config.resolve_positions()
    build_loss(config.training)  # raises if there is none of that name
    protection_of(config)  # and if one of its patterns is none
    stop = stop or StopRequest()
    resolve_precision(config.training)
    resolve_compile(config.training)
    if serve(config, run_dir, report):
        return True
    with connected(config, run_dir, report) as workers:  # before any TensorFlow operation
        stop.listen()
        configure(config.training)
        return _train_together(config, run_dir, workers, allow_change, report, stop, profile)


def _train_together(
    config: ExperimentConfig,
    run_dir: pathlib.Path,
    workers: Workers,
    allow_change: bool,
    report: Report,
    stop: StopRequest,
    profile: tuple[int, int] | None,
) -> bool:
    """Opens text and run directory, and trains."""
    data = config.data
    if workers.is_chief:
        for doubt in training_doubts(config.training):
            report(f"warning: {doubt}")
        require_same_experiment(run_dir, config, allow_change)
        if config.training.init_from and not (run_dir / "config.json").exists():
            read_config(pathlib.Path(config.training.init_from))  # a mistake is found before the work
    for language in dict.fromkeys(data.languages_of_dev):
        open_bleu(dataclasses.replace(data, target_language=language), report)
    if data.sampling_alpha and data.source_tokenizer_model and not (run_dir / "tokenizer").exists():
        require_sampling(own_tokenizers(data), data)
    corpus = open_train(data, report)
    dev = open_dev(data, report)
    is_font_noted = _report_font(dev, report)
    measured = measure_before(run_dir), measure_of(config, dev)
    workers.barrier()  # all have read what the chief will write over
    with contextlib.ExitStack() as stack:
        if workers.is_chief:
            findings = refuse_serious_findings(data, corpus, dev, report)

            def check() -> None:
                _require_tags(run_dir, data)
                if not allow_change:
                    check_data_card(run_dir, corpus, dev)

            stack.enter_context(open_run_dir(run_dir, config, report, allow_change, check))
            write_data_card(run_dir, corpus, dev, findings)
            if data.dev_pairs:
                write_split(data, run_dir, report)
            with _hint_at_kept_tokenizers(config):
                prepare_tokenizers(run_dir, data, with_placeholders(data, corpus, report), report)
        workers.barrier()  # what the chief makes, the others find
        corpus = with_placeholders(data, corpus, silent)
        rest = (stop, allow_change, measured, is_font_noted, report, profile)
        is_done = _train(config, run_dir, corpus, dev, workers, *rest)
        workers.barrier()  # whoever leaves first would end the job of the others
    return is_done


def _require_tags(run_dir: pathlib.Path, data: DataConfig) -> None:
    """Checks that the tokenizers that a run has know all its target languages, before anything of it is changed."""
    tokenizer = load_tokenizers(run_dir).source
    for language in data.target_languages:
        if tokenizer.control_id(tag_of(language)) is None:
            raise UserError(
                f"The tokenizer of {run_dir} was trained without the target language {language!r}, which "
                "data.train_languages has now: begin a new run, with --init_from of this one if you like"
            )


@contextlib.contextmanager
def _hint_at_kept_tokenizers(config: ExperimentConfig) -> Iterator[None]:
    """Names the tokenizers of the run that training begins with, where the text is too small for new ones."""
    try:
        yield
    except UserError as error:
        base = config.training.init_from
        if not base or config.data.tokenizer_from:
            raise
        raise UserError(f"{error}; or keep the tokenizers of {base}: data.tokenizer_from={base}") from error


def _train(
    config: ExperimentConfig,
    run_dir: pathlib.Path,
    corpus: ParallelCorpus,
    dev: ParallelCorpus,
    workers: Workers,
    stop: StopRequest,
    allow_change: bool,
    measured: tuple[dict[str, Any], dict[str, Any]],
    is_font_noted: bool,
    report: Report,
    profile: tuple[int, int] | None,
) -> bool:
    """Trains on open text in a run directory that has its tokenizers."""
    started, training = time.time(), config.training
    chief = workers.is_chief
    tokenizers = load_tokenizers(run_dir)
    require_sampling(tokenizers, config.data)
    tag_ids(config.data, tokenizers.source, config.data.target_languages)  # raises if one is missing
    _report_unknown(tokenizers, dev, report)
    non_finite_steps = NonFiniteSteps(run_dir / "bad_batches", workers.number, report)
    with workers.strategy.scope():
        resources = open_resources(config, tokenizers, report, run_dir if chief else None, allow_change)
        model = build_seq2seq(config.model, *_vocab_sizes(tokenizers))
        computes_here = training.compile != "step" and training.distribution != "parameter_server"
        use_cudnn(model, bool(tf.config.list_physical_devices("GPU")) and computes_here)
        frozen = freeze(model, training.freeze)
        trainer = Trainer(model, training, workers, non_finite_steps, resources)
    replicas = workers.num_slices
    report(f"model: {model.count_params():,} weights; {counted(replicas, 'replica')}; {training.precision}")
    if frozen:
        report(f"weights that stay as they are: {len(frozen)} of {len(model.variables)}, {training.freeze}")
    if not training.batch_tokens and not training.batch_sentences:
        training.batch_tokens = _budget(config, corpus, tokenizers, trainer, workers, report)
        files.write_text(run_dir / "config.json", config.to_json())
    feed = Feed(_training_text(config, corpus, tokenizers, replicas, report), workers)
    plan = feed.text.plan
    of_texts = {f"text in {text.path}": text.sha256 for text in (*texts_of(corpus), *texts_of(dev))}
    of_tokenizers = {f"{side} tokenizer": each.sha256 for side, each in zip(("source", "target"), tokenizers)}
    workers.agree({**of_texts, **of_tokenizers, "batch plan": plan.fingerprint})
    padding = f"; {plan.static_padding:.1%} of all positions are padding" if config.data.static_shapes else ""
    report(f"data: {plan.summary()}{padding}")
    if plan.num_long:
        report(
            f"data: the limits are data.max_source_length={config.data.max_source_length} and "
            f"data.max_target_length={config.data.max_target_length} ids; pipelines.doctor suggests some"
        )
    part = trainer.local_sgd.part if trainer.local_sgd else None
    signs = SIGNS_OF_LOSS if workers.cluster is not None else ()
    checkpoints = Checkpoints(checkpoints_of(run_dir), training.keep_checkpoints, chief, report, part, signs)
    checkpoints.clean_up()
    workers.barrier()
    before, trainer.measured = measured
    if trainer.restore(checkpoints, plan.fingerprint, allow_change, trainer.measured, before):
        interleaved = "; updates interleave otherwise than before" if trainer.is_interleaved else ""
        report(f"resuming at step {trainer.step:,}{interleaved}")
        if trainer.new_measures:
            report(
                f"what is measured has changed ({', '.join(trainer.new_measures)}): the best checkpoint "
                "and the patience begin anew"
            )
    else:
        load_pretrained_vectors(model, tokenizers, config, report)
        if training.init_from:  # what another run has learned wins over the vectors of a file
            with workers.strategy.scope():
                initialise(model, tokenizers, config, report)
    if trainer.step < training.max_steps:
        trainer.train_step.compile(feed.element_spec)
        if trainer.is_asynchronous:
            report("memory and time are not planned: they are those of the workers")
        elif memory.is_told() and training.distribution != "tpu":  # of which it knows nothing
            bucket, need = memory.estimate(trainer.train_step, feed)
            report(memory.describe(bucket, need, memory.limit_of_process(), plan.num_batches, training.max_steps))
        else:
            report("memory and time are not planned: this system does not tell (Linux does, in /proc)")
        if config.data.static_shapes and not trainer.is_asynchronous:
            _make_graphs(trainer, feed, report)
        if tf.config.list_physical_devices("GPU") and (ways := ways_of(model)):
            report(f"recurrences: {ways}")
    summaries = Summaries(run_dir, trainer.step, trainer.owes_evaluation, chief)
    summaries.run(config, run_dir.resolve().name)
    evaluated = model if not trainer.is_asynchronous else build_seq2seq(config.model, *_vocab_sizes(tokenizers))
    evaluator = DevEvaluator(evaluated, tokenizers, config, dev, summaries, report, is_font_noted)

    def evaluate(step: int) -> Evaluation:
        if evaluated is not model:  # a copy in this process: each read of a weight on a server is a message
            for own, variable in zip(evaluated.variables, model.variables, strict=True):
                own.assign(variable.value.read_value())
        return evaluator(step)

    stop.interrupts = False  # from here on it is the trainer that stops, and saves
    profiled = StepProfile(run_dir / "summaries", *profile) if profile and chief else None
    try:
        reason = trainer.train(feed, checkpoints, summaries, evaluate, report, stop, profiled)
    finally:
        if profiled:
            profiled.close()
    if profiled and profile and not profiled.came:
        report(f"warning: no step of --profile={profile[0]}:{profile[1]} was made by this job: nothing is profiled")
    best = "not measured" if trainer.best is None else f"{trainer.best:.4f}"
    if trainer.is_stopped:
        report(f"{reason}; the same command goes on; best {training.best_metric} so far {best}")
    else:
        report(f"done: {reason}; best {training.best_metric} {best}")
    if chief:
        _write_run_card(run_dir, trainer, feed.text, reason, time.time() - started)
        if not trainer.is_stopped:
            summaries.embeddings(_embeddings(model, tokenizers))
    return not trainer.is_stopped


def _embeddings(model: Seq2Seq, tokenizers: Tokenizers) -> dict[str, tuple[np.ndarray, list[str]]]:
    """The tables of a model with the pieces of their rows; one where both sides share it."""
    sides = {"source_embedding": tokenizers.source, "target_embedding": tokenizers.target}
    tables = {name: getattr(model, name).table.numpy() for name in sides}
    if model.source_embedding is model.target_embedding:
        del tables["source_embedding"]
    return {
        name: (table, [sides[name].piece(number) for number in range(sides[name].vocab_size)])
        for name, table in tables.items()
    }


def _vocab_sizes(tokenizers: Tokenizers) -> tuple[int, int]:
    return tokenizers.source.vocab_size, tokenizers.target.vocab_size


def _make_graphs(trainer: Trainer, feed: Feed, report: Report) -> None:
    """Makes the graph of the step for each shape of a batch, so that step 1 and those after it make none."""
    started, step = time.monotonic(), trainer.train_step
    for batch in feed.each_shape():
        step(batch, apply=False)
    verb = "compiled" if trainer.config.compile == "step" else "made"
    report(
        f"step: {verb} for {step.num_graphs} shapes of {len(feed.text.plan.buckets)} length buckets in "
        f"{time.monotonic() - started:.0f} s"
    )


def _budget(
    config: ExperimentConfig,
    corpus: ParallelCorpus,
    tokenizers: Tokenizers,
    trainer: Trainer,
    workers: Workers,
    report: Report,
) -> int:
    """The largest `batch_tokens` that fits and is worth its time; about the default where memory is not known."""
    replicas = workers.num_slices
    if not memory.is_told():
        slices = replicas * config.training.accumulation_steps
        budget = max(TrainingConfig.batch_tokens, slices * config.data.max_target_length)
        report(f"training.batch_tokens: {budget}; what fits is not known, this system does not tell")
        return budget
    feed = Feed(_training_text(config, corpus, tokenizers, replicas, silent), workers)
    trainer.train_step.compile(feed.element_spec)
    budget = max(memory.find_budget(trainer.train_step, feed), config.data.max_target_length)
    report(f"training.batch_tokens: {budget} is the largest that fits, or that is worth its time")
    return budget


def _report_font(dev: ParallelCorpus, report: Report) -> bool:
    """Reports the script that attention pictures have no font for; returns whether there is one."""
    note = font_note("".join(line for text in (*dev.sources, *dev.targets) for line in text.lines([0])))
    if note:
        report(f"attention pictures: {note}")
    return bool(note)


def _report_unknown(tokenizers: Tokenizers, dev: ParallelCorpus, report: Report) -> None:
    rates = (
        f"{side} {unknown_rate(tokenizer, lines):.2%}"
        for side, tokenizer, lines in zip(("source", "target"), tokenizers, dev.text())
    )
    report(f"unknown pieces in dev: {', '.join(rates)}")


def _training_text(
    config: ExperimentConfig, corpus: ParallelCorpus, tokenizers: Tokenizers, num_replicas: int, report: Report
) -> TrainingText:
    """The corpus as a `TrainingText`, planned for so many replicas; in the smallest batches where no size is set."""
    data, training = config.data, config.training
    limits: dict[str, Any] = {"max_source_length": data.max_source_length, "max_target_length": data.max_target_length}
    bar = {"unit": "line", "desc": "ids", "leave": False, "disable": not shows_bars()}
    with tqdm(total=lines_to_encode(corpus), **bar) as progress:
        tags = tag_ids(data, tokenizers.source, data.train_languages)
        encoded = EncodedCorpus(corpus, tokenizers, progress.update, tags)
    align = Alignments(corpus, tokenizers, encoded.num_tags) if any(data.train_alignments) else None
    num_slices = num_replicas * training.accumulation_steps
    weights: Sequence[float] = data.train_weights
    if data.train_temperature != 1.0:
        weights = visits_at_temperature([len(text) for text in corpus.sources], data.train_temperature)
        visits = ", ".join(f"{each:.2f}" for each in weights)
        report(f"data: an epoch visits the lines of the corpora {visits} times (data.train_temperature)")
    plan = BatchPlan(
        *encoded.lengths,
        seed=training.seed,
        batch_tokens=training.batch_tokens or num_slices * data.max_target_length,
        batch_sentences=training.batch_sentences,
        weights=weights,
        num_slices=num_slices,
        length_factor=sampled_length_factor(tokenizers, corpus, data.sampling_alpha),
        example_weights=corpus.weights,
        num_buckets=data.num_buckets,
        **limits,
    )
    return TrainingText(
        plan,
        corpus,
        tokenizers.source,
        tokenizers.target,
        encoded=encoded,
        static_shapes=data.static_shapes,
        sampling_alpha=data.sampling_alpha,
        align=align,
        **limits,
    )


def _write_run_card(run_dir: pathlib.Path, trainer: Trainer, text: TrainingText, reason: str, seconds: float) -> None:
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
            **({"unfit_alignments": text.align.num_unfit} if text.align else {}),
            "machine": platform.platform(),
            "devices": [device.name for device in tf.config.list_logical_devices()],
            "tensorflow": tf.__version__,
        },
    )
