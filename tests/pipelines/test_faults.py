"""What happens to a training job from outside: signals, kills, a full disk, damaged files, other data, bad numbers."""

import collections
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pipelines import _signals, replay, train

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = "--config=" + str(pathlib.Path(__file__).parent / "copy_recipe.py")


def _arguments(run_dir, copy_text, cache):
    """Everything that has a state is on: sampling, weighted corpora and examples, dropout, a schedule, accumulation."""
    return [
        RECIPE,
        f"--run_dir={run_dir}",
        f"--data_dir={copy_text}",
        f"--config.data.cache_dir={cache}",
        "--config.data.train_source=('train.src', 'dev.src')",
        "--config.data.train_target=('train.tgt', 'dev.tgt')",
        "--config.data.train_weights=(0.5, 2.0)",
        "--config.data.train_example_weights=('train.weights', '')",
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
        "--config.training.ema_decay=0.9",
        "--config.training.max_steps=30",
        "--config.training.log_every=1",
        "--config.training.evaluate_every=10",
        "--config.training.checkpoint_every=5",
    ]


def _start(arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.train", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _left(run_dir):
    """Every logged value that is not a speed, and the hash of the weights."""
    lines = (run_dir / "metrics.jsonl").read_text().split("\n")[:-1]
    rows = [{k: v for k, v in json.loads(line).items() if k != "target_tokens_per_s"} for line in lines]
    return rows, json.loads((run_dir / "run_card.json").read_text())["weights_sha256"]


def _steps(run_dir):
    """The latest checkpoint, and the latest row of the log."""
    saved = [int(path.name[5:]) for path in (run_dir / "checkpoints").glob("step-*")]
    log = run_dir / "metrics.jsonl"
    rows = [json.loads(row)["step"] for row in log.read_text().split("\n")[:-1]] if log.exists() else []
    return max(saved, default=0), max(rows, default=0)


def _wait_until_it_trains(process, run_dir):
    """Until there is a checkpoint of a step, and a row of a later one than there was."""
    at_first = _steps(run_dir)[0]
    while process.poll() is None and not (_steps(run_dir)[0] and _steps(run_dir)[1] > at_first):
        time.sleep(0.005)


def _wait_until_it_saves(process, run_dir):
    """Until a checkpoint is being written after the first step of this job."""
    _wait_until_it_trains(process, run_dir)
    while process.poll() is None and not any((run_dir / "checkpoints").glob(".tmp-0*")):
        time.sleep(0.0005)


@pytest.fixture(scope="module")
def weighted_text(tmp_path_factory, copy_text):
    """The copy task with weights of its examples."""
    folder = tmp_path_factory.mktemp("weighted")
    shutil.copytree(copy_text, folder, dirs_exist_ok=True)
    numbers = [0 if line % 50 == 7 else 0.25 + line % 4 for line in range(600)]
    (folder / "train.weights").write_text("".join(f"{number}\n" for number in numbers))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, weighted_text):
    """A run that nothing disturbed: its directory, and the cache it filled."""
    folder = tmp_path_factory.mktemp("whole")
    assert train.main(_arguments(folder / "run", weighted_text, folder / "cache")) == 0
    return folder / "run", folder / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_give_what_an_uninterrupted_one_gives(kills, tmp_path, weighted_text, whole, capsys):
    """At random moments: in a step, a save, an evaluation, the start."""
    whole, cache = whole
    rng, killed, tally = random.Random(kills), tmp_path / "killed", collections.Counter()
    arguments = [*_arguments(killed, weighted_text, cache), "--config.training.checkpoint_every=1"]
    for number in range(kills):
        phase, process = ("step", "save", "start", "save")[number % 4], _start(arguments)
        if phase == "start":
            time.sleep(rng.uniform(0.0, 8.0))
        elif phase == "save":
            _wait_until_it_saves(process, killed)
            time.sleep(rng.uniform(0.0, 0.02))
        else:
            _wait_until_it_trains(process, killed)
            time.sleep(rng.uniform(0.0, 0.2))
        process.kill()
        process.communicate()
        tally[phase, process.returncode == -signal.SIGKILL] += 1
    with capsys.disabled():
        print(f"\nkilled, by what the job did: {dict(tally)}; latest checkpoint and row {_steps(killed)}")
    assert tally["step", True] == -(-kills // 4) and tally["save", True] >= kills // 2 - kills // 10
    arguments = arguments[:-1]
    assert train.main(arguments) == 0
    assert "resuming at step" in (errors := capsys.readouterr().err) and "12 of weight 0" in errors
    assert _left(killed) == _left(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_ends_with_a_status_of_its_own(number, tmp_path, weighted_text, whole, capsys):
    whole, cache = whole
    arguments = _arguments(tmp_path / "run", weighted_text, cache)
    process = _start(arguments)
    _wait_until_it_trains(process, tmp_path / "run")
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 75, errors
    name = signal.Signals(number).name
    assert f"{name}: stopping as soon as the step is done; a second signal ends at once" in errors
    step = len([row for row in (tmp_path / "run" / "metrics.jsonl").read_text().split("\n") if '"loss"' in row])
    assert f"stopped by {name} at step {step}, which is saved; the same command goes on" in errors
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").exists()
    assert train.main(arguments) == 0 and f"resuming at step {step}" in capsys.readouterr().err
    assert _left(tmp_path / "run") == _left(whole)


def test_a_second_signal_ends_at_once_also_inside_a_long_operation():
    """Python runs handlers between its own operations alone, so that two signals would be one."""
    program = (
        "import hashlib; from pipelines import _signals\n"
        "with _signals.stopping() as stop:\n"
        "    stop.interrupts = False\n"
        "    print('ready', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 200_000_000)\n"  # minutes that no signal interrupts
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
            time.sleep(0.2)
        assert process.wait(15) == 128 + signal.SIGINT and time.monotonic() - started < 15


@pytest.mark.parametrize(
    "signals, pause, status, told",
    [
        ([signal.SIGTERM, signal.SIGTERM], 0.0, 0, ["stopped by SIGTERM, once"]),
        ([signal.SIGTERM, signal.SIGTERM], 0.5, 0, ["stopped by SIGTERM, once"]),
        ([signal.SIGTERM, signal.SIGTERM], 2.5, 128 + signal.SIGTERM, []),
        ([signal.SIGTERM, signal.SIGINT], 0.5, 128 + signal.SIGINT, []),
        ([signal.SIGINT, signal.SIGINT], 0.5, 128 + signal.SIGINT, []),
        ([signal.SIGINT, signal.SIGTERM], 0.5, 0, ["stopped by SIGINT, once"]),
    ],
)
def test_a_sigterm_that_is_handed_on_too_is_one_request(signals, pause, status, told):
    """What ends a group of processes reaches a training from the system, and from pipelines.launch."""
    program = (
        "import time; from nmt_keras.errors import Stopped; from pipelines import _signals\n"
        "times = 0\n"
        "with _signals.stopping() as stop:\n"
        "    for seconds in (60, 4):\n"  # it trains, and saves
        "        try:\n"
        "            if seconds == 60: print('ready', flush=True)\n"
        "            time.sleep(seconds)\n"
        "        except Stopped:\n"
        "            times += 1\n"
        "print(stop.reason + ', ' + 'once' * times)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for number in signals:
            process.send_signal(number)
            time.sleep(pause)
        assert process.wait(30) == status and process.stdout.read().splitlines() == told


def test_two_sigterm_at_once_interrupt_a_job_once(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    now = [100.0]
    monkeypatch.setattr(_signals.time, "monotonic", lambda: now[0])
    try:
        _signals.interrupt_on_sigterm()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        now[0] += 1.9
        os.kill(os.getpid(), signal.SIGTERM)
        now[0] += 0.2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_those_of_before_in_the_end():
    before = signal.getsignal(signal.SIGTERM)
    with _signals.stopping() as stop:
        stop.interrupts = False
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "stopped by SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_before_the_first_step_ends_at_once_too(monkeypatch, weighted_text, tmp_path, capsys):
    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    from nmt_keras.experiment import train as experiment_train

    monkeypatch.setattr(experiment_train, "refuse_serious_findings", interrupt)
    assert train.main(_arguments(tmp_path / "r", weighted_text, tmp_path / "cache")) == 75
    assert "stopped by SIGINT before the first step of this job; the same command goes on" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage, name",
    [
        ("cut", "variables.data-00000-of-00001"),
        ("cut", "variables.index"),
        ("cut", "manifest.json"),
        ("gone", "manifest.json"),
        ("gone", "variables.data-00000-of-00001"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, name, tmp_path, weighted_text, whole, capsys):
    whole, cache = whole
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    file = sorted((run_dir / "checkpoints").glob("step-*"))[-1] / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.unlink()
    assert train.main(_arguments(run_dir, weighted_text, cache)) == 0
    errors = capsys.readouterr().err
    assert "checkpoint of step 30 is not used: " in errors and "resuming at step 25" in errors
    assert _left(run_dir) == _left(whole)


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path, weighted_text, whole):
    """No file may grow beyond half a checkpoint, from a later step on."""
    whole, cache = whole
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    for step in (25, 30):
        shutil.rmtree(run_dir / "checkpoints" / f"step-{step:08d}")
    steps = sorted(path.name for path in (run_dir / "checkpoints").glob("step-*"))
    size = next((run_dir / "checkpoints" / steps[-1]).glob("variables.data*")).stat().st_size
    arguments = _arguments(run_dir, weighted_text, cache)
    process = _start(arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    error = errors.strip().split("\n")[-1]
    assert error.startswith("error: Cannot write the checkpoint of step 25 to ") and "earlier ones are intact" in error
    assert sorted(path.name for path in (run_dir / "checkpoints").glob("*") if "step" in path.name) == steps
    assert train.main(arguments) == 0
    assert _left(run_dir) == _left(whole)


@pytest.mark.slow
def test_other_data_is_refused_and_allowed_on_request(tmp_path, weighted_text, whole, capsys):
    whole, cache = whole
    run_dir, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(whole, run_dir)
    shutil.copytree(weighted_text, data)
    lines = (data / "train.weights").read_text().split("\n")
    (data / "train.weights").write_text("\n".join(["2", *lines[1:]]))
    arguments = [*_arguments(run_dir, data, cache), "--config.training.max_steps=31"]
    config = (run_dir / "config.json").read_bytes()
    assert train.main(arguments) == 2
    assert "was trained on other train text: " in (error := capsys.readouterr().err) and "train.weights has ch" in error
    assert train.main([*arguments, "--config.training.learning_rate=0.5"]) == 2
    error = capsys.readouterr().err
    assert "training.learning_rate was 0.01, now 0.5; give --allow_config_change to go on so, give the same" in error
    assert json.loads(config)["training"]["learning_rate"] == 0.01
    assert train.main([*arguments, "--config.training.learning_rate=0.005", "--allow_config_change"]) == 0
    errors = capsys.readouterr().err
    assert "from now on: data.data_dir was " in errors
    assert (
        "; training.max_steps was 30, now 31; training.schedule cosine is one of max_steps: the rates change" in errors
    )
    assert "; training.learning_rate was 0.01, now 0.005" in errors
    assert "resuming at step 30" in errors and "step 31/31" in errors
    assert train.main([*arguments, "--config.model.cell=gru", "--allow_config_change"]) == 2
    error = capsys.readouterr().err
    assert "model.cell was 'lstm', now 'gru'; give the same values, or" in error


@pytest.mark.slow
def test_numbers_that_stay_bad_end_with_status_1_and_are_replayed(tmp_path, weighted_text, capsys):
    """A learning rate that no network survives."""
    arguments = [
        *_arguments(tmp_path / "run", weighted_text, tmp_path / "cache"),
        "--config.training.learning_rate=3e38",
        "--config.training.schedule=constant",
        "--config.training.optimizer=sgd",
        "--config.training.clip_norm=0",
        "--config.training.max_bad_steps=2",
    ]
    assert train.main(arguments) == 1
    errors = capsys.readouterr().err
    assert errors.count("(restart ") == 3
    error = errors.strip().split("\n")[-1]
    assert "after 3 restarts with other seeds and half the learning rate each, which is 3.75e+37 now: see " in error
    assert "Traceback" not in errors
    assert replay.main([f"--run_dir={tmp_path}/run"]) == 1
    out = capsys.readouterr()
    verdict = json.loads(out.out)
    assert verdict["where"] in ("weights", "forward") and verdict["layer"] and verdict["restarts"] == 3
    assert verdict["lines"] and f"step {verdict['step']}, restart 3: " in out.err
    assert f"{verdict['layer']} is " in out.err and verdict["detail"] in out.err
    assert replay.main([f"--run_dir={tmp_path}/run", "--dump=step-7"]) == 2
    assert "has no dump step-7; there are: step-0" in capsys.readouterr().err
    assert replay.main([]) == 2


@pytest.mark.slow  # tests/training/test_memory.py asks the search for it
def test_a_budget_is_found_and_kept(tmp_path, weighted_text, capsys, monkeypatch):
    from nmt_keras.training import memory

    arguments = [
        *_arguments(tmp_path / "run", weighted_text, tmp_path / "cache"),
        "--config.training.batch_tokens=0",
        "--config.training.accumulation_steps=1",
        "--config.training.best_metric=dev_loss",
        "--config.training.dev_sentences=1",
    ]
    assert train.main([*arguments, "--config.training.max_steps=2"]) == 0
    errors = capsys.readouterr().err
    found = json.loads((tmp_path / "run" / "config.json").read_text())["training"]["batch_tokens"]
    assert 500 <= found <= 512 and f"training.batch_tokens: {found} is the largest" in errors
    assert "largest batch: " in errors
    assert train.main([*arguments, "--config.training.max_steps=3"]) == 0
    assert "resuming at step 2" in capsys.readouterr().err
    monkeypatch.setattr(memory, "limit_of_process", lambda: 1.0)
    monkeypatch.setattr(memory.estimate, "__defaults__", (memory.limit_of_process,))
    assert train.main([*arguments, "--config.training.max_steps=4"]) == 2
    assert f"training.batch_tokens={found} is too large: a batch in the bucket of up to " in capsys.readouterr().err
