"""An ensemble is the mean of its members' distributions, in every use of a model."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig, ModelConfig
from nmt_keras.constants import BOS_ID
from nmt_keras.inference.translator import Translator
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.serving.export import TranslationModule
from nmt_keras.tokenizers.building import train_tokenizer

SOURCE = tf.constant([[4, 5, 6, 3], [7, 3, 0, 0]])
TARGET = tf.constant([[BOS_ID, 4, 5], [BOS_ID, 8, 0]])


@pytest.fixture(scope="module")
def members():
    """Of different families and widths."""
    rng = np.random.default_rng(5)
    configs = (
        ModelConfig(d_model=12),
        ModelConfig(encoder="transformer", decoder="transformer", d_model=16, num_heads=4, d_ff=24),
    )
    models = [build_seq2seq(config, 11, 11) for config in configs]
    for model in models:
        for weight in model.trainable_variables:
            weight.assign(rng.normal(size=weight.shape) * 0.6)
    return models


def _probs(model):
    hidden, weights = model(SOURCE, TARGET)
    return tf.nn.softmax(model.project(hidden)).numpy(), weights.numpy()


def test_the_distribution_is_the_members_mean(members):
    (one, one_weights), (two, two_weights) = map(_probs, members)
    both, weights = _probs(Ensemble(members))
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)
    np.testing.assert_allclose(weights, (one_weights + two_weights) / 2, atol=1e-6)
    hidden, _ = Ensemble(members)(SOURCE, TARGET)
    np.testing.assert_allclose(tf.exp(Ensemble(members).project(hidden)), both, atol=1e-6)  # log probabilities already


def test_steps_are_the_whole_call(members):
    ensemble = Ensemble(members)
    hidden, _ = ensemble(SOURCE, TARGET)
    expected = ensemble.project(hidden).numpy()
    memory = ensemble.prepare(SOURCE)
    state = ensemble.init_state(memory)
    for position in range(3):
        logits, _, state = ensemble.step(TARGET[:, position : position + 1], tf.constant(position), state, memory)
        np.testing.assert_allclose(logits[0, 0], expected[0, position], atol=1e-5)


@pytest.mark.slow
def test_an_ensemble_is_translated_with_and_exported(members):
    tokenizer = train_tokenizer("char", ["abcdefg"], 11)
    config = DecodingConfig(beam_size=3, min_length=4, max_length=8)
    texts = ["abc", "gf", "", "aabbccdd"]
    found = {}
    for name, model in (("ensemble", Ensemble(members)), ("first", members[0]), ("twice", Ensemble(members[:1] * 2))):
        translations = Translator(model, tokenizer, tokenizer, config).translate(texts)
        found[name] = [translation.text for translation in translations]
    assert found["twice"] == found["first"] != found["ensemble"]
    module = TranslationModule(Ensemble(members), tokenizer, tokenizer, config)
    served = module.serve(tf.constant(texts))
    assert [text.decode() for text in served["translation"].numpy()] == found["ensemble"]
    assert module.encode(tf.constant(texts))["vector"].shape == (4, 12 + 16)
