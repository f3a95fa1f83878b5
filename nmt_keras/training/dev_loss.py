"""The cross entropy of text that is not trained on."""

import math
from collections.abc import Callable, Iterable

import tensorflow as tf

from nmt_keras.data.batching import Batch
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.training.losses.cross_entropy import label_smoothed_cross_entropy
from nmt_keras.training.losses.forward import Forward


def compile_dev_loss(model: Seq2Seq | Ensemble) -> Callable[[Iterable[Batch]], float]:
    """A function from batches to the mean cross entropy of a target token, in nats, without label smoothing."""

    def sums(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        forward = Forward(model, batch)
        _, values, _ = label_smoothed_cross_entropy(model.project(forward(None).hidden), forward.labels, 0.0)
        return tf.reduce_sum(forward.weights * values), tf.reduce_sum(forward.weights)

    compiled = tf.function(
        sums,
        reduce_retracing=True,
        autograph=False,
        input_signature=(
            Batch(
                *(
                    tf.TensorSpec([None] * rank, dtype)
                    for rank, dtype in ((2, tf.int32), (2, tf.int32), (2, tf.int32), (1, tf.float32), (1, tf.int64))
                )
            ),
        ),
    )

    def mean(batches: Iterable[Batch]) -> float:
        results = [compiled(batch) for batch in batches]
        return float(sum(loss for loss, _ in results)) / float(sum(weight for _, weight in results))

    return mean


def perplexity(cross_entropy: float) -> float:
    """exp of nats a token, bounded so that an untrained model has a number."""
    return math.exp(min(cross_entropy, 80.0))
