"""The training loop: take a batch, make an update; now and then log, evaluate, save."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tqdm import tqdm

from nmt_keras.config import TrainingConfig
from nmt_keras.data.batching import Batch
from nmt_keras.layers.dropout import fold_in
from nmt_keras.layers.fusion import fused
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.training.checkpoints import Checkpoints, by_path
from nmt_keras.training.losses import LossSums, batch_loss, perplexity
from nmt_keras.training.summaries import Summaries

_FIRST_LOSS_SCALE = 2.0**15
_LOSS_SCALE_GROWTH_STEPS = 2000


class Totals(NamedTuple):
    """What is summed on the device between two rows of the log, over the steps that were not skipped."""

    loss: Any
    cross_entropy: Any
    correct: Any
    tokens: Any
    positions: Any  # padded target positions
    gradient_norm: Any  # before clipping, of finite steps
    updates: Any


class Evaluation(NamedTuple):
    """What an evaluator reports: scalars for the log, and a line for people."""

    scalars: dict[str, float]
    line: str


class Trainer:
    """Trains a model by mini-batch gradient descent, under any `tf.distribute` strategy.

    Build model, optimizer and trainer in the strategy's scope. A step consumes one global batch: each replica takes its
    slice in `accumulation_steps` parts; gradients of the summed loss are summed over parts and replicas, divided once
    by the global number of real target tokens, checked, clipped by their global norm and applied. A step whose gradient
    is not finite is skipped and counted.

    Args:
        model: built.
        optimizer: a Keras optimizer without clipping of its own.
        config: of the training.
        strategy: the one whose scope this is built in.
    """

    def __init__(
        self,
        model: Seq2Seq,
        optimizer: keras.optimizers.Optimizer,
        config: TrainingConfig,
        strategy: tf.distribute.Strategy,
    ):
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.strategy = strategy
        self.step = 0
        self.best: float | None = None
        self.best_step: int | None = None
        self.evaluations_since_best = 0
        self._window_start = 0.0  # of the log's next row, in monotonic time; what is no training moves it on
        self._restored_seconds = 0.0  # of training, in that window
        optimizer.build(model.trainable_variables)
        self._steps = tf.Variable(0, dtype=tf.int64, name="steps", trainable=False)
        self._skipped = tf.Variable(0, dtype=tf.int64, name="skipped", trainable=False)
        self._totals = tf.Variable([0.0] * len(Totals._fields), dtype=tf.float64, name="totals", trainable=False)
        self._uses_loss_scale = config.precision == "mixed_float16"
        self._loss_scale = tf.Variable(
            _FIRST_LOSS_SCALE if self._uses_loss_scale else 1.0, name="loss_scale", trainable=False
        )
        self._finite_steps = tf.Variable(0, dtype=tf.int64, name="finite_steps", trainable=False)
        averages = {weight.path: _average(weight) for weight in model.trainable_variables if config.ema_decay}
        self._averages = list(averages.values())
        self.objects = tf.train.Checkpoint(
            model=by_path(model.variables),
            optimizer=by_path(optimizer.variables),
            steps=self._steps,
            skipped=self._skipped,
            totals=self._totals,
            loss_scale=self._loss_scale,
            finite_steps=self._finite_steps,
            **({"ema": averages} if averages else {}),
        )
        self._train_step: Callable[[Any], None] | None = None

    def restore(self, checkpoints: Checkpoints) -> bool:
        """Goes on from the latest checkpoint, if there is one."""
        manifest = checkpoints.restore(self.objects)
        if manifest is None:
            return False
        self.step = manifest["step"]
        self.best, self.best_step = manifest["state"]["best"], manifest["state"]["best_step"]
        self.evaluations_since_best = manifest["state"]["evaluations_since_best"]
        self._restored_seconds = manifest["state"]["window_seconds"]
        if self.best is not None and self.best_step == self.step:
            checkpoints.mark_best(self.step, self.config.best_metric, self.best)  # a kill may have come between
        return True

    def train(
        self,
        batches: Iterator[Any],
        checkpoints: Checkpoints,
        summaries: Summaries,
        evaluate: Callable[[int], Evaluation],
        report: Callable[[str], None],
    ) -> str:
        """Trains until `max_steps` or until the best metric has stood for `patience` evaluations.

        Args:
            batches: from step `self.step` on, of the strategy's distributed values.
            checkpoints: where to save.
            summaries: where to log.
            evaluate: measures the model as it is at a step.
            report: takes a line for people.

        Returns:
            Why it stopped.
        """
        config = self.config
        if self._train_step is None:
            self._train_step = self._compile(batches)
        every = Every(config.max_steps)
        self._window_start, self._restored_seconds = time.monotonic() - self._restored_seconds, 0.0
        with tqdm(
            total=config.max_steps, initial=self.step, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True
        ) as progress:
            while self.step < config.max_steps and not self._has_stalled():
                self._train_step(next(batches))
                self.step += 1
                progress.update()
                if every(config.log_every, self.step):
                    row = self._log_row()
                    summaries.scalars(self.step, row)
                    loss = f"loss {row['loss']:.3f}" if "loss" in row else "all steps skipped"
                    speed = f"{row['target_tokens_per_s']:,.0f} target tokens/s"
                    progress.set_postfix_str(f"{loss}, {speed}")
                    if progress.disable:
                        report(
                            f"step {self.step:,}/{config.max_steps:,}  {loss}  learning rate "
                            f"{row['learning_rate']:.2e}  {speed}"
                        )
                if every(config.evaluate_every, self.step):
                    self._evaluate(evaluate, checkpoints, summaries, report)
                if every(config.checkpoint_every, self.step) or self._has_stalled():
                    self.save(checkpoints)
        if self._has_stalled():
            return f"{config.best_metric} has not improved for {config.patience} evaluations"
        return f"max_steps={config.max_steps:,} reached"

    def save(self, checkpoints: Checkpoints) -> None:
        """Saves everything that training goes on from."""
        started = time.monotonic()
        checkpoints.save(
            self.step,
            self.objects,
            {
                "best": self.best,
                "best_step": self.best_step,
                "evaluations_since_best": self.evaluations_since_best,
                "window_seconds": started - self._window_start,
            },
        )
        self._window_start += time.monotonic() - started

    def _has_stalled(self) -> bool:
        return 0 < self.config.patience <= self.evaluations_since_best

    def _evaluate(self, evaluate, checkpoints, summaries, report) -> None:
        started = time.monotonic()
        evaluation = evaluate(self.step)
        self._window_start += time.monotonic() - started
        summaries.scalars(self.step, evaluation.scalars)
        report(f"step {self.step:,}  {evaluation.line}")
        value = self._value_of_the_chief(evaluation.scalars[self.config.best_metric])
        better = math.isfinite(value) and (
            self.best is None or (value < self.best if self.config.best_metric == "dev_loss" else value > self.best)
        )
        self.evaluations_since_best = 0 if better else self.evaluations_since_best + 1
        if better:
            self.best, self.best_step = value, self.step
            self.save(checkpoints)
            checkpoints.mark_best(self.step, self.config.best_metric, value)

    def _value_of_the_chief(self, value: float) -> float:
        """One value for all workers, or they would disagree on what is best and when to stop."""
        if self.strategy.num_replicas_in_sync == 1:
            return value

        def share():
            context = tf.distribute.get_replica_context()
            mine = tf.where(context.replica_id_in_sync_group == 0, tf.constant(value, tf.float32), 0.0)
            return context.all_reduce("sum", mine)

        shared = tf.function(lambda: self._first(self.strategy.run(share)), autograph=False)()
        return float(shared)

    def _log_row(self) -> dict[str, float]:
        """What the steps since the last row came to; without a loss where all of them were skipped."""
        totals = Totals(*self._totals.numpy())
        self._totals.assign([0.0] * len(Totals._fields))
        row = {
            "learning_rate": float(self.optimizer.learning_rate),
            "target_tokens": totals.tokens,
            "target_tokens_per_s": totals.tokens / (time.monotonic() - self._window_start),
            "skipped_steps": float(self._skipped.numpy()),
        }
        self._window_start = time.monotonic()
        if totals.updates:
            row["loss"] = totals.loss / totals.tokens
            row["perplexity"] = perplexity(totals.cross_entropy / totals.tokens)
            row["token_accuracy"] = totals.correct / totals.tokens
            row["gradient_norm"] = totals.gradient_norm / totals.updates
            row["padding_share"] = 1.0 - totals.tokens / totals.positions
        return row

    def _compile(self, batches) -> Callable[[Any], None]:
        return tf.function(self._step, input_signature=(batches.element_spec,), autograph=False)

    def _step(self, batch) -> None:
        gradients, scale, norms, sums, positions = self.strategy.run(self._replica_gradients, args=(batch,))
        norm, sums, positions = tf.nest.map_structure(self._first, (norms, sums, positions))
        finite = tf.math.is_finite(norm) & (sums.tokens > 0)

        def apply():
            self.strategy.run(self._replica_apply, args=(gradients, scale, norms))
            return tf.constant(1.0)

        updates = tf.cond(finite, apply, lambda: tf.constant(0.0))
        self._steps.assign_add(1)
        self._skipped.assign_add(1 - tf.cast(updates, tf.int64))
        totals = tf.stack([*sums, positions, norm, updates])
        self._totals.assign_add(tf.cast(tf.where(finite, totals, 0.0), tf.float64))
        if self._uses_loss_scale:
            self._update_loss_scale(finite)

    def _first(self, value):
        return self.strategy.experimental_local_results(value)[0]

    def _replica_gradients(self, batch: Batch):
        """Summed gradients, what makes means of them, the means' norm, sums, padded positions; over all replicas."""
        context = tf.distribute.get_replica_context()
        seed = tf.stack([tf.constant(self.config.seed), tf.cast(tf.convert_to_tensor(self._steps), tf.int32)])
        seed = fold_in(seed, context.replica_id_in_sync_group)
        weights = self.model.trainable_variables
        gradients: list[tf.Tensor] = []
        sums = LossSums(*[tf.constant(0.0)] * len(LossSums._fields))
        parts = self.config.accumulation_steps
        for number in range(parts):
            part = Batch(*(_part(leaf, number, parts) for leaf in batch))
            with tf.GradientTape() as tape:
                part_sums = batch_loss(self.model, part, fold_in(seed, number), self.config.label_smoothing)
                objective = part_sums.loss * tf.convert_to_tensor(self._loss_scale)
            part_gradients = tape.gradient(
                objective, [weight.value for weight in weights], unconnected_gradients="zero"
            )
            part_gradients = [tf.convert_to_tensor(gradient) for gradient in part_gradients]
            gradients = [g + p for g, p in zip(gradients, part_gradients)] if number else part_gradients
            sums = LossSums(*(total + new for total, new in zip(sums, part_sums)))
        positions = tf.cast(tf.size(batch.target_output_ids), tf.float32)
        gradients, sums, positions = context.all_reduce("sum", (gradients, sums, positions))
        scale = 1.0 / (tf.maximum(sums.tokens, 1.0) * tf.convert_to_tensor(self._loss_scale))
        return gradients, scale, tf.linalg.global_norm(gradients) * scale, sums, positions

    def _replica_apply(self, gradients, scale, norm) -> None:
        """Scales, clips and applies. Gradients are equal on all replicas, and the optimizer sums them once more.

        Args:
            gradients: sums over the tokens of a global batch.
            scale: what makes means of them.
            norm: of the means.
        """
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync

        def apply(gradients, scale, norm):
            factor = scale / replicas
            if self.config.clip_norm:
                factor *= tf.minimum(1.0, self.config.clip_norm / tf.maximum(norm, 1e-12))
            self.optimizer.apply([gradient * factor for gradient in gradients], self.model.trainable_variables)
            self._update_averages()

        if replicas == 1:  # a compiled function cannot reduce over replicas
            apply = fused(apply, self.model.config.d_model)
        apply(gradients, scale, norm)

    def _update_averages(self) -> None:
        """Moves the averages on; early ones forget faster, so that the first weights do not stay in them."""
        if self._averages:
            updates = tf.cast(tf.convert_to_tensor(self.optimizer.iterations), tf.float32)
            decay = tf.minimum(self.config.ema_decay, (1.0 + updates) / (10.0 + updates))
            for average, weight in zip(self._averages, self.model.trainable_variables):
                now = tf.convert_to_tensor(weight.value)
                average.assign(now + decay * (tf.convert_to_tensor(average) - now))

    def _update_loss_scale(self, finite: tf.Tensor) -> None:
        """Halves after an overflow, doubles after 2,000 finite steps (Micikevicius et al. 2018)."""
        scale = tf.convert_to_tensor(self._loss_scale)
        count = tf.where(finite, tf.convert_to_tensor(self._finite_steps) + 1, 0)
        grow = count >= _LOSS_SCALE_GROWTH_STEPS
        self._loss_scale.assign(tf.where(finite, tf.where(grow, scale * 2.0, scale), tf.maximum(scale / 2.0, 1.0)))
        self._finite_steps.assign(tf.where(grow, tf.zeros_like(count), count))


class Every:
    """Whether an interval ends at a step; the last step ends all of them."""

    def __init__(self, last_step: int):
        self._last_step = last_step

    def __call__(self, interval: int, step: int) -> bool:
        """True at each multiple of `interval` and at the last step."""
        return step % interval == 0 or step == self._last_step


def _average(weight: keras.Variable) -> tf.Variable:
    """A variable beside a weight, equal on all replicas as the weight is."""
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(lambda: tf.convert_to_tensor(weight.value), trainable=False, aggregation=first)


def _part(leaf: tf.Tensor, number: int, parts: int) -> tf.Tensor:
    """Rows of part `number` of `parts` equal ones."""
    if parts == 1:
        return leaf
    rows = tf.shape(leaf)[0] // parts
    return leaf[number * rows : (number + 1) * rows]
