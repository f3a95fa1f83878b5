"""Learning rates as functions of the number of updates."""

import math

import keras
import tensorflow as tf

from nmt_keras.config import TrainingConfig


def _constant(update: tf.Tensor, config: TrainingConfig) -> tf.Tensor:
    return tf.ones_like(update)


def _inverse_sqrt(update: tf.Tensor, config: TrainingConfig) -> tf.Tensor:
    """Linear warm-up to the peak, then peak * sqrt(warmup / update) (Vaswani et al. 2017, eq. 3)."""
    warmup = float(max(config.warmup_steps, 1))
    return tf.minimum(update / warmup, tf.sqrt(warmup / update))


def _cosine(update: tf.Tensor, config: TrainingConfig) -> tf.Tensor:
    """Linear warm-up to the peak, then half a cosine down to zero at `max_steps` (Loshchilov and Hutter 2017)."""
    warmup = float(config.warmup_steps)
    done = tf.clip_by_value((update - warmup) / max(config.max_steps - warmup, 1.0), 0.0, 1.0)
    return tf.minimum(update / max(warmup, 1.0), 0.5 * (1.0 + tf.cos(math.pi * done)))


def _luong_halving(update: tf.Tensor, config: TrainingConfig) -> tf.Tensor:
    """The peak for two thirds of training, then halved four times (tensorflow/nmt's luong234)."""
    start = config.max_steps * 2.0 / 3.0
    halvings = tf.floor(tf.maximum(update - start, 0.0) / max(config.max_steps / 12.0, 1.0))
    return tf.pow(0.5, tf.minimum(halvings, 4.0))


SCHEDULES = {"constant": _constant, "inverse_sqrt": _inverse_sqrt, "cosine": _cosine, "luong_halving": _luong_halving}


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """`config.learning_rate` times the factor of `config.schedule` at the update that is about to be made.

    Args:
        config: of the training.
        restarts: an integer variable; each restart halves the rate.
    """

    def __init__(self, config: TrainingConfig, restarts: tf.Variable):
        self.config = config
        self.restarts = restarts

    def __call__(self, updates: tf.Tensor) -> tf.Tensor:
        """The number of updates made so far, to the learning rate of the next one."""
        update = tf.cast(updates, tf.float32) + 1.0
        halved = tf.pow(0.5, tf.cast(tf.convert_to_tensor(self.restarts), tf.float32))
        return self.config.learning_rate * SCHEDULES[self.config.schedule](update, self.config) * halved


def build_optimizer(config: TrainingConfig, restarts: tf.Variable) -> keras.optimizers.Optimizer:
    """The Keras optimizer of the configuration. It neither sums gradients over replicas nor clips: the step does."""
    schedule, name = Schedule(config, restarts), config.optimizer  # the name is part of a checkpoint
    moments = {"beta_1": config.adam_beta1, "beta_2": config.adam_beta2, "epsilon": config.adam_epsilon}
    if config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(schedule, name=name, **moments)
    elif config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, name=name, **moments)
    else:
        optimizer = keras.optimizers.SGD(schedule, name=name)
    # Keras's own sum is a second all-reduce of all gradients, half of what a step sends. A test counts them.
    optimizer._all_reduce_sum_gradients = list
    return optimizer
