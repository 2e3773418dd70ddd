"""Locks of open file descriptions, which no `close` of another descriptor can drop.

POSIX has locks of a process, which SQLite uses; Linux and macOS also have these (`F_OFD_SETLK`).
The two kinds respect each other, also inside one process.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable
from functools import partial

if sys.platform != "win32":
    import fcntl

__all__ = [
    "CAN_LOCK",
    "NO_SUCH_LOCKS",
    "READ_LOCK",
    "UNLOCK",
    "WRITE_LOCK",
    "Span",
    "call_for",
    "is_free",
    "pack",
    "set_lock",
]

Span = tuple[int, int]  # of bytes: the first, and how many

READ_LOCK, UNLOCK, WRITE_LOCK = (1, 2, 3) if sys.platform == "darwin" else (0, 2, 1)
NO_SUCH_LOCKS = (errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def _commands() -> tuple[int, int]:
    """Return what asks for and sets such a lock; zeros, where there are none."""
    if sys.platform == "darwin":
        return 92, 90  # bsd/sys/fcntl.h of xnu; Python does not name them
    if sys.platform == "win32" or not hasattr(fcntl, "F_OFD_SETLK"):
        return 0, 0
    return fcntl.F_OFD_GETLK, fcntl.F_OFD_SETLK


_ASK, _SET = _commands()
CAN_LOCK = _SET != 0
_LAYOUT = struct.Struct("@qqihh" if sys.platform == "darwin" else "@hhqqi0q")
_KIND_AT = 3 if sys.platform == "darwin" else 0


def pack(kind: int, span: Span) -> bytes:
    """Return a `struct flock`."""
    if sys.platform == "darwin":
        return _LAYOUT.pack(*span, 0, kind, os.SEEK_SET)
    return _LAYOUT.pack(kind, os.SEEK_SET, *span, 0)


def call_for(descriptor: int, lock: bytes) -> Callable[[], object]:
    """Return the call of the system that takes, changes or releases a lock.

    Args:
        descriptor: of the file.
        lock: as `pack` returns it.

    It raises `BlockingIOError` or `PermissionError` where another's lock is in the way.
    """
    return partial(fcntl.fcntl, descriptor, _SET, lock)


def set_lock(descriptor: int, lock: bytes) -> bool:
    """Take, change or release a lock; whether nobody else's was in the way. See `call_for`."""
    try:
        call_for(descriptor, lock)()
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_free(descriptor: int, span: Span) -> bool:
    """Whether nobody else, of this process or another, has a lock there."""
    found = fcntl.fcntl(descriptor, _ASK, pack(WRITE_LOCK, span))
    return bool(_LAYOUT.unpack(found)[_KIND_AT] == UNLOCK)
