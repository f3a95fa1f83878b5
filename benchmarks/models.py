"""Our networks at the peers' shape, and what their products cost."""

import re

from nmt_keras.config import ModelConfig
from nmt_keras.tokenizers.base import NUM_SPECIALS

VOCAB_SIZE = 8000
_TRANSFORMER = {
    "encoder": "transformer",
    "num_encoder_layers": 3,
    "num_decoder_layers": 3,
    "attention_dropout_rate": 0.1,
    "input_dropout_rate": 0.1,
    "output_dropout_rate": 0.1,
}
_RECURRENT = {"input_dropout_rate": 0.2, "output_dropout_rate": 0.2}
# Without input feeding, and with a bridge of one product a state, a recurrent model has fewer weights than the peers'
# of their width, 512; these widths make up for it.
CONFIGS = {
    "rnn": ModelConfig(d_model=544, **_RECURRENT),
    "rnn_input_feeding": ModelConfig(d_model=528, input_feeding=True, **_RECURRENT),
    "transformer": ModelConfig(decoder="transformer", **_TRANSFORMER),
    "ssru": ModelConfig(decoder="ssru", **_TRANSFORMER),
}
_ONCE_A_SENTENCE = re.compile(r"/bridge/")
_READS_THE_SOURCE = re.compile(r"/encoder/|/decoder/attention/|/cross_attention/(key|value)/")
_IS_LOOKED_UP = re.compile(r"_embedding/table$")


class Pieces:
    """What a search asks of a tokenizer, where ids are random."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def surface(self, token_id: int) -> bytes:
        """Any text."""
        return b"" if token_id < NUM_SPECIALS else b"x"


def product_flops(model, sentences: int, source_tokens: int, target_tokens: int) -> float:
    """Floating point operations of the weights' products in a forward pass: 2 for each number of a matrix and each row
    that it is multiplied with. A training step has three times as many.

    Args:
        model: with weights of a row a target token, a source token, or a sentence.
        sentences: how many.
        source_tokens: of all of them.
        target_tokens: likewise; in a search, those of all hypotheses.
    """
    total = 0.0
    for weight in model.variables:
        if len(weight.shape) == 2 and not _IS_LOOKED_UP.search(weight.path):
            rows = source_tokens if _READS_THE_SOURCE.search(weight.path) else target_tokens
            rows = sentences if _ONCE_A_SENTENCE.search(weight.path) else rows
            total += 2.0 * weight.shape[0] * weight.shape[1] * rows
    return total
