"""Ids to vectors, and vectors back to logits."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer


class TokenEmbedding(Layer):
    """A table [V, E], initialised from N(0, 1/E) so that its transpose is a sound output layer, and where E is not D a
    map from E to D (Lan et al. 2020, 3.1: a factored table).

    Args:
        vocab_size: V.
        d_model: D.
        d_embedding: E; 0 is D.
        has_frozen_rows: rows that `load` fills are not trained.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_embedding: int = 0,
        has_frozen_rows: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.d_embedding = d_embedding or d_model
        self.has_frozen_rows = has_frozen_rows

    def build(self, _) -> None:
        self.table = self.add_weight(
            shape=(self.vocab_size, self.d_embedding),
            name="table",
            initializer=keras.initializers.RandomNormal(stddev=self.d_embedding**-0.5),
        )
        if self.has_frozen_rows:
            self.frozen = self.add_weight(
                shape=(self.vocab_size, 1), name="frozen", initializer="zeros", trainable=False
            )
        if self.d_embedding != self.d_model:
            self.kernel = self.add_weight(
                shape=(self.d_embedding, self.d_model), name="kernel", initializer="glorot_uniform"
            )

    def load(self, vectors: np.ndarray, found: np.ndarray) -> None:
        """Fills the rows that have a vector, brought to the scale of the others.

        Args:
            vectors: float32 [V, E].
            found: bool [V], the rows that have one.
        """
        rows = found[:, None]
        size = np.sqrt(np.mean(np.square(vectors[found]))) if vectors[found].any() else 1.0
        self.table.assign(np.where(rows, vectors / size * self.d_embedding**-0.5, np.array(self.table)))
        if self.has_frozen_rows:
            self.frozen.assign(rows.astype(np.float32))

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """int32 [B, T] to float32 [B, T, D], scaled by sqrt(E) to unit variance (Vaswani et al. 2017, 3.4)."""
        embedded = tf.gather(tf.convert_to_tensor(self.trained_table()), ids) * self.d_embedding**0.5
        if self.d_embedding == self.d_model:
            return embedded
        return dense.product(embedded, self.kernel, self.compute_dtype)

    def to_table_width(self, hidden: tf.Tensor) -> tf.Tensor:
        """Hidden states, float32 [..., D], to the table's width, [..., E], for tied logits (Press and Wolf 2017)."""
        if self.d_embedding == self.d_model:
            return hidden
        return dense.product(hidden, self.kernel, self.compute_dtype, transpose_kernel=True)

    def trained_table(self) -> keras.Variable | tf.Tensor:
        """The table, [V, E]; its frozen rows take no gradient."""
        if not self.has_frozen_rows:
            return self.table
        table = tf.convert_to_tensor(self.table)
        return tf.where(tf.convert_to_tensor(self.frozen) > 0, tf.stop_gradient(table), table)


class OutputColumns(NamedTuple):
    """The columns of an output projection for U ids."""

    kernel: Any  # [D, U], of a tied embedding [U, E], in a form that `dense.product` takes
    bias: tf.Tensor  # float32 [B, 1, U], -inf where a row may not use an id


class OutputProjection(Layer):
    """Hidden states to logits: g of the article's y_t = g(s_t), before the softmax.

    Args:
        vocab_size: V.
        tied_embedding: the embedding whose table is the kernel (Press and Wolf 2017); None for a kernel of its own.
    """

    def __init__(self, vocab_size: int, tied_embedding: TokenEmbedding | None = None, name: str | None = None):
        super().__init__(name=name)
        self.vocab_size = vocab_size
        self.tied_embedding = tied_embedding

    def build(self, shape) -> None:
        self.bias = self.add_weight(shape=(self.vocab_size,), initializer="zeros", name="bias")
        if self.tied_embedding is None:
            self.kernel = self.add_weight(
                shape=(shape[-1], self.vocab_size), initializer="glorot_uniform", name="kernel"
            )

    def columns(self, ids: tf.Tensor, penalty: tf.Tensor) -> OutputColumns:
        """The columns of ids, int32 [U]; `penalty`, float32 [B, 1, U], is added to their logits."""
        return OutputColumns(
            dense.columns(self._kernel(), ids, self.compute_dtype, transpose_kernel=self.is_tied),
            penalty + tf.gather(tf.convert_to_tensor(self.bias), ids),
        )

    def call(self, hidden: tf.Tensor, columns: OutputColumns | None = None) -> tf.Tensor:
        """float32 [..., D] to logits, float32 [..., V], or [..., U] of the columns alone."""
        inputs, kernel = self.factors(hidden)
        if columns is None:
            return dense.product(inputs, kernel, self.compute_dtype, bias=self.bias, transpose_kernel=self.is_tied)
        return dense.product(inputs, columns.kernel, self.compute_dtype, transpose_kernel=self.is_tied) + columns.bias

    @property
    def is_tied(self) -> bool:
        """Whether the kernel is a table of embeddings."""
        return self.tied_embedding is not None

    def factors(self, hidden: tf.Tensor) -> tuple[tf.Tensor, keras.Variable | tf.Tensor]:
        """The factors of the output product before the bias: inputs, float32 [..., I], made of hidden states [..., D],
        and the kernel, [I, V], or [V, I] where it is tied."""
        if self.tied_embedding is not None:
            hidden = self.tied_embedding.to_table_width(hidden)
        return hidden, self._kernel()

    def _kernel(self) -> keras.Variable | tf.Tensor:
        return self.kernel if self.tied_embedding is None else self.tied_embedding.trained_table()
