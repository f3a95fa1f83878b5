"""Several models that translate as one."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from nmt_keras.layers.embeddings import OutputColumns
from nmt_keras.models.seq2seq import Seq2Seq


class Ensemble:
    """The mean of the distributions of models with the same vocabularies (Sutskever et al. 2014, 3.6): what a search
    needs of a `Seq2Seq`, member by member.

    Args:
        members: built; at least one.
    """

    def __init__(self, members: Sequence[Seq2Seq]):
        self.members = list(members)
        self.target_vocab_size = members[0].target_vocab_size

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of all members."""
        return [variable for member in self.members for variable in member.variables]

    def count_params(self) -> int:
        """Weights of all members."""
        return sum(member.count_params() for member in self.members)

    def prepare(self, source_ids: tf.Tensor) -> Any:
        """See `Seq2Seq.prepare`."""
        return tuple(member.prepare(source_ids) for member in self.members)

    def init_state(self, memory: Any) -> Any:
        """See `Seq2Seq.init_state`."""
        return tuple(member.init_state(own) for member, own in zip(self.members, memory))

    def columns(self, ids: tf.Tensor, penalty: tf.Tensor) -> tuple[OutputColumns, ...]:
        """See `Seq2Seq.columns`."""
        return tuple(member.columns(ids, penalty) for member in self.members)

    def for_search(self) -> "Ensemble":
        """See `Seq2Seq.for_search`."""
        return Ensemble([member.for_search() for member in self.members])

    def step(
        self, ids: tf.Tensor, position: tf.Tensor, state: Any, memory: Any, columns: Sequence | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """See `Seq2Seq.step`: the logits are log probabilities, the attention weights the members' mean."""
        parts = zip(self.members, state, memory, [None] * len(self.members) if columns is None else columns)
        steps = [member.step(ids, position, *own) for member, *own in parts]
        logits, weights, states = zip(*steps)
        return _log_mean(logits), tf.reduce_mean(tf.stack(weights), 0), states

    def __call__(
        self, source_ids: tf.Tensor, target_input_ids: tf.Tensor, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Seq2Seq.call`: the hidden states are the members', one after the other, [B, T, sum of D]."""
        hidden, weights = zip(*(member(source_ids, target_input_ids, dropout_seed) for member in self.members))
        return tf.concat(hidden, -1), tf.reduce_mean(tf.stack(weights), 0)

    def project(self, hidden: tf.Tensor) -> tf.Tensor:
        """Hidden states, float32 [..., sum of D], to log probabilities, float32 [..., V]."""
        parts = tf.split(hidden, [member.config.d_model for member in self.members], -1)
        return _log_mean([member.project(own) for member, own in zip(self.members, parts)])

    def sentence_vectors(self, source_ids: tf.Tensor) -> tf.Tensor:
        """The members' sentence vectors, one after the other, float32 [B, sum of D]."""
        return tf.concat([member.sentence_vectors(source_ids) for member in self.members], -1)


def _log_mean(logits: Sequence[tf.Tensor]) -> tf.Tensor:
    log_probs = tf.stack([tf.nn.log_softmax(tf.cast(own, tf.float32)) for own in logits])
    return tf.reduce_logsumexp(log_probs, 0) - tf.math.log(float(len(logits)))
