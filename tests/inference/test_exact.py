"""The most probable translation of a real model, by exact search."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig, ModelConfig
from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.inference.exact import ExactTranslator
from nmt_keras.inference.translator import Translator
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.tokenizers.characters import CharacterTokenizer

TOKENIZER = CharacterTokenizer(list("abc"))
CONFIG = DecodingConfig(beam_size=2, length_penalty=0.0, max_length=3)


def _model(decoder, seed=1):
    fields = {"encoder": "transformer", "decoder": decoder} if decoder != "rnn" else {}
    model = build_seq2seq(ModelConfig(d_model=8, num_heads=2, d_ff=12, **fields), *[TOKENIZER.vocab_size] * 2)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.8)
    return model


def _log_probs(model, source, translations):
    """The log probability of each of some translations of one source, by the translation."""
    longest = max(map(len, translations))
    labels = tf.constant([[*ids, *[PAD_ID] * (longest - len(ids))] for ids in translations])
    inputs = tf.concat([tf.fill([len(translations), 1], BOS_ID), labels[:, :-1]], 1)
    hidden, _ = model(tf.constant([source] * len(translations)), inputs)
    each = tf.gather(tf.nn.log_softmax(model.project(hidden)), labels, batch_dims=2)
    totals = tf.reduce_sum(tf.where(labels == PAD_ID, 0.0, each), 1).numpy().tolist()
    return dict(zip(map(tuple, translations), totals))


def _all_translations(alphabet, longest):
    strings = itertools.chain.from_iterable(itertools.product(alphabet, repeat=size) for size in range(longest))
    return [[*string, EOS_ID] for string in strings]


@pytest.mark.parametrize("decoder", ["rnn", "transformer", "ensemble"])
def test_it_is_the_best_of_all_translations(decoder):
    model = Ensemble([_model("rnn", seed) for seed in (1, 2)]) if decoder == "ensemble" else _model(decoder)
    translator = ExactTranslator(Translator(model, TOKENIZER, TOKENIZER, CONFIG), model, CONFIG, 10_000)
    texts = ["ab", "", "cab", "b"]
    alphabet = [1, *(TOKENIZER.encode("abc"))]
    results = list(translator.stream(texts))
    assert [bool(result.outputs) for result in results] == [True, False, True, True] and results[1].text == ""
    for text, result in zip(texts, results):
        if text:
            source = [*TOKENIZER.encode(text), EOS_ID]
            scored = _log_probs(model, source, _all_translations(alphabet, CONFIG.max_length))
            assert result.best.log_prob == pytest.approx(max(scored.values()), abs=1e-4)
            assert scored[tuple(result.best.ids)] == pytest.approx(max(scored.values()), abs=1e-4)
            assert result.text == TOKENIZER.decode(result.best.ids) and result.outputs["is_exact"]
    assert (translator.translated, translator.proved) == (3, 3)
    assert translator.summary().startswith("exact search: 3 texts, 3 of them within 10,000 steps of the model; ")


def test_steps_may_run_out():
    model = _model("rnn")
    translator = ExactTranslator(Translator(model, TOKENIZER, TOKENIZER, CONFIG), model, CONFIG, 1)
    [result] = translator.stream(["abc"])
    assert result.outputs == {"is_exact": False, "steps": 1}
    assert (translator.translated, translator.proved, translator.found, translator.empty) == (1, 0, 0, 0)
