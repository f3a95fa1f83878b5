"""Word vectors that the embeddings of a model start from."""

import os

from nmt_keras.config import ExperimentConfig
from nmt_keras.data.vectors import load_vectors
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.pipes import kept
from nmt_keras.reports import Report
from nmt_keras.tokenizers.base import NUM_SPECIALS, Tokenizers


def load_pretrained_vectors(model: Seq2Seq, tokenizers: Tokenizers, config: ExperimentConfig, report: Report) -> None:
    """Fills embeddings from `model.source_vectors` and `model.target_vectors`, and reports the share covered.

    Raises:
        UserError: a file cannot be read or has another width.
    """
    sides = (
        ("source", config.model.source_vectors, model.source_embedding, tokenizers.source),
        ("target", config.model.target_vectors, model.target_embedding, tokenizers.target),
    )
    for side, path, embedding, tokenizer in sides:
        if path:
            path = os.path.join(config.data.data_dir, path)
            pieces = [tokenizer.piece(number) for number in range(tokenizer.vocab_size)]
            pieces[:NUM_SPECIALS] = [""] * NUM_SPECIALS  # the file's, if it has them, are of another corpus
            place = kept(path, config.data.cache_dir)
            vectors, found, coverage = load_vectors(place, pieces, embedding.d_embedding)
            embedding.load(vectors, found)
            report(f"{side} vectors: {path} covers {coverage}")
