"""What a loss has to work with: passes of a model over a batch, and sums over their logits."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras.constants import PAD_ID
from nmt_keras.data.batching import Batch
from nmt_keras.decoding.beam_search import beam_search
from nmt_keras.decoding.constraints import Constraints
from nmt_keras.decoding.sampling import sample
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.training.losses.chunks import CHUNK_ROWS, Projected, rounded, sums_over_chunks

# Takes the logits of each pass, [N, V] each, the labels [N], the weights [N] and further rows [N, ...]; returns
# scalars, summed over the N positions.
ValuesOf = Callable[..., tuple[tf.Tensor, ...]]


class Pass(NamedTuple):
    """One pass with teacher forcing."""

    hidden: tf.Tensor  # float32 [N, D], of the positions that have a label
    attention_weights: tf.Tensor  # float32 [B, T, S]


class Forward:
    """Passes of a model over a batch with teacher forcing, and sums over their logits, made of some rows at a time.

    Real target positions are gathered before the output product, N rounded up to a multiple of 128, so that no padding
    reaches the largest product and what is compiled sees few shapes. Where shapes are static (`data.static_shapes`), as
    for a TPU, how many positions are real is not known when the graph is compiled: all of them stay.

    Args:
        model: built.
        batch: B sentence pairs.
        gradient_scale: what gradients are multiplied by, so that float16 can hold them.
        chunk_rows: positions whose logits exist at a time.

    Attributes:
        labels: int32 [N]; PAD where there is none.
        weights: float32 [N], that of the position's row; 0 where there is no label.
        rows: int32 [N], the position's row, below B; 0 where N was rounded up.
    """

    def __init__(
        self,
        model: Seq2Seq | Ensemble,
        batch: Batch,
        gradient_scale: tf.Tensor | float = 1.0,
        chunk_rows: int = CHUNK_ROWS,
    ):
        self._model = model
        self._batch = batch
        self._scale = gradient_scale
        self._chunk_rows = chunk_rows
        ids = batch.target_output_ids
        self._real: tf.Tensor | None = None
        if ids.shape.is_fully_defined():
            self.labels = tf.reshape(ids, [-1])
            self.weights = tf.reshape(tf.where(padding_mask(ids), batch.weights[:, None], 0.0), [-1])
            self.rows = tf.repeat(tf.range(ids.shape[0]), ids.shape[1])
        else:
            real = tf.where(padding_mask(ids))  # [N, 2]
            self._fill = rounded(tf.shape(real)[0]) - tf.shape(real)[0]
            self._real = real
            self.labels = tf.pad(tf.gather_nd(ids, real), [[0, self._fill]])
            self.weights = tf.pad(tf.gather(batch.weights, real[:, 0]), [[0, self._fill]])
            self.rows = tf.pad(tf.cast(real[:, 0], tf.int32), [[0, self._fill]])

    def __call__(self, dropout_seed: tf.Tensor | None) -> Pass:
        """A pass with this dropout, int32 [2], or with none."""
        hidden, attention_weights = self._model(self._batch.source_ids, self._batch.target_input_ids, dropout_seed)
        return Pass(self.at_labels(hidden), attention_weights)

    def over(self, batch: Batch) -> "Forward":
        """Passes of the same model over another batch."""
        return Forward(self._model, batch, self._scale, self._chunk_rows)

    def through(self, model: Seq2Seq | Ensemble) -> "Forward":
        """Passes of another model with the same vocabularies over the same batch; N and its labels are the same."""
        return Forward(model, self._batch, 1.0, self._chunk_rows)

    def candidates(self, number: int, max_lengths: tf.Tensor, seeds: tf.Tensor | None) -> tf.Tensor:
        """Translations by the model without dropout, int32 [B, number, L] with EOS; no gradient flows into them.

        Args:
            number: of translations of a source; where a search finds fewer, the rest are PAD.
            max_lengths: int32 [B], with EOS.
            seeds: int32 [B, 2], of each row's samples; None searches with `number` beams.
        """
        model, memory = self._model.for_search(), self._model.prepare(self._batch.source_ids)

        def step(ids: tf.Tensor, position: tf.Tensor, state: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
            return model.step(ids, position, state, memory)

        state, constraints = self._model.init_state(memory), Constraints(max_lengths)
        if seeds is None:
            found = beam_search(step, state, constraints, beam_size=number, num_hypotheses=number)
        else:
            found = sample(step, state, constraints, seeds=seeds, num_samples=number)
        return tf.stop_gradient(found.ids)

    def at_labels(self, values: tf.Tensor) -> tf.Tensor:
        """Selects from values of target positions, [B, T, ...], those at positions with a label, [N, ...]."""
        if self._real is None:
            return tf.reshape(values, [-1, *values.shape[2:]])
        more = [[0, 0]] * (values.shape.rank - 2)
        return tf.pad(tf.gather_nd(values, self._real), [[0, self._fill], *more])

    def scaled(self, term: tf.Tensor) -> tf.Tensor:
        """A term of a loss that is made beside `sums`, as of hidden states or attention, with its gradient multiplied
        as theirs is."""
        scale = tf.cast(self._scale, term.dtype)

        @tf.custom_gradient
        def run(value: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            return tf.identity(value), lambda d_value: d_value * scale

        return run(term)

    def sums(
        self, values_of: ValuesOf, passes: Sequence[Pass], rows: Sequence[tf.Tensor | Projected] = ()
    ) -> tuple[tf.Tensor, ...]:
        """Scalars over all positions; a gradient flows from the first alone.

        Args:
            values_of: the scalars of some positions.
            passes: whose logits it takes.
            rows: further tensors [N, ...] that it takes, or what becomes logits; no gradient flows into them.
        """
        rows = (self.labels, self.weights, *rows)
        hidden = [each.hidden for each in passes]
        if isinstance(self._model, Ensemble):
            return values_of([self._model.project(each) for each in hidden], *rows)
        output = self._model.output_projection
        factors = [output.factors(each) for each in hidden]
        return sums_over_chunks(
            values_of,
            [inputs for inputs, _ in factors],
            tf.convert_to_tensor(factors[0][1]),
            tf.convert_to_tensor(output.bias),
            rows,
            self._scale,
            transpose_kernel=output.is_tied,
            dtype=output.compute_dtype,
            chunk_rows=self._chunk_rows,
        )

    def log_probs(self, of: Pass) -> tf.Tensor:
        """The log probability of each label in a pass, float32 [N]; 0 where there is none. No gradient flows."""
        number, size = tf.shape(self.labels)[0], rounded(self._chunk_rows)
        columns = [tf.stop_gradient(of.hidden), self.labels]

        def body(start: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            hidden, labels = (column[start : start + size] for column in columns)
            log_probs = tf.nn.log_softmax(self._model.project(hidden))
            values = tf.where(labels != PAD_ID, tf.gather(log_probs, labels, batch_dims=1), 0.0)
            return start + size, found.write(start // size, values)

        found = tf.TensorArray(tf.float32, -(-number // size), element_shape=[None], infer_shape=False)
        _, found = tf.while_loop(lambda start, _: start < number, body, (0, found), parallel_iterations=1)
        return tf.stop_gradient(tf.reshape(found.concat(), tf.shape(self.labels)))


class LossSums(NamedTuple):
    """Sums over the labelled target positions of a batch, each weighted as its row; float32 scalars."""

    loss: tf.Tensor  # what is minimised
    weight: tf.Tensor  # of the positions: their number, where examples have no weights
    scalars: dict[str, tf.Tensor]  # what is reported, by name; the log divides each by the weight
