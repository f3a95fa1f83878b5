"""Lines of progress for the user."""

import os
import sys
from collections.abc import Callable

Report = Callable[[str], None]


def shows_bars() -> bool:
    """Whether progress bars are drawn: on a terminal, unless TQDM_DISABLE is set."""
    return sys.stderr.isatty() and not os.environ.get("TQDM_DISABLE")


def silent(line: str) -> None:
    """A report that nobody reads."""
