"""Any text at all: a line out per line in, no crash, and an export that says what the translator says."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from nmt_keras.config import DecodingConfig
from nmt_keras.inference.strings import from_bytes, to_bytes
from nmt_keras.inference.translator import Translator
from nmt_keras.serving.client import TranslateOptions
from nmt_keras.serving.export import TranslationModule, save
from nmt_keras.serving.proof import FreshProcess
from nmt_keras.tokenizers.building import train_tokenizer

_ROWS = 20  # texts of an example, one batch
_TEXTS = strategies.lists(
    strategies.one_of(
        strategies.text(strategies.characters(exclude_categories=()), max_size=80),  # lone surrogates too
        strategies.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")),
        strategies.text("ab \t\n\r\x00\x1e\u2028\ufeff\u202e。.!", max_size=400),
    ),
    min_size=_ROWS,
    max_size=_ROWS,
)


@pytest.fixture(
    scope="module",
    params=(
        ("unigram", False),
        pytest.param(("byte", True), marks=pytest.mark.slow),
        pytest.param(("word", False), marks=pytest.mark.slow),
    ),
    ids=str,
)
def pair(request, tmp_path_factory, varied_transformer):
    """A translator, and its export in a process of its own; texts are split or not."""
    kind, splits = request.param
    tokenizer = train_tokenizer(kind, ["ab ba abba", "a b。"] * 20, 266)
    model = varied_transformer(tokenizer.vocab_size, end=-2.0)
    search = DecodingConfig(beam_size=2, max_length=12, max_source_length=40, max_source_characters=200)
    search.split_sentences, search.replace_unknown = splits, kind == "word"
    module = TranslationModule(model, tokenizer, tokenizer, search)
    with FreshProcess(save(module, tmp_path_factory.mktemp("fuzz"))) as process:
        yield Translator(model, tokenizer, tokenizer, search), process


def _check(pair, texts):
    translator, process = pair
    translations = translator.translate_batch(texts)
    reply = process.ask("serving_default", {"text": [from_bytes(to_bytes(text)) for text in texts]})
    assert reply["translation"] == [translation.text for translation in translations]
    assert reply["truncated"] == [translation.truncated for translation in translations]
    np.testing.assert_allclose(reply["log_prob"], [t.best.log_prob for t in translations], atol=1e-5)
    for text, translation in zip(texts, translations, strict=True):
        assert "\n" not in translation.text or translator.config.split_sentences and "\n" in text
        translation.text.encode("utf-8")
        assert translation.text == "" or text.strip("\ufeff \t\n\r") != ""
    if not translator.config.split_sentences:
        _check_spans(process, texts)


def _check_spans(process, texts):
    """Spans of pieces are in order, within their text, and end at characters."""
    texts = [from_bytes(to_bytes(text)) for text in texts]
    translate_options = {
        name: [value] * len(texts) for name, value in TranslateOptions(num_hypotheses=2)._asdict().items()
    }
    prefixes = [text[: len(text) // 2] for text in texts]
    given = {"prefix": prefixes, "terms": [""] * len(texts), "attention": [False] * len(texts)}
    reply = process.ask("translate", {"text": texts, **translate_options, **given})
    for row, count in enumerate(reply["num_hypotheses"]):
        for number in range(count):
            line = reply["translation"][row][number].encode("utf-8")
            length = reply["num_pieces"][row][number] - 1
            starts, ends = (reply[name][row][number][:length] for name in ("piece_starts", "piece_ends"))
            assert starts == [0, *ends[:-1]][:length] and ends == sorted(ends) and (not ends or ends[-1] == len(line))
            for start, end in zip(starts, ends):
                line[start:end].decode("utf-8")


def _settings(count):
    return hypothesis.settings(
        max_examples=count // _ROWS,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@pytest.mark.slow
@_settings(200)
@hypothesis.given(texts=_TEXTS)
def test_200_texts_are_translated_alike(pair, texts):
    _check(pair, texts)


@pytest.mark.slow
@_settings(2000)
@hypothesis.given(texts=_TEXTS)
def test_2000_texts_are_translated_alike(pair, texts):
    _check(pair, texts)
