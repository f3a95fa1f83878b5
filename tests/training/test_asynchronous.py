"""Workers that update what parameter servers keep, as processes on this machine; what Keras does not promise."""

import json
import re
import signal
import time

import pytest
import tensorflow as tf

from nmt_keras.config import TrainingConfig
from nmt_keras.errors import UserError
from nmt_keras.training.cluster import cluster_of
from nmt_keras.training.schedules import build_optimizer
from pipelines import train
from tests.training.of_workers import losses_of, start_asynchronous, worker_arguments


def _end(processes, statuses=0):
    outputs = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode == statuses for process in processes), "\n".join(outputs)
    return outputs


def _rows(run_dir):
    log = run_dir / "metrics.jsonl"
    rows = [json.loads(row) for row in log.read_text().split("\n")[:-1]] if log.exists() else []
    return [row for row in rows if "loss" in row]


def _card(run_dir):
    return json.loads((run_dir / "run_card.json").read_text())


@pytest.mark.slow
def test_one_worker_with_one_step_in_flight_is_one_device(tmp_path, copy_text, monkeypatch):
    """With dropout, an average, a schedule and histograms; and it goes on to the same bits."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    arguments = worker_arguments(copy_text, tmp_path, 6)[:-2]
    arguments += ["--config.training.ema_decay=0.9", "--config.training.compile=off"]
    arguments += ["--config.training.histograms_every=1"]
    alone = [*arguments, f"--run_dir={tmp_path}/one"]
    assert train.main(alone) == 0
    exact = [*arguments, "--config.training.max_in_flight=1"]
    for name, stops in (("whole", [6]), ("parts", [3, 6])):
        for stop in stops:
            more = [f"--run_dir={tmp_path}/{name}", f"--config.training.max_steps={stop}"]
            outputs = _end(start_asynchronous([*exact, *more], workers=1)[0])
    assert "resuming at step 3\n" in outputs[0]
    assert _card(tmp_path / "whole")["weights_sha256"] == _card(tmp_path / "parts")["weights_sha256"]
    assert losses_of(tmp_path / "whole") == pytest.approx(losses_of(tmp_path / "one"), rel=1e-5)
    assert [row["staleness"] for row in _rows(tmp_path / "whole")] == [0.0] * 6


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_nothing_and_makes_steps_again_when_it_is_back(tmp_path, copy_text):
    arguments = [a.replace("every=100000", "every=1000") for a in worker_arguments(copy_text, tmp_path, 100000)]
    arguments += [f"--run_dir={tmp_path}/run"]
    arguments[3] = "--config.training.log_every=10"  # which waits for all that is under way
    processes, starts = start_asynchronous(arguments)

    def wait_for_rows(workers):
        """Waits until that many have made the steps of a new row."""
        before = len(_rows(tmp_path / "run"))
        deadline = time.monotonic() + 120
        while all(row["workers"] != workers for row in _rows(tmp_path / "run")[before:]):
            assert processes[0].poll() is None and time.monotonic() < deadline, workers
            time.sleep(0.1)

    wait_for_rows(2)
    processes[1].kill()
    processes[1].communicate()
    wait_for_rows(1)
    processes[1] = starts[1]()
    wait_for_rows(2)
    processes[0].send_signal(signal.SIGTERM)
    outputs = _end(processes[:1], statuses=75) + _end(processes[1:])
    assert (
        "warning: worker 0 (127.0.0.1:" in outputs[0] and "is computed by another, and it may come back" in outputs[0]
    )
    assert re.search(r"^worker 0 \(127.0.0.1:[0-9]+\) is back$", outputs[0], re.MULTILINE)
    assert "ERROR:tensorflow" not in outputs[0]
    assert "worker 0 (127.0.0.1:" in outputs[1] and "serves grpc://" in outputs[1]
    rows = _rows(tmp_path / "run")
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    assert 0 < sum(row["staleness"] for row in rows) / len(rows) <= max(row["largest_staleness"] for row in rows) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_a_server_that_is_lost_ends_all_and_they_go_on(tmp_path, copy_text, how):
    arguments = [a.replace("every=200", "every=50") for a in worker_arguments(copy_text, tmp_path, 200)]
    arguments += [f"--run_dir={tmp_path}/run", "--config.training.checkpoint_every=20"]
    processes, _ = start_asynchronous(arguments)
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and log.read_text().count('"loss"') > 30) and processes[0].poll() is None:
        time.sleep(0.01)
    started = time.monotonic()
    processes[-1].send_signal(how)
    outputs = _end(processes[:-1], statuses=75)
    assert time.monotonic() - started < 60
    assert "parameter server 0 (127.0.0.1:" in outputs[0] and "Traceback" not in "".join(outputs)
    processes[-1].kill()
    processes[-1].communicate()
    outputs = _end(start_asynchronous(arguments)[0])
    assert "resuming at step " in outputs[0] and "updates interleave otherwise than before" in outputs[0]
    assert _rows(tmp_path / "run")[-1]["step"] == 200


def test_the_count_of_the_optimizer_is_the_variables_own():
    """`keras.Variable.assign_add` would read and write, and two workers lose counts."""
    from nmt_keras.training import asynchronous

    optimizer = build_optimizer(TrainingConfig(), tf.Variable(0))
    asynchronous.count_atomically(optimizer)
    graph = tf.function(lambda: optimizer.iterations.assign_add(1)).get_concrete_function().graph
    assert "AssignAddVariableOp" in {operation.type for operation in graph.get_operations()}


def _config(job, **jobs):
    return json.dumps({"cluster": jobs, "task": {"type": job, "index": 0}})


@pytest.mark.usefixtures("within_a_minute")
@pytest.mark.parametrize(
    "distribution, config, message",
    [
        ("parameter_server", _config("ps", ps=["a:1"]), r"needs a TF_CONFIG with a chief.*Received: ps$"),
        ("parameter_server", _config("worker", worker=["a:1"], ps=["a:2"]), r"Received: ps, worker$"),
        ("multi_worker", _config("worker", worker=["a:1"], ps=["a:2"]), "has no use for: leave them out"),
        ("parameter_server", _config("evaluator", worker=["a:1"]), "a task that is a worker"),
    ],
)
def test_a_cluster_of_other_jobs_is_refused(distribution, config, message):
    with pytest.raises(UserError, match=message):
        cluster_of(config, distribution)
