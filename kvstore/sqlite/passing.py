"""Which items pass a filter, remembered from one search to the next.

To ask every value of a large namespace takes longer than to search its vectors. So what has passed
is kept with the version of the store at which that was true, and when the store has changed since,
only the items that were written later are asked. Deleted and expired items stay in the list, and
where declared filters tell, a few that do not pass: whoever uses it looks at the items themselves.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import orjson

from kvstore.sql import Sql
from kvstore.sqlite import driver, statements
from kvstore.sqlite import index_statements as sql

__all__ = ["PassingItems"]

MOST_ITEMS = 2_000_000  # that are remembered, 8 bytes each
MOST_FILTERS = 64


@dataclass(slots=True)
class _Passed:
    version: int  # of the store
    ids: array[int]


class PassingItems:
    """The items that pass the filters of the latest searches; for one thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], _Passed] = OrderedDict()
        self._asked: OrderedDict[tuple[Any, ...], None] = OrderedDict()

    def is_new(self, path: str, subtree: bool, condition: Sql) -> bool:
        """Whether this is asked for the first time."""
        key = (path, subtree, condition)
        if key in self._asked:
            return False
        self._asked[key] = None
        if len(self._asked) > MOST_FILTERS:
            self._asked.popitem(last=False)
        return True

    def knows(self, path: str, subtree: bool, condition: Sql) -> bool:
        """Whether a filter was asked for before, in just this namespace or subtree."""
        return (path, subtree, condition) in self._known

    def ids(
        self,
        connection: driver.Connection,
        path: str,
        subtree: bool,
        condition: Sql,
        among: Sql | None = None,
        *,
        is_told: bool = False,
    ) -> array[int]:
        """Return the ids of the items of a namespace or subtree that pass, some perhaps twice.

        Args:
            connection: inside a read transaction.
            path: of the namespace.
            subtree: whether all below it counts, too.
            condition: the filter, which looks at nothing but an item's value.
            among: selects the ids of all that can pass; `None`: it is not known.
            is_told: whether next to none of those fail: then they are not looked at themselves.
        """
        key = (path, subtree, condition)
        version = connection.execute(statements.GET_VERSION).fetchone()[0]
        passed = self._known.pop(key, None)
        if passed is None:
            if among is not None and is_told:
                statement = sql.list_items(among)
            else:
                statement = sql.select_passing(path, subtree, condition, among)
            (ids,) = driver.run(connection, statement).fetchone()
            passed = _Passed(version, array("q", orjson.loads(ids)))
        elif passed.version != version:
            statement = sql.select_passing_since(path, subtree, condition, passed.version)
            changed = dict(driver.run(connection, statement).fetchall())
            if changed:
                kept = [item for item in passed.ids if item not in changed]
                kept += [item for item, passes in changed.items() if passes]
                passed.ids = array("q", kept)
            passed.version = version
        self._known[key] = passed
        while len(self._known) > MOST_FILTERS or (
            sum(len(each.ids) for each in self._known.values()) > MOST_ITEMS
        ):
            self._known.popitem(last=False)
        return passed.ids
