"""Jobs on a GPU: what they make goes on and is served on a CPU, and the same bits come again."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.pipelines.test_jobs import RECIPE, ROOT

pytestmark = pytest.mark.gpu
CPU = {"CUDA_VISIBLE_DEVICES": "-1"}


def _job(name, *arguments, environment=None, status=0):
    """Runs a job in a process of its own, which sees the GPU or does not."""
    command = [sys.executable, "-m", f"pipelines.{name}", *map(str, arguments)]
    own = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr
    return done


def _train(text, run_dir, steps, *more, environment=None, status=0):
    arguments = [
        RECIPE,
        f"--data_dir={text}",
        f"--run_dir={run_dir}",
        f"--config.data.cache_dir={text}/cache",
        "--config.data.on_findings=ignore",
        f"--config.training.max_steps={steps}",
        f"--config.training.evaluate_every={steps}",
        "--config.training.checkpoint_every=10",
        "--config.training.log_every=1",
        *more,
    ]
    return _job("train", *arguments, environment=environment, status=status)


def _run_script(script, text, run_dir, *more):
    """A program around the training job, which gets its arguments, in a process of its own."""
    arguments = [RECIPE, f"--data_dir={text}", f"--run_dir={run_dir}", f"--config.data.cache_dir={text}/cache", *more]
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def _losses(run_dir):
    rows = [json.loads(row) for row in (run_dir / "metrics.jsonl").read_text().split("\n")[:-1]]
    return [row["loss"] for row in rows if "loss" in row]


def _sha256(run_dir):
    return json.loads((run_dir / "run_card.json").read_text())["weights_sha256"]


def test_losses_are_those_of_a_cpu_and_a_checkpoint_moves_both_ways(copy_text, tmp_path):
    """In float32, without dropout; the log says that cuDNN computed the encoder."""
    still = ["--config.model.input_dropout_rate=0", "--config.model.output_dropout_rate=0"]
    exact = {"NVIDIA_TF32_OVERRIDE": "0"}
    done = _train(copy_text, tmp_path / "gpu", 10, *still, environment=exact)
    assert "recurrences: cuDNN: seq2seq/encoder/stack/layers/0/0" in done.stderr
    _train(copy_text, tmp_path / "cpu", 10, *still, environment=CPU)
    np.testing.assert_allclose(_losses(tmp_path / "gpu"), _losses(tmp_path / "cpu"), rtol=1e-3)
    for run, environment in (("gpu", CPU), ("cpu", exact)):
        done = _train(copy_text, tmp_path / run, 20, *still, environment=environment)
        assert "resuming at step 10" in done.stderr
    np.testing.assert_allclose(_losses(tmp_path / "gpu"), _losses(tmp_path / "cpu"), rtol=1e-2)


def test_a_run_in_two_parts_is_the_run_in_one(copy_text, tmp_path):
    """To the bit, with dropout, in bfloat16."""
    options = ["--config.training.deterministic=True", "--config.training.precision=mixed_bfloat16"]
    _train(copy_text, tmp_path / "whole", 20, *options)
    for steps in (10, 20):
        _train(copy_text, tmp_path / "parts", steps, *options)
    assert _sha256(tmp_path / "whole") == _sha256(tmp_path / "parts")


def test_an_export_made_on_a_gpu_is_served_on_a_cpu(copy_text, tmp_path):
    """And translates as the run does there."""
    _train(copy_text, tmp_path / "run", 60, "--config.model.d_model=32")
    output = f"--output={tmp_path}/export"
    result = json.loads(_job("export", f"--run_dir={tmp_path}/run", output).stdout.splitlines()[-1])
    assert result["different"] == 0
    graph = (tmp_path / "export" / "1" / "saved_model.pb").read_bytes()
    assert b"CudnnRNN" not in graph
    (tmp_path / "lines").write_text("a b c\nh g\n", encoding="utf-8")
    texts = []
    for source in (f"--saved_model={tmp_path}/export", f"--run_dir={tmp_path}/run"):
        arguments = [source, f"--input={tmp_path}/lines", f"--output={tmp_path}/out{len(texts)}"]
        _job("translate", *arguments, environment=CPU)
        texts.append((tmp_path / f"out{len(texts)}").read_text(encoding="utf-8"))
    assert texts[0] == texts[1] and texts[0].strip()


def test_the_plan_of_memory_is_what_the_device_needs(copy_text, tmp_path):
    """Within a tenth; the peak of the device after the training is that of its largest batch."""
    script = (
        "import sys, tensorflow as tf\n"
        "from nmt_keras.training import memory\n"
        "from pipelines import train\n"
        "found = []\n"
        "before = memory.estimate\n"
        "reset = lambda: tf.config.experimental.reset_memory_stats('GPU:0')\n"
        "memory.estimate = lambda *a, **k: (found.append(before(*a, **k)), reset(), found[-1])[-1]\n"
        "assert train.main(sys.argv[1:]) == 0\n"
        "print(found[0][1].peak_bytes, tf.config.experimental.get_memory_info('GPU:0')['peak'])\n"
    )
    options = {"max_steps": 20, "evaluate_every": 1000, "dev_sentences": 1}
    more = [f"--config.training.{name}={value}" for name, value in options.items()]
    done = _run_script(script, copy_text, tmp_path / "run", *more)
    assert done.returncode == 0, done.stderr
    planned, needed = map(int, done.stdout.split()[-2:])
    assert planned == pytest.approx(needed, rel=0.1)


def test_a_batch_that_the_device_has_no_memory_for_is_one_line(copy_text, tmp_path):
    """A device of 64 MiB, which TensorFlow is told that it has."""
    script = (
        "import sys, tensorflow as tf\n"
        "from pipelines import train\n"
        "limit = [tf.config.LogicalDeviceConfiguration(memory_limit=64)]\n"
        "tf.config.set_logical_device_configuration(tf.config.list_physical_devices('GPU')[0], limit)\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    more = ["--config.model.d_model=256", "--config.training.batch_tokens=2000000"]
    done = _run_script(script, copy_text, tmp_path / "run", *more)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "error: " in done.stderr.splitlines()[-1]
