"""Workers of one training, as processes on this machine, for tests."""

import functools
import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def free_ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start_workers(arguments, distribution="multi_worker", of_last=None, number=2):
    """Workers who find each other by TF_CONFIG; the last may have other arguments."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(number)]}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "pipelines.train"]
    processes = []
    for index in range(number):
        own = of_last if of_last and index == number - 1 else arguments
        task = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        place = {"cwd": ROOT, "env": {**environment, "TF_CONFIG": task}}
        processes.append(
            subprocess.Popen(
                [*command, *own, f"--config.training.distribution={distribution}"],
                **place,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def start_asynchronous(arguments, workers=2):
    """A chief, workers and a parameter server, in this order."""
    ports = free_ports(workers + 2)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    cluster = {"chief": addresses[:1], "worker": addresses[1:-1], "ps": addresses[-1:]}
    tasks = [("chief", 0), *(("worker", index) for index in range(workers)), ("ps", 0)]
    starts = [functools.partial(_start_task, arguments, cluster, *task) for task in tasks]
    return [start() for start in starts], starts


def _start_task(arguments, cluster, job, index):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})
    command = [sys.executable, "-m", "pipelines.train", *arguments]
    command.append("--config.training.distribution=parameter_server")
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def losses_of(run_dir):
    """The losses that a run has logged."""
    rows = (run_dir / "metrics.jsonl").read_text().split("\n")[:-1]
    return [json.loads(row)["loss"] for row in rows if '"loss"' in row]


def worker_arguments(copy_text, tmp_path, steps):
    """Of a training on the copy task, without dropout."""
    return [
        "--config=tests/pipelines/copy_recipe.py",
        f"--data_dir={copy_text}",
        f"--config.training.max_steps={steps}",
        "--config.training.log_every=1",
        f"--config.training.evaluate_every={steps}",
        f"--config.training.checkpoint_every={steps}",
        "--config.model.d_model=16",
        f"--config.data.cache_dir={tmp_path}/cache",
        "--config.model.input_dropout_rate=0",
        "--config.model.output_dropout_rate=0",
    ]
