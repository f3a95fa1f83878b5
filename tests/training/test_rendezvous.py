"""Workers meet before they train: who is missing, who differs, and who sees another folder."""

import contextlib
import json
import socket
import threading
import time

import pytest

from nmt_keras.errors import Interrupted, UserError
from nmt_keras.training import rendezvous
from nmt_keras.training.rendezvous import Cluster, cluster_of, meet

ABOUT = {"training.learning_rate": 0.001, "training.teacher": ("a",), "tensorflow": "2.21.0"}


@pytest.fixture
def addresses():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    found = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return found


class Meeting:
    """Workers of this process, a thread each."""

    def __init__(self, addresses, run_dir, timeout=20.0):
        self.addresses, self.run_dir, self.timeout = addresses, run_dir, timeout
        self.results, self.reports, self.threads = {}, {}, []

    def start(self, number, about=None, run_dir=None, key=None, other=None):
        key = number if key is None else key
        reports = self.reports[key] = []

        def work():
            cluster = other or Cluster(self.addresses, number)
            try:
                meet(cluster, about or ABOUT, run_dir or self.run_dir, self.timeout, reports.append)
                self.results[key] = None
            except UserError as error:
                self.results[key] = error

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()

    def end(self):
        for thread in self.threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in self.threads)
        return self.results


def _ports_are_free(addresses):
    for address in addresses:
        socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))).close()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_workers_that_agree_go_on_and_leave_nothing(addresses, tmp_path, order):
    meeting = Meeting(addresses, tmp_path / "runs" / "mine")
    for number in order:
        meeting.start(number)
        time.sleep(0.1)
    assert meeting.end() == {0: None, 1: None, 2: None}
    assert list((tmp_path / "runs").iterdir()) == []
    _ports_are_free(addresses)  # TensorFlow listens on them next


def test_one_worker_alone_meets_nobody(addresses, tmp_path):
    meet(Cluster(addresses[:1], 0), ABOUT, tmp_path / "run", 1.0, pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_every_worker_hears_which_field_differs(addresses, tmp_path):
    meeting = Meeting(addresses, tmp_path / "run")
    meeting.start(0)
    meeting.start(1)
    meeting.start(2, {**ABOUT, "training.learning_rate": 0.002})
    messages = {number: str(error) for number, error in meeting.end().items()}
    assert len(set(messages.values())) == 1
    assert f"worker 2 ({addresses[2]}) and worker 0 ({addresses[0]}) were started" in messages[0]
    assert "training.learning_rate 0.002 and 0.001; start all workers with one command" in messages[0]


def test_a_field_that_only_one_has_differs(addresses, tmp_path):
    meeting = Meeting(addresses[:2], tmp_path / "run")
    meeting.start(0)
    meeting.start(1, {**ABOUT, "training.new": 1})
    assert "training.new 1 and None" in str(meeting.end()[0])


def test_who_is_missing_is_said_again_and_again(addresses, tmp_path, monkeypatch):
    monkeypatch.setattr(rendezvous, "_REPORT_EVERY", 0.2)
    meeting = Meeting(addresses, tmp_path / "run")
    meeting.start(1)
    time.sleep(0.7)
    meeting.start(0)
    time.sleep(0.7)
    meeting.start(2)
    assert meeting.end() == {0: None, 1: None, 2: None}
    waiting = f"waiting for 1 of 3 workers: worker 2 ({addresses[2]})"
    assert meeting.reports[0].count(waiting) > 1 and waiting in meeting.reports[1]
    assert meeting.reports[1][0].startswith(f"worker 1 ({addresses[1]}) of 3 workers is here, and waits up to 20 s")
    assert meeting.reports[1][1].startswith(f"waiting for worker 0 ({addresses[0]}): Connection refused")
    assert {reports[-1] for reports in meeting.reports.values()} == {"all 3 workers are here, and agree"}


def test_waiting_has_a_limit(addresses, tmp_path):
    meeting = Meeting(addresses, tmp_path / "run", timeout=1.0)
    meeting.start(0)
    meeting.start(1)
    errors = meeting.end()
    assert all(isinstance(error, UserError) for error in errors.values())
    assert f"1 of 3 workers: worker 2 ({addresses[2]}) did not come within 1 s (training.worker_timeout)" in str(
        errors[0]
    )
    assert str(errors[1]) == str(errors[0])
    alone = Meeting(addresses, tmp_path / "run", timeout=0.5)
    alone.start(2)
    assert f"worker 0 ({addresses[0]}) cannot be reached within 0.5 s" in str(alone.end()[2])
    assert isinstance(alone.results[2], Interrupted)


@pytest.mark.usefixtures("within_a_minute")
def test_two_workers_of_one_number_are_named(addresses, tmp_path):
    meeting = Meeting(addresses, tmp_path / "run")
    meeting.start(0)
    meeting.start(1)
    time.sleep(0.5)  # as on another machine, where the port is free too
    meeting.start(1, key="the second")
    errors = meeting.end()
    assert all("Two workers have index 1 in TF_CONFIG, of 3" in str(error) for error in errors.values()), errors


@pytest.mark.usefixtures("within_a_minute")
def test_a_port_in_use_is_named(addresses, tmp_path):
    port = int(addresses[1].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(UserError, match=f"Port {port} of this machine, .* worker 1 .* is in use"):
            meet(Cluster(addresses, 1), ABOUT, tmp_path / "run", 1.0, lambda line: None)


@pytest.mark.usefixtures("within_a_minute")
def test_a_folder_that_workers_do_not_share_is_named(addresses, tmp_path, monkeypatch):
    monkeypatch.setattr(rendezvous, "_SEEN_WITHIN", 0.3)
    meeting = Meeting(addresses[:2], tmp_path / "one" / "run")
    meeting.start(0)
    meeting.start(1, run_dir=tmp_path / "other" / "run")
    for error in meeting.end().values():
        assert f"worker 1 ({addresses[1]}) does not see the --run_dir of worker 0" in str(error)
    assert not list((tmp_path / "one").iterdir())


def test_strangers_and_a_worker_that_comes_again_do_no_harm(addresses, tmp_path):
    meeting = Meeting(addresses[:2], tmp_path / "run")
    meeting.start(0)
    place = ("127.0.0.1", int(addresses[0].rpartition(":")[2]))
    for said in (b"GET / HTTP/1.1\r\n\r\n", b'{"index": "one"}\n', b"[]\n", b"\xff\n"):
        with _connected(place) as stranger:
            stranger.sendall(said)
    meeting.start(1)
    assert meeting.end() == {0: None, 1: None}

    meeting = Meeting(addresses, tmp_path / "run")
    meeting.start(0)
    with _connected(place) as killed:
        killed.sendall(_hello(Cluster(meeting.addresses, 1)))
    time.sleep(0.2)
    meeting.start(2)  # the one that is gone does not make them complete
    time.sleep(0.5)
    meeting.start(1)
    assert meeting.end() == {0: None, 1: None, 2: None}


def test_a_worker_that_leaves_between_is_named(addresses, tmp_path):
    meeting = Meeting(addresses[:2], tmp_path / "run")
    meeting.start(0)
    with _connected(("127.0.0.1", int(addresses[0].rpartition(":")[2]))) as killed:
        killed.sendall(_hello(Cluster(meeting.addresses, 1)))
        killed.recv(1)  # the others are there
    assert f"worker 1 ({addresses[1]}) left before training began" in str(meeting.end()[0])


@pytest.mark.parametrize(
    "other, told",
    [
        (lambda a: Cluster(a, 1), "worker 1 ({1}) has a TF_CONFIG of 3 workers on ports"),
        (lambda a: Cluster(a, 2), "worker 2 ({2}) has a TF_CONFIG of 3 workers on ports"),
        (lambda a: Cluster(a[:2], 1, True), "worker 0 ({1}) has a TF_CONFIG of a chief and 1 worker on ports"),
        (lambda a: Cluster((a[0], a[2]), 1), "worker 1 ({2}) has a TF_CONFIG of 2 workers on ports"),
    ],
    ids=["more workers", "an index that is none of the chief's", "a chief of its own", "another port"],
)
@pytest.mark.parametrize("about", [ABOUT, {**ABOUT, "training.learning_rate": 0.002}], ids=["equal", "differs"])
def test_workers_of_different_clusters_are_refused_at_once(addresses, tmp_path, other, told, about):
    meeting = Meeting(addresses[:2], tmp_path / "run", timeout=60.0)
    began = time.monotonic()
    meeting.start(0)
    meeting.start(1, about, other=other(addresses))
    messages = {number: str(error) for number, error in meeting.end().items()}
    assert messages[0] == messages[1] and time.monotonic() - began < 15 and "\n" not in messages[0]
    ports = [address.rpartition(":")[2] for address in addresses]
    assert told.format(*addresses) in messages[0]
    assert f"and worker 0 ({addresses[0]}) one of 2 workers on ports {ports[0]} and {ports[1]}" in messages[0]
    assert messages[0].endswith(": give all workers one TF_CONFIG but for the task")
    assert not isinstance(meeting.results[0], Interrupted)  # to start it again would help nobody


def test_those_that_wait_hear_of_a_worker_of_another_cluster(addresses, tmp_path):
    meeting = Meeting(addresses, tmp_path / "run", timeout=60.0)
    meeting.start(0)
    meeting.start(1)
    time.sleep(0.5)
    meeting.start(2, other=Cluster(addresses, 2, True))
    messages = {number: str(error) for number, error in meeting.end().items()}
    assert len(set(messages.values())) == 1 and "has a TF_CONFIG of a chief and 2 workers" in messages[1], messages
    _ports_are_free(addresses)


def test_those_that_are_about_to_be_heard_hear_of_it_too(addresses, tmp_path):
    place = ("127.0.0.1", int(addresses[0].rpartition(":")[2]))
    meeting = Meeting(addresses, tmp_path / "run", timeout=60.0)
    meeting.start(0)
    with _connected(place) as slow:
        time.sleep(0.5)  # the chief listens to it alone
        meeting.start(1)
        time.sleep(0.5)
        slow.sendall(_hello(Cluster(addresses, 2, True)))
        assert b"has a TF_CONFIG of" in slow.recv(4096)
    messages = {number: str(error) for number, error in meeting.end().items()}
    assert messages[0] == messages[1] and "has a TF_CONFIG of a chief and 2 workers" in messages[1], messages


def test_the_spelling_of_hosts_may_differ(addresses, tmp_path):
    meeting = Meeting(addresses, tmp_path / "run")
    others = [tuple(address.replace("127.0.0.1", name) for address in addresses) for name in ("localhost", "127.0.0.1")]
    meeting.start(0)
    for number, spelt in enumerate(others, 1):
        meeting.start(number, other=Cluster(spelt, number))
    assert meeting.end() == {0: None, 1: None, 2: None}


def test_ports_are_told_once_where_they_are_one():
    assert Cluster(("a:1", "b:1", "c:1"), 0, True, 1).shape == "a chief, 1 worker and 1 parameter server on port 1"
    assert Cluster(("a:1", "b:2"), 0).shape == "2 workers on ports 1 and 2"


@pytest.mark.parametrize("said", [b"", b" "], ids=["nothing", "a byte now and then"])
def test_a_stranger_cannot_hold_the_meeting_open(addresses, tmp_path, monkeypatch, said):
    """Neither beyond its limit, nor beyond the time that one has to say who it is."""
    monkeypatch.setattr(rendezvous, "_ANSWER_TIMEOUT", 1.0)
    place = ("127.0.0.1", int(addresses[0].rpartition(":")[2]))
    for timeout, comes in ((20.0, True), (1.5, False)):
        if not comes:
            monkeypatch.setattr(rendezvous, "_ANSWER_TIMEOUT", 20.0)
        meeting = Meeting(addresses[:2], tmp_path / "run", timeout=timeout)
        began = time.monotonic()
        meeting.start(0)
        with _connected(place) as stranger:
            time.sleep(0.2)
            if comes:
                meeting.start(1)
            while any(thread.is_alive() for thread in meeting.threads) and time.monotonic() < began + 15:
                with contextlib.suppress(OSError):  # once it is cut off
                    stranger.sendall(said)
                time.sleep(0.1)
        errors = meeting.end()
        assert time.monotonic() - began < 8
        assert errors == {0: None, 1: None} if comes else "did not come within 1.5 s" in str(errors[0])


def _hello(cluster):
    hello = {"index": cluster.number, "about": ABOUT, "cluster": cluster.shape, "name": "a worker"}
    return json.dumps(hello).encode() + b"\n"


def _connected(place):
    until = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(place)
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)


def _config(task=("worker", 0), **jobs):
    return json.dumps({"cluster": jobs, "task": {"type": task[0], "index": task[1]}})


def test_the_chief_is_the_first_worker():
    assert cluster_of(_config(worker=["a:1", "b:2"])) == Cluster(("a:1", "b:2"), 0)
    assert cluster_of(_config(("worker", 1), chief=["c:3"], worker=["a:1", "b:2"])) == Cluster(
        ("c:3", "a:1", "b:2"), 2, True
    )
    cluster = cluster_of(_config(("chief", 0), chief=["c:3"], worker=["a:1"]))
    assert cluster.number == 0
    assert [cluster.name_of(number) for number in (0, 1)] == ["the chief (c:3)", "worker 0 (a:1)"]


@pytest.mark.usefixtures("within_a_minute")
@pytest.mark.parametrize(
    "config, message",
    [
        (None, "needs the environment variable TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG must be like"),
        (_config(("ps", 0), ps=["a:1"]), "which training.distribution=multi_worker has no use for"),
        (_config(("worker", 2), worker=["a:1", "b:2"]), "TF_CONFIG must be like"),
        (_config(("worker", -1), worker=["a:1"]), "TF_CONFIG must be like"),
        (_config(("chief", 0), chief=["a:1", "b:2"]), "the one chief"),
        (_config(worker=["a", "b:2"]), "TF_CONFIG must be like"),
        (_config(worker=["a:0", "b:2"]), "TF_CONFIG must be like"),
        (_config(worker=["a:1", "a:1"]), "TF_CONFIG names a:1 twice"),
    ],
)
def test_a_cluster_that_is_none_is_one_line(config, message):
    with pytest.raises(UserError, match=message) as error:
        cluster_of(config)
    assert "\n" not in str(error.value)
