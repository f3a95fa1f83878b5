"""Training that begins with the weights of another run, and weights that stay as they are."""

import dataclasses
import json

import numpy as np
import pytest

from nmt_keras.config import ModelConfig
from nmt_keras.errors import UserError
from nmt_keras.experiment.train import train
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.runs.fine_tuning import _Known, rows_of_pieces
from nmt_keras.runs.loading import load
from nmt_keras.tokenizers.base import NUM_SPECIALS
from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer
from nmt_keras.training.checkpoints import by_path, weights_sha256
from nmt_keras.training.freezing import freeze
from tests.pipelines import copy_recipe


@pytest.fixture
def config(trained_copy, tmp_path):
    """The recipe of the trained copy model, to go on from it for two steps that change little."""
    config = copy_recipe.get_config()
    config.data.data_dir, config.data.cache_dir = str(trained_copy / "text"), str(tmp_path / "cache")
    config.data.tokenizer_from = config.training.init_from = str(trained_copy / "run")
    config.training.max_steps = config.training.evaluate_every = 2
    config.training.learning_rate = 1e-9
    return config


def _weights(run_dir, checkpoint="latest"):
    model = load(run_dir, checkpoint=checkpoint).model
    return {path: variable.numpy() for path, variable in by_path(model.variables).items()}


def test_all_weights_are_taken_over_and_the_schedule_begins_anew(config, trained_copy, tmp_path):
    reports = []
    train(config, tmp_path / "run", report=reports.append)
    before, after = _weights(trained_copy / "run", "best"), _weights(tmp_path / "run")
    assert before.keys() == after.keys()
    for path, values in before.items():
        np.testing.assert_allclose(after[path], values, atol=1e-6)
    [line] = [line for line in reports if line.startswith("weights from")]
    assert line == f"weights from {trained_copy}/run: {len(before)} as they are"
    assert not [line for line in reports if line.startswith(("weights new", "weights left"))]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "dev_loss" in row] == [2]


@pytest.mark.slow
def test_another_checkpoint_may_be_taken(config, trained_copy, tmp_path):
    config.training.init_checkpoint = "ema"
    train(config, tmp_path / "run")
    for path, values in _weights(trained_copy / "run", "ema").items():
        np.testing.assert_allclose(_weights(tmp_path / "run")[path], values, atol=1e-6)


@pytest.mark.slow
def test_what_is_new_and_what_is_left_out_is_reported(config, trained_copy, tmp_path):
    config.model.num_decoder_layers, config.model.attention = 2, "luong_dot"
    reports = []
    train(config, tmp_path / "run", report=reports.append)
    [new] = [line for line in reports if line.startswith("weights new here: ")]
    [left] = [line for line in reports if line.startswith("weights left out: ")]
    assert new == "weights new here: " + (
        "decoder/bridge/map_1_0/bias, decoder/bridge/map_1_0/kernel, decoder/bridge/map_1_1/bias, "
        "decoder/bridge/map_1_1/kernel, decoder/stack/forward_1/bias and 2 more"
    )
    assert left == "weights left out: decoder/attention/kernel"


@pytest.mark.parametrize("is_like_it", [True, False])
def test_a_run_of_another_width_is_refused_in_a_line(config, trained_copy, tmp_path, is_like_it):
    """Also where no path is shared but those of vocabularies, which are others."""
    config.model.d_model = 32
    if not is_like_it:
        config.data.tokenizer_from, config.data.tokenizer = "", "byte"
        config.model.encoder = config.model.decoder = "transformer"
    with pytest.raises(UserError) as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{trained_copy}/run, which training.init_from names, has the weight ")
    assert "give the section model the sizes of its config.json" in str(error.value)


@pytest.mark.slow
def test_what_was_learned_wins_over_the_vectors_of_a_file(config, trained_copy, tmp_path):
    (tmp_path / "vectors").write_text("a " + " ".join(["3.0"] * config.model.d_model) + "\n")
    config.model.source_vectors = str(tmp_path / "vectors")
    train(config, tmp_path / "run")
    before, after = _weights(trained_copy / "run", "best"), _weights(tmp_path / "run")
    name = "seq2seq/source_embedding/table"
    np.testing.assert_allclose(after[name], before[name], atol=1e-6)


def test_a_run_that_is_not_there_is_refused(config, tmp_path):
    config.data.tokenizer_from, config.training.init_from = "", str(tmp_path / "none")
    with pytest.raises(UserError, match="There is no folder .*none; give the --run_dir"):
        train(config, tmp_path / "run")


@pytest.mark.slow
def test_a_resumed_run_does_not_begin_again(config, tmp_path):
    config.training.checkpoint_every = 1
    config.training.learning_rate = 1e-3
    train(config, tmp_path / "run")
    config.training.max_steps = 4
    reports = []
    train(config, tmp_path / "run", report=reports.append)
    assert not [line for line in reports if line.startswith("weights from")]
    whole = dataclasses.replace(config)
    train(whole, tmp_path / "whole")
    assert weights_sha256(load(tmp_path / "whole", checkpoint="4").model) == weights_sha256(
        load(tmp_path / "run", checkpoint="4").model
    )


def test_with_another_vocabulary_rows_are_found_by_their_piece(config, trained_copy, tmp_path):
    config.data.tokenizer_from, config.data.tokenizer = "", "byte"
    reports = []
    train(config, tmp_path / "run", report=reports.append)
    [line] = [line for line in reports if line.startswith("weights from")]
    assert "as they are, 4 by their pieces, of which the others are the mean of their parts: " in line
    assert "target_embedding/table (4 of 260 known)" in line
    base, run = load(trained_copy / "run"), load(tmp_path / "run")
    ours, theirs = (np.array(each.model.target_embedding.table) for each in (run, base))
    np.testing.assert_allclose(ours[:NUM_SPECIALS], theirs[:NUM_SPECIALS], atol=1e-6)
    place, [old] = run.tokenizers.target.encode("a")[0], base.tokenizers.target.encode("a")
    np.testing.assert_allclose(ours[place], theirs[old], atol=1e-6)  # what the other tokenizer cuts "a" into


def _sentencepiece(text, size):
    return SentencePieceTokenizer.train(
        text, size, "bpe", character_coverage=1.0, byte_fallback=False, normalization="identity"
    )


def test_a_new_piece_is_the_mean_of_those_that_the_other_tokenizer_cuts_it_into():
    old = _sentencepiece(["ab cd ab cd abcd"] * 9, 12)
    new = _sentencepiece(["abab cdcd abcdcd cdab xx"] * 9, 20)
    table = np.random.default_rng(1).normal(size=(old.vocab_size, 3))
    rows, found = rows_of_pieces(new, [_Known(table, old)])
    ids = {old.piece(number): number for number in range(old.vocab_size)}
    pieces = [new.piece(number) for number in range(new.vocab_size)]
    known = [piece in ids for piece in pieces]
    assert found == sum(known) and NUM_SPECIALS < found < new.vocab_size
    for row, piece, is_known in zip(rows, pieces, known):
        if is_known:
            np.testing.assert_array_equal(row, table[ids[piece]])
    np.testing.assert_allclose(rows[pieces.index("\u2581abab")], table[old.encode("abab")].mean(0))
    inside = next(number for number, piece in enumerate(pieces) if piece == "cdcd")
    np.testing.assert_allclose(rows[inside], table[[i for i in old.encode("cdcd") if old.piece(i) != "\u2581"]].mean(0))


def _model():
    return build_seq2seq(ModelConfig(d_model=8), 9, 9)


def test_frozen_weights_are_those_whose_whole_path_matches():
    model = _model()
    frozen = freeze(model, "encoder/.*|target_embedding/table")
    assert frozen and all(name.startswith("encoder/") or name == "target_embedding/table" for name in frozen)
    trained = {weight.path.partition("/")[2] for weight in model.trainable_variables}
    everything = {weight.path.partition("/")[2] for weight in model.variables}
    assert everything - trained == set(frozen) and "decoder/attention/kernel" in trained
    assert freeze(_model(), "") == []


@pytest.mark.parametrize(
    "pattern, problem",
    [("encoder", "matches no weight"), (".*", "matches all weights"), ("enc(", "is no regular expression")],
)
def test_a_pattern_that_does_not_help_is_refused(pattern, problem):
    with pytest.raises(UserError, match=f"^`training.freeze` .*{problem}"):
        freeze(_model(), pattern)


@pytest.mark.slow
def test_frozen_weights_stay_and_the_others_learn_and_the_average_can_be_loaded(config, trained_copy, tmp_path):
    config.training.freeze, config.training.learning_rate = "encoder/.*", 1e-2
    reports = []
    train(config, tmp_path / "run", report=reports.append)
    assert any(line.startswith("weights that stay as they are: ") for line in reports)
    before, after = _weights(trained_copy / "run", "best"), _weights(tmp_path / "run")
    for path, values in before.items():
        assert (values == after[path]).all() == path.startswith("seq2seq/encoder/"), path
    averaged = _weights(tmp_path / "run", "ema")
    assert any((averaged[path] != after[path]).any() for path in averaged)
    for path in averaged:
        if path.startswith("seq2seq/encoder/"):
            np.testing.assert_array_equal(averaged[path], before[path])


def test_a_text_too_small_for_a_vocabulary_hints_at_that_of_the_base(config, trained_copy, tmp_path):
    config.data.tokenizer_from, config.data.tokenizer, config.data.source_vocab_size = "", "unigram", 5000
    with pytest.raises(
        UserError, match="cannot train 5,000 pieces .* or keep the tokenizers of .*tokenizer_from=.*run"
    ):
        train(config, tmp_path / "run")
    config.training.init_from = ""
    with pytest.raises(UserError, match="to a size it can reach$"):
        train(config, tmp_path / "other")
