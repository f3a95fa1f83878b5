"""Starts the workers of a training on several machines, or all on this one: what stands behind -- goes to
pipelines.train.

python -m pipelines.launch --workers=2 -- --config=my_recipe.py --run_dir=runs/mine              # on this machine
python -m pipelines.launch --workers=2 --servers=1 --distribution=parameter_server -- ...     # and a chief beside them
python -m pipelines.launch --hosts=a:2222,b:2222 --index=0 -- --config=my_recipe.py --run_dir=/shared/mine   # on each

Lines of workers on this machine begin with their numbers. A signal reaches all: they save and stop. The status is 0
where all are done, 75 where they can go on with the same command (also if one was killed), else that of the first
worker that failed.
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
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from absl import flags

from nmt_keras.errors import UserError
from pipelines import _cli, _process

_END_WITHIN = 60.0  # seconds after one has failed: workers that watch each other take less


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run_with_rest(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_integer("workers", None, "Workers that are started on this machine.", 1, flag_values=values)
    flags.DEFINE_enum(
        "distribution",
        "multi_worker",
        ["multi_worker", "local_sgd", "parameter_server"],
        "training.distribution: steps that all make together, steps of their own and now and then their mean, or "
        "updates of weights that servers keep, without waiting.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "servers",
        0,
        "Parameter servers: of --workers, that are started too; of --hosts, the last.",
        0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "restarts",
        0,
        "How often what was lost is started again at most on this machine, a worker or all.",
        0,
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
    is_asynchronous = values.distribution == "parameter_server"
    if is_asynchronous != bool(values.servers):
        raise UserError("--distribution=parameter_server and --servers, how many there are, go together")
    restarts = _Restarts(values.restarts)
    if values.hosts:
        from nmt_keras.training.rendezvous import cluster_of

        jobs = _jobs(values.hosts, values.servers)
        environment = _environment(jobs, values.index)
        cluster_of(environment["TF_CONFIG"], values.distribution)  # raises where an address is none
        return _again(lambda: _run_one(command, environment), restarts)
    number = values.workers + values.servers + is_asynchronous  # the chief computes nothing there
    return _again(lambda: _run_here(command, number, values.servers, restarts), restarts)


class _Restarts:
    """How often something may still be started again on this machine, a worker or all.

    Args:
        left: so often.
    """

    def __init__(self, left: int):
        self.left = left

    def take(self, what: str) -> bool:
        """Takes one of them for `what`, which is reported; returns whether there was one."""
        if not self.left:
            return False
        self.left -= 1
        _process.report(f"{what} started again ({self.left} more times at most)")
        return True


def _again(run: Callable[[], tuple[int, bool]], restarts: _Restarts) -> int:
    """Runs what returns its status and whether it was asked to stop; again, while it may be, if a worker was lost."""
    while True:
        status, is_stopped = run()
        if status != _cli.STATUS_STOPPED or is_stopped or not restarts.take("a worker was lost: all are"):
            return status


def _run_one(command: list[str], environment: Mapping[str, str]) -> tuple[int, bool]:
    """Runs this machine's process of a training; its status, and whether it was asked to stop."""
    process, is_stopping = subprocess.Popen(command, env=environment, start_new_session=True), False
    while True:
        try:
            return _status_of([process.wait()], 0, is_stopping), is_stopping
        except KeyboardInterrupt:
            process.send_signal(signal.SIGKILL if is_stopping else signal.SIGTERM)
            is_stopping = True


class _Processes:
    """The processes of a training on this machine.

    Args:
        command: of each.
        count: how many there are.
        num_servers: how many of them are parameter servers, the last ones.
        restarts: those that are left, for workers of asynchronous training too.
    """

    def __init__(self, command: list[str], count: int, num_servers: int, restarts: _Restarts):
        self._command = command
        self._restarts = restarts
        self._jobs = _jobs([f"127.0.0.1:{port}" for port in _free_ports(count)], num_servers)
        self._threads = max(len(os.sched_getaffinity(0)) // max(count - num_servers - bool(num_servers), 1), 1)
        self._readers: list[threading.Thread] = []
        self.is_stopping = False  # so that nothing is started again
        self.all = [self._start(index) for index in range(count)]

    def _start(self, index: int) -> subprocess.Popen:
        process = subprocess.Popen(
            self._command,
            env={"TF_NUM_INTRAOP_THREADS": str(self._threads), **_environment(self._jobs, index)},
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a Ctrl-C of the terminal reaches them once, through this process
        )
        self._readers.append(threading.Thread(target=_pass_on, args=(process.stderr, f"{index}: ")))
        self._readers[-1].start()
        return process

    def replace_workers(self) -> None:
        """Starts workers of asynchronous training again that are gone while the chief goes on."""
        workers = range(1, 1 + len(self._jobs["worker"])) if "chief" in self._jobs else range(0)
        for index in workers:
            status = self.all[index].poll()
            was_lost = status is not None and (status < 0 or status == _cli.STATUS_STOPPED)
            if was_lost and self.all[0].poll() is None and self._restarts.take(f"worker {index - 1} is"):
                self.all[index] = self._start(index)

    def join(self) -> list[int]:
        """The statuses of all, when what they had to say is said."""
        for reader in self._readers:
            reader.join()
        return [process.returncode for process in self.all]


def _run_here(command: list[str], count: int, num_servers: int, restarts: _Restarts) -> tuple[int, bool]:
    """Runs all processes of a training on this machine; the status of the whole, and whether it was asked to stop."""
    processes = _Processes(command, count, num_servers, restarts)
    try:
        _wait(processes)
    except KeyboardInterrupt:
        processes.is_stopping = True
        _process.report("stopping all workers, which save; once more ends them at once")
        for process in processes.all[: 1 if num_servers else None]:  # the chief lets the others go
            process.send_signal(signal.SIGTERM)
        try:
            _wait(processes)
        except KeyboardInterrupt:
            for process in processes.all:
                process.kill()
            _wait(processes)
    return _status_of(processes.join(), num_servers, processes.is_stopping), processes.is_stopping


def _status_of(found: Sequence[int], num_servers: int, is_stopping: bool) -> int:
    """The status of the whole, of those of its processes (below 0 of one that a signal killed), and whether they were
    asked to stop."""
    if num_servers and found[0] in (0, _cli.STATUS_STOPPED):
        return found[0]  # of the chief: what became of a worker that was replaced is no matter
    ended = [status for status in found if status < 0 or status >= 128]  # by signals
    failed = [status for status in found if status not in (0, _cli.STATUS_STOPPED, *ended)]
    if failed or not ended:
        return failed[0] if failed else max(found)
    was_lost = min(ended) < 0 and not is_stopping
    if was_lost or _cli.STATUS_STOPPED in found:  # all can go on
        return _cli.STATUS_STOPPED
    return ended[0] if ended[0] > 0 else 128 - ended[0]


def _wait(processes: _Processes) -> None:
    """Waits for all; those that do not end by themselves soon after one has failed, or the first ended, are stopped."""
    failed_at = None
    while any([process.poll() is None for process in processes.all]):  # a list: each is asked
        if not processes.is_stopping:
            processes.replace_workers()
        ended = [process.returncode for process in processes.all if process.returncode is not None]
        has_failed = any(status not in (0, _cli.STATUS_STOPPED) for status in ended)
        if failed_at is None and (has_failed or processes.all[0].returncode is not None):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() > failed_at + _END_WITHIN:
            for process in processes.all:
                process.terminate()
            failed_at = float("inf")
        time.sleep(0.1)


def _pass_on(lines: TextIO, prefix: str) -> None:
    with lines:
        for line in lines:
            with contextlib.suppress(OSError):
                sys.stderr.write(prefix + line)
                sys.stderr.flush()


def _jobs(addresses: Sequence[str], num_servers: int) -> dict[str, list[str]]:
    """The cluster of `TF_CONFIG`."""
    if not num_servers:
        return {"worker": list(addresses)}
    end = len(addresses) - num_servers
    return {"chief": list(addresses[:1]), "worker": list(addresses[1:end]), "ps": list(addresses[end:])}


def _environment(jobs: Mapping[str, Sequence[str]], index: int) -> dict[str, str]:
    """The environment of process `index` of all."""
    tasks = [(job, place) for job, addresses in jobs.items() for place in range(len(addresses))]
    job, place = tasks[index]
    config = {"cluster": jobs, "task": {"type": job, "index": place}}
    return {**os.environ, "TF_CONFIG": json.dumps(config)}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    sys.exit(main())
