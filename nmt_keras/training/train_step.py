"""One update: gradients of a global batch, summed over its parts and replicas, checked, clipped and applied."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.constants import PAD_ID
from nmt_keras.data.batch_plan import PADDING_LINE
from nmt_keras.data.batching import Batch
from nmt_keras.layers.dropout import fold_in, non_negative
from nmt_keras.layers.fusion import fused
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.training.checkpoints import by_path
from nmt_keras.training.losses import Forward, LossSums, Resources, build_loss
from nmt_keras.training.schedules import build_optimizer
from nmt_keras.training.workers import Workers

_FIRST_LOSS_SCALE = 2.0**15
_LOSS_SCALE_GROWTH_STEPS = 2000
_RESTART_SALT = 0x1E3779B9


class Totals(NamedTuple):
    """What is summed on the device between two rows of the log, over the steps that were not skipped."""

    minimised: Any
    scalars: list[Any]  # of the loss, in the order of its names
    weight: Any  # of target tokens: their number, where examples have no weights
    tokens: Any  # real target tokens
    positions: Any  # padded target positions
    gradient_norm: Any  # before clipping, of finite steps
    updates: Any


class Outcome(NamedTuple):
    """What a step says of itself, scalars."""

    is_non_finite: tf.Tensor  # bool; false for an overflow that a smaller loss scale may cure
    loss: tf.Tensor  # of a token
    gradient_norm: tf.Tensor  # before clipping


class NonFiniteStep(NamedTuple):
    """A step whose loss or gradient is not finite, with all it was computed from."""

    step: int  # its number in the log, from 1
    restarts: int
    seed: int  # of the training; the dropout seed is made of it, step, restarts and replica
    accumulation_steps: int  # parts that each slice was taken in
    in_a_row: int  # such steps up to this one
    loss: float  # of a token
    gradient_norm: float
    slices: list[Batch]  # NumPy arrays, one for each replica of this process
    weights: dict[str, np.ndarray]  # before the step, by path


class TrainStep:
    """A compiled step, and the variables that a checkpoint has of it. Build it in the scope of the workers' strategy.

    A global batch reaches each replica as a slice, which it takes in `accumulation_steps` parts. Gradients of the
    summed loss are summed over parts and replicas, divided once by the weight of all real target tokens, checked,
    clipped by their global norm and applied. A step whose loss or gradient is not finite is skipped and counted.

    Args:
        model: built.
        config: of the training.
        workers: the processes that train, and the strategy whose scope this is built in.
        resources: what the loss needs beside the configuration.

    Attributes:
        loss: what is minimised.
        optimizer: its learning rate is halved by each restart.
        variables: everything a checkpoint keeps, as `tf.train.Checkpoint` tracks it.
        on_non_finite: called with a `NonFiniteStep`, after the step. Not called for an overflow that a smaller loss
            scale may cure.
    """

    def __init__(self, model: Seq2Seq, config: TrainingConfig, workers: Workers, resources: Resources = Resources()):
        self.model = model
        self.config = config
        self.workers = workers
        self.strategy = workers.strategy
        self.loss = build_loss(config, resources)
        self.on_non_finite: Callable[[NonFiniteStep], None] = lambda non_finite: None
        self.restarts = tf.Variable(0, dtype=tf.int32, name="restarts", trainable=False)
        self.optimizer = build_optimizer(config, self.restarts)
        self.optimizer.build(model.trainable_variables)
        self.steps = tf.Variable(0, dtype=tf.int64, name="steps", trainable=False)
        self.begun = tf.Variable(0, dtype=tf.int64, name="begun", trainable=False)  # ahead of `steps` in an update
        self.skipped = tf.Variable(0, dtype=tf.int64, name="skipped", trainable=False)
        self.non_finite_in_a_row = tf.Variable(0, dtype=tf.int64, name="bad_in_a_row", trainable=False)
        size = len(Totals._fields) - 1 + len(self.loss.names)
        self.totals = tf.Variable([0.0] * size, dtype=tf.float64, name="totals", trainable=False)
        self.scales_loss = config.precision == "mixed_float16"
        self.loss_scale = tf.Variable(
            _FIRST_LOSS_SCALE if self.scales_loss else 1.0, name="loss_scale", trainable=False
        )
        self.finite_steps = tf.Variable(0, dtype=tf.int64, name="finite_steps", trainable=False)
        averages = {weight.path: _average(weight) for weight in model.trainable_variables if config.ema_decay}
        self.averages = list(averages.values())
        self.variables = tf.train.Checkpoint(
            model=by_path(model.variables),
            optimizer=by_path(self.optimizer.variables),
            restarts=self.restarts,
            steps=self.steps,
            skipped=self.skipped,
            bad_in_a_row=self.non_finite_in_a_row,  # its name in checkpoints of format 2
            totals=self.totals,
            loss_scale=self.loss_scale,
            finite_steps=self.finite_steps,
            **({"ema": averages} if averages else {}),
        )
        self._compiled: Any = None

    def compile(self, element_spec: Any = None) -> None:
        """Makes the step a graph; a step that is one already stays.

        Args:
            element_spec: the type of the batches; None where their shapes are static, each of which has a graph of its
                own, made when a batch of it first comes.
        """
        if self._compiled is None:
            signature = None if element_spec is None else (element_spec, tf.TensorSpec([], tf.bool))
            self._compiled = tf.function(
                self._step, input_signature=signature, autograph=False, jit_compile=self.config.compile == "step"
            )

    @property
    def num_graphs(self) -> int:
        """How many graphs of the step there are: one, or one for each shape of a batch that came."""
        return self._compiled.experimental_get_tracing_count() if self._compiled is not None else 0

    def __call__(self, batch: Any, apply: bool = True) -> None:
        """Consumes one of the strategy's batches; without `apply` it is computed and nothing changes."""
        assert self._compiled is not None, "compile it first"
        outcome = self._compiled(batch, tf.constant(apply))
        if outcome.is_non_finite:
            self.on_non_finite(self._non_finite_step(batch, outcome))

    def wait(self) -> None:
        """Waits until every step that was begun is made."""

    def take_totals(self) -> Totals:
        """What was summed since this was last called."""
        values = self.totals.numpy().tolist()
        self.totals.assign([0.0] * len(values))
        return self.totals_of(values)

    def totals_of(self, values: list[float]) -> Totals:
        """The totals by their names, of their values in order."""
        end = 1 + len(self.loss.names)
        return Totals(values[0], values[1:end], *values[end:])

    def distributions(self) -> Iterator[tuple[str, np.ndarray]]:
        """The weights, as `weights/<path>`, one after the other.

        Where the optimizer keeps moving means of gradients, as Adam does and SGD does not, these follow: as
        `gradients/<path>`, arrays of the weights' shapes, and as `gradient_norms/<layer>`, the norm of the gradient of
        each column of the layer's matrices.
        """
        weights = self.model.trainable_variables
        for weight in weights:
            yield f"weights/{weight.path}", weight.numpy()
        means = [variable for variable in self.optimizer.variables if variable.path.endswith("_momentum")]
        if len(means) != len(weights):
            return
        norms: dict[str, list[np.ndarray]] = {}
        for weight, mean in zip(weights, means):
            gradient = mean.numpy()
            yield f"gradients/{weight.path}", gradient
            if gradient.ndim > 1:
                of_columns = np.linalg.norm(gradient.reshape(-1, gradient.shape[-1]), axis=0)
                norms.setdefault(weight.path.rpartition("/")[0], []).append(of_columns)
        for layer, of_layer in norms.items():
            yield f"gradient_norms/{layer}", np.concatenate(of_layer)

    def is_between_steps(self) -> bool:
        """Whether the variables are those after a whole number of steps, also where a step failed half-way."""
        return int(self.begun.numpy()) <= int(self.steps.numpy())

    def settle(self) -> None:
        """To call after variables were restored: notes that no update is under way, and fits the loss scale to the
        precision."""
        self.begun.assign(self.steps)
        if not self.scales_loss:
            self.loss_scale.assign(1.0)
        elif float(self.loss_scale.numpy()) == 1.0 and not int(self.finite_steps.numpy()):
            self.loss_scale.assign(_FIRST_LOSS_SCALE)

    def _step(self, batch: Any, apply: tf.Tensor, step: tf.Tensor | None = None) -> Outcome:
        """A step; `step`, the steps before it, makes its seeds, and is `steps` unless it is given."""
        number = tf.convert_to_tensor(self.steps) if step is None else step
        gradients, scale, norms, sums, counts = self.strategy.run(self._replica_gradients, args=(batch, number))
        norm, scale_value, sums, counts = tf.nest.map_structure(self._first, (norms, scale, sums, counts))
        is_good = tf.math.is_finite(norm) & tf.math.is_finite(sums.loss) & (sums.weight > 0)
        may_overflow = self.scales_loss & (tf.convert_to_tensor(self.loss_scale) > 1.0)
        is_non_finite = ~is_good & (sums.weight > 0) & ~(may_overflow & tf.math.is_finite(sums.loss)) & apply

        def update() -> tf.Tensor:
            with tf.control_dependencies([self.begun.assign(tf.convert_to_tensor(self.steps) + 1)]):
                self.strategy.run(self._replica_apply, args=(gradients, scale, norms))
            return tf.constant(1.0)

        updates = tf.cond(is_good & apply, update, lambda: tf.constant(0.0))
        with tf.control_dependencies([updates]):  # a step that fails leaves the count as it was
            in_a_row = tf.convert_to_tensor(self.non_finite_in_a_row)
            if_good = tf.where(is_good & apply, tf.zeros_like(in_a_row), in_a_row)
            self.non_finite_in_a_row.assign(tf.where(is_non_finite, in_a_row + 1, if_good))
            consumed = tf.cast(apply, tf.int64)
            self.steps.assign_add(consumed)
            self.skipped.assign_add(consumed - tf.cast(updates, tf.int64))
            scalars = [sums.scalars[name] for name in self.loss.names]
            totals = tf.stack([sums.loss, *scalars, sums.weight, *counts, norm, updates])  # in the order of `Totals`
            self.totals.assign_add(tf.cast(tf.where(is_good & apply, totals, 0.0), tf.float64))
            if self.scales_loss:
                self._update_loss_scale(is_good, apply)
        return Outcome(is_non_finite, sums.loss * scale_value, norm)

    def _first(self, value: Any) -> Any:
        return self.strategy.experimental_local_results(value)[0]

    def _non_finite_step(self, batch: Any, outcome: Outcome) -> NonFiniteStep:
        """What a step that was just made was computed from: it was skipped, so the weights are those from before it."""
        leaves = [self.strategy.experimental_local_results(leaf) for leaf in tf.nest.flatten(batch)]
        return NonFiniteStep(
            int(self.steps.numpy()),
            int(self.restarts.numpy()),
            self.config.seed,
            self.config.accumulation_steps,
            int(self.non_finite_in_a_row.numpy()),
            float(outcome.loss),
            float(outcome.gradient_norm),
            [Batch(*(leaf.numpy() for leaf in part)) for part in zip(*leaves)],
            {weight.path: weight.numpy() for weight in self.model.variables},
        )

    def _replica_gradients(
        self, batch: Batch, step: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, LossSums, list[tf.Tensor]]:
        """Returns, over all replicas: summed gradients, the factor that makes means of them, the norm of these means,
        the loss sums, and the counts of real tokens and of padded target positions."""
        context = tf.distribute.get_replica_context()
        seed = dropout_seed(
            self.config.seed,
            tf.convert_to_tensor(self.restarts),
            step,
            self.workers.first_slice + context.replica_id_in_sync_group,
        )
        parts = self.config.accumulation_steps

        def add(number: tf.Tensor, *before: Any) -> tuple[Any, ...]:
            part = tf.nest.map_structure(lambda leaf: part_of(leaf, number, parts), batch)
            return number + 1, *tf.nest.map_structure(tf.add, before, self._sums(part, fold_in(seed, number)))

        if parts == 1:
            gradients, sums = self._sums(batch, fold_in(seed, 0))
        else:  # a loop: the activations of one part are there at a time
            none = (
                [tf.zeros(weight.shape) for weight in self.model.trainable_variables],
                LossSums(tf.zeros([]), tf.zeros([]), {name: tf.zeros([]) for name in self.loss.names}),
            )
            _, gradients, sums = tf.while_loop(
                lambda number, *_: number < parts, add, (0, *none), parallel_iterations=1, maximum_iterations=parts
            )
        real = tf.not_equal(batch.target_output_ids, PAD_ID) & tf.not_equal(batch.lines, PADDING_LINE)[:, None]
        counts = [tf.reduce_sum(tf.cast(real, tf.float32)), tf.cast(tf.size(batch.target_output_ids), tf.float32)]
        if self.config.reduction_dtype == "float32":
            gradients, sums, counts = context.all_reduce("sum", (gradients, sums, counts))
        else:  # one call takes one type
            short = [tf.cast(gradient, self.config.reduction_dtype) for gradient in gradients]
            gradients = [tf.cast(gradient, tf.float32) for gradient in context.all_reduce("sum", short)]
            sums, counts = context.all_reduce("sum", (sums, counts))
        scale = 1.0 / (tf.maximum(sums.weight, 1e-6) * tf.convert_to_tensor(self.loss_scale))
        return gradients, scale, tf.linalg.global_norm(gradients) * scale, sums, counts

    def _sums(self, part: Batch, seed: tf.Tensor) -> tuple[list[tf.Tensor], LossSums]:
        """Gradients of the summed loss, times the loss scale, and the sums of some rows."""
        weights = [weight.value for weight in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            sums = self.loss(Forward(self.model, part, tf.convert_to_tensor(self.loss_scale)), part, seed)
        gradients = tape.gradient(sums.loss, weights, unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in gradients], sums

    def _replica_apply(self, gradients: list[tf.Tensor], scale: tf.Tensor, norm: tf.Tensor) -> None:
        """Scales, clips and applies gradients, which are equal on all replicas.

        Args:
            gradients: sums over the tokens of a global batch.
            scale: the factor that makes means of them.
            norm: of the means.
        """

        def apply(gradients: list[tf.Tensor], scale: tf.Tensor, norm: tf.Tensor) -> None:
            factor = scale
            if self.config.clip_norm:
                factor *= tf.minimum(1.0, self.config.clip_norm / tf.maximum(norm, 1e-12))
            self.optimizer.apply([gradient * factor for gradient in gradients], self.model.trainable_variables)
            if not self.workers.make_own_steps:  # else the averages are those of the weights that all share
                self.move_averages()

        strategy = self.workers.strategy
        is_alone = not tf.distribute.has_strategy() or isinstance(strategy, tf.distribute.OneDeviceStrategy)
        if is_alone:  # a compiled function cannot update variables of a strategy, of one replica either
            apply = fused(apply, self.model.config.d_model)
        apply(gradients, scale, norm)

    def move_averages(self, updates: int = 1) -> None:
        """Moves the averages on by so many updates; early ones forget faster, so that the first weights do not stay in
        them."""
        if self.averages:
            count = self.steps if self.workers.make_own_steps else self.optimizer.iterations  # equal on all workers
            before = tf.cast(tf.convert_to_tensor(count), tf.float32)
            decay = tf.minimum(self.config.ema_decay, (1.0 + before) / (10.0 + before)) ** updates
            for average, weight in zip(self.averages, self.model.trainable_variables):
                now = tf.convert_to_tensor(weight.value)
                average.assign(now + decay * (tf.convert_to_tensor(average) - now))

    def _update_loss_scale(self, finite: tf.Tensor, apply: tf.Tensor) -> None:
        """Halves after an overflow, doubles after 2,000 finite steps (Micikevicius et al. 2018)."""
        scale, before = tf.convert_to_tensor(self.loss_scale), tf.convert_to_tensor(self.finite_steps)
        count = tf.where(finite, before + 1, 0)
        grow = count >= _LOSS_SCALE_GROWTH_STEPS
        changed = tf.where(finite, tf.where(grow, scale * 2.0, scale), tf.maximum(scale / 2.0, 1.0))
        self.loss_scale.assign(tf.where(apply, changed, scale))
        self.finite_steps.assign(tf.where(apply, tf.where(grow, tf.zeros_like(count), count), before))


def dropout_seed(seed: int, restarts: int | tf.Tensor, step: int | tf.Tensor, replica: int | tf.Tensor) -> tf.Tensor:
    """int32 [2]: the seed of a step's dropout on a replica; a part of a slice folds in its number."""
    salted = tf.bitwise.bitwise_xor(tf.constant(seed), tf.cast(restarts, tf.int32) * _RESTART_SALT)
    return fold_in(non_negative(tf.stack([salted, tf.cast(step, tf.int32)])), replica)


def part_of(leaf: tf.Tensor, number: int | tf.Tensor, parts: int) -> tf.Tensor:
    """Rows of part `number` of `parts` equal ones."""
    shape = [tf.shape(leaf)[axis] if size is None else size for axis, size in enumerate(leaf.shape)]
    return tf.reshape(leaf, [parts, shape[0] // parts, *shape[1:]])[number]


def _average(weight: keras.Variable) -> tf.Variable:
    """A variable beside a weight, equal on all replicas as the weight is."""
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(lambda: tf.convert_to_tensor(weight.value), trainable=False, aggregation=first)
