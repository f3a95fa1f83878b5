"""N + M steps are N steps, an end, and M steps, to the last bit, whatever the network and however it is trained."""

import json
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator

from pipelines import train

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = "--config=" + str(pathlib.Path(__file__).parent / "copy_recipe.py")
FAMILIES = {
    "rnn": {},
    "input_feeding": {"attention": "bahdanau", "input_feeding": True, "cell": "gru"},
    "gnmt": {"encoder": "gnmt", "decoder": "gnmt", "num_encoder_layers": 3, "num_decoder_layers": 2},
    "rnmt_plus": {"decoder": "rnmt_plus", "attention": "multi_head", "cell": "normed_lstm", "num_decoder_layers": 2},
    "conditional_gru": {"decoder": "conditional_gru", "cell": "gru"},
    "conv": {"encoder": "conv", "decoder": "conv"},
    "transformer": {"encoder": "transformer", "decoder": "transformer", "attention_dropout_rate": 0.1},
    "ssru": {"encoder": "transformer", "decoder": "ssru"},
}
MODES = {
    "sampling": {
        "data.tokenizer": "unigram",
        "data.source_vocab_size": 20,
        "data.byte_fallback": False,
        "data.sampling_alpha": 0.2,
        "training.accumulation_steps": 2,
        "training.ema_decay": 0.9,
    },
    "mirrored": {"training.distribution": "mirrored"},
    "float16": {"training.precision": "mixed_float16"},
    "deterministic": {"training.deterministic": True, "training.precision": "mixed_bfloat16"},
}
LOSSES = {
    "r_drop": {"model.source_word_dropout_rate": 0.1, "model.target_word_dropout_rate": 0.1},
    "minimum_risk": {"training.num_risk_candidates": 3, "training.accumulation_steps": 2},
    "distillation": {"training.seed": 2},
    "minimum_risk on two devices": {"training.distribution": "mirrored", "training.risk_candidates": "beam"},
}
_STEPS = {"float16": (13, 16)}  # the first ones overflow until the loss scale is small enough
_ON_TWO_DEVICES = (
    "import sys, tensorflow as tf; from pipelines import train; cpu = tf.config.list_physical_devices('CPU')[0]; "
    "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2); "
    "sys.exit(train.main(sys.argv[1:]))"
)


def _train(run_dir, copy_text, family, options, max_steps):
    fields = {
        **{f"model.{name}": value for name, value in FAMILIES[family].items()},
        **options,
        "data.cache_dir": copy_text / "cache",
        "model.d_model": 16,
        "model.num_heads": 2,
        "model.d_ff": 24,
        "model.input_dropout_rate": 0.2,
        "model.output_dropout_rate": 0.1,
        "training.batch_tokens": 256,
        "training.max_steps": max_steps,
        "training.log_every": 1,
        "training.evaluate_every": 2,
        "training.best_metric": "dev_loss",
        "training.dev_sentences": 4,
        "training.keep_checkpoints": 9,
    }
    arguments = [f"--config.{name}={value}" for name, value in fields.items()]
    arguments = [RECIPE, f"--run_dir={run_dir}", f"--data_dir={copy_text}", *arguments]
    if options.get("training.distribution") != "mirrored":
        assert train.main(arguments) == 0
        return
    result = subprocess.run(  # strategies of one process get in each other's way
        [sys.executable, "-c", _ON_TWO_DEVICES, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0 and "2 replicas" in result.stderr, result.stderr


def _left(run_dir):
    """What a run leaves that must be the same: rows of the log, points of TensorBoard, the hash of the weights."""
    lines = (run_dir / "metrics.jsonl").read_text().split("\n")[:-1]
    rows = [{k: v for k, v in json.loads(line).items() if k != "target_tokens_per_s"} for line in lines]
    events = plugin_event_accumulator.EventAccumulator(str(run_dir / "summaries"))
    events.Reload()
    curves = {
        tag: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        for tag in ("train/learning_rate", "train/loss", "dev/loss")
    }
    card = json.loads((run_dir / "run_card.json").read_text())
    return rows, curves, card["weights_sha256"], card["best"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_in_two_parts_is_the_run_in_one(family, mode, copy_text, tmp_path):
    _assert_parts_are_the_whole(copy_text, tmp_path, family, MODES[mode], *_STEPS.get(mode, (3, 5)))


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_in_two_parts_is_the_run_in_one_with_every_loss(loss, copy_text, tmp_path, trained_copy):
    options = {**LOSSES[loss], "training.loss": loss.split(" ", maxsplit=1)[0]}
    if loss == "distillation":
        options["training.teacher"] = f"('{trained_copy}/run',)"
        options["data.tokenizer_from"] = f"{trained_copy}/run"
    _assert_parts_are_the_whole(copy_text, tmp_path, "rnn", options, 3, 5)


def _assert_parts_are_the_whole(copy_text, tmp_path, family, options, first, last):
    _train(tmp_path / "whole", copy_text, family, options, last)
    _train(tmp_path / "parts", copy_text, family, options, first)
    _train(tmp_path / "parts", copy_text, family, options, last)
    whole, parts = (_left(tmp_path / name) for name in ("whole", "parts"))
    assert [row["step"] for row in whole[0] if "learning_rate" in row] == list(range(1, last + 1))
    rows = [row for row in parts[0] if (row["step"], "dev_loss" in row) != (first, True)]  # its end was evaluated
    assert rows == whole[0]
    assert parts[1]["train/learning_rate"] == whole[1]["train/learning_rate"]
    assert parts[1]["train/loss"] == whole[1]["train/loss"] and whole[1]["train/loss"][-1][0] == last
    assert [point for point in parts[1]["dev/loss"] if point[0] != first] == whole[1]["dev/loss"]
    assert parts[2] == whole[2]
