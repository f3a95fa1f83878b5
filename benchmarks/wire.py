"""A link between two network namespaces that is slow and takes its time, made of two TAP devices and a thread.

The kernel's own way to delay, netem, is a module that many machines lack. Frames are large, so that a link of 100
Mbit/s takes some hundredths of a core.
"""

import collections
import contextlib
import fcntl
import os
import select
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # of <linux/if_tun.h>
MTU = 9000  # bytes of a packet
_HEADER = 14  # bytes of Ethernet before it
_LONGEST_WAIT = 0.05  # seconds that a frame may wait for those before it; then it is lost, as in a router


class _Frame(NamedTuple):
    due: float  # when it arrives, by the monotonic clock
    content: bytes


class _Direction:
    """What one device sends to the other.

    Args:
        source: the file of the device that sends.
        target: the file of the one that receives.
        bytes_a_second: of the link.
        delay: seconds that a frame is under way after its last byte was sent.
    """

    def __init__(self, source: int, target: int, bytes_a_second: float, delay: float):
        self.source = source
        self._target = target
        self._rate = bytes_a_second
        self._delay = delay
        self._free_at = 0.0  # when all is sent that has come so far
        self._under_way: collections.deque[_Frame] = collections.deque()

    @property
    def next_due(self) -> float:
        """When a frame arrives; infinity where none is under way."""
        return self._under_way[0].due if self._under_way else float("inf")

    def take(self) -> None:
        """Takes the frames that the device has for the link."""
        with contextlib.suppress(OSError):  # nothing is left, or the device is down
            while True:
                content, now = os.read(self.source, MTU + _HEADER), time.monotonic()
                begins = max(now, self._free_at)
                if begins - now <= _LONGEST_WAIT:
                    self._free_at = begins + len(content) / self._rate
                    self._under_way.append(_Frame(self._free_at + self._delay, content))

    def deliver(self) -> None:
        """Hands over the frames that have arrived."""
        while self.next_due <= time.monotonic():
            with contextlib.suppress(OSError):  # the device is down
                os.write(self._target, self._under_way.popleft().content)


def _tap(name: str) -> int:
    """The file of a new TAP device; reading from it does not wait.

    Raises:
        OSError: there is no /dev/net/tun, or it may not be used.
    """
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(file)
        raise
    return file


@contextlib.contextmanager
def wire(names: Sequence[str], megabits: float, milliseconds: float) -> Iterator[None]:
    """Two new devices, linked as long as the context lasts, which a caller moves to where they belong and sets up.

    Args:
        names: of the devices.
        megabits: a second, in either direction.
        milliseconds: of a round trip, of which each direction has half.

    Raises:
        OSError: this machine makes no TAP devices.
    """
    files: list[int] = []
    end = threading.Event()
    try:
        for name in names:
            files.append(_tap(name))
        given = megabits * 1e6 / 8, milliseconds / 2000
        directions = [_Direction(*files, *given), _Direction(*reversed(files), *given)]

        def carry() -> None:
            while not end.is_set():
                due = min(each.next_due for each in directions)
                wait = min(max(due - time.monotonic(), 0.0), 0.1)  # it looks whether this is the end
                ready = select.select([each.source for each in directions], [], [], wait)[0]
                for each in directions:
                    if each.source in ready:
                        each.take()
                    each.deliver()

        thread = threading.Thread(target=carry, name="wire", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
    finally:
        for file in files:
            os.close(file)
