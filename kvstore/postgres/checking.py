"""Looking a store over, as of one moment: what others write meanwhile is no damage."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from kvstore.namespace import decode_namespace, show
from kvstore.postgres import past_statements, reading, sequence_reading, statements
from kvstore.postgres.connection import Connection, DriverError, is_damage, snapshot
from kvstore.postgres.index_checks import find_problems, find_waiting
from kvstore.report import Meter, Report

__all__ = ["check"]

_SLICE = 1_000  # rows looked at by one statement
_MOST_PROBLEMS = 100


async def check(connection: Connection, meter: Meter) -> Report:
    """Look everything over, in one transaction.

    Raises:
        DriverError: it is no damage that keeps something from being read.
    """
    looking = _Looking(connection, meter)
    try:
        async with snapshot(connection):
            await looking.at_everything()
    except DriverError as exc:
        if not is_damage(exc):
            raise
        looking.problems.append(
            f"the server cannot read on ({type(exc).__name__}); restore it from a backup"
        )
    problems = looking.problems
    meter.show(looking.seen, looking.seen)
    await asyncio.sleep(0)  # for the last word of progress
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = ["and more of them"]
    return Report(looking.seen, tuple(problems), tuple(looking.waiting))


class _Looking:
    """A look at a store, and what it has found so far."""

    def __init__(self, connection: Connection, meter: Meter) -> None:
        self._connection = connection
        self._meter = meter
        self.problems: list[str] = []
        self.waiting: list[str] = []
        self.seen = 0

    async def at_everything(self) -> None:
        raw = self._connection
        if await raw.fetchrow(statements.GET_STATE) is None:
            self.problems.append("kvstore_state: the store's own row is missing")
        newest = dict(map(tuple, await raw.fetch(statements.LIST_ROOTS)))
        await self._at_rows(newest)
        for (root,) in await raw.fetch(statements.FIND_FEEDS_AHEAD):
            self.problems.append(f"changes: the feed of {show(decode_namespace(root))} is ahead")
        for root, version in newest.items():
            if version >= reading.MOST_VERSION:
                where = show(decode_namespace(root))
                self.problems.append(
                    f"the version of {where}, {version}, is none that writing leads to"
                )
        for (root,) in await raw.fetch(past_statements.FIND_AHEAD):
            self.problems.append(f"the past of {show(decode_namespace(root))} is ahead of it")
        self.problems += await sequence_reading.find_problems(raw)
        self.problems += await find_problems(raw)
        self.waiting = await find_waiting(raw)

    async def _at_rows(self, newest: Mapping[str, int]) -> None:
        raw = self._connection
        expected = await raw.fetchval(statements.COUNT_ROWS)
        place: tuple[str, str, str] | None = None
        while len(self.problems) <= _MOST_PROBLEMS:
            self._meter.show(self.seen, max(expected, self.seen))
            rows = await reading.fetch(raw, statements.check_rows(place, _SLICE))
            for row in rows:
                problem = reading.check_row(tuple(row), newest.get(row[0]))
                self.problems += [] if problem is None else [problem]
            self.seen += len(rows)
            if len(rows) < _SLICE:
                return
            place = tuple(rows[-1])[:3]
