"""Minimum risk training (Shen et al. 2016): the expected error of the model's own translations."""

import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.constants import BOS_ID, PAD_ID
from nmt_keras.data.batching import Batch
from nmt_keras.layers.dropout import fold_in
from nmt_keras.training.losses.cross_entropy import label_smoothed_cross_entropy
from nmt_keras.training.losses.forward import Forward, LossSums
from nmt_keras.training.losses.resources import Resources


class MinimumRisk:
    """The expected error of N translations of each sentence, under the model's distribution over these, sharpened; a
    `Loss`, to go on with from a trained model.

    With candidates y_1..y_N of a source, drawn or searched by the model without dropout, each counted once,

        Q(y_n) = P(y_n)^alpha / sum_m P(y_m)^alpha,    risk = sum_n Q(y_n) error(y_n)

    (Shen et al. 2016, eqs. 10 to 12). The risk of a sentence, from 0 to 1, weighs as much as its reference has ids,
    as in corpus BLEU. (1 - w) times the cross entropy of the reference may stand beside it (Edunov et al. 2018, eq. 9).

    Args:
        config: `num_risk_candidates` is N, `risk_sharpness` alpha, `risk_weight` w; `risk_candidates` says whether they
            are drawn or searched, `label_smoothing` is of the cross entropy.
        resources: `errors`.
    """

    names = ("loss", "token_accuracy", "risk")
    name_of_minimised = "minimum_risk_loss"

    def __init__(self, config: TrainingConfig, resources: Resources = Resources()):
        self._number = config.num_risk_candidates
        self._is_searched = config.risk_candidates == "beam"
        self._sharpness = config.risk_sharpness
        self._weight = config.risk_weight
        self._smoothing = config.label_smoothing
        self._errors = resources.errors

    def __call__(self, forward: Forward, batch: Batch, seed: tf.Tensor | None) -> LossSums:
        """See `Loss`."""
        assert self._errors is not None, "the loss minimum_risk needs the errors of translations"
        smoothed, plain, correct = self._cross_entropy(forward, seed)
        risk = self._risk(forward, batch, seed)
        total = self._weight * risk
        if self._weight < 1.0:
            total += (1.0 - self._weight) * smoothed
        scalars = {"loss": plain, "token_accuracy": correct, "risk": tf.stop_gradient(risk)}
        return LossSums(total, tf.reduce_sum(forward.weights), scalars)

    def _cross_entropy(self, forward: Forward, seed: tf.Tensor | None) -> tuple[tf.Tensor, ...]:
        """Cross entropies of the references: the smoothed one, the plain one, and right predictions."""

        def values_of(logits: list[tf.Tensor], labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
            values = label_smoothed_cross_entropy(logits[0], labels, self._smoothing)
            return tuple(tf.reduce_sum(weights * value) for value in values)

        reference = forward(fold_in(seed, 1))
        if self._weight == 1.0:  # it is only reported: no gradient reaches the network
            reference = reference._replace(hidden=tf.stop_gradient(reference.hidden))
        return forward.sums(values_of, [reference])

    def _risk(self, forward: Forward, batch: Batch, seed: tf.Tensor | None) -> tf.Tensor:
        """The risks of the sentences, summed, each times the weight of its row and the ids of its reference."""
        lengths = tf.reduce_sum(tf.cast(batch.target_output_ids != PAD_ID, tf.int32), 1)
        longest = lengths + tf.maximum(lengths // 2, 5)  # so that candidates need about N times a batch's memory
        ids = forward.candidates(self._number, longest, None if self._is_searched else _seeds(seed, batch.lines))
        ids = tf.ensure_shape(ids, [None, self._number, None])
        errors = tf.numpy_function(self._errors, [ids, batch.target_output_ids], tf.float32, stateful=False)
        errors = tf.reshape(errors, tf.shape(ids)[:2])
        own = forward.over(_as_batch(batch, ids))
        scored = own(fold_in(seed, 2))
        log_probs = tf.math.unsorted_segment_sum(own.log_probs(scored), own.rows, tf.size(ids[:, :, 0]))
        scores = self._sharpness * tf.reshape(log_probs, tf.shape(errors))
        shares = tf.nn.softmax(tf.where(_is_first(ids), scores, float("-inf")))  # Q
        risks = tf.reduce_sum(shares * errors, 1)
        # The derivative of the risk by log P(y_n) is alpha Q(y_n) (error(y_n) - risk): held constant, it is what each
        # log probability is multiplied by, and the sum over all ids has the gradient of the risk.
        row_weights = batch.weights * tf.cast(lengths, tf.float32)
        slopes = self._sharpness * shares * (errors - risks[:, None]) * row_weights[:, None]

        def values_of(
            logits: list[tf.Tensor], labels: tf.Tensor, weights: tf.Tensor, slope: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            smoothed, *_ = label_smoothed_cross_entropy(logits[0], labels, 0.0)
            return (-tf.reduce_sum(weights * slope * smoothed),)

        (linear,) = own.sums(values_of, [scored], [tf.gather(tf.reshape(slopes, [-1]), own.rows)])
        return linear + tf.stop_gradient(tf.reduce_sum(row_weights * risks) - linear)


def _seeds(seed: tf.Tensor | None, lines: tf.Tensor) -> tf.Tensor:
    """int32 [B, 2], of the samples of each line: they depend on no other row."""
    first, second = tf.unstack(tf.zeros([2], tf.int32) if seed is None else fold_in(seed, 3))
    numbers = tf.bitcast(lines, tf.int32)[:, 0]  # the low half
    return tf.stack([tf.fill(tf.shape(numbers), first), tf.bitwise.bitwise_xor(numbers, second)], 1)


def _as_batch(batch: Batch, ids: tf.Tensor) -> Batch:
    """Candidates, int32 [B, N, L], as targets of their sources, B * N rows of weight 1."""
    number = tf.shape(ids)[1]
    outputs = tf.reshape(ids, [-1, tf.shape(ids)[2]])
    starts = tf.fill([tf.shape(outputs)[0], 1], BOS_ID)
    inputs = tf.where(outputs != PAD_ID, tf.concat([starts, outputs[:, :-1]], 1), PAD_ID)
    weights = tf.ones([tf.shape(outputs)[0]])
    return Batch(tf.repeat(batch.source_ids, number, 0), inputs, outputs, weights, tf.repeat(batch.lines, number))


def _is_first(ids: tf.Tensor) -> tf.Tensor:
    """bool [B, N]: whether a candidate, int32 [B, N, L], differs from all before it, and is there; one is true."""
    equal = tf.reduce_all(ids[:, :, None] == ids[:, None, :], -1)  # [B, N, N]
    before = tf.linalg.band_part(tf.ones(tf.shape(equal)[1:], tf.int32), -1, 0) - tf.eye(
        tf.shape(ids)[1], dtype=tf.int32
    )
    repeated = tf.reduce_any(equal & (before > 0)[None], -1)
    exists = tf.reduce_any(ids != PAD_ID, -1)
    return ~repeated & (exists | (tf.range(tf.shape(ids)[1]) == 0))
