"""`kvstore.copy`: items from any store to any other."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.bulk import copy_records
from kvstore.errors import InvalidArgumentError
from kvstore.namespace import address
from kvstore.report import Meter, Progress
from kvstore.store import Store

__all__ = ["copy"]


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
