"""What an export of ours does in older versions of TensorFlow Serving: `make test-servers`.

Each version's C library, with the operations of its own TensorFlow Text, loads an export of each family, as the server
of that version does, and answers each signature as this version does.
"""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig, ModelConfig
from nmt_keras.constants import EOS_ID
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.serving import compression, export, proof
from nmt_keras.tokenizers.building import train_tokenizer

pytestmark = pytest.mark.servers

ENVIRONMENTS = sorted((pathlib.Path(__file__).parents[2] / "build").glob("tensorflow-2.*"))
TEXTS = ["der hund rennt", "", "die katze schläft, und der hund bellt nach hause", "x 好"]
SMALL = {"d_model": 8, "num_heads": 2, "d_ff": 12, "num_encoder_layers": 1, "num_decoder_layers": 1}
FAMILIES = {
    "rnn": {},
    "rnn, hard monotonic attention": {"attention": "monotonic_hard"},
    "gnmt": {"encoder": "gnmt", "decoder": "gnmt", "num_encoder_layers": 3, "num_decoder_layers": 3},
    "rnmt_plus": {"decoder": "rnmt_plus", "num_decoder_layers": 3},
    "conditional_gru": {"decoder": "conditional_gru", "cell": "gru"},
    "conv": {"encoder": "conv", "decoder": "conv", "positions": "learned", "max_positions": 4},
    "transformer": {"encoder": "transformer", "decoder": "transformer"},
    "ssru": {"encoder": "transformer", "decoder": "ssru"},
    "transformer, int8": {"encoder": "transformer", "decoder": "transformer"},
    "transformer, bfloat16": {"encoder": "transformer", "decoder": "transformer"},
}


@pytest.fixture(scope="module")
def tokenizer():
    """Of subwords, whose operations are those of TensorFlow Text."""
    return train_tokenizer("unigram", ["der hund rennt nach hause", "die katze schläft, und der hund bellt"] * 40, 282)


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, tokenizer, tmp_path_factory):
    """An export, requests to each of its signatures, and this version's answers."""
    size = tokenizer.vocab_size
    model = build_seq2seq(ModelConfig(**{**SMALL, **FAMILIES[request.param]}), size, size)
    rng = np.random.default_rng(3)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    model.output_projection.bias.assign(tf.one_hot(EOS_ID, size) * -3.0)
    precision = request.param.partition(", ")[2]
    stored = compression.compress(model.variables, precision) if precision in ("int8", "bfloat16") else ()
    decoding = DecodingConfig(beam_size=3, max_length=12, max_source_length=32)
    module = export.TranslationModule(model, tokenizer, tokenizer, decoding, stored)
    folder = tmp_path_factory.mktemp("export") / "1"
    tf.saved_model.save(module, str(folder), signatures=export.signatures_of(module))
    requests = export.sample_requests(module, TEXTS)
    with proof.FreshProcess(folder) as served:
        return folder, requests, [served.ask(name, inputs) for name, inputs in requests]


def test_there_is_an_older_version():
    assert [each.name for each in ENVIRONMENTS] == ["tensorflow-2.18", "tensorflow-2.19", "tensorflow-2.20"]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda path: path.name)
def test_each_signature_answers_as_here(environment, exported):
    folder, requests, expected = exported
    with proof.FreshProcess(folder, proof.c_libraries(environment)) as served:
        for (name, inputs), own in zip(requests, expected):
            answer = served.ask(name, inputs)
            assert answer.keys() == own.keys()
            for key, value in own.items():
                one, other = np.array(answer[key]), np.array(value)
                if other.dtype.kind == "f":
                    np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-5, err_msg=f"{name}: {key}")
                else:
                    np.testing.assert_array_equal(one, other, err_msg=f"{name}: {key}")
