"""Two workers over a slow link: target tokens a second, as root on Linux.

python -m benchmarks.network --config=pipelines/recipes/multi30k_transformer.py --data_dir=/data/multi30k

Each worker is in a network namespace of its own; the link between them has `--megabits` a second and `--milliseconds`
of round trip. Prints the rate of one process with all cores, and that of two workers that
share them, without a limit of the link and with it: steps made together, for both types that gradients are sent as,
steps of their own with a mean after every 50, and a parameter server beside the first worker; and what both hosts send
in all, in bytes for each target token, starting included. The last line is JSON.
"""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from absl import app, flags

from benchmarks.wire import MTU, wire

_CONFIG = flags.DEFINE_string("config", None, "The recipe.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where its text is.")
_MEGABITS = flags.DEFINE_float("megabits", 100.0, "Of the link, a second, in either direction; 0: no limit alone.")
_MILLISECONDS = flags.DEFINE_float("milliseconds", 20.0, "Of a round trip; 0: no delay.")
_STEPS = flags.DEFINE_integer("steps", 10, "Between two rows of the log; the first row of four does not count.")

_ROWS = 4
_WAYS: dict[str, tuple] = {  # distribution, steps between rows (0: the flag's), options
    "together, float32": ("multi_worker", 0),
    "together, bfloat16": ("multi_worker", 0, "--config.training.reduction_dtype=bfloat16"),
    "a mean after 50 steps": ("local_sgd", 50, "--config.training.local_steps=50"),
    "parameter server": ("parameter_server", 0),
}

_ADDRESSES = ("10.207.0.1", "10.207.0.2")
_PORT = 2222


@contextlib.contextmanager
def two_hosts(megabits: float = 0.0, milliseconds: float = 0.0) -> Iterator[list[str]]:
    """The names of two network namespaces with a link between them; their addresses are 10.207.0.1 and 10.207.0.2.

    Args:
        megabits: of the link, a second, in either direction; 0: unlimited, without a delay.
        milliseconds: of a round trip; 0: no delay.

    Raises:
        OSError, subprocess.CalledProcessError: this machine has no namespaces, or no TAP devices for a delay.
    """
    names = [f"nmt{os.getpid()}{side}" for side in "ab"]
    with contextlib.ExitStack() as stack:
        for name in names:
            _run("ip", "netns", "add", name)
            stack.callback(subprocess.run, ("ip", "netns", "del", name), check=False, stderr=subprocess.DEVNULL)
        if megabits and milliseconds:
            stack.enter_context(wire(names, megabits, milliseconds))
        else:
            _run("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, address in zip(names, _ADDRESSES):
            _run("ip", "link", "set", name, "netns", name)
            inside = ("ip", "-n", name)
            _run(*inside, "addr", "add", f"{address}/24", "dev", name)
            for device in ("lo", name):
                _run(*inside, "link", "set", device, "up")
            if megabits and milliseconds:
                _run(*inside, "link", "set", name, "mtu", str(MTU))
            elif megabits:
                limit = ("rate", f"{megabits}mbit", "burst", "128kb", "latency", "50ms")
                _run("tc", "-n", name, "qdisc", "add", "dev", name, "root", "tbf", *limit)
        yield names


def start(hosts: Sequence[str], arguments: Sequence[str], distribution: str = "multi_worker") -> list[subprocess.Popen]:
    """The processes of a training on two hosts, with the arguments of `pipelines.train`: a worker on each; where it is
    asynchronous the first has the chief and the server too."""
    places = [(0, _PORT), (1, _PORT)]
    if distribution == "parameter_server":
        places = [(0, _PORT), (0, _PORT + 1), (1, _PORT), (0, _PORT + 2)]  # chief, workers, server
    addresses = ",".join(f"{_ADDRESSES[host]}:{port}" for host, port in places)
    command = [sys.executable, "-m", "pipelines.launch", f"--hosts={addresses}", f"--distribution={distribution}"]
    command += ["--servers=1"] if distribution == "parameter_server" else []
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", hosts[host], *command, f"--index={index}", "--", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, (host, _) in enumerate(places)
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _rate(run_dir: pathlib.Path) -> float:
    """The median of the target tokens a second that a run has logged, without the first row."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [row["target_tokens_per_s"] for row in rows if "target_tokens_per_s" in row]
    return statistics.median(rates[1:])


def _sent(host: str) -> int:
    """The bytes that a host has sent."""
    command = ("ip", "netns", "exec", host, "cat", f"/sys/class/net/{host}/statistics/tx_bytes")
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _tokens(run_dir: pathlib.Path) -> int:
    """The target tokens that a run has read."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return sum(row["target_tokens"] for row in rows if "target_tokens" in row)


def _arguments(run_dir: pathlib.Path, cache_dir: str, every: int) -> list[str]:
    steps = every * _ROWS
    values = {"max_steps": steps, "log_every": every, "evaluate_every": steps, "checkpoint_every": steps}
    return [
        f"--config={_CONFIG.value}",
        f"--data_dir={_DATA_DIR.value}",
        f"--run_dir={run_dir}",
        f"--config.data.cache_dir={cache_dir}",
        "--config.data.on_findings=ignore",
        "--config.training.dev_sentences=1",
        *(f"--config.training.{name}={value}" for name, value in values.items()),
    ]


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    del argv
    folder = pathlib.Path(tempfile.mkdtemp(prefix="network-"))
    rates: dict[str, float] = {}
    bytes_sent: dict[str, float] = {}
    cores = len(os.sched_getaffinity(0))
    try:
        alone = {**os.environ, "TF_NUM_INTRAOP_THREADS": str(cores)}
        arguments = _arguments(folder / "one", str(folder / "cache"), _STEPS.value)
        command = [sys.executable, "-m", "pipelines.train", *arguments]
        subprocess.run(command, check=True, env=alone, stderr=subprocess.DEVNULL)
        rates["one process"] = _rate(folder / "one")
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(max(cores // 2, 1))
        for link in ((0.0, 0.0), (_MEGABITS.value, _MILLISECONDS.value))[: 2 if _MEGABITS.value else 1]:
            for name, (distribution, every, *options) in _WAYS.items():
                place = folder / f"{link[0]:g}-{name.replace(' ', '-')}"
                every = every or _STEPS.value
                with two_hosts(*link) as hosts:
                    arguments = [*_arguments(place, str(folder / "cache"), every), *options]
                    for worker in start(hosts, arguments, distribution):
                        _, errors = worker.communicate()
                        if worker.returncode:
                            sys.exit(errors)
                    sent = sum(map(_sent, hosts)) / _tokens(place)
                limit = f"{link[0]:g} Mbit/s and {link[1]:g} ms" if link[0] else "no limit"
                rates[f"{name}, {limit}"] = _rate(place)
                bytes_sent[name] = sent
                print(f"{name}, {limit}: {_rate(place):,.0f} tokens/s, {sent:,.0f} bytes sent a token", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, rate in rates.items():
        print(f"{name:60} {rate:8,.0f} target tokens/s, {rate / rates['one process']:.2f}")
    print(json.dumps({"target_tokens_per_s": rates, "bytes_sent_a_token": bytes_sent}))


if __name__ == "__main__":
    app.run(main)
