"""Signals that ask a job to stop."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nmt_keras.training.stopping import StopRequest


def interrupt_on_sigterm() -> None:
    """Makes SIGTERM act like Ctrl-C: what was done so far is kept. Training uses `stopping` instead."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextlib.contextmanager
def stopping() -> "Iterator[StopRequest]":
    """Within the block SIGTERM and SIGINT ask for a stop, and the second of them ends the process at once.

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
    count = 0
    with open(reader, "rb", buffering=0) as signals:
        while numbers := signals.read(1):
            count += numbers[0] in (signal.SIGTERM, signal.SIGINT)
            if count == 2:
                os._exit(128 + numbers[0])


def _handle_signals(stop: "StopRequest") -> None:
    """Makes SIGTERM and SIGINT ask for a stop."""

    def handle(number: int, frame: object) -> None:
        name = signal.Signals(number).name
        os.write(2, f"{name}: stopping as soon as the step is done; a second signal ends at once\n".encode())
        stop.request(f"stopped by {name}")

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
