"""Workers that watch each other while they train, so that the loss of one ends all of them soon, and by its name.

TensorFlow notices a process that is gone after half a minute or later, one that hangs later still, and names neither.
Here each worker keeps a connection to the chief, on which both say every few seconds that they are alive; the chief
tells the others whom it has lost. Whoever ends as it should says so first. What speaks is a thread: a process that is
stopped or gone is silent, and one whose main thread alone hangs is not.
"""

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

from nmt_keras.errors import UserError
from nmt_keras.training.rendezvous import Cluster, split

_BEAT_EVERY = 5.0  # seconds
_LOST_AFTER = 20.0  # seconds of silence
ALIVE, _BYE, _LOST = b"alive", b"bye", b"lost "


class Watch:
    """A thread that watches the other workers: of the chief all of them, of the others the chief.

    Args:
        cluster: of the workers.
        meeting: of the chief its listening socket, which is closed in the end; of another worker the port of the
            chief's.
        on_lost: takes the number of a worker that is gone or silent; called once, in the thread.
        goes_on_without: takes the number of a worker that is gone, and those of all that are there; where it returns
            True the watch goes on, and the worker may come back.
        on_back: takes the number of a worker that the watch went on without, and that is there again.

    Raises:
        UserError: the chief's port cannot be reached.
    """

    def __init__(
        self,
        cluster: Cluster,
        meeting: socket.socket | int,
        on_lost: Callable[[int], None],
        goes_on_without: Callable[[int, set[int]], bool] = lambda number, others: False,
        on_back: Callable[[int], None] = lambda number: None,
    ):
        self._on_lost = on_lost
        self._goes_on_without, self._on_back = goes_on_without, on_back
        self._gone: set[int] = set()  # of those that it went on without
        self._ended = threading.Event()
        self._has_lost = threading.Event()
        self._has_left = threading.Event()
        self._lost_number: int | None = None
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, _Peer] = {}
        if isinstance(meeting, socket.socket):
            meeting.setblocking(False)
            self._selector.register(meeting, selectors.EVENT_READ)
            self._listener: socket.socket | None = meeting
            self._missing = set(range(1, len(cluster.addresses)))
        else:
            self._listener, self._missing = None, set()
            connection = _connected((split(cluster.addresses[0])[0], meeting))
            connection.sendall(str(cluster.number).encode() + b"\n")
            self._add(connection).number = 0
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def wait_for_lost(self) -> int | None:
        """The number of a worker that is lost, once the watch knows of one; None if it does not find any. TensorFlow
        may notice first."""
        self._has_lost.wait(_LOST_AFTER + _BEAT_EVERY)
        return self._lost_number

    @property
    def port(self) -> int:
        """The chief's port, where it watches."""
        assert self._listener is not None
        return self._listener.getsockname()[1]

    def wait_for_end(self) -> bool:
        """Waits, as a worker other than the chief, until that has left or is lost; returns whether it left well."""
        self._has_left.wait()
        return self._lost_number is None

    def close(self, is_done: bool) -> None:
        """Ends the watch; the others are told, if all is done, that this worker is not lost."""
        self._ended.set()
        self._thread.join()
        for connection in self._peers:
            with contextlib.suppress(OSError):
                if is_done:
                    connection.sendall(_BYE + b"\n")
            connection.close()
        if self._listener is not None:
            self._listener.close()
        self._selector.close()

    def _add(self, connection: socket.socket) -> "_Peer":
        connection.settimeout(1.0)
        self._selector.register(connection, selectors.EVENT_READ)
        self._peers[connection] = _Peer()
        return self._peers[connection]

    def _run(self) -> None:
        next_beat = 0.0
        while not self._ended.is_set():
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + _BEAT_EVERY
                self._tell(ALIVE)
            for key, _ in self._selector.select(timeout=0.2):
                self._read(key.fileobj)  # type: ignore[arg-type]
            lost = self._lost(time.monotonic())
            if lost is not None and not self._ended.is_set():
                if self._is_gone(lost) and self._goes_on_without(lost, self._present()):
                    if lost not in self._missing:
                        self._gone.add(lost)
                    self._forget(lost)
                    continue
                self._lost_number = lost
                self._has_lost.set()
                self._has_left.set()
                self._tell(_LOST + str(lost).encode())
                self._on_lost(lost)
                return

    def _is_gone(self, number: int) -> bool:
        """Whether a lost worker closed its connection or never came; else it is silent, or another tells of it."""
        return not any(
            peer.number == number and not peer.is_gone or peer.told_of == number for peer in self._peers.values()
        )

    def _present(self) -> set[int]:
        return {peer.number for peer in self._peers.values() if peer.number is not None and not peer.is_gone}

    def _forget(self, number: int) -> None:
        self._missing.discard(number)
        for connection, peer in list(self._peers.items()):
            if peer.number == number:
                if not peer.is_gone:
                    self._selector.unregister(connection)
                del self._peers[connection]
                connection.close()

    def _tell(self, line: bytes) -> None:
        for connection in self._peers:
            with contextlib.suppress(OSError):  # that it is gone is seen when it is read
                connection.sendall(line + b"\n")

    def _read(self, place: socket.socket) -> None:
        if place is self._listener:
            with contextlib.suppress(OSError):
                self._add(place.accept()[0])
            return
        peer = self._peers.get(place)
        if peer is None:  # closed meanwhile: its worker has come back
            return
        try:
            data = place.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(place)
            peer.is_gone = True
            if peer.number is None:  # somebody who only looked
                del self._peers[place]
                place.close()
            return
        peer.heard = time.monotonic()
        *lines, peer.rest = (peer.rest + data).split(b"\n")
        for line in lines:
            if peer.number is None and line.isdigit():
                self._forget(int(line))  # it comes back before the end of its old connection was read
                peer.number = int(line)
                self._missing.discard(peer.number)
                if peer.number in self._gone:
                    self._gone.remove(peer.number)
                    self._on_back(peer.number)
            elif line == _BYE:
                peer.has_left = True
                self._has_left.set()
            elif line.startswith(_LOST) and line.removeprefix(_LOST).isdigit():
                peer.told_of = int(line.removeprefix(_LOST))

    def _lost(self, now: float) -> int | None:
        """The number of a worker that is lost."""
        for peer in self._peers.values():
            if peer.told_of is not None:
                return peer.told_of
            if peer.number is not None and not peer.has_left and (peer.is_gone or now - peer.heard > _LOST_AFTER):
                return peer.number
        if self._missing and now - self._started > _LOST_AFTER:
            return min(self._missing)
        return None


def _connected(address: tuple[str, int]) -> socket.socket:
    try:
        return socket.create_connection(address, timeout=10.0)
    except OSError as error:
        host, port = address
        raise UserError(
            f"{host}:{port}, where workers watch each other, cannot be reached: {error.strerror or error}; let a port "
            "of the chief through, and give it as training.watch_port"
        ) from error


class _Peer:
    """What is known of the other end of a connection."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.heard = time.monotonic()
        self.rest = b""
        self.has_left = False  # as it should
        self.is_gone = False
        self.told_of: int | None = None  # a worker that it has lost


def end_soon(line: str, status: int, seconds: float) -> threading.Timer:
    """Ends this process with a line after so many seconds, whatever it waits for, unless the timer is cancelled."""

    def end() -> None:
        os.write(2, f"error: {line}\n".encode())
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer
