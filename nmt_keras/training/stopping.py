"""How training is asked to stop."""

from collections.abc import Callable

from nmt_keras.errors import Stopped


class StopRequest:
    """Whether training is to stop and save; a signal's handler asks for it.

    Attributes:
        reason: "" until it is asked for.
        interrupts: whether `request` raises `Stopped` at once; set where that loses nothing.
        listen: installs the signal handlers; to be called again after a strategy of several workers is built, which
            takes SIGTERM for itself.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.interrupts = False
        self.listen: Callable[[], None] = lambda: None

    def request(self, reason: str) -> None:
        """Asks training to stop.

        Raises:
            Stopped: `interrupts` is set.
        """
        self.reason = reason
        if self.interrupts:
            raise Stopped(reason)
