"""Offsets of pieces in texts, unknown words, limits."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DecodingConfig, ExperimentConfig, ModelConfig
from nmt_keras.constants import EOS_ID, UNK_ID
from nmt_keras.decoding.hypotheses import Hypotheses
from nmt_keras.errors import UserError
from nmt_keras.inference import text as texts
from nmt_keras.inference.translator import Translator
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.tokenizers.building import train_tokenizer

KINDS = ("unigram", "bpe", "char", "byte", "word")
LINES = [
    "the old man walks",
    "老人走路去市场。",
    "les élèves là",
    "\U0001f600 ok \t two",
    "",
    "  spaces  around ",
    "a",
    "Ω unseen é",
]
CONFIG = DecodingConfig()


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return train_tokenizer(request.param, [*LINES[:4], "walk walks walked the old one"] * 20, 290)


def _hypotheses(rows, attention=None):
    """One hypothesis a row, of ids without EOS."""
    size = max(map(len, rows)) + 1
    ids = np.array([[[*row, EOS_ID] + [0] * (size - len(row) - 1)] for row in rows], np.int32)
    lengths = np.array([[len(row) + 1] for row in rows], np.int32)
    zeros = np.zeros([len(rows), 1], np.float32)
    weights = np.zeros([len(rows), 1, size, 1], np.float32) if attention is None else attention
    return Hypotheses(*map(tf.constant, (ids, lengths, zeros, zeros, np.zeros(ids.shape, np.float32), weights)))


def test_the_spans_of_source_pieces_are_their_text(tokenizer):
    source = texts.tokenize(tokenizer, tf.constant(LINES), CONFIG)
    starts, ends = (spans.numpy() for spans in texts.source_spans(tokenizer, source))
    for row, line in enumerate(line.encode() for line in LINES):
        size = int(source.lengths[row]) - 1
        spans = [line[start:end] for start, end in zip(starts[row, :size], ends[row, :size])]
        assert b"".join(b"".join(spans).split()) == b"".join(line.split())  # all of it, in order, but for space
        for span, number in zip(spans, source.ids.numpy()[row]):
            if span and number != UNK_ID and b"<0x" not in tokenizer.piece(number).encode():
                assert span.split() == tokenizer.surface(number).split()
        assert not starts[row, size:].any() and not ends[row, size:].any()


def test_the_spans_of_target_pieces_are_their_text(tokenizer):
    source = texts.tokenize(tokenizer, tf.constant(["a"] * len(LINES)), CONFIG)
    rows = [tokenizer.encode(line) for line in LINES]
    of_batch = (tokenizer, tokenizer, CONFIG, source)
    found, hypotheses = texts.detokenize(*of_batch, _hypotheses(rows))
    starts, ends = (spans.numpy()[:, 0] for spans in texts.target_spans(*of_batch, hypotheses, found))
    for row, ids in enumerate(rows):
        line = found.numpy()[row, 0]
        spans = [line[start:end] for start, end in zip(starts[row], ends[row])][: len(ids)]
        assert b"".join(spans) == line
        for span, number in zip(spans, ids):
            surface = tokenizer.surface(number)
            if span and not surface[:1] >= b"\x80":  # else a part of a character
                assert span in (surface, surface.removeprefix(b" "), surface.removesuffix(b" "))
        assert not starts[row, len(ids) :].any() and not ends[row, len(ids) :].any()


def test_the_bytes_of_a_character_are_all_of_its_last_piece():
    tokenizer = train_tokenizer("byte", [], 0)
    source = texts.tokenize(tokenizer, tf.constant(["a", "a"]), CONFIG)
    rows = [tokenizer.encode("aé😀"), [*tokenizer.encode("b"), 4 + 0xC3, *tokenizer.encode("c")]]
    of_batch = (tokenizer, tokenizer, CONFIG, source)
    found, hypotheses = texts.detokenize(*of_batch, _hypotheses(rows))
    starts, ends = (spans.numpy()[:, 0].tolist() for spans in texts.target_spans(*of_batch, hypotheses, found))
    assert list(zip(starts[0], ends[0]))[:7] == [(0, 1), (1, 1), (1, 3), (3, 3), (3, 3), (3, 3), (3, 7)]
    assert list(zip(starts[1], ends[1]))[:3] == [(0, 1), (1, 4), (4, 5)]  # no character: U+FFFD, three bytes


@pytest.mark.parametrize(
    "tail", (["C3"], ["E5", "A5"], ["F0", "9F", "98"], ["EF", "BF", "BD"], ["C3", "A9"], ["A9", "E5"])
)
def test_bytes_that_make_no_character_shift_no_span(tail):
    tokenizer = train_tokenizer("unigram", ["the old one", "old the"] * 20, 268)
    ids = {tokenizer.piece(number): number for number in range(tokenizer.vocab_size)}
    the, old = tokenizer.encode("the"), tokenizer.encode("old")
    rows = [[*the, *(ids[f"<0x{byte}>"] for byte in tail), *old], [*(ids[f"<0x{byte}>"] for byte in tail), *old]]
    source = texts.tokenize(tokenizer, tf.constant(["a", "a"]), CONFIG)
    of_batch = (tokenizer, tokenizer, CONFIG, source)
    found, hypotheses = texts.detokenize(*of_batch, _hypotheses(rows))
    starts, ends = (spans.numpy()[:, 0] for spans in texts.target_spans(*of_batch, hypotheses, found))
    for row, numbers in enumerate(rows):
        line = found.numpy()[row, 0]
        spans = [line[start:end] for start, end in zip(starts[row], ends[row])][: len(numbers)]
        assert b"".join(spans) == line
        assert b"".join(spans[-len(old) :]) == b" old"
        for span in spans:
            span.decode("utf-8")  # no boundary inside a character


def test_an_unknown_word_is_the_source_word_that_it_reads():
    source_tokenizer = train_tokenizer("word", ["ein Haus steht hier"], 8)
    target_tokenizer = train_tokenizer("word", ["a house stands here"], 8)
    config = DecodingConfig(replace_unknown=True)
    a, here = target_tokenizer.encode("a here")
    source = texts.tokenize(source_tokenizer, tf.constant(["ein  Zoo hier", "Zoo"]), config)
    attention = np.zeros([2, 1, 4, 4], np.float32)
    attention[0, 0, :3, :3] = np.eye(3)
    attention[1, 0, 0, 1] = 1.0  # reads </s>
    hypotheses = _hypotheses([[a, UNK_ID, here], [UNK_ID]], attention)
    of_batch = (source_tokenizer, target_tokenizer, config, source)
    found, hypotheses = texts.detokenize(*of_batch, hypotheses)
    assert [text.decode() for text in found.numpy()[:, 0]] == ["a Zoo here", "\u2047"]
    starts, ends = (spans.numpy()[0, 0].tolist() for spans in texts.target_spans(*of_batch, hypotheses, found))
    assert list(zip(starts, ends)) == [(0, 1), (1, 5), (5, 10), (0, 0)]


def test_unknown_words_are_replaced_where_words_and_attention_are():
    def config(tokenizer, attention):
        values = ExperimentConfig(decoding=DecodingConfig(replace_unknown=True), model=ModelConfig(attention=attention))
        values.data.train_source, values.data.train_target = ("a",), ("b",)
        values.data.dev_source, values.data.dev_target = ("c",), ("d",)
        values.data.tokenizer, values.data.joint_vocabulary = tokenizer, False
        return values

    config("word", "bahdanau").validate()
    for tokenizer, attention in (("unigram", "bahdanau"), ("word", "none")):
        with pytest.raises(UserError, match="replace_unknown"):
            config(tokenizer, attention).validate()


def test_a_text_over_a_limit_is_cut_and_says_so():
    tokenizer = train_tokenizer("char", ["ab"], 6)
    model = build_seq2seq(ModelConfig(d_model=8), 6, 6)
    config = DecodingConfig(beam_size=1, max_length=5, max_source_characters=20, max_source_length=15)
    translator = Translator(model, tokenizer, tokenizer, config)
    results = translator.translate(["ab" * 7, "a" + "b" * 14, "é" * 21, " " * 21])
    assert [result.truncated for result in results] == [False, True, True, True]
    assert results[3].text == ""
    cut, whole = translator.translate(["b" * 13 + "é" * 50, "b" * 13 + "é" * 2])
    assert len(cut.source_ids) == len(whole.source_ids) == 15
