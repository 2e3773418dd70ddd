"""`kvstore.restore_backup`: a backup in a store's place."""

from __future__ import annotations

import asyncio

from kvstore.errors import InvalidArgumentError
from kvstore.files import FilePath, file_path
from kvstore.opening import open_store
from kvstore.report import Meter, Progress
from kvstore.sqlite import SQLiteStore
from kvstore.sqlite.backup import restore

__all__ = ["restore_backup"]


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
