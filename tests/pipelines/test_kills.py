"""A job that is killed goes on where it was, whatever it was doing."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def _start(run_dir, copy_text, cache):
    """Everything that has a state is on: sampling, weighted corpora, dropout, a schedule, accumulation."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pipelines.train",
            "--config=tests/pipelines/copy_recipe.py",
            f"--run_dir={run_dir}",
            f"--data_dir={copy_text}",
            f"--config.data.cache_dir={cache}",
            "--config.data.train_source=('train.src', 'dev.src')",
            "--config.data.train_target=('train.tgt', 'dev.tgt')",
            "--config.data.train_weights=(0.5, 2.0)",
            "--config.data.tokenizer=unigram",
            "--config.data.source_vocab_size=20",
            "--config.data.byte_fallback=False",
            "--config.data.sampling_alpha=0.2",
            "--config.model.d_model=16",
            "--config.model.input_dropout_rate=0.2",
            "--config.model.state_dropout_rate=0.2",
            "--config.training.schedule=cosine",
            "--config.training.warmup_steps=4",
            "--config.training.accumulation_steps=2",
            "--config.training.batch_tokens=512",
            "--config.training.max_steps=60",
            "--config.training.log_every=1",
            "--config.training.evaluate_every=20",
            "--config.training.checkpoint_every=5",
        ],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def _rows(run_dir):
    """Every logged value that is not a speed."""
    lines = (run_dir / "metrics.jsonl").read_text().split("\n")[:-1]
    return [{k: v for k, v in json.loads(line).items() if k != "target_tokens_per_s"} for line in lines]


def _trains(run_dir, since):
    """Whether there is a checkpoint, and a row that was logged after `since`."""
    log = run_dir / "metrics.jsonl"
    return any((run_dir / "checkpoints").glob("step-*")) and log.exists() and log.stat().st_mtime > since


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_runs_give_the_losses_of_an_uninterrupted_one(kills, tmp_path, copy_text):
    whole = _start(tmp_path / "whole", copy_text, tmp_path / "cache")
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    rng, killed, statuses = random.Random(kills), tmp_path / "killed", []
    for _ in range(kills):
        started, process = time.time(), _start(killed, copy_text, tmp_path / "cache")
        while process.poll() is None and not _trains(killed, started):
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.3))  # a step, a save or an evaluation
        process.kill()
        process.communicate()
        statuses.append(process.returncode)
    assert statuses[0] == -signal.SIGKILL
    last = _start(killed, copy_text, tmp_path / "cache")
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert "resuming at step" in errors
    assert _rows(killed) == _rows(tmp_path / "whole")
