"""A search over a shortlist against one over the whole vocabulary, whose other ids are made impossible."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig, ModelConfig
from nmt_keras.constants import EOS_ID, UNK_ID
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.errors import UserError
from nmt_keras.inference.search import Sampling
from nmt_keras.inference.translator import Translator
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.tokenizers.building import train_tokenizer

TEXTS = ["a b c", "h", "a b c d e f g h", "", "b", "d e f", "c c c c"]
NUM_PROPOSALS = 2
TOKENIZER = train_tokenizer("char", ["abcdefgh xyz"], 20)
LEXICON = Lexicon(
    np.random.default_rng(3).integers(4, TOKENIZER.vocab_size, (TOKENIZER.vocab_size, NUM_PROPOSALS + 1), np.int32),
    np.array([5, 9], np.int32),
    np.array([TOKENIZER.sha256] * 2),
)


def _model(seed=5, **fields):
    model = build_seq2seq(ModelConfig(d_model=16, num_heads=2, d_ff=16, **fields), *[TOKENIZER.vocab_size] * 2)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.7)
    ids = tf.range(TOKENIZER.vocab_size)
    model.output_projection.bias.assign(tf.where((ids == EOS_ID) | (ids == UNK_ID), -3.0, 0.0))
    return model


def _translator(model, shortlist=0, sampling=None, num_hypotheses=1, **decoding):
    config = DecodingConfig(**{"beam_size": 3, "max_length": 12, "shortlist": shortlist, **decoding})
    return Translator(model, TOKENIZER, TOKENIZER, config, num_hypotheses, sampling, LEXICON)


def _listed(text, prefix=""):
    """What a text may be translated with."""
    source = [*TOKENIZER.encode(text), EOS_ID]
    return {0, 1, 2, 3, *LEXICON.common, *LEXICON.proposals[source, :NUM_PROPOSALS].flat, *TOKENIZER.encode(prefix)}


@contextlib.contextmanager
def _only(members, ids):
    """Within, the models' other ids are impossible."""
    biases = [member.output_projection.bias for member in members]
    kept = [np.array(bias) for bias in biases]
    is_listed = np.isin(np.arange(TOKENIZER.vocab_size), list(ids))
    for bias, values in zip(biases, kept):
        bias.assign(np.where(is_listed, values, -1e9))
    yield
    for bias, values in zip(biases, kept):
        bias.assign(values)


OPTIONS = (
    {},
    {"beam_size": 1},
    {"num_hypotheses": 3, "no_repeat_ngram": 2, "repetition_penalty": 1.2},
    {"banned_phrases": ("a", "xy")},
    {"sampling": Sampling(7, top_p=0.9), "num_hypotheses": 2},
)
KINDS = ({}, {"tie_output": True, "d_embedding": 8}, {"decoder": "transformer", "encoder": "transformer"}, "ensemble")
# Beam search and sampling with the first kind of model; the rest are slow.
PAIRS = [
    pytest.param(kind, options, marks=[pytest.mark.slow] * (number > 0 or place not in (0, 4)))
    for number, kind in enumerate(KINDS)
    for place, options in enumerate(OPTIONS)
]


@pytest.mark.parametrize("kind, options", PAIRS, ids=str)
def test_it_finds_what_the_whole_vocabulary_would_among_the_same_ids(kind, options):
    members = [_model(5), _model(6)] if kind == "ensemble" else [_model(**kind)]
    model = Ensemble(members) if len(members) > 1 else members[0]
    whole, short = (_translator(model, shortlist=count, **options) for count in (0, NUM_PROPOSALS))
    together = short.translate(TEXTS)
    for number, (text, among) in enumerate(zip(TEXTS, together)):
        with _only(members, _listed(text)):
            [expected] = whole.translate([text], first_number=number)
        assert [h.ids for h in among.hypotheses] == [h.ids for h in expected.hypotheses]
        np.testing.assert_allclose(
            [h.log_prob for h in among.hypotheses], [h.log_prob for h in expected.hypotheses], atol=1e-4
        )
    assert len({t.text for t in together}) > 2


@pytest.mark.slow
def test_it_makes_a_difference_and_a_forced_beginning_is_in_it():
    model = _model()
    whole, short = (_translator(model, shortlist=count).translate(TEXTS) for count in (0, NUM_PROPOSALS))
    assert [t.text for t in whole] != [t.text for t in short]
    for text, translation in zip(TEXTS, short):
        assert set(translation.best.ids) <= _listed(text)
    prefix = next(c for c in "abcdefgh" if not set(TOKENIZER.encode(c)) <= _listed("h"))
    [forced] = _translator(model, shortlist=NUM_PROPOSALS).translate(["h"], prefixes=[prefix])
    assert forced.text.startswith(prefix)


def test_without_a_lexicon_it_says_what_makes_one():
    with pytest.raises(UserError, match="python -m pipelines.lexicon"):
        Translator(_model(), TOKENIZER, TOKENIZER, DecodingConfig(shortlist=5))
