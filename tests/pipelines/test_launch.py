"""Workers started on this machine, or one of several machines."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from pipelines import launch, train
from tests.pipelines.test_jobs import RECIPE, ROOT
from tests.training.of_workers import losses_of


def _arguments(text, run_dir, steps, *options):
    return [
        "--",
        RECIPE,
        f"--data_dir={text}",
        f"--config.data.cache_dir={run_dir}-cache",
        f"--run_dir={run_dir}",
        f"--config.training.max_steps={steps}",
        "--config.training.log_every=1",
        f"--config.training.evaluate_every={steps}",
        f"--config.training.checkpoint_every={steps}",
        "--config.model.d_model=16",
        *options,
    ]


@pytest.mark.slow
def test_two_workers_train_and_their_lines_have_numbers(copy_text, tmp_path, capfd):
    """Gradients are sent as bfloat16, which changes the losses of one process little."""
    options = ["--config.model.input_dropout_rate=0", "--config.model.output_dropout_rate=0"]
    short = ["--config.training.reduction_dtype=bfloat16"]
    assert launch.main(["--workers=2", *_arguments(copy_text, tmp_path / "two", 3, *options, *short)]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert all(line.startswith(("0: ", "1: ")) for line in lines)
    assert any(line.startswith("0: model: ") and "2 replicas" in line for line in lines)
    parts = ["--config.training.accumulation_steps=2"]
    assert train.main(_arguments(copy_text, tmp_path / "one", 3, *options, *parts)[1:]) == 0
    logs = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for name in ("one", "two")]
    losses = [[row["loss"] for row in map(json.loads, log) if "loss" in row] for log in logs]
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], rel=0.01) and losses[0] != losses[1]


@pytest.mark.slow
def test_another_number_of_workers_goes_on_with_the_same_batches(copy_text, tmp_path, capfd):
    """Three after two: refused, and with --allow_config_change as if one process had made all steps."""
    options = ["--config.model.input_dropout_rate=0", "--config.model.output_dropout_rate=0"]
    assert launch.main(["--workers=2", *_arguments(copy_text, tmp_path / "run", 3, *options)]) == 0
    more = ["--workers=3", *_arguments(copy_text, tmp_path / "run", 6, *options)]
    capfd.readouterr()
    assert launch.main(more) == 2
    assert "--allow_config_change" in capfd.readouterr().err
    assert launch.main([*more, "--allow_config_change"]) == 0
    assert train.main(_arguments(copy_text, tmp_path / "one", 6, *options)[1:]) == 0
    together, alone = (losses_of(tmp_path / name) for name in ("run", "one"))
    assert len(together) == 6 and together == pytest.approx(alone, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("of_all", [False, True], ids=["of the launch", "of each process"])
def test_a_signal_stops_all_and_the_same_command_goes_on(copy_text, tmp_path, of_all):
    """SLURM and systemd send it to each process of a job, to which the launch sends it too."""
    command = [sys.executable, "-m", "pipelines.launch", "--workers=2", *_arguments(copy_text, tmp_path / "run", 2000)]
    process, log = (
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True),
        tmp_path / "run/metrics.jsonl",
    )
    while not (log.exists() and '"loss"' in log.read_text()) and process.poll() is None:
        time.sleep(0.01)
    for number in [*(_children(process) if of_all else []), process.pid]:
        os.kill(number, signal.SIGTERM)
        time.sleep(0.05 * of_all)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75 and "stopping all workers" in errors, errors
    assert "0: stopped by SIGTERM at step " in errors or "another worker was stopped at step " in errors
    assert errors.count("which is saved") == 2, errors


def _children(process):
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return sorted(map(int, listed.stdout.split()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, told",
    [
        (["--workers=2", "--restarts=1"], "a worker was lost: all are started again (0 more times at most)"),
        (
            ["--workers=2", "--servers=1", "--distribution=parameter_server", "--restarts=1"],
            "worker 1 is started again (0 more times at most)",
        ),
    ],
    ids=["together", "asynchronous"],
)
def test_what_is_killed_is_started_again(copy_text, tmp_path, options, told):
    command = [sys.executable, "-m", "pipelines.launch", *options, *_arguments(copy_text, tmp_path / "run", 300)]
    command += ["--config.training.checkpoint_every=20"]
    process, log = (
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True),
        tmp_path / "run/metrics.jsonl",
    )
    while not (log.exists() and log.read_text().count('"loss"') > 30) and process.poll() is None:
        time.sleep(0.01)
    last_worker = _children(process)[2 if "--servers=1" in options else 1]
    os.kill(last_worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0 and told in errors, errors
    assert '"step": 300' in log.read_text().splitlines()[-1]


@pytest.mark.usefixtures("within_a_minute")
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workers=2"], "What pipelines.train takes must stand behind --"),
        (["--", "--run_dir=a"], "Exactly one of --workers"),
        (["--workers=2", "--hosts=a:1", "--index=0", "--", "--run_dir=a"], "Exactly one of --workers"),
        (["--hosts=a:1,b:2", "--", "--run_dir=a"], "--hosts and --index go together"),
        (["--workers=2", "--index=0", "--", "--run_dir=a"], "--hosts and --index go together"),
        (["--hosts=a:1,b:2", "--index=2", "--", "--run_dir=a"], "--index must be below the number of --hosts, 2"),
        (["--hosts=a,b:2", "--index=0", "--", "--run_dir=a"], "TF_CONFIG must be like"),
        (["--workers=2", "--servers=1", "--", "--run_dir=a"], "--distribution=parameter_server and --servers"),
        (["--workers=2", "--distribution=parameter_server", "--", "--run_dir=a"], "go together"),
        (["--workers=1", "--", "--config.training.distribution=mirrored"], "Leave out --config.training.distribution"),
    ],
)
def test_what_cannot_be_started_is_one_line(arguments, message, capsys):
    assert launch.main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_the_status_is_that_of_what_failed(copy_text, tmp_path, capfd):
    arguments = _arguments(copy_text, tmp_path / "run", 3, "--config.model.d_model=-1")
    assert launch.main(["--workers=2", *arguments]) == 2
    assert "1: error: `model.d_model` must be positive" in capfd.readouterr().err


def test_one_of_several_machines_joins_the_others(copy_text, tmp_path, capfd, monkeypatch):
    """Both are this one."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        hosts = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second))
    seen = []

    class Process:
        def __init__(self, command, env, start_new_session):
            assert start_new_session  # a Ctrl-C of the terminal reaches it through this job
            seen.append((command, env))

        def wait(self):
            return 7

    monkeypatch.setattr(launch.subprocess, "Popen", Process)
    assert launch.main([f"--hosts={hosts}", "--index=1", "--", "--run_dir=a"]) == 7
    [(command, environment)] = seen
    assert command[-2:] == ["--run_dir=a", "--config.training.distribution=multi_worker"]
    task = json.loads(environment["TF_CONFIG"])
    assert task == {"cluster": {"worker": hosts.split(",")}, "task": {"type": "worker", "index": 1}}


class _Processes:
    """Stands for `subprocess.Popen`, whose processes end as is told, or are waited for when a signal comes."""

    def __init__(self, *results):
        self.results, self.did = iter(results), []

    def __call__(self, command, env, start_new_session):
        self.did.append("started")
        return self

    def wait(self):
        result = next(self.results)
        if result is KeyboardInterrupt:
            raise result
        return result

    def send_signal(self, number):
        self.did.append(number)


def _launch_one(monkeypatch, processes, restarts):
    monkeypatch.setattr(launch.subprocess, "Popen", processes)
    return launch.main(["--hosts=127.0.0.1:1", "--index=0", f"--restarts={restarts}", "--", "--run_dir=a"])


def test_a_signal_reaches_the_process_of_one_machine_and_nothing_is_started_again(monkeypatch):
    """The first asks it to save and stop, the second ends it."""
    processes = _Processes(KeyboardInterrupt, KeyboardInterrupt, -signal.SIGKILL)
    assert _launch_one(monkeypatch, processes, 3) == 128 + signal.SIGKILL
    assert processes.did == ["started", signal.SIGTERM, signal.SIGKILL]
    processes = _Processes(KeyboardInterrupt, 75)
    assert _launch_one(monkeypatch, processes, 3) == 75 and processes.did == ["started", signal.SIGTERM]


def test_what_is_killed_on_one_of_several_machines_is_lost(monkeypatch, capsys):
    """As by a kernel that has no memory left: it can go on with the same command."""
    processes = _Processes(-signal.SIGKILL, 75, -signal.SIGSEGV)
    assert _launch_one(monkeypatch, processes, 2) == 75 and processes.did == ["started"] * 3
    assert "all are started again (0 more times at most)" in capsys.readouterr().err
    processes = _Processes(-signal.SIGKILL, 2)
    assert _launch_one(monkeypatch, processes, 2) == 2 and processes.did == ["started"] * 2


@pytest.mark.parametrize(
    "found, num_servers, is_stopping, expected",
    [
        ([0, 0], 0, False, 0),
        ([75, -9], 0, False, 75),
        ([-9, -9], 0, False, 75),  # on a machine without memory
        ([-9, 2], 0, False, 2),
        ([75, 143], 0, False, 75),  # it had two signals from somebody
        ([130], 0, False, 130),  # and this one Ctrl-C
        ([75, 1], 0, False, 1),
        ([-9, -9], 0, True, 137),  # a second Ctrl-C
        ([0, -9, 0], 1, False, 0),  # a worker that was replaced
        ([-9, 75, 75], 1, False, 75),
        ([-9, -9, -9], 1, False, 75),
    ],
)
def test_the_status_of_the_whole(found, num_servers, is_stopping, expected):
    assert launch._status_of(found, num_servers, is_stopping) == expected


def test_restarts_of_one_worker_and_of_all_are_counted_together(monkeypatch, tmp_path, capfd):
    """Each process of this training ends as if a worker was lost, the chief after the worker was started again."""
    program = tmp_path / "lost.py"
    program.write_text(
        "import json, os, sys, time\n"
        "job = json.loads(os.environ['TF_CONFIG'])['task']['type']\n"
        "print('began as', job, file=sys.stderr)\n"
        "time.sleep({'chief': 3, 'worker': 0, 'ps': 3}[job])\n"
        "sys.exit(75)\n"
    )
    restarts = launch._Restarts(3)
    run = lambda: launch._run_here([sys.executable, str(program)], 3, 1, restarts)  # noqa: E731
    assert launch._again(run, restarts) == 75
    errors = capfd.readouterr().err
    assert errors.count("began as worker") == 1 + 3 and errors.count("began as chief") == 1
    assert "started again (0 more times at most)" in errors and restarts.left == 0
