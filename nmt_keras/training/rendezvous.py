"""The meeting of a cluster's workers before TensorFlow connects them: all are there, agree, and see one folder.

TensorFlow waits for a worker without a word, and finds out in the middle of a step, or never, that workers were started
with different configurations. Here the chief listens on its own port of `TF_CONFIG`, each worker tells it what it was
started with, and all hear what differs. The sockets are closed before TensorFlow takes the ports. As in TensorFlow's
own gRPC, nobody is asked who they are: this is for private networks.
"""

import contextlib
import errno
import json
import pathlib
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nmt_keras import files
from nmt_keras.errors import Interrupted, UserError
from nmt_keras.reports import Report, counted

_REPORT_EVERY = 30.0  # seconds
_RETRY = 0.3  # seconds between two tries to reach the chief
_ANSWER_TIMEOUT = 20.0  # seconds for one line of a peer that is there
_SEEN_WITHIN = 10.0  # seconds until a file of one machine is on another
_LONGEST_LINE = 1 << 20
_LISTED = 5  # fields that differ


class Cluster(NamedTuple):
    """The processes of a training."""

    addresses: tuple[str, ...]  # host:port of each, the chief first, parameter servers last
    number: int  # of this process
    has_chief: bool = False  # whether the first is a job of its own in `TF_CONFIG`
    num_servers: int = 0  # how many are parameter servers

    @property
    def own_port(self) -> int:
        """The port that this worker listens on."""
        return split(self.addresses[self.number])[1]

    @property
    def num_workers(self) -> int:
        """Those that are neither a chief of its own nor a parameter server."""
        return len(self.addresses) - self.has_chief - self.num_servers

    @property
    def shape(self) -> str:
        """What must be equal in the `TF_CONFIG` of all processes, for people: how many there are of each job, and their
        ports in order. Each may spell a host in its own way."""
        jobs = ["a chief"] * self.has_chief + [counted(self.num_workers, "worker")]
        jobs += [counted(self.num_servers, "parameter server")] * bool(self.num_servers)
        ports = [str(split(address)[1]) for address in self.addresses]
        of_all = f"port {ports[0]}" if len(set(ports)) == 1 else f"ports {_listed(ports)}"
        return f"{_listed(jobs)} on {of_all}"

    def task_of(self, index: int) -> tuple[str, int]:
        """The job of a process in `TF_CONFIG`, and its number there."""
        place = index - self.has_chief
        if place < 0:
            return "chief", 0
        return ("worker", place) if place < self.num_workers else ("ps", place - self.num_workers)

    def name_of(self, index: int) -> str:
        """A process as `TF_CONFIG` numbers it, for people."""
        job, place = self.task_of(index)
        name = "the chief" if job == "chief" else f"{'parameter server' if job == 'ps' else job} {place}"
        return f"{name} ({self.addresses[index]})"


def _listed(names: Sequence[str]) -> str:
    """Names for people, as in "a, b and c"."""
    return ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]


class _Peer(NamedTuple):
    """A worker that has come, as the chief sees it."""

    number: int
    about: dict[str, Any]
    connection: socket.socket


def cluster_of(tf_config: str | None, distribution: str = "multi_worker") -> Cluster:
    """Reads the environment variable `TF_CONFIG`, which `training.distribution` asks for.

    Raises:
        UserError: there is none, or it names no cluster of workers with this process in it.
    """
    if tf_config is None:
        raise UserError(
            f"training.distribution={distribution} needs the environment variable TF_CONFIG with the cluster and this "
            "worker's task; set it on every worker, or let pipelines.launch do so"
        )
    try:
        config = json.loads(tf_config)
        jobs, task = config["cluster"], config["task"]
        chiefs, workers, servers = (list(jobs.get(job, [])) for job in ("chief", "worker", "ps"))
        addresses = tuple(chiefs + workers + servers)
        before = {"chief": 0, "worker": len(chiefs), "ps": len(chiefs + workers)}[task["type"]]
        index = before + int(task["index"])
        if not 0 <= int(task["index"]) < len(jobs[task["type"]]) or len(chiefs) > 1:
            raise LookupError
        for address in addresses:
            split(address)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            'The environment variable TF_CONFIG must be like {"cluster": {"worker": ["host:port", "host:port"]}, '
            '"task": {"type": "worker", "index": 0}}, with a task that is a worker (or the one chief) of the cluster. '
            f"Received: {tf_config}"
        ) from error
    if distribution == "parameter_server" and not (chiefs and workers and servers):
        raise UserError(
            "training.distribution=parameter_server needs a TF_CONFIG with a chief, which coordinates, workers, and "
            f"parameter servers (ps). Received: {', '.join(sorted(jobs))}"
        )
    if distribution != "parameter_server" and servers:
        raise UserError(
            f"TF_CONFIG has parameter servers (ps), which training.distribution={distribution} has no use for: leave "
            "them out, or set training.distribution=parameter_server"
        )
    twice = sorted({address for address in addresses if addresses.count(address) > 1})
    if twice:
        raise UserError(f"TF_CONFIG names {twice[0]} twice: give each worker a host and port of its own")
    return Cluster(addresses, index, bool(chiefs), len(servers))


def meet(
    cluster: Cluster, about: Mapping[str, Any], run_dir: pathlib.Path, timeout: float, report: Report, watch: int = 0
) -> int:
    """Waits until all workers are here, and compares what they were started with.

    Args:
        cluster: of the workers.
        about: JSON values by name that must be equal on all workers.
        run_dir: which all must see; its parent folder is made.
        timeout: seconds to wait for the others.
        report: takes a line for the user, while somebody is waited for.
        watch: of the chief, a port that the others are told.

    Returns:
        The port that the chief has told.

    Raises:
        UserError: the workers have different clusters, or were started with different values, two have one index, or
            they see other folders; each worker says which.
        Interrupted: somebody did not come in time, or left.
    """
    with _listening(cluster) as listener:
        if len(cluster.addresses) == 1:
            return watch
        waits = f"{cluster.name_of(cluster.number)} of {len(cluster.addresses)} workers is here, and waits up to"
        report(f"{waits} {timeout:g} s for the others (training.worker_timeout)")
        place = run_dir.absolute().parent / f".{run_dir.name}.meeting"
        files.make_folder(place.parent)
        deadline = time.monotonic() + timeout
        if cluster.number:
            listener.close()  # it showed that the port is free
            watch = _attend(cluster, about, place, deadline, timeout, report)
        else:
            _preside(cluster, about, place, listener, deadline, timeout, report, watch)
    report(f"all {len(cluster.addresses)} workers are here, and agree")
    return watch


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[socket.socket]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind(("", cluster.own_port))
            listener.listen(len(cluster.addresses))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            reason = "is in use" if error.errno == errno.EADDRINUSE else "is not allowed"
            raise UserError(
                f"Port {cluster.own_port} of this machine, which TF_CONFIG gives {cluster.name_of(cluster.number)}, "
                f"{reason}: another process has it, perhaps a worker that was started with the same task; give "
                "another port on all workers, or end that process"
            ) from error
        yield listener


def _preside(
    cluster: Cluster,
    about: Mapping[str, Any],
    place: pathlib.Path,
    listener: socket.socket,
    deadline: float,
    timeout: float,
    report: Report,
    watch: int,
) -> None:
    """The chief's part."""
    token = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        peers = _gather(cluster, listener, deadline, timeout, report, stack)
        problem = _duplicate(peers, cluster) or _difference(cluster, about, peers)
        place.write_text(token, encoding="utf-8")
        stack.callback(place.unlink, missing_ok=True)
        for peer in peers:
            _send(peer.connection, {"problem": problem, "token": token, "watch": watch})
        for peer in peers if not problem else []:
            sees = _receive(peer.connection).get("sees")
            if not sees:
                problem = f"{cluster.name_of(peer.number)} " + (
                    "left before training began; read what it printed, and start all workers again"
                    if sees is None
                    else f"does not see the --run_dir of {cluster.name_of(0)}, in {place.parent}: give all workers one "
                    "folder on storage that they share"
                )
        _send_last(peers, problem)
    if problem:
        raise UserError(problem)


def _gather(
    cluster: Cluster,
    listener: socket.socket,
    deadline: float,
    timeout: float,
    report: Report,
    stack: contextlib.ExitStack,
) -> list[_Peer]:
    """All others, as they come; those that wait are told for whom.

    Raises:
        UserError: one that came has another cluster; all that are here have been told.
        Interrupted: somebody did not come in time.
    """
    peers: list[_Peer] = []
    next_report = time.monotonic() + _REPORT_EVERY
    while len(peers) < len(cluster.addresses) - 1:
        now = time.monotonic()
        missing = sorted(set(range(1, len(cluster.addresses))) - {peer.number for peer in peers})
        text = f"{len(missing)} of {len(cluster.addresses)} workers: " + ", ".join(map(cluster.name_of, missing))
        if now > deadline:
            problem = (
                f"{text} did not come within {timeout:g} s (training.worker_timeout): start all workers, or leave "
                "those that are not there out of TF_CONFIG"
            )
            for peer in peers:
                _send(peer.connection, {"problem": problem})
            raise Interrupted(problem)
        if now > next_report:
            next_report = now + _REPORT_EVERY
            report(f"waiting for {text}")
            for peer in peers:
                _send(peer.connection, {"waiting": text})
        listener.settimeout(max(min(next_report, deadline) - now, 0.01))
        with contextlib.suppress(TimeoutError):
            connection = stack.enter_context(listener.accept()[0])
            hello = _receive(connection, min(_ANSWER_TIMEOUT, max(deadline - time.monotonic(), 0.1)))
            if isinstance(hello.get("index"), int) and isinstance(hello.get("about"), dict):  # else a stranger
                peers.append(_Peer(hello["index"], hello["about"], connection))
                problem = _other_cluster(cluster, hello)
                if problem:
                    _send_last([*peers, *_about_to_be_heard(cluster, listener, stack)], problem)
                    raise UserError(problem)
        peers = [peer for peer in peers if not _is_gone(peer.connection)]  # it may come again
    return peers


def _send_last(peers: Sequence[_Peer], problem: str) -> None:
    """Tells peers how the meeting ends, "" if well, and waits until they have left."""
    for peer in peers:
        _send(peer.connection, {"problem": problem})
    for peer in peers:  # whoever closes first keeps the port busy for a while: the chief must not
        with contextlib.suppress(OSError):
            peer.connection.recv(1)


def _about_to_be_heard(cluster: Cluster, listener: socket.socket, stack: contextlib.ExitStack) -> Iterator[_Peer]:
    """Those that have connected and were not listened to yet."""
    listener.settimeout(0.0)  # not to wait
    with contextlib.suppress(OSError):
        for _ in cluster.addresses:
            connection = stack.enter_context(listener.accept()[0])
            _receive(connection, timeout=1.0)  # what is not read would take the answer with it
            yield _Peer(-1, {}, connection)


def _other_cluster(cluster: Cluster, hello: Mapping[str, Any]) -> str:
    """Says how the cluster of a worker that came differs from the chief's; "" if it does not."""
    theirs = hello.get("cluster", "that another version of nmt_keras has read")
    if theirs == cluster.shape and 0 <= hello["index"] < len(cluster.addresses):
        return ""
    return (
        f"{hello.get('name', 'A worker that came')} has a TF_CONFIG of {theirs}, and {cluster.name_of(0)} one of "
        f"{cluster.shape}: give all workers one TF_CONFIG but for the task"
    )


def _is_gone(connection: socket.socket) -> bool:
    """Whether a peer that has nothing to say has left."""
    connection.settimeout(0.0)  # not to wait
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_ANSWER_TIMEOUT)


def _attend(
    cluster: Cluster, about: Mapping[str, Any], place: pathlib.Path, deadline: float, timeout: float, report: Report
) -> int:
    """The part of a worker that is not the chief; returns the port that it is told."""
    watch = 0
    with _reach_chief(cluster, deadline, timeout, report) as connection:
        name = cluster.name_of(cluster.number)
        _send(connection, {"index": cluster.number, "about": about, "cluster": cluster.shape, "name": name})
        while True:
            reply = _receive(connection, timeout=max(deadline - time.monotonic(), 0.0) + _ANSWER_TIMEOUT)
            if "waiting" not in reply:
                break
            report(f"waiting for {reply['waiting']}")
        if reply.get("token") and not reply.get("problem"):
            watch = int(reply.get("watch", 0))
            _send(connection, {"sees": _sees(place, reply["token"])})
            reply = _receive(connection)
    if "problem" not in reply:
        raise Interrupted(f"{cluster.name_of(0)} left before all workers were there; read what it printed")
    if reply["problem"]:
        raise UserError(reply["problem"])
    return watch


def _reach_chief(cluster: Cluster, deadline: float, timeout: float, report: Report) -> socket.socket:
    next_report = time.monotonic() + _REPORT_EVERY
    while True:
        try:
            return socket.create_connection(split(cluster.addresses[0]), timeout=5.0)
        except OSError as error:
            now = time.monotonic()
            if now > deadline:
                raise Interrupted(
                    f"{cluster.name_of(0)} cannot be reached within {timeout:g} s (training.worker_timeout), "
                    f"{error.strerror or error}: start it, or mend its address in TF_CONFIG"
                ) from error
            if now > next_report:
                next_report = now + _REPORT_EVERY
                report(f"waiting for {cluster.name_of(0)}: {error.strerror or error}")
            time.sleep(_RETRY)


def _sees(place: pathlib.Path, token: str) -> bool:
    """Whether a file with this content appears."""
    until = time.monotonic() + _SEEN_WITHIN
    while True:
        with contextlib.suppress(OSError):
            if place.read_text(encoding="utf-8") == token:
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.2)


def _duplicate(peers: list[_Peer], cluster: Cluster) -> str:
    """Says which index two workers have; "" if none."""
    indices = [0, *(peer.number for peer in peers)]
    found = sorted({index for index in indices if indices.count(index) > 1})
    if not found:
        return ""
    return f"Two workers have index {found[0]} in TF_CONFIG, of {len(cluster.addresses)}: give each its own"


def _difference(cluster: Cluster, about: Mapping[str, Any], peers: list[_Peer]) -> str:
    """Says what another worker was started with otherwise than the chief; "" if nothing."""
    own = json.loads(json.dumps(about))
    for peer in sorted(peers, key=lambda peer: peer.number):
        names = [
            name for name in sorted(own.keys() | peer.about.keys()) if own.get(name, "") != peer.about.get(name, "")
        ]
        if names:
            fields = ", ".join(f"{name} {peer.about.get(name)!r} and {own.get(name)!r}" for name in names[:_LISTED])
            more = ", ..." if len(names) > _LISTED else ""
            return (
                f"{cluster.name_of(peer.number)} and {cluster.name_of(0)} were started with different values: "
                f"{fields}{more}; start all workers with one command and one version"
            )
    return ""


def _send(connection: socket.socket, value: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # whoever left is missed when the answer is read
        connection.sendall(json.dumps(value).encode() + b"\n")


def _receive(connection: socket.socket, timeout: float = _ANSWER_TIMEOUT) -> dict[str, Any]:
    """A line of a peer; empty if it says nothing that can be read, or not all of it within so many seconds."""
    deadline = time.monotonic() + timeout
    line = b""
    try:
        while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))  # 0 would not wait
            byte = connection.recv(1) if time.monotonic() < deadline else b""
            if not byte:
                return {}
            line += byte
        value = json.loads(line)
    except (OSError, ValueError):
        return {}
    finally:
        connection.settimeout(_ANSWER_TIMEOUT)
    return value if isinstance(value, dict) else {}


def split(address: str) -> tuple[str, int]:
    """Host and port of an address.

    Raises:
        ValueError: it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not 0 < int(port) < 1 << 16:
        raise ValueError(address)
    return host, int(port)
