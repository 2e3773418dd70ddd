"""What a forked child does with the connections it inherits.

A connection must not be carried across fork (https://sqlite.org/howtocorrupt.html, section 2.6):
the child's copies of open stores refuse to work. SQLite's memory of the file's locks is carried
across, too, and is wrong in the child: with it, a new connection there takes no real lock, and
loses what it writes when the parent closes. So before a child opens the file anew, it closes what
it inherited.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from kvstore.errors import StoreAccessError
from kvstore.sqlite import driver

__all__ = ["forget", "release_inherited", "remember"]


class _Holder(Protocol):
    """A store with open connections."""

    def _held(self) -> tuple[Path, Iterable[driver.Connection]] | None:
        """Return the file and the connections; `None` if one is at work just now."""

    def _disown(self) -> None:
        """Become unopened, without a look at the connections."""


_holders: weakref.WeakSet[_Holder] = weakref.WeakSet()
_kept: list[dict[str, Any]] = []  # what stores had in the parent, so that nothing finalises it
_inherited: list[tuple[_Holder, tuple[Path, Iterable[driver.Connection]] | None]] = []


def remember(store: _Holder) -> None:
    """Take note of a store that has opened."""
    _holders.add(store)


def forget(store: _Holder) -> None:
    """Take note of a store that closes."""
    _holders.discard(store)


def release_inherited(file: Path) -> None:
    """Close the connections to a file that this process inherited by fork.

    Raises:
        StoreAccessError: a connection was at work in another thread just then, and cannot be
            closed.
    """
    for at, (store, held) in enumerate(_inherited):
        if held is None:
            raise StoreAccessError(
                f"a store was at work in another thread when this process was forked, and {file} "
                "cannot be opened here without the risk of losing data: start processes by 'spawn'"
            )
        if held[0] == file:
            for connection in held[1]:
                connection.close()
            _inherited[at] = (store, (file, ()))  # kept, so that nothing finalises it here


def _in_child() -> None:
    for store in list(_holders):
        _inherited.append((store, store._held()))
        _kept.append(vars(store).copy())
        store._disown()
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
