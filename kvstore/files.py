"""Files: what a caller may give as a path, what is there, and how a file is written whole.

Some may not be written over or read in: a store's own, and a database in use. A file that takes
the name of an open database, or of its log, parts the store from its future: what is acknowledged
from then on is lost. And a database in use must not even be opened and closed by hand: on POSIX
systems that drops its process's locks.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from kvstore.errors import InvalidArgumentError, StoreAccessError, StoreError, StoreFullError

__all__ = [
    "SIDE_FILES",
    "FilePath",
    "check_name",
    "check_source",
    "check_target",
    "file_errors",
    "file_path",
    "open_file",
    "partial_file",
    "resolved",
    "same_file",
    "special",
    "whole_path",
]

SIDE_FILES = ("-wal", "-shm", "-journal")  # that SQLite keeps beside a database while it is used
_MAGIC = b"SQLite format 3\0"
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
FilePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def file_path(name: FilePath) -> Path:
    """Return a path of what a caller gave for one; any bytes are a name, also such as no UTF-8.

    Raises:
        InvalidArgumentError: it is no path, it is empty, or it holds a NUL.
    """
    try:
        text = os.fsdecode(name)
    except TypeError:
        raise InvalidArgumentError(
            f"a path is a str, bytes or a path object, not {type(name).__name__}"
        ) from None
    if not text:
        raise InvalidArgumentError("the path is empty; name a file")
    if "\0" in text:
        raise InvalidArgumentError(f"the path {text!r} holds a NUL character, which no name can")
    return Path(text)


def whole_path(path: FilePath) -> Path:
    """Return a path that stays the same whatever the working directory becomes.

    Raises:
        InvalidArgumentError: it is none.
    """
    return file_path(path).absolute()


def resolved(path: Path) -> Path:
    """Return where a path leads, absolute and through links, as far as it exists.

    Raises:
        StoreAccessError: that cannot be told: its links go in a circle, say.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as exc:  # RuntimeError: of a circle, before Python 3.13
        reason = getattr(exc, "strerror", None) or "its symbolic links go in a circle"
        raise StoreAccessError(f"{path} cannot be used: {reason}") from exc


def special(mode: int) -> str | None:
    """Say what a file is by its `st_mode`, such as "a named pipe"; `None`: a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((what for is_kind, what in _KINDS if is_kind(mode)), "no regular file")


@contextmanager
def file_errors(what: object) -> Iterator[None]:
    """Raise the operating system's errors about a file as ours.

    Raises:
        StoreFullError: no room.
        StoreAccessError: anything else.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as exc:
        kind = StoreFullError if exc.errno in _FULL else StoreAccessError
        raise kind(f"{what}: {exc.strerror or exc}") from exc


def open_file(path: Path) -> IO[bytes]:
    """Open a file to read from.

    Raises:
        StoreAccessError: it cannot be read.
    """
    with file_errors(path):
        return path.open("rb")


@contextmanager
def partial_file(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Give a new, empty file beside `path`; it takes the name at the end, if all went well.

    So the name never stands for half a file. What a killed process leaves is called
    `<name>.partial-...` and may be deleted.

    Args:
        path: the name to be.
        mode: the permissions of the file; `None`: as the process's umask has it.
    """
    partial = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
    with file_errors(path):
        what = special(path.stat().st_mode) if path.exists() else None
        if what is not None:  # it would be replaced: /dev/null, say, by a file
            raise StoreAccessError(f"{path} is {what}; name a regular file")
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
        handle = os.open(partial, flags, 0o666 if mode is None else 0o600)
        os.close(handle)
        try:
            if mode is not None:
                partial.chmod(mode)
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def _sync_folder(folder: Path) -> None:
    """Make a new name last; where a directory cannot be opened (Windows), it does so by itself."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_target(target: Path, own: Path | None, *, over_database: bool) -> None:
    """Refuse a file whose replacement would do harm.

    Args:
        target: what is to be replaced.
        own: the file of the store that writes; `None`: it has none.
        over_database: whether a database that nobody uses may be replaced, as by a newer backup.

    Raises:
        StoreAccessError: it would.
    """
    with file_errors(target):
        _refuse_a_part(target, own)
        if target.is_dir():
            raise StoreAccessError(f"{target} is a directory; name a file in it")
        if not over_database and target.is_file():
            with target.open("rb") as file:
                if file.read(len(_MAGIC)) == _MAGIC:
                    raise StoreAccessError(f"{target} is a database; name another file")


def check_source(source: Path, own: Path | None) -> None:
    """Refuse a file that must not be opened by hand.

    Raises:
        StoreAccessError: it is a database in use, or a part of one.
    """
    with file_errors(source):
        _refuse_a_part(source, own)


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths name one file, by whatever links."""
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def check_name(path: Path) -> None:
    """Refuse a name that SQLite uses beside a file that is there."""
    for suffix in SIDE_FILES:
        base, end = path.name[: -len(suffix)], path.name[-len(suffix) :]
        if base and end.lower() == suffix and path.with_name(base).exists():
            raise StoreAccessError(
                f"{path} is a name that SQLite uses beside {base}; name another file"
            )


def _refuse_a_part(path: Path, own: Path | None) -> None:
    if own is not None:
        if same_file(path, own):
            raise StoreAccessError(f"{path} is the store itself; name another file")
        for suffix in SIDE_FILES:
            if same_file(path, Path(f"{own}{suffix}")):
                raise StoreAccessError(f"{path} belongs to the store; name another file")
    check_name(path)
    for suffix in SIDE_FILES:
        side = Path(f"{path}{suffix}")
        if os.path.lexists(side):
            raise StoreAccessError(
                f"{path} is in use, or was not closed ({side.name} lies beside it); name another "
                "file"
            )
