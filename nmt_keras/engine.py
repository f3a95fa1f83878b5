"""Imports TensorFlow without its remarks."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


def load_tensorflow() -> None:
    """Imports TensorFlow, where it is not imported yet, without its remarks on this machine's CPU and missing GPU, now
    and later, which no log level silences.

    Its log begins at errors then, and that of its C++ part, where `TF_CPP_MIN_LOG_LEVEL` is not set, at fatal ones.
    Nothing changes where it was imported before.
    """
    if "tensorflow" in sys.modules:
        return
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_stderr():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Within the block, what the process writes to its stderr, C++ too, is lost."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without one
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
