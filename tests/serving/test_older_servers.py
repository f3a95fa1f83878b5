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
from nmt_keras.layers.int8 import NEEDS, is_available
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.serving import compression, export, int8, proof
from nmt_keras.tokenizers.building import train_tokenizer
from nmt_keras.tokenizers.target_tags import TargetLanguages

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
    "transformer, int8_compute": {"encoder": "transformer", "decoder": "transformer"},
    "rnn, int8_compute": {},
    "transformer, ensemble": {"encoder": "transformer", "decoder": "transformer"},
    "transformer, several languages": {"encoder": "transformer", "decoder": "transformer"},
    "transformer, sentences": {"encoder": "transformer", "decoder": "transformer"},
}


@pytest.fixture(scope="module")
def tokenizer():
    """Of subwords, whose operations are those of TensorFlow Text."""
    return train_tokenizer("unigram", ["der hund rennt nach hause", "die katze schläft, und der hund bellt"] * 40, 282)


def _model(fields, size, seed):
    """A model of random weights."""
    model = build_seq2seq(ModelConfig(**{**SMALL, **fields}), size, size)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    model.output_projection.bias.assign(tf.one_hot(EOS_ID, size) * -3.0)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, tokenizer, tmp_path_factory):
    """An export, requests to each of its signatures, and this version's answers."""
    kind = request.param.partition(", ")[2]
    members = [_model(FAMILIES[request.param], tokenizer.vocab_size, seed) for seed in (3, 4)]
    model = Ensemble(members) if kind == "ensemble" else members[0]
    decoding = DecodingConfig(beam_size=3, max_length=12, max_source_length=32, split_sentences=kind == "sentences")
    stored = compression.compress(model.variables, kind) if kind in ("int8", "bfloat16") else ()
    if kind == "int8_compute":
        if not is_available():
            pytest.skip(f"products in int8 need {NEEDS}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(int8, "measured", lambda call: (1.0, 0.1))  # all are faster in int8
            found = int8.to_int8(model, tf.constant([[4, 5, 6, 3]]), decoding.beam_size)
        assert found.weights and all(choice.is_int8 for choice in found.choices)
        model, stored = found.model, found.stored
    languages = TargetLanguages(("de", "fr"), (4, 5)) if kind == "several languages" else None
    module = export.TranslationModule(model, tokenizer, tokenizer, decoding, stored, languages=languages)
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
