"""A connection for writing, and the transactions as they were sent over it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any

from kvstore.instants import to_micros
from kvstore.operations import Put
from kvstore.postgres.queueing import Unit
from kvstore.postgres.quick_jobs import QuickJob
from kvstore.postgres.watchman import Watched
from kvstore.postgres.workspace import Stamp

__all__ = ["Channel", "Try"]


@dataclass(slots=True)
class Try:
    """A transaction as it was sent, perhaps in vain.

    Attributes:
        number: by which the root knows it.
        now: its instant.
        root: where to ask for it.
        outcomes: for the units, in order.
        is_news: whether somebody watches what it wrote.
        puts: of one that is `put_plain`, which learns the rest by the answer.
        job: of one that is a `quick_jobs.run`, likewise.
        is_sent: whether the server may have committed it.
        left: units that it has left out.
    """

    number: int
    now: int
    root: str = ""
    outcomes: list[list[Any] | Exception] = field(default_factory=list)
    is_news: bool = False
    puts: Sequence[Put] | None = None
    job: QuickJob | None = None
    is_sent: bool = False
    left: Sequence[Unit] = ()


@dataclass(slots=True, eq=False)
class Channel(Watched):
    """A connection for writing, and what is on its way over it.

    Attributes:
        writer: its name.
        number: of its last transaction.
        prepared: statements that its connection has prepared, by their texts.
    """

    writer: int = field(default_factory=lambda: getrandbits(62))
    number: int = 0
    task: asyncio.Future[Any] | None = None
    prepared: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self.raw is not None and not self.raw.is_closed()

    def take_over(self, other: Channel) -> None:
        """Go on over the connection of another channel, which has none then."""
        self.raw, other.raw = other.raw, None
        self.prepared, other.prepared = other.prepared, {}

    async def fetch(self, text: str, *args: Any) -> list[Any]:
        """Return the rows of a statement that is prepared once; of no pooler's connection."""
        statement = self.prepared.get(text)
        if statement is None:
            assert self.raw is not None
            statement = self.prepared[text] = await self.raw.prepare(text)
        rows: list[Any] = await statement.fetch(*args)
        return rows

    def begin(self, clock: float, tries: list[Try], root: str) -> tuple[Try, Stamp]:
        """Number a new try, by which it is known as one of these."""
        self.number += 1
        attempt = Try(self.number, to_micros(clock), root)
        tries.append(attempt)
        return attempt, Stamp(self.writer, tries[0].number, attempt.number)
