"""How training is asked to stop."""

from nmt_keras.errors import Stopped


class StopRequest:
    """Whether training is to stop and save; a signal's handler asks for it.

    Attributes:
        reason: "" until it is asked for.
        interrupts: whether asking raises `Stopped` at once, where nothing is lost by that.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.interrupts = False

    def request(self, reason: str) -> None:
        """Asks training to stop.

        Raises:
            Stopped: `interrupts` is set.
        """
        self.reason = reason
        if self.interrupts:
            raise Stopped(reason)
