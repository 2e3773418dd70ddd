"""Whole stores: `kvstore.copy` from one to another, and `kvstore.restore_backup` in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kvstore.bulk import copy_records
from kvstore.errors import InvalidArgumentError
from kvstore.files import FilePath, file_path
from kvstore.namespace import address
from kvstore.opening import open_store
from kvstore.report import Meter, Progress
from kvstore.sqlite import SQLiteStore
from kvstore.sqlite.backup import restore
from kvstore.store import Store

__all__ = ["copy", "restore_backup"]


async def copy(
    source: Store,
    target: Store,
    *,
    namespace: Sequence[str] = (),
    progress: Progress | None = None,
) -> int:
    """Copy a namespace and all below it into another store; return the number of items.

    Items take the place of what is under their keys, get new versions in the order of the old
    ones, and keep their times. The copy is all or nothing: it is staged in a temporary file and
    written in one transaction, as by `Store.import_items`. The target's other items stay.

    Args:
        source: an open store.
        target: an open store, of any kind.
        namespace: what to copy; `()` is everything.
        progress: called with the items read and `None`, then with those written and the total.

    Raises:
        InvalidArgumentError: one of them is no `Store`, or the two are one store, or on one file.
        ValueTooLargeError: a value is longer than the target's `max_value_bytes`.
        ReadOnlyError: the target is read-only.
    """
    for store in (source, target):
        if not isinstance(store, Store):
            raise InvalidArgumentError(
                f"copy takes two open stores, not {type(store).__name__}: "
                "async with kvstore.open(...) as store"
            )
    _, path = address(namespace)
    with Meter(progress) as meter:
        return await copy_records(source, target, path, meter)


async def restore_backup(
    backup: FilePath,
    target: FilePath,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Put a backup in the place of a store that nobody has open.

    A copy of the backup is made, looked over and then given the store's name, in one step; the log
    and the index of the old store go. The restored store goes on above the versions of both, so
    that none is given twice; a `watch` that resumes from an older one gets `WatchExpiredError`.

    Args:
        backup: what `Store.backup` of a `SQLiteStore` has written, or the file of such a store.
        target: the path, or `sqlite:///` URL, of the store.
        overwrite: whether a store may be there, which is then replaced.
        progress: called with the pages copied and their total.

    Raises:
        StoreAccessError: the store is there, and not to be replaced; or a file cannot be used.
        StoreBusyError: somebody has the store open, in this process or in another.
        StoreCorruptError: the backup is damaged, or no database.
        SchemaError: it is another program's, or a newer version's.
    """
    store = open_store(target)
    if not isinstance(store, SQLiteStore) or str(store.path) == ":memory:":
        raise InvalidArgumentError(
            "a backup is restored to a file; an export goes into any store by import_items"
        )
    with Meter(progress) as meter:
        await asyncio.to_thread(
            restore, file_path(backup), store.path, overwrite=overwrite, meter=meter
        )
