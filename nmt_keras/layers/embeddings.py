"""Ids to vectors, and vectors back to logits."""

import keras
import tensorflow as tf

from nmt_keras.layers import dense
from nmt_keras.layers.base import Layer


class TokenEmbedding(Layer):
    """A table [V, D], initialised from N(0, 1/D) so that its transpose is a sound output layer.

    Args:
        vocab_size: V.
        d_model: D.
    """

    def __init__(self, vocab_size: int, d_model: int, name: str | None = None):
        super().__init__(name=name)
        self.vocab_size = vocab_size
        self.d_model = d_model

    def build(self, _) -> None:
        self.table = self.add_weight(
            shape=(self.vocab_size, self.d_model),
            name="table",
            initializer=keras.initializers.RandomNormal(stddev=self.d_model**-0.5),
        )

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """int32 [B, T] to float32 [B, T, D], scaled by sqrt(D) to unit variance (Vaswani et al. 2017, 3.4)."""
        return tf.gather(tf.convert_to_tensor(self.table), ids) * self.d_model**0.5


class OutputProjection(Layer):
    """Hidden states to logits: g of the article's y_t = g(s_t), before the softmax.

    Args:
        vocab_size: V.
        tied_embedding: a built embedding whose table is the kernel (Press and Wolf 2017); None for its own kernel.
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

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        """float32 [..., D] to logits, float32 [..., V]."""
        if self.tied_embedding is None:
            return dense.product(hidden, self.kernel, self.compute_dtype) + self.bias
        return dense.product(hidden, self.tied_embedding.table, self.compute_dtype, transpose_kernel=True) + self.bias
