"""A connection for writing, and the transactions as they were sent over it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any

from kvstore.instants import to_micros
from kvstore.operations import Put
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
    """

    number: int
    now: int
    root: str = ""
    outcomes: list[list[Any] | Exception] = field(default_factory=list)
    is_news: bool = False
    puts: list[Put] | None = None
    job: QuickJob | None = None
    is_sent: bool = False


@dataclass(slots=True, eq=False)
class Channel(Watched):
    """A connection for writing, and what is on its way over it.

    Attributes:
        writer: its name.
        number: of its last transaction.
        put_one: the statement of that name, once it is prepared.
    """

    writer: int = field(default_factory=lambda: getrandbits(62))
    number: int = 0
    task: asyncio.Future[Any] | None = None
    put_one: Any = None

    def begin(self, clock: float, tries: list[Try], root: str) -> tuple[Try, Stamp]:
        """Number a new try, by which it is known as one of these."""
        self.number += 1
        attempt = Try(self.number, to_micros(clock), root)
        tries.append(attempt)
        return attempt, Stamp(self.writer, tries[0].number, attempt.number)
