"""Workers that make steps of their own and take the mean of what they learned, as processes on this machine."""

import json
import time

import numpy as np
import pytest

from nmt_keras.config import DataConfig, ExperimentConfig, TrainingConfig
from nmt_keras.errors import UserError
from tests.training.of_workers import losses_of, start_workers, worker_arguments


def _options(steps, local_steps, **more):
    values = {"local_steps": local_steps, "max_steps": steps, "evaluate_every": steps, "checkpoint_every": local_steps}
    values |= {"log_every": local_steps, **more}
    return [f"--config.training.{name}={value}" for name, value in values.items()]


def _train(arguments):
    for process in start_workers(arguments, "local_sgd"):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return errors


def _card(run_dir):
    return json.loads((run_dir / "run_card.json").read_text())


@pytest.mark.slow
def test_a_mean_after_each_step_of_sgd_is_the_synchronous_step(tmp_path, copy_text, monkeypatch):
    """Without clipping; parts of a batch count by their tokens, and draw the dropout of their replicas."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    sgd = {"optimizer": "sgd", "learning_rate": 0.2, "clip_norm": 0, "schedule": "constant", "ema_decay": 0.5}
    arguments = [*worker_arguments(copy_text, tmp_path, 6), *_options(6, 1, **sgd)]
    arguments.append("--config.model.input_dropout_rate=0.2")
    for process in start_workers([*arguments, f"--run_dir={tmp_path}/together"], "multi_worker"):
        assert process.communicate(timeout=300) and process.returncode == 0
    _train([*arguments, f"--run_dir={tmp_path}/local"])
    together, local = (losses_of(tmp_path / name) for name in ("together", "local"))
    assert len(local) == 6
    np.testing.assert_allclose(local, together, rtol=1e-4)


@pytest.mark.slow
def test_it_learns_and_goes_on_as_if_it_had_not_stopped(tmp_path, copy_text):
    """With momentum, Adam of each worker, dropout, and an average; the optimizer of the second worker is its own."""
    arguments = [*worker_arguments(copy_text, tmp_path, 40), "--config.model.output_dropout_rate=0.1"]
    options = {"outer_momentum": 0.5, "outer_learning_rate": 0.8, "ema_decay": 0.9}
    _train([*arguments, *_options(40, 10, **options), f"--run_dir={tmp_path}/whole"])
    for steps in (20, 40):
        errors = _train([*arguments, *_options(steps, 10, **options), f"--run_dir={tmp_path}/parts"])
    assert "resuming at step 20" in errors
    cards = [_card(tmp_path / name) for name in ("whole", "parts")]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]
    rows = [json.loads(row) for row in (tmp_path / "whole" / "metrics.jsonl").read_text().split("\n")[:-1]]
    rows = [row for row in rows if "loss" in row]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"] and all(row["outer_change"] > 0 for row in rows)
    last = tmp_path / "whole" / "checkpoints" / "step-00000040"
    assert (last / "worker-1.index").exists() and "worker-1.index" in (last / "manifest.json").read_text()


@pytest.mark.slow
def test_another_number_of_workers_goes_on_where_it_is_allowed(tmp_path, copy_text):
    arguments = [*worker_arguments(copy_text, tmp_path, 20), f"--run_dir={tmp_path}/run"]
    _train([*arguments, *_options(10, 10)])
    more = [*arguments, *_options(20, 10), "--allow_config_change"]
    *_, last = processes = start_workers(more, "local_sgd", number=3)
    outputs = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert "step-00000010 has no optimizer of worker-2: it begins with the chief's" in outputs[2], last


@pytest.mark.slow
def test_steps_that_stay_bad_lead_all_workers_back_to_one_checkpoint(tmp_path, copy_text):
    """A rate that breaks the weights at once, also when it was halved three times."""
    arguments = [*worker_arguments(copy_text, tmp_path, 60), f"--run_dir={tmp_path}/run"]
    processes = start_workers([*arguments, *_options(60, 5, learning_rate=1e38, max_bad_steps=3)], "local_sgd")
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 1 and "Traceback" not in errors, errors
        assert "restart 3 of 3" in errors and "after 3 restarts with other seeds" in errors


@pytest.mark.slow
def test_a_worker_that_is_lost_during_a_save_ends_the_others_as_at_any_time(tmp_path, copy_text):
    """It stops where the chief waits for its part of a checkpoint."""
    arguments = [*worker_arguments(copy_text, tmp_path, 10_000), f"--run_dir={tmp_path}/run"]
    arguments += _options(10_000, 5)
    processes, folder = start_workers(arguments, "local_sgd"), tmp_path / "run" / "checkpoints"
    while not list(folder.glob("step-*5")) and processes[0].poll() is None:
        time.sleep(0.01)
    while not list(folder.glob(".tmp-*")) and processes[0].poll() is None:
        pass
    processes[1].kill()
    _, errors = processes[0].communicate(timeout=90)
    processes[1].communicate()
    assert processes[0].returncode == 75 and "Traceback" not in errors and "free the disk" not in errors, errors
    assert "worker 1 (127.0.0.1:" in errors and "stopped or cannot be reached" in errors


def test_what_happens_at_a_step_must_wait_for_one_model():
    training = TrainingConfig(distribution="local_sgd", local_steps=30, max_steps=90, log_every=60, checkpoint_every=45)
    with pytest.raises(UserError, match=r"Received: 30, and training.evaluate_every=500, training.checkpoint_every=45"):
        ExperimentConfig(DataConfig(), training=training).validate()
