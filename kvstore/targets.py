"""Which files may be written over or read in: never a store's own, nor a database's in use.

A file that takes the name of an open database, or of its log, parts the store from its future:
what is acknowledged from then on is lost. And a database in use must not even be opened and
closed by hand: on POSIX systems that drops its process's locks.
"""

from __future__ import annotations

import os
from pathlib import Path

from kvstore.errors import StoreAccessError
from kvstore.exchange import file_errors

__all__ = ["SIDE_FILES", "check_name", "check_source", "check_target", "same_file"]

SIDE_FILES = ("-wal", "-shm", "-journal")  # that SQLite keeps beside a database while it is used
_MAGIC = b"SQLite format 3\0"


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
