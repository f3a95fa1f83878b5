"""Local SGD: workers that make steps of their own, and now and then take the mean of what they have learned.

Each worker makes `local_steps` updates with its own optimizer, from weights that all share. The mean of the changes is
then a gradient of the shared weights, for an outer step of SGD, with Nesterov momentum if wanted (DiLoCo, Douillard et
al. 2023, algorithm 1); with rate 1 and no momentum the workers take the mean of their weights. What they send is one
vector of the weights' size every `local_steps` steps. Changes are weighted by the target tokens they were learned from
(McMahan et al. 2017), so that one step of SGD without clipping is the synchronous one.
"""

import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.training.checkpoints import Part, by_path, weights_sha256
from nmt_keras.training.train_step import Totals, TrainStep
from nmt_keras.training.workers import Workers


class LocalSGD:
    """The outer step of workers that make steps of their own.

    Args:
        step: of this worker, built.
        config: of the training.
        workers: all of them.

    Attributes:
        part: what a checkpoint keeps of each worker by itself.
        change: the norm of the mean change of the latest outer step.
    """

    def __init__(self, step: TrainStep, config: TrainingConfig, workers: Workers):
        self._step = step
        self._config = config
        self._workers = workers
        weights = step.model.trainable_variables
        self._shared = [tf.Variable(weight.value, trainable=False) for weight in weights]
        self._velocity = [tf.Variable(tf.zeros(w.shape), trainable=False) for w in weights if config.outer_momentum]
        self._weight_before = 0.0  # of the totals at the latest outer step
        self.change = 0.0
        if self._velocity:
            step.variables.velocity = {w.path: velocity for w, velocity in zip(weights, self._velocity)}
        own = {
            "optimizer": by_path(step.optimizer.variables),
            **{name: getattr(step.variables, name) for name in ("skipped", "bad_in_a_row", "totals", "loss_scale")},
            "finite_steps": step.finite_steps,
        }
        names = [f"worker-{number}" for number in range(1, workers.count)]
        name = f"worker-{workers.number}" if workers.number else ""
        self.part = Part(name, names, tf.train.Checkpoint(**own), workers.barrier, self._begin_anew)

    def _begin_anew(self) -> None:
        """Forgets the chief's counts, which would be summed twice."""
        self._step.take_totals()
        self._step.skipped.assign(0)

    def is_due(self, step: int) -> bool:
        """Whether the workers meet after step `step`."""
        return step % self._config.local_steps == 0

    def begin(self) -> None:
        """To call when weights were set or restored, which are equal on all workers."""
        for shared, weight in zip(self._shared, self._step.model.trainable_variables):
            shared.assign(weight.value)
        self._weight_before = float(self._step.totals[self._place_of_weight].numpy())
        self._workers.agree({"weights": weights_sha256(self._step.model)})

    def meet(self) -> None:
        """Makes the outer step: afterwards all workers have the same weights."""
        weights = self._step.model.trainable_variables
        seen = float(self._step.totals[self._place_of_weight].numpy())
        learned_from, self._weight_before = seen - self._weight_before, seen
        changes = [learned_from * (weight.value - shared) for weight, shared in zip(weights, self._shared)]
        [total_weight] = self._workers.sum([tf.constant([learned_from], tf.float32)])
        if self._config.reduction_dtype == "float32":
            summed = self._workers.sum(changes)
        else:
            short = [tf.cast(change, self._config.reduction_dtype) for change in changes]
            summed = [tf.cast(change, tf.float32) for change in self._workers.sum(short)]
        means = [change / tf.maximum(total_weight[0], 1e-6) for change in summed]
        self.change = float(tf.linalg.global_norm(means))
        for weight, shared, change in zip(weights, self._shared, self._outer_steps(means)):
            shared.assign_add(change)
            weight.assign(shared)
        self._step.move_averages(self._config.local_steps)

    def take_totals(self) -> Totals:
        """What all workers have summed since this was last called."""
        totals = tf.nest.flatten(tuple(self._step.take_totals()))
        self._weight_before = 0.0
        summed = self._workers.sum([tf.constant(totals, tf.float64)])[0].numpy().tolist()
        return self._step.totals_of(summed)

    def _outer_steps(self, means: list[tf.Tensor]) -> list[tf.Tensor]:
        rate, momentum = self._config.outer_learning_rate, self._config.outer_momentum
        if not momentum:
            return [rate * mean for mean in means]
        for velocity, mean in zip(self._velocity, means):
            velocity.assign(momentum * velocity + mean)
        return [rate * (mean + momentum * velocity) for velocity, mean in zip(self._velocity, means)]

    @property
    def _place_of_weight(self) -> int:
        return 1 + len(self._step.loss.names)
