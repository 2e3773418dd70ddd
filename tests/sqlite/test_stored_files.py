"""A file of an earlier schema opens, and keeps everything; so does one of today's."""

from __future__ import annotations

from pathlib import Path

import pytest

import kvstore
from kvstore import HistoryExpiredError, QueueSize
from kvstore.testing import ManualClock

from .stored_files import (
    ANN,
    CHAT,
    EMPTY,
    FOLDER,
    HISTORY_S,
    JOBS,
    NEWEST,
    OTHERS,
    restore,
    taken,
)

TEXTS = sorted(FOLDER.glob("schema_*.sql"))


def test_the_schema_of_today_is_stored() -> None:
    assert FOLDER / f"schema_{NEWEST}.sql" in TEXTS, "python -m tests.sqlite.stored_files makes it"


@pytest.fixture(params=TEXTS, ids=lambda text: text.stem)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    restore(request.param, tmp_path / "store.db")
    return tmp_path / "store.db"


async def test_a_stored_file_keeps_everything(path: Path) -> None:
    clock = ManualClock()
    clock.advance(10)
    options = {"clock": clock, "sweep_interval": None, "history": HISTORY_S}
    async with kvstore.open(path, **options) as store:
        assert (await store.check()).problems == ()
        items = {(item.namespace, item.key): item async for item in store.scan()}
        assert items[ANN, "name"].value == {"first": "Anna", "photo": b"\x00\xff"}
        assert items[ANN, "name"].version == 2
        assert items[(), "root"].value == [1, 2.5, None, True, "é"]
        assert (ANN, "old") not in items
        assert items[ANN, "long"].expires_at is not None
        assert (await store.stats()).version == 22

        assert [change.kind for change in await store.history(ANN, "name")] == ["put", "put"]
        assert [change.kind for change in await store.history(("users", "bob"), "gone")] == [
            "delete",
            "put",
        ]
        past = await store.at(1).get(ANN, "name")
        assert past is not None
        assert past.value == {"first": "Ann", "photo": b"\x00\xff"}

        log = store.log(CHAT)
        assert [(entry.position, entry.value) for entry in await log.tail()] == [(2, "b"), (3, "c")]
        assert await log.append("e") == 5
        assert await store.log(EMPTY).append("y") == 2
        await log.trim(keep=1)
        with pytest.raises(HistoryExpiredError):
            await anext(log.read(after=1))

        queue = store.queue(JOBS)
        assert await queue.size() == QueueSize(ready=4, delayed=1, leased=0, dead=1)
        assert [(job.value, job.error) for job in await queue.dead()] == [("dead", "why")]
        assert int(await queue.put("dropped", unique="n")) == 3
        assert int(await queue.put("new 3")) == 7
        values = [(job.value, job.attempt) for job in [await taken(queue) for _ in range(5)]]
        assert values == [("tried", 2), ("named", 1), ("new 1", 1), ("new 2", 1), ("new 3", 1)]
        assert await store.queue(OTHERS).size() == QueueSize(0, 0, 1, 0)
        clock.advance(600)
        again = await taken(store.queue(OTHERS))
        assert (again.value, again.attempt) == ("held", 2)
        clock.advance(3_000)
        assert (await taken(store.queue(("jobs",)))).value in ("tried", "delayed")
        assert (await store.check()).problems == ()


async def test_a_stored_file_can_be_read_only(path: Path) -> None:
    async with kvstore.open(path) as store:  # an earlier schema needs one who may write first
        before = [item async for item in store.scan()]
    async with kvstore.open(path, read_only=True) as store:
        assert [item async for item in store.scan()] == before
