"""What tests of losses share: a small model, a batch with padding, and the loss of a batch as training takes it."""

import numpy as np
import tensorflow as tf

from nmt_keras.config import ModelConfig, TrainingConfig
from nmt_keras.data.batching import Batch
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.training.losses import Forward
from nmt_keras.training.losses.cross_entropy import CrossEntropy

D, V, SOURCE_V = 8, 7, 11


def cross_entropy_of(model, batch, seed, smoothing):
    """`LossSums` of a batch."""
    return CrossEntropy(TrainingConfig(label_smoothing=smoothing))(Forward(model, batch), batch, seed)


def small_model(seed=3):
    """A recurrent model with random weights, `D` wide."""
    model = build_seq2seq(ModelConfig(d_model=D), SOURCE_V, V)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    return model


def small_batch(weights=(1.0, 1.0, 1.0)):
    """Three pairs with 5, 2 and 3 target ids."""
    source = tf.constant([[5, 6, 10, 3], [7, 3, 0, 0], [4, 8, 3, 0]])
    inputs = tf.constant([[2, 4, 5, 6, 1], [2, 6, 0, 0, 0], [2, 5, 5, 0, 0]])
    outputs = tf.constant([[4, 5, 6, 1, 3], [6, 3, 0, 0, 0], [5, 5, 3, 0, 0]])
    return Batch(source, inputs, outputs, tf.constant(weights), tf.range(3, dtype=tf.int64))
