"""What tests of rules for translations share."""

import pytest

from nmt_keras.tokenizers.building import train_tokenizer

TEXT = ["der hund rennt schnell nach hause", "die katze schläft, und der hund bellt", "ein pferd! 好的。马跑"] * 40
KINDS = {"unigram": 288, "word": 60, "byte": 260, "bpe": 310, "char": 60}


@pytest.fixture(scope="module", params=[pytest.param(k, marks=[pytest.mark.slow] * (k != "unigram")) for k in KINDS])
def parts(request, varied_transformer):
    """An untrained model that says various things, and a tokenizer, of each kind."""
    tokenizer = train_tokenizer(request.param, TEXT, KINDS[request.param])
    return varied_transformer(tokenizer.vocab_size, end=-2.0), tokenizer, tokenizer
