"""Files that are whole or absent: written under a temporary name, flushed to the disk, renamed."""

import contextlib
import errno
import json
import os
import pathlib
import stat
import tempfile
import typing
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nmt_keras.errors import UserError


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder and those above it.

    Raises:
        UserError: it cannot be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def remedy_of(error: OSError) -> str:
    """What a user can do about a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free the disk or give another path"
    if isinstance(error, IsADirectoryError):
        return "give the path of a file"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "give a path where you may write"
    return "give another path"


def _directory() -> IsADirectoryError:
    """The error of a path that is a directory, where a file is to be."""
    return IsADirectoryError(None, "it is a directory")


def _cannot_write(path: str | os.PathLike, error: OSError) -> UserError:
    return UserError(f"Cannot write {path}: {error.strerror}; {remedy_of(error)}")


def require_writable(path: str | os.PathLike, reads: Iterable[str | os.PathLike | None] = ()) -> None:
    """Checks that `path` could be written, and leaves everything as it is.

    Args:
        path: of a file that is going to be written.
        reads: files that are going to be read, as a user names them: `#` and a field may follow, None is none.

    Raises:
        UserError: `path` is a directory or one of `reads`, or its folder cannot be written or made.
    """
    for read in (os.fspath(each) for each in reads if each):
        require_other_file(path, read if os.path.exists(read) else read.rpartition("#")[0])
    path = pathlib.Path(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a pipe or a device
    try:
        if path.is_dir():
            raise _directory()
        if not folder.is_dir():
            raise NotADirectoryError(None, f"{folder} is no folder")
        handle, name = tempfile.mkstemp(dir=folder, prefix=".tmp-")
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise _cannot_write(path, error) from error


def require_other_file(path: str | os.PathLike, read: str | os.PathLike) -> None:
    """Checks that the file to be written is not the one that is read.

    Raises:
        UserError: both are one file.
    """
    if os.path.exists(path) and os.path.exists(read) and os.path.samefile(path, read):
        raise UserError(f"{path} is read, and would be lost: give another path to write to")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary file beside `path`, whose folder is made; it becomes `path` if the block succeeds.

    A symbolic link stays one: what it points to is replaced. A pipe or a device is given as it is.

    Raises:
        UserError: the folder cannot be written, or the disk is full. `path` is as it was.
    """
    path = pathlib.Path(path)
    name = None
    try:
        if path.is_dir():
            raise _directory()
        if path.exists() and not path.is_file():
            yield path
            return
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.suffix)
        os.close(handle)
        try:
            yield pathlib.Path(name)
        except OSError as error:
            if error.filename is not None and str(error.filename) != name:
                raise _OfAnotherFile from error
            raise
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, _mode_of_new_files(path.parent))
        os.replace(name, path)
    except _OfAnotherFile as other:
        raise typing.cast(OSError, other.__cause__)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if name:
            pathlib.Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def resumable_write(
    path: str | os.PathLike, resume: bool, about: Mapping[str, Any]
) -> Iterator[tuple[typing.TextIO, int]]:
    """Gives a file that grows as `<path>.partial`, and how many lines it has; it becomes `path` if the block succeeds.

    Whatever ends the block early leaves the partial file, if anything is in it, and `resume` goes on after its last
    whole line. A pipe or a device is written as it is.

    Args:
        path: of the whole file.
        resume: go on with a partial file.
        about: JSON values that decide what is written; kept in `<path>.partial.json`.

    Raises:
        UserError: the folder cannot be written or the disk is full; there is a partial file, and `resume` is False or
            its `about` differs; or `resume` is True and only the whole file is there.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            raise _directory()
        if path.exists() and not path.is_file():
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                yield file, 0
            return
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, card = path.with_name(path.name + ".partial"), path.with_name(path.name + ".partial.json")
        lines = _resumed_lines(path, partial, card, resume, about)
        try:
            if not lines:
                write_json(card, about)
            with open(partial, "a" if lines else "w", encoding="utf-8", newline="\n") as file:
                try:
                    yield file, lines
                except OSError as error:
                    if error.filename is not None:  # of a file that the block opened itself
                        raise _OfAnotherFile from error
                    raise
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            if not lines and (not partial.exists() or not partial.stat().st_size):
                partial.unlink(missing_ok=True)
                card.unlink(missing_ok=True)
            raise
        partial.replace(path)
        card.unlink(missing_ok=True)
    except _OfAnotherFile as other:
        raise typing.cast(OSError, other.__cause__)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _resumed_lines(
    path: pathlib.Path, partial: pathlib.Path, card: pathlib.Path, resume: bool, about: Mapping[str, Any]
) -> int:
    if not partial.exists():
        if resume and path.exists():
            raise UserError(f"{path} is whole already, there is nothing to resume; leave --resume out to write it anew")
        return 0
    if not resume:
        raise UserError(
            f"{partial} holds what an interrupted job wrote: give --resume to go on with it, or remove it to start anew"
        )
    try:
        before = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{card}, which says how {partial} was made, cannot be read: remove both") from error
    now = json.loads(json.dumps(about))
    differences = [
        f"{k} was {before.get(k)!r}, now {now.get(k)!r}" for k in {**before, **now} if before.get(k) != now.get(k)
    ]
    if differences:
        raise UserError(f"{partial} was made otherwise: {'; '.join(differences)}; give the same, or remove it")
    return _whole_lines(partial)


def _whole_lines(path: pathlib.Path) -> int:
    """Counts the lines of a file, and takes off what follows the last line feed."""
    count = size = 0
    with open(path, "r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                count, size = count + 1, size + len(line)
        file.truncate(size)
    return count


class _OfAnotherFile(Exception):
    """Carries, as its cause, an error of a file that the caller's block opened itself."""


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 with line feeds as they are. Raises as `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes indented JSON. Raises as `atomic_write`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _mode_of_new_files(folder: pathlib.Path) -> int:
    """The permissions that a file has when anyone makes it in `folder`.

    A file is made there to find out: the umask can only be read by setting it, and for a moment other threads would
    make files without one.
    """
    path = folder / f".tmp-mode-{uuid.uuid4().hex[:12]}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)
