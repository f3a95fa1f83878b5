"""Starts the workers of a training on several machines, or all on this one: what stands behind -- goes to
pipelines.train.

python -m pipelines.launch --workers=2 -- --config=my_recipe.py --run_dir=runs/mine              # on this machine
python -m pipelines.launch --hosts=a:2222,b:2222 --index=0 -- --config=my_recipe.py --run_dir=/shared/mine   # on each

Lines of workers on this machine begin with their numbers. A signal reaches all: they save and stop. The status is 0
where all are done, 75 where they can go on with the same command, else that of the first worker that failed.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process

_END_WITHIN = 60.0  # seconds after one has failed: workers that watch each other take less


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    place = arguments.index("--") if "--" in arguments else len(arguments)

    def job(values: flags.FlagValues) -> int:
        return _job(values, arguments[place + 1 :])

    return _cli.run(_define, job, __doc__, arguments[:place])


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_integer("workers", None, "Workers that are started on this machine.", 1, flag_values=values)
    flags.DEFINE_enum(
        "distribution",
        "multi_worker",
        ["multi_worker", "local_sgd"],
        "training.distribution: steps that all make together, or steps of their own and now and then their mean.",
        flag_values=values,
    )
    flags.DEFINE_list("hosts", [], "Or host:port of all workers, the chief first.", flag_values=values)
    flags.DEFINE_integer("index", None, "With --hosts: which of them this machine is, from 0.", 0, flag_values=values)


def _job(values: flags.FlagValues, training: list[str]) -> int:
    if not training:
        raise UserError(
            "What pipelines.train takes must stand behind --, as in -- --config=my_recipe.py --run_dir=runs/a"
        )
    if any(argument.lstrip("-").startswith("config.training.distribution") for argument in training):
        raise UserError("Leave out --config.training.distribution: give --distribution before --")
    if (values.workers is None) == (not values.hosts):
        raise UserError("Exactly one of --workers, on this machine, and --hosts, with --index, must be given")
    if bool(values.hosts) != (values.index is not None):
        raise UserError("--hosts and --index go together: all workers, and which of them this machine is")
    if values.hosts and values.index >= len(values.hosts):
        raise UserError(f"--index must be below the number of --hosts, {len(values.hosts)}. Received: {values.index}")
    distribution = f"--config.training.distribution={values.distribution}"
    command = [sys.executable, "-m", "pipelines.train", *training, distribution]
    if values.hosts:
        from nmt_keras.training.rendezvous import cluster_of

        environment = _environment(values.hosts, values.index)
        cluster_of(environment["TF_CONFIG"])  # raises where an address is none
        return subprocess.run(command, env=environment, check=False).returncode
    return _run_here(command, values.workers)


def _run_here(command: list[str], count: int) -> int:
    """Runs all workers on this machine; returns the status of the whole."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    threads = max(len(os.sched_getaffinity(0)) // count, 1)
    workers = []
    for index in range(count):
        environment = {"TF_NUM_INTRAOP_THREADS": str(threads), **_environment(addresses, index)}
        workers.append(
            subprocess.Popen(
                command,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # a Ctrl-C of the terminal reaches them once, through this process
            )
        )
    readers = [
        threading.Thread(target=_pass_on, args=(worker.stderr, f"{index}: ")) for index, worker in enumerate(workers)
    ]
    for reader in readers:
        reader.start()
    try:
        _wait(workers)
    except KeyboardInterrupt:
        _process.report("stopping all workers, which save; once more ends them at once")
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        try:
            _wait(workers)
        except KeyboardInterrupt:
            for worker in workers:
                worker.kill()
            _wait(workers)
    for reader in readers:
        reader.join()
    found = [status if status >= 0 else 128 - status for status in (worker.returncode for worker in workers)]
    failed = [status for status in found if status not in (0, _cli.STATUS_STOPPED)]
    return failed[0] if failed else max(found)


def _wait(workers: Sequence[subprocess.Popen]) -> None:
    """Waits for all; those that do not end by themselves soon after one has failed are stopped."""
    failed_at = None
    while any(worker.poll() is None for worker in workers):
        if failed_at is None and any(worker.returncode not in (None, 0, _cli.STATUS_STOPPED) for worker in workers):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() > failed_at + _END_WITHIN:
            for worker in workers:
                worker.terminate()
            failed_at = float("inf")
        time.sleep(0.1)


def _pass_on(lines: TextIO, prefix: str) -> None:
    with lines:
        for line in lines:
            with contextlib.suppress(OSError):
                sys.stderr.write(prefix + line)
                sys.stderr.flush()


def _environment(addresses: Sequence[str], index: int) -> dict[str, str]:
    config = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return {**os.environ, "TF_CONFIG": json.dumps(config)}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    sys.exit(main())
