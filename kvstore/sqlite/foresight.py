"""`Foresight`: which texts a write will need vectors for, read before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import orjson

from kvstore.description import Description
from kvstore.index_plan import LatelyPut, unembedded
from kvstore.operations import Put
from kvstore.plan import Address
from kvstore.sqlite import driver
from kvstore.sqlite import index_statements as sql
from kvstore.sqlite.engine import InlineReader, NoInlineReader, Pace, Reader
from kvstore.sqlite.engine.settling import settle
from kvstore.sqlite.index_file import Setup, codes_held, described

__all__ = ["Foresight"]

_Keys = Mapping[str, Sequence[str]]
_Held = tuple[Description | None, Mapping[Address, Sequence[bytes]]]


class Foresight:
    """Tells what of some puts is not in the index yet.

    The first task that asks in a turn of the loop is answered at once; the others share a read. Of
    an item that was put lately with the same texts, nothing is read.

    Args:
        inline: reads on the loop's thread, if that takes but a moment.
        points: reads in a thread.
        pace: tells the turns.
        setup: of the store.
    """

    def __init__(
        self, inline: InlineReader | NoInlineReader, points: Reader, pace: Pace, setup: Setup
    ) -> None:
        self._inline = inline
        self._points = points
        self._pace = pace
        self._setup = setup
        self._loop = asyncio.get_running_loop()
        self._asking: list[tuple[Sequence[Put], asyncio.Future[_Held]]] = []
        self._lately = LatelyPut()
        self._alone = (-1, 0)  # turn and task of the last one that was answered at once

    async def unembedded(self, puts: Sequence[Put]) -> Sequence[str]:
        """Return the texts of puts without conditions that need a vector, as the index is now."""
        if self._lately.knows(puts, self._setup.fields):
            return ()
        turn, task = self._pace.turn, id(asyncio.current_task(self._loop))
        found = None
        if not self._asking and (self._alone[0] != turn or self._alone[1] == task):
            self._alone = turn, task
            found = self._read_inline(_keys_of(puts))
        description, held = found or await self._share(puts)
        return () if description is None else unembedded(puts, held, description, self._setup)

    def _share(self, puts: Sequence[Put]) -> asyncio.Future[_Held]:
        answer: asyncio.Future[_Held] = self._loop.create_future()
        self._asking.append((puts, answer))
        if len(self._asking) == 1:
            self._loop.call_soon(self._read)
        return answer

    def _read(self) -> None:
        """Read what all need who have asked by now, and answer each.

        In no task: a program that cancels all tasks but its own would have these wait for ever.
        """
        asking, self._asking = self._asking, []
        keys = _keys_of([op for puts, _ in asking for op in puts])
        answers = [answer for _, answer in asking]
        found: _Held | None = None
        error: Exception | None = None
        try:
            found = self._read_inline(keys)
            if found is None:
                self._points.submit(_held, keys).add_done_callback(partial(_pass_on, answers))
                return
        except Exception as exc:  # noqa: BLE001 - such as `StoreClosedError`: it is the callers'
            error = exc
        _settle_all(answers, found, error)

    def _read_inline(self, keys: _Keys) -> _Held | None:
        path, some = next(iter(keys.items()))
        return self._inline.quickly(path, some, lambda raw: _held(raw, keys))


def _pass_on(answers: Sequence[asyncio.Future[_Held]], read: asyncio.Future[_Held]) -> None:
    error = read.exception()
    _settle_all(answers, read.result() if error is None else None, error)


def _settle_all(
    answers: Sequence[asyncio.Future[_Held]], found: _Held | None, error: BaseException | None
) -> None:
    for answer in answers:
        settle(answer, found, error)


def _keys_of(puts: Sequence[Put]) -> _Keys:
    keys: dict[str, list[str]] = {}
    for op in puts:
        keys.setdefault(op.path, []).append(op.key)
    return keys


def _held(connection: driver.Connection, keys: _Keys) -> _Held:
    """Return the description of the index, and the codes that it has of some items."""
    description = None
    held: dict[Address, Sequence[bytes]] = {}
    for path, some in keys.items():
        (_, text), *rows = connection.execute(
            sql.GET_MANY_SLOTS, (orjson.dumps(some).decode(), path)
        )
        if text is None:
            return None, {}
        description = described(text)
        for key, slots in rows:
            held[path, key] = codes_held(slots)
    return description, held
