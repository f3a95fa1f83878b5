"""Lines of progress for the user."""

import os
import sys
from collections.abc import Callable

Report = Callable[[str], None]


def shows_bars() -> bool:
    """Whether progress bars are drawn: on a terminal, unless TQDM_DISABLE is set."""
    return sys.stderr.isatty() and not os.environ.get("TQDM_DISABLE")


def counted(count: int, noun: str) -> str:
    """A number of things in words, such as "1 line" or "1,200 lines"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def silent(line: str) -> None:
    """A report that nobody reads."""
