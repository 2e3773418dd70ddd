"""Names of files: what a caller may give as a path, and what is there under it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kvstore.errors import InvalidArgumentError, StoreAccessError

__all__ = ["FilePath", "file_path", "resolved", "special"]

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
