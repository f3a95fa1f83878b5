"""Packed text (`.gz`, `.bz2`, `.xz`, `.zst`, `.zip`), unpacked once into the cache, and the names of what is there."""

import bz2
import gzip
import hashlib
import lzma
import os
import pathlib
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from nmt_keras import files
from nmt_keras.errors import UserError

# Text packs to a third or a tenth; what claims to be so many times larger was made to fill a disk.
_BOMB_RATIO, _BOMB_BYTES = 200, 1 << 28
_CHUNK_BYTES, _ZST_BYTES = 1 << 22, 1 << 11
_VERSION = 2  # of what the cache holds of a file


def _read_zst(path: str) -> Iterator[bytes]:
    import zstandard  # few corpora need it

    decompressor = zstandard.ZstdDecompressor()
    with open(path, "rb") as file:
        _refuse_bomb(path, zstandard.frame_content_size(file.read(32)))
        file.seek(0)
        frame = decompressor.decompressobj()
        while chunk := file.read(_ZST_BYTES):  # a few bytes may stand for 128 KiB
            while chunk:
                frame = decompressor.decompressobj() if frame.eof else frame
                yield frame.decompress(chunk)
                chunk = frame.unused_data
        if not frame.eof:
            raise EOFError("it ends inside a frame")


def _read_with(open_packed: Callable[[str], Any]) -> Callable[[str], Iterator[bytes]]:
    def read(path: str) -> Iterator[bytes]:
        with open_packed(path) as packed:
            while chunk := packed.read(_CHUNK_BYTES):
                yield chunk

    return read


_READERS: dict[str, Callable[[str], Iterator[bytes]]] = {
    ".gz": _read_with(gzip.open),
    ".bz2": _read_with(bz2.open),
    ".xz": _read_with(lzma.open),
    ".zst": _read_zst,
}
SUFFIXES = tuple(_READERS)


def plain_name(path: str) -> str:
    """A path without the suffix of its packing."""
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in _READERS else path


def file_key(path: str) -> str:
    """The name of a file in the cache, another for each size, modification time and inode.

    Raises:
        UserError: it cannot be read, or is a directory.
    """
    try:
        if os.path.isdir(path):
            raise UserError(f"{path} is a directory; give a text file")
        with open(path, "rb"):
            status = os.stat(path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; check the path (and data_dir)") from error
    identity = f"{os.path.abspath(path)}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}:{_VERSION}"
    return f"{os.path.basename(path)}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def unpacked(path: str, cache_dir: str | os.PathLike) -> str:
    """The path of the unpacked content of a file: `path` itself, or an entry of the cache.

    Raises:
        UserError: the file cannot be read, is damaged, or unpacks to far more than text would.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _READERS:
        return path
    place = pathlib.Path(cache_dir) / (file_key(path) + ".txt")
    if not place.exists():
        with files.atomic_write(place) as temporary:
            _unpack(path, suffix, temporary)
    return str(place)


def unzipped(path: str, member: str, cache_dir: str | os.PathLike) -> str:
    """The path of a member of a `.zip` file, as an entry of the cache.

    Raises:
        UserError: as `unpacked`.
    """
    member_key = hashlib.sha256(member.encode()).hexdigest()[:8]
    place = pathlib.Path(cache_dir) / f"{file_key(path)}-{member_key}-{os.path.basename(member)[-80:]}"
    if not place.exists():
        with files.atomic_write(place) as temporary:
            try:
                with zipfile.ZipFile(path) as archive, archive.open(member) as packed, open(temporary, "wb") as text:
                    shutil.copyfileobj(packed, text, _CHUNK_BYTES)
            except (zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error, RuntimeError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise UserError(f"Cannot unpack {member} of {path}: {error}; make or fetch it again") from error
    return str(place)


def members(path: str) -> list[str]:
    """The files in a `.zip` file.

    Raises:
        UserError: it is damaged, has a name that leads out of a folder, or claims to hold far more than text would.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:  # the last one of versions and methods
        raise UserError(
            f"Cannot read {path}: {error}; it is truncated or no zip file, make or fetch it again"
        ) from error
    for member in found:
        name = member.filename
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise UserError(f"{path} holds the name {name!r}, which leads out of a folder: do not trust this file")
        _refuse_bomb(path, member.file_size)
    return [member.filename for member in found]


def _unpack(path: str, suffix: str, out: pathlib.Path) -> None:
    written = 0
    try:
        with open(out, "wb") as text:
            for chunk in _READERS[suffix](path):
                written += len(chunk)
                _refuse_bomb(path, written)
                text.write(chunk)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, ValueError) as error:
        _raise_damaged(path, suffix, error)
    except OSError as error:
        if error.errno is not None:  # of the disk; bz2 has none
            raise
        _raise_damaged(path, suffix, error)
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # the library was imported where it was needed
            raise
        _raise_damaged(path, suffix, error)


def _raise_damaged(path: str, suffix: str, error: Exception) -> None:
    if isinstance(error, UserError):
        raise error
    raise UserError(
        f"Cannot unpack {path}: {error}; it is truncated or no {suffix[1:]} file, make or fetch it again"
    ) from error


def _refuse_bomb(path: str, size: int) -> None:
    """Raises a UserError where a file unpacks to `size` bytes, or more."""
    if size > max(_BOMB_BYTES, _BOMB_RATIO * os.path.getsize(path)):
        raise UserError(
            f"{path} has {os.path.getsize(path):,} bytes and unpacks to {size:,} or more, over {_BOMB_RATIO} times as "
            "many: text does not pack so well; unpack it yourself if it is sound"
        )
