"""Workers that watch each other: who is lost, and who has left as it should."""

import socket
import threading
import time

import pytest

from nmt_keras.errors import UserError
from nmt_keras.training import watch as watching
from nmt_keras.training.rendezvous import Cluster
from nmt_keras.training.watch import Watch


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(watching, "_BEAT_EVERY", 0.1)
    monkeypatch.setattr(watching, "_LOST_AFTER", 1.0)


class Worker:
    def __init__(self, addresses, number, meeting):
        self.lost, self.has_lost = [], threading.Event()
        self.watch = Watch(Cluster(addresses, number), meeting, self._on_lost)

    def _on_lost(self, number):
        self.lost.append(number)
        self.has_lost.set()


@pytest.fixture
def workers():
    listener = socket.create_server(("127.0.0.1", 0))
    addresses, port = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"), listener.getsockname()[1]
    found = [Worker(addresses, number, port if number else listener) for number in range(3)]
    yield found
    for worker in found:
        worker.watch.close(True)


def _kill(worker):
    """What is seen of a process that is gone."""
    worker.watch._ended.set()
    worker.watch._thread.join()
    for connection in worker.watch._peers:
        connection.close()


def test_workers_that_are_alive_lose_nobody(workers):
    time.sleep(2.0)
    assert [worker.lost for worker in workers] == [[], [], []]


def test_a_worker_that_is_gone_is_known_to_all_at_once(workers):
    time.sleep(0.3)
    started = time.monotonic()
    _kill(workers[2])
    assert all(worker.has_lost.wait(5) for worker in workers[:2])
    assert time.monotonic() - started < 0.9  # before it would be taken to be silent
    assert [worker.lost for worker in workers[:2]] == [[2], [2]]


def test_the_chief_is_watched_too(workers):
    time.sleep(0.3)
    _kill(workers[0])
    assert all(worker.has_lost.wait(5) for worker in workers[1:])
    assert [worker.lost for worker in workers[1:]] == [[0], [0]]


def test_a_worker_that_hangs_is_lost_after_a_while(workers):
    time.sleep(0.3)
    workers[1].watch._ended.set()  # its thread says nothing more, and its connection stays
    assert all(workers[number].has_lost.wait(5) for number in (0, 2))
    assert [workers[number].lost for number in (0, 2)] == [[1], [1]]


def test_a_worker_that_ends_as_it_should_is_not_lost(workers):
    time.sleep(0.3)
    workers[1].watch.close(True)
    time.sleep(2.0)
    assert workers[0].lost == workers[2].lost == []


def test_a_worker_that_fails_is_lost(workers):
    time.sleep(0.3)
    workers[1].watch.close(False)
    assert workers[0].has_lost.wait(5) and workers[0].lost == [1]


def test_a_worker_that_never_connects_is_lost():
    listener = socket.create_server(("127.0.0.1", 0))
    chief = Worker(("127.0.0.1:1", "127.0.0.1:2"), 0, listener)
    assert chief.has_lost.wait(5) and chief.lost == [1]
    chief.watch.close(False)


def test_a_worker_that_never_was_there_is_not_back_when_it_comes():
    addresses, back = ("127.0.0.1:1", "127.0.0.1:2"), []
    listener = socket.create_server(("127.0.0.1", 0))
    missed = threading.Event()
    chief = Watch(Cluster(addresses, 0), listener, back.append, lambda number, others: not missed.set(), back.append)
    assert missed.wait(5)
    worker = Worker(addresses, 1, listener.getsockname()[1])
    time.sleep(0.5)
    assert chief._present() == {1} and not back
    worker.watch.close(True)
    chief.close(True)


def test_a_stranger_is_nobody(workers):
    with socket.create_connection(workers[0].watch._listener.getsockname()) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n\xff\n")
        time.sleep(1.5)
    time.sleep(0.5)
    assert [worker.lost for worker in workers] == [[], [], []]


def test_a_port_that_cannot_be_reached_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        UserError, match=f"127.0.0.1:{port}, where workers watch each other, cannot be reached"
    ) as error:
        Worker(("127.0.0.1:1", "127.0.0.1:2"), 1, port)
    assert "training.watch_port" in str(error.value)


def test_a_worker_may_come_back_while_the_end_of_its_old_connection_is_read(monkeypatch):
    """Both are then found at once, and the old connection is closed before its turn."""
    gate, tell = threading.Event(), Watch._tell
    gate.set()
    monkeypatch.setattr(Watch, "_tell", lambda self, line: (gate.wait(), tell(self, line)))
    listener = socket.create_server(("127.0.0.1", 0))
    address, back = listener.getsockname(), []
    cluster = Cluster(("127.0.0.1:1", "127.0.0.1:2"), 0)
    chief = Watch(cluster, listener, back.append, lambda number, others: True, back.append)
    with socket.create_connection(address) as new, socket.create_connection(address) as old:
        old.sendall(b"1\n")
        time.sleep(0.5)
        gate.clear()  # the thread is somewhere else
        time.sleep(0.3)
        new.sendall(b"1\n")
        old.shutdown(socket.SHUT_RDWR)
        time.sleep(0.1)
        gate.set()
        time.sleep(0.5)
        assert chief._thread.is_alive() and chief._present() == {1} and not back
        chief.close(True)


def test_training_goes_on_without_a_worker_that_comes_back():
    """As long as it is wanted to: the second worker's loss is one of the chief's."""
    addresses, seen, lost = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"), [], []
    back = []

    def goes_on_without(number, others):
        seen.append((number, others))
        return number == 1

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    chief = Watch(Cluster(addresses, 0), listener, lost.append, goes_on_without, back.append)
    first, second = (Worker(addresses, number, port) for number in (1, 2))
    time.sleep(0.5)
    for _ in range(2):
        _kill(first)
        time.sleep(0.8)
        assert not lost and not second.lost
        first = Worker(addresses, 1, port)
        time.sleep(0.5)
    assert seen == [(1, {2}), (1, {2})] and back == [1, 1]
    _kill(second)
    assert first.has_lost.wait(5)
    time.sleep(0.3)  # the chief tells the others first
    assert first.lost == [2] == lost
    first.watch.close(False)
    chief.close(False)
