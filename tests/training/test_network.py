"""Two workers in network namespaces, with a slow link between them that breaks."""

import json
import subprocess
import sys
import time

import pytest

from benchmarks.network import start, two_hosts
from tests.training.of_workers import ROOT, losses_of, worker_arguments

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _needs_namespaces():
    try:
        with two_hosts(100.0, 20.0):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")


_ECHO = """
import socket
server = socket.create_server(("10.207.0.2", 2222))
print("ready", flush=True)
connection, _ = server.accept()
while received := connection.recv(65536):
    connection.sendall(received)
"""
_ASK = """
import os, socket, sys, threading, time
connection = socket.create_connection(("10.207.0.2", 2222))
started = time.monotonic()
connection.sendall(b"x")
connection.recv(1)
round_trip = time.monotonic() - started
text, back = os.urandom(2_000_000), b""
started = time.monotonic()
threading.Thread(target=connection.sendall, args=(text,)).start()
while len(back) < len(text):
    back += connection.recv(1 << 20) or sys.exit("the other side ended")
print(round_trip, time.monotonic() - started, back == text)
"""


@pytest.mark.usefixtures("within_a_minute")
def test_a_link_takes_its_time_and_loses_nothing():
    with two_hosts(100.0, 40.0) as hosts:
        inside = [["ip", "netns", "exec", host, sys.executable, "-c"] for host in hosts]
        with subprocess.Popen([*inside[1], _ECHO], stdout=subprocess.PIPE, text=True) as echo:
            assert echo.stdout.readline() == "ready\n"
            try:
                asked = subprocess.run([*inside[0], _ASK], capture_output=True, text=True, check=True)
            finally:
                echo.kill()
    round_trip, both_ways, is_same = asked.stdout.split()
    assert float(round_trip) >= 0.04 and is_same == "True"
    assert float(both_ways) >= 2_000_000 * 8 / 100e6


def test_workers_that_cannot_reach_each_other_end_and_go_on(tmp_path, copy_text, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = [
        argument.replace("checkpoint_every=4000", "checkpoint_every=5")
        for argument in worker_arguments(copy_text, tmp_path, 4000)
    ]
    arguments += [f"--run_dir={tmp_path}/two"]
    log = tmp_path / "two" / "metrics.jsonl"
    with two_hosts(100.0, 20.0) as hosts:
        processes = start(hosts, arguments)
        while not (log.exists() and log.read_text().count('"loss"') > 10) and processes[0].poll() is None:
            time.sleep(0.05)
        subprocess.run(("ip", "-n", hosts[0], "link", "set", hosts[0], "down"), check=True)
        started = time.monotonic()
        for process, other in zip(processes, ("worker 1 (10.207.0.2:2222)", "worker 0 (10.207.0.1:2222)")):
            _, errors = process.communicate(timeout=90)
            assert process.returncode == 75, errors
            assert f"{other} stopped or cannot be reached" in errors and "Traceback" not in errors
        assert time.monotonic() - started < 60
    steps = len(losses_of(tmp_path / "two")) + 10
    more = [argument.replace("max_steps=4000", f"max_steps={steps}") for argument in arguments]
    with two_hosts(100.0, 20.0) as hosts:
        for process in start(hosts, more):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0 and "resuming at step " in errors, errors
    assert json.loads((tmp_path / "two" / "run_card.json").read_text(encoding="utf-8"))["step"] == steps
