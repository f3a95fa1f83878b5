"""The training loop: take a batch, make an update; now and then log, evaluate, save; start again when it goes bad."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf
from tqdm import tqdm

from nmt_keras.config import TrainingConfig
from nmt_keras.errors import Failure, Stopped, UserError
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.reports import shows_bars
from nmt_keras.training.asynchronous import AsynchronousStep
from nmt_keras.training.checkpoints import Checkpoints
from nmt_keras.training.dashboards import StepProfile
from nmt_keras.training.dev_loss import perplexity
from nmt_keras.training.feed import Feed
from nmt_keras.training.local_sgd import LocalSGD
from nmt_keras.training.losses import Resources
from nmt_keras.training.non_finite_steps import NonFiniteSteps
from nmt_keras.training.stopping import StopRequest
from nmt_keras.training.summaries import Summaries
from nmt_keras.training.train_step import NonFiniteStep, TrainStep
from nmt_keras.training.workers import Workers

MAX_RESTARTS = 3
_STEPS_BETWEEN_AGREEMENTS = 10  # of workers, on whether to stop


class Evaluation(NamedTuple):
    """What an evaluator reports: scalars for the log, and a line for people."""

    scalars: dict[str, float]
    line: str


class Trainer:
    """Trains a model by mini-batch gradient descent, under any `tf.distribute` strategy.

    Build model and trainer in the scope of the workers' strategy. A step consumes one global batch (`TrainStep`);
    workers that make steps of their own consume a part of it each (`LocalSGD`), and one that does not wait hands it to
    whoever is free (`AsynchronousStep`). Everything that the next step depends on is in a checkpoint, so that a run
    that stopped goes on as if it had not.

    After `max_bad_steps` steps in a row whose loss or gradient is not finite, the latest checkpoint from before them is
    loaded and `restarts` is increased. It changes the seeds of the plan, of sampling and of dropout, since the same
    seeds would lead to the same numbers again; and it halves the learning rate.

    Args:
        model: built.
        config: of the training.
        workers: the processes that train, and the strategy whose scope this is built in.
        non_finite_steps: writes steps that are not finite; None keeps none.
        resources: what the loss needs beside the configuration.
    """

    def __init__(
        self,
        model: Seq2Seq,
        config: TrainingConfig,
        workers: Workers,
        non_finite_steps: NonFiniteSteps | None = None,
        resources: Resources = Resources(),
    ):
        self.model = model
        self.config = config
        self.workers = workers
        self.step = 0
        self.restarts = 0
        self.is_stopped = False  # it was asked to stop before it was done
        self.best: float | None = None
        self.best_step: int | None = None
        self.evaluations_since_best = 0
        self.measured: Mapping[str, Any] = {}  # what evaluations measure
        self._measured_before: Mapping[str, Any] = {}  # the same, for older checkpoints that do not record it
        self.new_measures: list[str] = []  # what was measured otherwise at the checkpoint that training goes on from
        do_not_wait = isinstance(workers.strategy, tf.distribute.ParameterServerStrategy)
        kind = AsynchronousStep if do_not_wait else TrainStep
        self.train_step = kind(model, config, workers, resources)
        self.local_sgd = LocalSGD(self.train_step, config, workers) if workers.make_own_steps else None
        self.train_step.on_non_finite = self._note_non_finite
        self._is_new = True
        self._non_finite_steps = non_finite_steps
        self._non_finite_in_a_row = 0
        self._restarted_at = (sys.maxsize, -1)  # the step and the updates of the latest restart of this job
        self.owes_evaluation = False  # whether the evaluation of the current step is due and not done
        self._window_start = 0.0  # of the log's next row, in monotonic time; moved on by time that is not training
        self._restored_seconds = 0.0  # of training, in that window
        self._has_peers = workers.link is not None

    @property
    def is_asynchronous(self) -> bool:
        """Whether steps are made by workers that do not wait for each other."""
        return isinstance(self.train_step, AsynchronousStep)

    @property
    def is_interleaved(self) -> bool:
        """Whether updates come in another order each time."""
        return isinstance(self.train_step, AsynchronousStep) and not self.train_step.is_exact

    def restore(
        self,
        checkpoints: Checkpoints,
        fingerprint: str = "",
        allow_change: bool = False,
        measured: Mapping[str, Any] = MappingProxyType({}),
        measured_before: Mapping[str, Any] = MappingProxyType({}),
    ) -> bool:
        """Goes on from the latest checkpoint, if there is one.

        If evaluations will measure something else than before, old values are not compared: the best value and the
        patience begin anew, and `new_measures` says why.

        Args:
            checkpoints: of the run.
            fingerprint: of the plan that training follows.
            allow_change: go on with another plan than the checkpoint's, at the same step.
            measured: what evaluations measure, JSON values by name.
            measured_before: the same, for older checkpoints that do not record it.

        Raises:
            UserError: the checkpoint was made under another plan.
        """
        manifest = checkpoints.restore(self.train_step.variables)
        if manifest is None:
            return False
        planned = manifest["state"]["plan"]
        if planned != fingerprint and not allow_change:
            raise UserError(
                f"The checkpoint of step {manifest['step']} in {checkpoints.folder} was made with other batches than "
                "are planned now (the text, the tokenizers, or the number of devices changed); restore what was, or "
                "give --allow_config_change to go on with these"
            )
        self.measured, self._measured_before = measured, measured_before
        self._take_over(manifest, checkpoints)
        return True

    def _take_over(self, manifest: dict[str, Any], checkpoints: Checkpoints) -> None:
        """Takes over a checkpoint's book-keeping; sets the best mark again, which a killed job may not have written."""
        self._is_new = False
        state = manifest["state"]
        self.step = manifest["step"]
        self.restarts = int(self.train_step.restarts.numpy())
        self.best, self.best_step = state["best"], state["best_step"]
        self.evaluations_since_best = state["evaluations_since_best"]
        self.owes_evaluation = state["owes_evaluation"]
        before = state.get("measured") or self._measured_before
        self.new_measures = [name for name, value in self.measured.items() if before.get(name, value) != value]
        if self.new_measures:
            self.owes_evaluation = True
            self.evaluations_since_best = 0
            self.best = self.best_step = None
            checkpoints.forget_best()
        elif self.best_step in checkpoints.steps():
            checkpoints.mark_best(self.best_step, self.config.best_metric, self.best)
        else:
            self.best = self.best_step = None
        self._restored_seconds = state["window_seconds"]
        self.train_step.settle()
        self._non_finite_in_a_row = 0

    def train(
        self,
        feed: Feed,
        checkpoints: Checkpoints,
        summaries: Summaries,
        evaluate: Callable[[int], Evaluation],
        report: Callable[[str], None],
        stop: StopRequest | None = None,
        profile: StepProfile | None = None,
    ) -> str:
        """Trains until `max_steps`, until `patience` evaluations in a row were no better, or until asked to stop.

        Args:
            feed: of the batches.
            checkpoints: where to save.
            summaries: where to log.
            evaluate: measures the model as it is at a step.
            report: takes a line for people.
            stop: asks for an end with everything saved.
            profile: takes a profile of some steps.

        Returns:
            Why it stopped.

        Raises:
            Failure: steps are not finite again after `MAX_RESTARTS` restarts, or no checkpoint to restart from is left.
            UserError: the device has no memory for a batch; the state is saved where no other process trains with it.
        """
        stop = stop or StopRequest()
        config = self.config
        self.train_step.compile(feed.element_spec)
        if self.local_sgd:
            self.local_sgd.begin()
        batches = feed.start(self.step, self.restarts)
        if self._is_new:
            self.save(checkpoints, feed)  # where a restart may have to begin; and a full disk is met before step 1
        every = Every(config.max_steps)
        self._window_start, self._restored_seconds = time.monotonic() - self._restored_seconds, 0.0
        with self._explaining_late_failures(feed), tqdm(
            total=config.max_steps, initial=self.step, unit="step", disable=not shows_bars(), dynamic_ncols=True
        ) as progress:
            if self.new_measures:
                self.save(checkpoints, feed, replace=True)  # with the new measures, if the job is killed next
            if self.owes_evaluation:
                self._evaluate(evaluate, feed, checkpoints, summaries, report, stop)
                if not self.owes_evaluation:
                    self.save(checkpoints, feed, replace=True)
            while self.step < config.max_steps and not self._has_stalled() and not self._is_to_stop(stop):
                if profile:
                    profile.before(self.step + 1)
                self._take_step(batches, feed, checkpoints)
                if profile:
                    profile.after(self.step, self.train_step.wait)
                progress.update()
                if self._must_restart():
                    self._restart(checkpoints, summaries, report)
                    batches = feed.start(self.step, self.restarts)
                    progress.reset(config.max_steps)
                    progress.update(self.step)
                    continue
                if every(config.log_every, self.step):
                    self._log(summaries, progress, report)
                if every(config.evaluate_every, self.step):
                    self.owes_evaluation = True
                    self._evaluate(evaluate, feed, checkpoints, summaries, report, stop)
                if every(config.checkpoint_every, self.step) or self._has_stalled():
                    self.save(checkpoints, feed)
        is_done = self.step == config.max_steps or self._has_stalled()
        if stop.reason and (self.owes_evaluation or not is_done):
            self.save(checkpoints, feed)
            self.is_stopped = True
            return f"{stop.reason} at step {self.step:,}, which is saved"
        if self._has_stalled():
            return f"{config.best_metric} has not improved for {config.patience} evaluations"
        return f"max_steps={config.max_steps:,} reached"

    def _take_step(self, batches: Iterator[Any], feed: Feed, checkpoints: Checkpoints) -> None:
        self._non_finite_in_a_row = 0
        try:
            self.train_step(next(batches))
        except tf.errors.ResourceExhaustedError as error:
            saved = "the latest checkpoint is intact"
            is_whole = self.train_step.is_between_steps() and self.train_step.steps.numpy() == self.step
            if is_whole and self.workers.count == 1:  # others would have to save too, or have steps under way
                self.save(checkpoints, feed)
                saved = f"what it had learned is saved as step {self.step}"
            raise self._without_memory(feed, saved) from error
        self.step += 1
        if self.local_sgd and self.local_sgd.is_due(self.step):
            self.local_sgd.meet()

    @contextlib.contextmanager
    def _explaining_late_failures(self, feed: Feed) -> Iterator[None]:
        """Explains where steps had no memory that fail when they are waited for."""
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            if not (isinstance(self.train_step, AsynchronousStep) and self.train_step.failed):
                raise
            raise self._without_memory(feed, "the latest checkpoint is intact") from error

    def _without_memory(self, feed: Feed, saved: str) -> UserError:
        failed = range(self.step + 1, self.step + 2)
        if isinstance(self.train_step, AsynchronousStep):  # which fails later than it was handed out
            failed = self.train_step.failed or failed
        where = f"one of the steps {failed[0]} to {failed[-1]}"
        if len(failed) == 1:
            where = f"step {failed[0]}, {feed.describe(failed[0] - 1, self.restarts)}"
        return UserError(
            f"The device ran out of memory at {where}; {saved}. Go on with a smaller --config.training.batch_tokens "
            f"(it is {self.config.batch_tokens}) or more --config.training.accumulation_steps (it is "
            f"{self.config.accumulation_steps}), and --allow_config_change"
        )

    def _must_restart(self) -> bool:
        """Whether steps have been bad for too long; workers that make their own agree on it when they meet."""
        is_bad = self._non_finite_in_a_row >= self.config.max_bad_steps
        if self.local_sgd is None:
            return is_bad
        return self.local_sgd.is_due(self.step) and self.workers.sum_of(float(is_bad)) > 0

    def save(self, checkpoints: Checkpoints, feed: Feed, replace: bool = False) -> None:
        """Saves everything that training goes on from, unless the step is saved already and not to be replaced."""
        self.train_step.wait()
        started = time.monotonic()
        checkpoints.save(
            self.step,
            self.train_step.variables,
            {
                "best": self.best,
                "best_step": self.best_step,
                "evaluations_since_best": self.evaluations_since_best,
                "owes_evaluation": self.owes_evaluation,
                "window_seconds": started - self._window_start,
                "seed": self.config.seed,
                "plan": feed.text.plan.fingerprint,
                "measured": dict(self.measured),
                "is_good": not self._are_bad_in_a_row(),
            },
            replace,
        )
        self._window_start += time.monotonic() - started

    def _are_bad_in_a_row(self) -> bool:
        in_a_row = float(self.train_step.non_finite_in_a_row.numpy())
        return (self.workers.sum_of(in_a_row) if self.local_sgd else in_a_row) > 0

    def _note_non_finite(self, non_finite: NonFiniteStep) -> None:
        self._non_finite_in_a_row = non_finite.in_a_row
        if self._non_finite_steps is not None:
            self._non_finite_steps.write(non_finite)

    def _restart(self, checkpoints: Checkpoints, summaries: Summaries, report: Callable[[str], None]) -> None:
        self.train_step.wait()
        in_a_row = max(self._non_finite_in_a_row, self.config.max_bad_steps)  # it may be another worker's
        failed = f"{in_a_row} steps in a row up to step {self.step:,} had a loss or gradient that is not finite"
        dumps = self._non_finite_steps.describe() if self._non_finite_steps is not None else "no batch was kept"
        if self.restarts >= MAX_RESTARTS:
            raise Failure(
                f"{failed}, after {MAX_RESTARTS} restarts with other seeds and half the learning rate each, which is "
                f"{float(self.train_step.optimizer.learning_rate):.2e} now: {dumps}"
            )
        restarts = self.restarts + 1
        updates = int(self.train_step.optimizer.iterations.numpy())
        has_learned_nothing = updates == self._restarted_at[1]
        if self.local_sgd:  # all must go back to one checkpoint
            has_learned_nothing = self.workers.sum_of(float(has_learned_nothing)) > 0
        before = self._restarted_at[0] if has_learned_nothing else sys.maxsize
        manifest = checkpoints.restore(
            self.train_step.variables,
            accept=lambda manifest: manifest["state"]["is_good"] and manifest["step"] < before,
        )
        if manifest is None:
            manifest = checkpoints.restore(self.train_step.variables, accept=lambda m: m["state"]["is_good"])
        if manifest is None:
            raise Failure(f"{failed}, and no checkpoint from before them is left: {dumps}")
        self._take_over(manifest, checkpoints)
        self._window_start, self._restored_seconds = time.monotonic() - self._restored_seconds, 0.0
        self.restarts = restarts
        self.train_step.restarts.assign(restarts)
        if self.local_sgd:
            self.local_sgd.begin()
        self._restarted_at = (self.step, int(self.train_step.optimizer.iterations.numpy()))
        checkpoints.discard_after(self.step)
        summaries.go_on_from(self.step, self.owes_evaluation)
        report(
            f"warning: {failed}; going on from step {self.step:,} with other seeds and half the learning rate, "
            f"{float(self.train_step.optimizer.learning_rate):.2e} (restart {restarts} of {MAX_RESTARTS}); {dumps}"
        )

    def _is_to_stop(self, stop: StopRequest) -> bool:
        """Whether this worker, or any of several, was asked to stop; all of them agree."""
        if not self._has_peers:
            return bool(stop.reason)
        meets = self.local_sgd.is_due(self.step) if self.local_sgd else self.step % _STEPS_BETWEEN_AGREEMENTS == 0
        if not meets:
            return False
        if not self.workers.sum_of(1.0 if stop.reason else 0.0):
            return False
        stop.reason = stop.reason or "another worker was stopped"
        return True

    def _has_stalled(self) -> bool:
        return 0 < self.config.patience <= self.evaluations_since_best

    def _evaluate(
        self,
        evaluate: Callable[[int], Evaluation],
        feed: Feed,
        checkpoints: Checkpoints,
        summaries: Summaries,
        report: Callable[[str], None],
        stop: StopRequest,
    ) -> None:
        self.train_step.wait()
        started, evaluation = time.monotonic(), None
        with contextlib.suppress(Stopped):
            stop.interrupts = not self._has_peers  # the others would wait for a worker that left
            if self._has_peers or not stop.reason:
                evaluation = evaluate(self.step)
            stop.interrupts = False
        stop.interrupts = False
        self._window_start += time.monotonic() - started
        if evaluation is None:
            return
        summaries.scalars(self.step, evaluation.scalars)
        if self.config.histograms_every and self.step // self.config.evaluate_every % self.config.histograms_every == 0:
            summaries.histograms(self.step, self.train_step.distributions())
        report(f"step {self.step:,}  {evaluation.line}")
        # One value for all workers, or they would disagree on what is best and when to stop.
        value = self.workers.of_chief(evaluation.scalars[self.config.best_metric])
        better = math.isfinite(value) and (
            self.best is None or (value < self.best if self.config.best_metric == "dev_loss" else value > self.best)
        )
        self.evaluations_since_best = 0 if better else self.evaluations_since_best + 1
        self.owes_evaluation = False
        if better:
            self.best, self.best_step = value, self.step
            self.save(checkpoints, feed)
            checkpoints.mark_best(self.step, self.config.best_metric, value)

    def _log(self, summaries: Summaries, progress: tqdm, report: Callable[[str], None]) -> None:
        row = self._log_row()
        summaries.scalars(self.step, row)
        loss = f"loss {row['loss']:.3f}" if "loss" in row else "all steps skipped"
        speed = f"{row['target_tokens_per_s']:,.0f} target tokens/s"
        progress.set_postfix_str(f"{loss}, {speed}")
        if progress.disable:
            place = f"step {self.step:,}/{self.config.max_steps:,}"
            report(f"{place}  {loss}  learning rate {row['learning_rate']:.2e}  {speed}")

    def _log_row(self) -> dict[str, float]:
        """The row of the log on the steps since the last row; it has no loss if all of them were skipped."""
        step = self.train_step
        step.wait()
        totals, loss = (self.local_sgd or step).take_totals(), step.loss
        skipped = float(step.skipped.numpy())
        row = {
            "learning_rate": float(step.optimizer.learning_rate),
            "target_tokens": totals.tokens,
            "target_tokens_per_s": totals.tokens / (time.monotonic() - self._window_start),
            "skipped_steps": self.workers.sum_of(skipped) if self.local_sgd else skipped,
            "restarts": float(self.restarts),
        }
        if self.local_sgd:
            row["outer_change"] = self.local_sgd.change
        if isinstance(step, AsynchronousStep):
            staleness = step.take_staleness()
            row |= {
                "staleness": staleness.mean,
                "largest_staleness": float(staleness.largest),
                "repeated_steps": float(staleness.repeated),
                "workers": float(staleness.workers),
            }
        self._window_start = time.monotonic()
        if totals.updates:
            row |= {name: value / totals.weight for name, value in zip(loss.names, totals.scalars, strict=True)}
            if loss.name_of_minimised:
                row[loss.name_of_minimised] = totals.minimised / totals.weight
            row["perplexity"] = perplexity(row["loss"])
            row["gradient_norm"] = totals.gradient_norm / totals.updates
            row["padding_share"] = 1.0 - totals.tokens / totals.positions
        return row


class Every:
    """Whether an interval ends at a step; the last step ends all of them."""

    def __init__(self, last_step: int):
        self._last_step = last_step

    def __call__(self, interval: int, step: int) -> bool:
        """True at each multiple of `interval` and at the last step."""
        return step % interval == 0 or step == self._last_step
