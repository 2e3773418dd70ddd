"""What a forked child does with the connections it inherits.

A connection must not be carried across fork (https://sqlite.org/howtocorrupt.html, section 2.6):
the child's copies of open stores refuse to work. SQLite's memory of the file's locks is carried
across, too, and is wrong in the child: with it, a new connection there takes no real lock, and
loses what it writes when the parent closes. So before a child opens the file anew, it closes what
it inherited.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kvstore.errors import StoreAccessError
from kvstore.sqlite import driver

__all__ = ["inherit", "release_inherited"]


Held = tuple[Path, Iterable[driver.Connection]]

_inherited: list[Held | None] = []
_kept: list[Any] = []  # what backends had in the parent, so that nothing finalises it here


def inherit(held: Held | None, keep: Any) -> None:
    """Take note, in a forked child, of what the parent has open.

    Args:
        held: a file and the connections to it; `None`: one was at work in another thread.
        keep: whatever must not be finalised here.
    """
    _inherited.append(held)
    _kept.append(keep)


def release_inherited(file: Path) -> None:
    """Close the connections to a file that this process inherited by fork.

    Raises:
        StoreAccessError: a connection was at work in another thread just then, and cannot be
            closed.
    """
    for at, held in enumerate(_inherited):
        if held is None:
            raise StoreAccessError(
                f"a store was at work in another thread when this process was forked, and {file} "
                "cannot be opened here without the risk of losing data: start processes by 'spawn'"
            )
        if held[0] == file:
            for connection in held[1]:
                connection.close()
            _kept.append(held)
            _inherited[at] = file, ()
