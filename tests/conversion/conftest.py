"""Small trained models to convert: random weights that translate dev lines to text that varies and ends."""

import itertools
import random

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig
from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nmt_keras.conversion.source import DevLines, Source
from nmt_keras.experiment.text import open_train
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.runs.layout import checkpoints_of, open_run_dir
from nmt_keras.runs.tokenizers import prepare_tokenizers
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer
from nmt_keras.training.checkpoints import Checkpoints, by_path

WORDS = (
    "man",
    "woman",
    "child",
    "rides",
    "reads",
    "walks",
    "a",
    "the",
    "red",
    "old",
    "horse",
    "book",
    "home",
    "slowly",
)
LENGTHS = (3, 1, 6, 9, 2, 5, 4, 7)


def sentences(count, seed):
    """Sentences of `WORDS` of unequal lengths."""
    rng = random.Random(seed)
    lengths = itertools.islice(itertools.cycle(LENGTHS), count)
    return [" ".join(rng.choices(WORDS, k=length)) for length in lengths]


@pytest.fixture(scope="session")
def tokenizers():
    """Of the source and of the target, unequal."""

    def train(text, size, symbols=()):
        options = {"character_coverage": 1.0, "byte_fallback": False, "normalization": "identity"}
        return SentencePieceTokenizer.train(text, size, "unigram", **options, control_symbols=symbols)

    turned = [sentence[::-1] for sentence in sentences(200, 2)]
    return Tokenizers(train(sentences(200, 1), 38, ["<2de>", "<2fr>"]), train(turned, 34))


def vary(model, seed=3):
    """Gives a model weights of which translations depend on the source and end after a few ids."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        name = weight.path.rpartition("/")[2]
        size = 0.1 if len(weight.shape) < 2 else 0.4 if name == "table" else 2.5 * weight.shape[0] ** -0.5
        offset = 1.0 if name in ("gamma", "scale", "gain") else 0.0
        weight.assign(rng.normal(size=weight.shape) * size + offset)
    if not model.output_projection.is_tied:
        model.output_projection.kernel.assign(rng.normal(size=model.output_projection.kernel.shape) * 0.4)
    bias = np.array(model.output_projection.bias)
    bias[[PAD_ID, BOS_ID, UNK_ID]] = -20.0  # as after training
    bias[EOS_ID] += 2.5
    model.output_projection.bias.assign(bias)


@pytest.fixture(scope="session")
def make_source(tokenizers):
    """A function that makes what is converted, of fields of the model; `share_embeddings` takes one vocabulary."""

    def make(**fields):
        shared = fields.get("share_embeddings", False)
        own = Tokenizers(tokenizers.target, tokenizers.target) if shared else tokenizers
        model = build_seq2seq(ModelConfig(**fields), own.source.vocab_size, own.target.vocab_size)
        vary(model)
        search = DecodingConfig(beam_size=3, max_length=24, max_source_length=16, batch_sentences=5)
        config = ExperimentConfig(DataConfig(joint_vocabulary=shared), ModelConfig(**fields), decoding=search)
        return Source("run", config, own, model)

    return make


@pytest.fixture(scope="session")
def dev():
    """Lines of a dev set, the last with white space that is folded."""
    return [DevLines([], [*sentences(16, 5), "the\u00a0old\t man "])]


@pytest.fixture
def make_run(tmp_path):
    """A function that makes a run directory with one checkpoint, of fields of the model and of the data."""

    def make(model, name="run", **data):
        for side, lines in (("src", sentences(80, 1)), ("tgt", [line[::-1] for line in sentences(80, 1)])):
            for stem, part in (("train", lines), ("dev", [*lines[:3], "", *lines[3:12]])):
                text = "".join(line + "\n" for line in part)
                (tmp_path / f"{stem}.{side}").write_text(text, encoding="utf-8")
        fields = {
            "data_dir": str(tmp_path),
            "cache_dir": str(tmp_path / "cache"),
            "train_source": ("train.src",),
            "train_target": ("train.tgt",),
            "dev_source": ("dev.src",),
            "dev_target": ("dev.tgt",),
            "source_vocab_size": 45,
            "character_coverage": 1.0,
            "byte_fallback": False,
        }
        search = DecodingConfig(beam_size=3, max_length=24, max_source_length=16, batch_sentences=5)
        config = ExperimentConfig(DataConfig(**fields | data), ModelConfig(**model), decoding=search)
        config.normalise()
        run_dir = tmp_path / name
        with open_run_dir(run_dir, config):
            corpus = open_train(config.data, lambda line: None)
            own = prepare_tokenizers(run_dir, config.data, corpus, lambda line: None)
        network = build_seq2seq(config.model, own.source.vocab_size, own.target.vocab_size)
        vary(network)
        checkpoints = Checkpoints(checkpoints_of(run_dir))
        checkpoints.save(7, tf.train.Checkpoint(model=by_path(network.variables)), {})
        checkpoints.mark_best(7, "dev_bleu", 1.0)
        return run_dir

    return make
