"""The backup of a store on a server: an export of one state of it, while others write."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kvstore.exchange import Sink, partial_file
from kvstore.patterns import EVERY_KEY
from kvstore.postgres import reading, sequence_reading
from kvstore.postgres.connection import snapshot
from kvstore.postgres.pool import Pooled
from kvstore.report import Meter

__all__ = ["backup"]

_SLICE = 1_000  # records in hand at once


async def backup(pooled: Pooled, path: Path, meter: Meter, now: int) -> None:
    """Write all items, logs and queues to a file, as one transaction sees them."""
    with partial_file(path) as partial, partial.open("wb") as file:
        sink = Sink(file)
        sink.begin()
        async with snapshot(pooled.raw):
            total = await reading.count(pooled, "", EVERY_KEY, True, now)
            after: tuple[str, str] | None = None
            while True:
                records, after = await reading.records(pooled, "", after, _SLICE, now)
                await asyncio.to_thread(sink.add, records)
                meter.show(sink.count, max(total, sink.count))
                if after is None:
                    break
            sequences = await sequence_reading.records(pooled, "", True)
        await asyncio.to_thread(sink.add_sequences, sequences)
        await asyncio.to_thread(sink.end)
    meter.show(sink.count, sink.count)
