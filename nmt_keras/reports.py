"""Lines of progress for the user."""

from collections.abc import Callable

Report = Callable[[str], None]


def silent(line: str) -> None:
    """A report that nobody reads."""
