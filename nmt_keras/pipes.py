"""Pipes, which can be read only once, and the cache folder that keeps their content."""

import hashlib
import os
import pathlib
import stat
import uuid

from nmt_keras import files
from nmt_keras.errors import UserError


def default_cache_dir() -> str:
    """`$XDG_CACHE_HOME/nmt_keras`, or `~/.cache/nmt_keras`."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "nmt_keras")


_CHUNK_BYTES = 1 << 24
_KEPT: dict[tuple[str, int], str] = {}  # pipes that this process has read, and the copy of each


def kept(path: str, cache_dir: str | pathlib.Path) -> str:
    """The path of a file that can be read again: `path` itself, or for a pipe, such as <(cut -f1 x.tsv), a copy of its
    content in the cache.

    Raises:
        UserError: the copy cannot be written.
    """
    try:
        status = os.stat(path)
    except OSError:
        return path  # whoever opens it says why
    if not (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        return path
    key = (path, status.st_ino)
    cache_dir = pathlib.Path(cache_dir or default_cache_dir())
    if key not in _KEPT:
        digest = hashlib.sha256()
        files.make_folder(cache_dir)
        temporary = cache_dir / f".tmp-pipe-{uuid.uuid4().hex[:12]}"
        try:
            with open(path, "rb") as pipe, open(temporary, "wb") as file:
                while chunk := pipe.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
            packed = ".gz" if _starts_with(temporary, b"\x1f\x8b") else ""
            place = cache_dir / f"pipe-{digest.hexdigest()[:24]}{packed}"
            temporary.replace(place)
        except OSError as error:
            raise UserError(f"Cannot keep what comes from {path} in {cache_dir}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)
        _KEPT[key] = str(place)
    return _KEPT[key]


def _starts_with(path: pathlib.Path, magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic
