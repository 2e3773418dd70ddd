"""The backup of a store on a server: an export of one state of it, while others write."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kvstore.exchange import Sink
from kvstore.files import partial_file
from kvstore.patterns import EVERY_KEY
from kvstore.postgres import reading, sequence_reading
from kvstore.postgres.connection import Connection, snapshot
from kvstore.report import Meter

__all__ = ["backup"]

_SLICE = 1_000  # records in hand at once


async def backup(connection: Connection, now: int, path: Path, meter: Meter) -> None:
    """Write all items, logs and queues to a file, as one transaction sees them."""
    with partial_file(path) as partial, partial.open("wb") as file:
        sink = Sink(file)
        sink.begin()
        async with snapshot(connection):
            total = await reading.count(connection, now, "", EVERY_KEY, True)
            after: tuple[str, str] | None = None
            while True:
                records, after = await reading.records(connection, now, "", after, _SLICE)
                await asyncio.to_thread(sink.add, records)
                meter.show(sink.count, max(total, sink.count))
                if after is None:
                    break
            sequences = await sequence_reading.records(connection, "", True)
        await asyncio.to_thread(sink.add_sequences, sequences)
        await asyncio.to_thread(sink.end)
    meter.show(sink.count, sink.count)
