"""Files that are whole or absent: written under a temporary name, flushed to the disk, renamed."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from nmt_keras.errors import UserError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary file beside `path`, whose folder is made; it becomes `path` if the block succeeds.

    Raises:
        UserError: the folder cannot be written, or the disk is full. `path` is as it was.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.suffix)
        os.close(handle)
        try:
            yield pathlib.Path(name)
            with open(name, "rb") as file:
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        finally:
            pathlib.Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}; free the disk or give another path") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 with line feeds as they are. Raises as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes indented JSON. Raises as `replacing`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
