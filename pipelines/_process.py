"""The process of a job: its log, and TensorFlow without remarks."""

import logging
import os
import sys

from tqdm import tqdm

_is_quiet = False


def be_quiet(is_quiet: bool) -> None:
    """Leaves out progress, but not warnings."""
    global _is_quiet
    _is_quiet = is_quiet
    if is_quiet:
        os.environ["TQDM_DISABLE"] = "1"  # of jobs that this one starts too
    else:
        os.environ.pop("TQDM_DISABLE", None)


def report(line: str) -> None:
    """A line of progress, on stderr and past a progress bar."""
    if not _is_quiet or "warning" in line[:40]:
        tqdm.write(line, file=sys.stderr)


def load_tensorflow() -> None:
    """Imports TensorFlow without its remarks on this machine's CPU and missing GPU, which no log level silences."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
