"""Looking a store over, as of one moment: what others write meanwhile is no damage."""

from __future__ import annotations

import asyncio

from kvstore.postgres import reading, statements
from kvstore.postgres.connection import DriverError, is_damage, snapshot
from kvstore.postgres.indexing import find_problems, find_waiting
from kvstore.postgres.pool import Link
from kvstore.report import Meter, Report

__all__ = ["check"]

_SLICE = 1_000  # rows looked at by one statement
_MOST_PROBLEMS = 100


async def check(link: Link, meter: Meter) -> Report:
    """Look everything over, in one transaction.

    Raises:
        DriverError: it is no damage that keeps something from being read.
    """
    looking = _Looking(link, meter)
    try:
        async with snapshot(link.raw):
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

    def __init__(self, link: Link, meter: Meter) -> None:
        self._link = link
        self._meter = meter
        self.problems: list[str] = []
        self.waiting: list[str] = []
        self.seen = 0

    async def at_everything(self) -> None:
        raw = self._link.raw
        state = await raw.fetchrow(statements.GET_STATE)
        if state is None:
            self.problems.append("kvstore_state: the store's own row is missing")
        await self._at_rows(None if state is None else state["version"])
        if state is None:
            return
        version, _, begin, index = state
        last = await raw.fetchval(statements.GET_LAST_CHANGE)
        if begin > version or (last or 0) > version:
            self.problems.append(f"changes: the feed is ahead of the store's version, {version}")
        if version >= reading.MOST_VERSION:
            self.problems.append(f"the store's version, {version}, is none that writing leads to")
        if index is not None:
            self.problems += await find_problems(raw)
        self.waiting = list(await find_waiting(self._link))

    async def _at_rows(self, newest: int | None) -> None:
        raw = self._link.raw
        expected = await raw.fetchval(statements.COUNT_ROWS)
        place: tuple[str, str, str] | None = None
        while len(self.problems) <= _MOST_PROBLEMS:
            self._meter.show(self.seen, max(expected, self.seen))
            rows = await reading.fetch(raw, statements.check_rows(place, _SLICE))
            for row in rows:
                problem = reading.check_row(tuple(row), newest)
                self.problems += [] if problem is None else [problem]
            self.seen += len(rows)
            if len(rows) < _SLICE:
                return
            place = tuple(rows[-1])[:3]
