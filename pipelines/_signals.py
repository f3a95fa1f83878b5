"""Signals that ask a job to stop."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import types

    from nmt_keras.training.stopping import StopRequest


_ONE_REQUEST = 2.0  # seconds from the first signal in which SIGTERM is that request again


class _Requests:
    """Signals, as requests to stop.

    What ends a whole group of processes, such as SLURM, systemd or `timeout`, sends SIGTERM to each, and those that
    have others hand it on: a process then has it twice at once. A person does not press Ctrl-C (SIGINT) so.
    """

    def __init__(self) -> None:
        self._first: float | None = None

    def is_new(self, number: int) -> bool:
        """Whether a signal that has just come is a request of its own."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return True
        return number != signal.SIGTERM or now - self._first > _ONE_REQUEST


def interrupt_on_sigterm() -> None:
    """Makes SIGTERM act like Ctrl-C: what was done so far is kept. Training uses `stopping` instead."""
    requests = _Requests()

    def handle(number: int, frame: "types.FrameType | None") -> None:
        if requests.is_new(number):
            signal.default_int_handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)


@contextlib.contextmanager
def stopping() -> "Iterator[StopRequest]":
    """Within the block SIGTERM and SIGINT ask for a stop, and the second of them ends the process at once; a SIGTERM
    within 2 s of the first is the same request.

    A request raises `Stopped` at once, until the training sets `interrupts` to False and looks for requests itself.
    """
    from nmt_keras.training.stopping import StopRequest

    stop = StopRequest()
    stop.interrupts = True
    if threading.current_thread() is not threading.main_thread():  # others cannot handle signals
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer)
    threading.Thread(target=_end_at_the_second, args=(reader,), daemon=True).start()
    stop.listen = lambda: _handle_signals(stop)
    stop.listen()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)


def _end_at_the_second(reader: int) -> None:
    """Reads the numbers of signals as they come, also while the main thread is inside a long operation."""
    requests, count = _Requests(), 0
    with open(reader, "rb", buffering=0) as signals:
        while numbers := signals.read(1):
            if numbers[0] in (signal.SIGTERM, signal.SIGINT):
                count += requests.is_new(numbers[0])
                if count == 2:
                    os._exit(128 + numbers[0])


def _handle_signals(stop: "StopRequest") -> None:
    """Makes SIGTERM and SIGINT ask for a stop, the first of them."""

    def handle(number: int, frame: object) -> None:
        if stop.reason:  # the same request, or `_end_at_the_second` is about to end the process
            return
        name = signal.Signals(number).name
        os.write(2, f"{name}: stopping as soon as the step is done; a second signal ends at once\n".encode())
        stop.request(f"stopped by {name}")

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
