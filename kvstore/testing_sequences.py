"""`SequenceConformance`: the contract of logs and queues as a pytest class for backend authors.

As `kvstore.testing.StoreConformance`: give it a fixture `store_factory(**options)` that makes a
store which is not open yet.

    class TestMySequences(SequenceConformance):
        @pytest.fixture
        def store_factory(self, tmp_path):
            return partial(MyStore, tmp_path / "my.store")
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from kvstore.distribution import or_install
from kvstore.errors import (
    ConflictError,
    HistoryExpiredError,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidNamespaceError,
    InvalidTTLError,
    LeaseLostError,
    StoreClosedError,
    ValueEncodingError,
    ValueTooLargeError,
)
from kvstore.jobs import DEAD, QueueSize
from kvstore.log import Entry, Log
from kvstore.memory import InMemoryStore
from kvstore.queue import Job, Queue
from kvstore.sequences import DIGITS, LAST_KEY, LAST_POSITION, key_of
from kvstore.store import Store
from kvstore.testing import ManualClock, StoreFactory, StoreFixtures, refused, there
from kvstore.transaction import Transaction
from kvstore.transfer import copy
from kvstore.types import Item

_NEEDS = "kvstore.testing_sequences needs pytest and pytest-asyncio"
with or_install(_NEEDS, "test", "pytest", "pytest-asyncio"):
    import pytest

__all__ = ["LogConformance", "QueueConformance", "SequenceConformance"]

CHAT = ("chats", "s1")


def _values(entries: list[Entry]) -> list[Any]:
    return [entry.value for entry in entries]


def _positions(entries: list[Entry]) -> list[int]:
    return [entry.position for entry in entries]


async def _read(log: Log, after: int = 0) -> list[Entry]:
    return [entry async for entry in log.read(after)]


async def _take(entries: AsyncIterator[Entry], number: int) -> list[Entry]:
    async with asyncio.timeout(10):
        return [await anext(entries) for _ in range(number)]


class LogConformance(StoreFixtures):
    """What every backend promises of logs."""

    @pytest.fixture
    def log(self, store: Store) -> Log:
        """A log without entries."""
        return store.log(CHAT)

    async def test_entries_get_positions_from_one_in_order(
        self, log: Log, clock: ManualClock
    ) -> None:
        assert await log.append("a") == 1
        clock.advance(1)
        assert await log.append("b", {"c": [b"d"]}) == 3
        entries = await log.tail(10)
        assert [(entry.position, entry.value) for entry in entries] == [
            (1, "a"),
            (2, "b"),
            (3, {"c": [b"d"]}),
        ]
        assert entries[2].created_at == clock.now > entries[0].created_at
        assert await log.length() == 3

    async def test_a_log_without_entries(self, store: Store, log: Log) -> None:
        assert await log.tail(5) == []
        assert await _read(log) == []
        assert await log.length() == 0
        assert await log.pop() is None
        assert await log.trim(keep=0) == 0
        assert await store.list_namespaces() == []

    async def test_tail_gives_the_last_the_oldest_first(self, log: Log) -> None:
        await log.append(*range(30))
        assert _values(await log.tail(3)) == [27, 28, 29]
        assert len(await log.tail()) == 10
        assert await log.tail(0) == []
        assert len(await log.tail(99)) == 30

    async def test_read_begins_after_a_position_and_goes_to_the_end(self, log: Log) -> None:
        await log.append(*range(1, 1_201))
        assert _positions(await _read(log)) == list(range(1, 1_201))
        assert _positions(await _read(log, 1_198)) == [1_199, 1_200]
        assert await _read(log, 1_200) == []

    async def test_entries_are_items_of_the_namespace(self, store: Store, log: Log) -> None:
        await log.append({"who": "me"}, {"who": "you"})
        keys = await store.keys(CHAT)
        assert [int(key) for key in keys] == [1, 2]
        assert len({len(key) for key in keys}) == 1
        item = await there(store, CHAT, keys[0])
        assert item.value == {"who": "me"}
        found = await store.search(CHAT, filter={"who": "you"})
        assert [hit.key for hit in found] == [keys[1]]
        assert [item.key async for item in store.scan(CHAT)] == keys
        assert await store.list_namespaces() == [CHAT]

    async def test_logs_are_apart(self, store: Store) -> None:
        one, other, below = store.log(("a",)), store.log(("ab",)), store.log(("a", "b"))
        assert [await log.append(1) for log in (one, other, below)] == [1, 1, 1]
        assert await one.trim(keep=0) == 1
        assert [await log.length() for log in (one, other, below)] == [0, 1, 1]

    async def test_a_position_is_never_given_twice(self, store: Store, clock: ManualClock) -> None:
        log = store.log(CHAT)
        await log.append("a", "b")
        popped = await log.pop()
        assert popped is not None
        assert (popped.position, popped.value) == (2, "b")
        assert await log.append("c") == 3
        assert await log.trim(keep=0) == 2
        assert await log.append("d") == 4
        await store.delete(CHAT, (await store.keys(CHAT))[-1])
        assert await log.append("e") == 5
        assert await store.remove(CHAT, "*") == 1
        assert await log.append("f", ttl=5) == 6
        clock.advance(6)
        assert await log.length() == 0
        assert await log.append("g") == 7
        await store.sweep()
        assert await store.remove((), "*", subtree=True) == 1
        assert await log.append("h") == 8
        await store.close()
        await store.open()
        assert await store.log(CHAT).append("i") == 9
        assert _positions(await log.tail()) == [8, 9]

    async def test_every_way_to_go_is_counted(self, store: Store, clock: ManualClock) -> None:
        log = store.log(CHAT)
        await log.append(*range(10))
        keys = await store.keys(CHAT)
        await store.delete(CHAT, keys[0])
        await store.delete(CHAT, keys[0])
        await store.delete_many(CHAT, keys[:3])
        await store.remove(CHAT, keys[3])
        await log.append("short", ttl=1)
        assert await log.length() == 7
        clock.advance(2)
        assert await log.length() == 6
        await store.sweep()
        assert await log.length() == 6
        await store.transact(lambda tx: tx.delete(CHAT, keys[4]))
        assert await log.length() == 5 == await store.count(CHAT) == len(await log.tail(99))

    @pytest.mark.parametrize("keep", range(7))
    async def test_trim_keeps_as_many_as_told(self, store: Store, log: Log, keep: int) -> None:
        await log.append(*"abcdef")
        await store.delete(CHAT, (await store.keys(CHAT))[2])
        assert await log.trim(keep=keep) == max(0, 5 - keep)
        assert _values(await _read(log)) == list("abdef")[5 - min(keep, 5) :]
        assert await log.length() == min(keep, 5)
        assert await log.append("g") == 7

    async def test_trim_counts_no_entry_whose_time_is_over(
        self, log: Log, clock: ManualClock
    ) -> None:
        await log.append("a", "b")
        await log.append("short", ttl=1)
        await log.append("c", "d")
        clock.advance(2)
        assert await log.trim(keep=3) == 1
        assert _values(await log.tail()) == ["b", "c", "d"]

    async def test_pop_passes_over_what_has_expired(self, log: Log, clock: ManualClock) -> None:
        await log.append("a")
        await log.append("short", ttl=1)
        clock.advance(2)
        popped = await log.pop()
        assert popped is not None
        assert popped.value == "a"
        assert await log.pop() is None

    async def test_who_is_behind_a_trim_or_ahead_is_told(self, store: Store, log: Log) -> None:
        await log.append(*range(10))
        await log.trim(keep=4)
        assert _positions(await _read(log)) == [7, 8, 9, 10]
        assert _positions(await _read(log, 6)) == [7, 8, 9, 10]
        for after in (1, 5):
            await refused(HistoryExpiredError, _read(log, after), match="trimmed")
        await refused(InvalidArgumentError, _read(log, 11), match="ahead")
        await log.trim(keep=0)
        assert await _read(log, 10) == []
        await refused(InvalidArgumentError, _read(store.log(("none",)), 1), match="ahead")

    async def test_follow_goes_on_as_entries_come(self, store: Store, log: Log) -> None:
        await log.append("a", "b")
        entries = log.follow(after=1)
        assert _values(await _take(entries, 1)) == ["b"]
        waiting = asyncio.create_task(_take(entries, 3))
        await asyncio.sleep(0)
        await store.log(CHAT).append("c")
        await log.pop()
        await log.append("d")
        await store.transact(lambda tx: tx.log(CHAT).append("e", "f"))
        got = await waiting
        assert _values(got) in (["d", "e", "f"], ["c", "d", "e"])
        assert _positions(got) == sorted(_positions(got))

    async def test_a_follower_that_a_trim_overtakes_is_told(self, log: Log) -> None:
        await log.append(*range(5))
        entries = log.follow()
        assert len(await _take(entries, 5)) == 5
        await log.append(*range(5))
        await log.trim(keep=2)
        await refused(HistoryExpiredError, _take(entries, 1))
        again = log.follow()
        await log.trim(keep=1)
        assert _positions(await _take(again, 1)) == [10]

    async def test_follow_ends_when_the_store_closes(self, store: Store) -> None:
        waiting = asyncio.create_task(_take(store.log(CHAT).follow(), 1))
        await asyncio.sleep(0.01)
        await store.close()
        await refused(StoreClosedError, waiting)

    async def test_appends_at_once_get_a_position_each(self, log: Log) -> None:
        lasts = await asyncio.gather(*(log.append(n, n) for n in range(50)))
        assert sorted(lasts) == list(range(2, 102, 2))
        entries = await _read(log)
        assert _positions(entries) == list(range(1, 101))
        for n, last in enumerate(lasts):
            assert _values(entries[last - 2 : last]) == [n, n]

    async def test_a_transaction_appends_or_not(self, store: Store, log: Log) -> None:

        async def fn(tx: Transaction) -> str:
            item = await tx.get(("n",), "k")
            number = 0 if item is None else item.value
            assert await tx.log(CHAT).append(number, "and") is None  # type: ignore[func-returns-value]
            tx.log(CHAT).append("more")
            tx.put(("n",), "k", number + 1)
            if number == 1:
                raise RuntimeError("no")
            return "done"

        assert await store.transact(fn) == "done"
        await refused(RuntimeError, store.transact(fn))
        assert _values(await log.tail()) == [0, "and", "more"]

    async def test_two_transactions_that_append_do_not_conflict(self, store: Store) -> None:
        tries = []

        async def fn(tx: Transaction) -> None:
            tries.append(1)
            await asyncio.sleep(0)
            tx.log(CHAT).append(len(tries))

        await asyncio.gather(*(store.transact(fn, attempts=1) for _ in range(5)))
        assert len(tries) == 5 == await store.log(CHAT).length()

    async def test_a_conflict_leaves_no_hole(self, store: Store, log: Log) -> None:

        async def fn(tx: Transaction) -> None:
            await tx.get(("n",), "k")
            await store.put(("n",), "k", 1)
            tx.log(CHAT).append("never")

        await refused(ConflictError, store.transact(fn, attempts=1))
        assert await log.append("a") == 1

    async def test_entries_cannot_be_made_by_hand(self, store: Store, log: Log) -> None:
        await log.append("a", "b")
        one, two = await store.keys(CHAT)
        await store.put(CHAT, one, "A")
        assert _values(await log.tail()) == ["A", "b"]
        await store.delete(CHAT, two)
        for key in (two, two[:-1] + "9"):
            await refused(
                InvalidKeyError,
                store.put(CHAT, key, 1),
                store.put(CHAT, key, 1, ttl=5),
                store.put_many(CHAT, {"x": 1, key: 1}),
                store.increment(CHAT, key),
                store.append(CHAT, key, 1),
                store.update(CHAT, key, lambda _: 1),
                store.transact(lambda tx: tx.put(CHAT, key, 1)),  # noqa: B023 - awaited here
                match="append",
            )
        assert await log.append("c") == 3
        assert _positions(await log.tail()) == [1, 3]

    async def test_other_items_may_lie_beside(self, store: Store, log: Log) -> None:
        await store.put(CHAT, "0", "low")
        await log.append("a", "b")
        await store.put_many(CHAT, {"": 1, "title": "t", "00000000000000000x1": 1})
        assert _values(await log.tail()) == ["a", "b"] == _values(await _read(log))
        assert await log.length() == 2
        assert await log.trim(keep=1) == 1
        assert await log.trim(keep=0) == 1
        assert await store.count(CHAT) == 4

    async def test_a_key_above_all_positions_is_no_entry(self, store: Store) -> None:
        above = "9" * DIGITS, str(LAST_POSITION + 1)
        await store.put(CHAT, above[0], "beside")
        log = store.log(CHAT)
        assert await log.tail() == []
        assert await log.append("a") == 1
        await store.put(CHAT, above[1], "beside")
        assert _values(await log.tail()) == ["a"] == _values(await _read(log))
        assert await log.length() == 1
        entry = await log.pop()
        assert (entry and entry.value, await log.pop()) == ("a", None)
        assert await store.keys(CHAT) == sorted(above)
        assert (await store.check()).ok

    async def test_after_the_last_position_there_is_none(self, store: Store) -> None:
        await store.put(CHAT, LAST_KEY, "the last")
        await refused(
            InvalidNamespaceError,
            store.log(CHAT).append("a"),
            store.transact(lambda tx: tx.log(CHAT).append("a")),
            match="no positions left",
        )
        await store.put(CHAT, "a plain item still", 1)
        assert await store.delete(CHAT, LAST_KEY)
        assert await store.log(CHAT).append("a") == 1

    async def test_what_lies_under_positions_is_there_before_the_log_begins(
        self, store: Store, clock: ManualClock
    ) -> None:
        for number in range(1, 80):
            await store.put(CHAT, key_of(number), number)
        await store.put(CHAT, key_of(80), "short", ttl=1)
        clock.advance(2)
        log = store.log(CHAT)
        assert _positions(await log.tail(3)) == [77, 78, 79]
        assert _positions(await _read(log)) == [*range(1, 80)]
        assert await _read(log, after=79) == []
        assert await log.length() == 79
        assert await log.append("a") == 81

    async def test_a_default_lifetime_is_that_of_entries_too(
        self, store_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with store_factory(clock=clock, sweep_interval=None, default_ttl=10) as store:
            log = store.log(CHAT)
            await log.append("a")
            await log.append("b", ttl=20)
            clock.advance(10)
            assert _values(await log.tail()) == ["b"]

    async def test_who_watches_sees_entries(self, store: Store, log: Log) -> None:
        async with store.watch(CHAT) as changes:
            await log.append("a", "b")
            await log.pop()
            await log.trim(keep=0)
            async with asyncio.timeout(10):
                seen = [await anext(changes) for _ in range(4)]
        assert [(change.kind, int(change.key)) for change in seen] == [
            ("put", 1),
            ("put", 2),
            ("delete", 2),
            ("delete", 1),
        ]

    async def test_what_is_no_argument_is_refused(self, log: Log) -> None:
        await refused(
            InvalidArgumentError,
            log.trim(-1),
            log.trim(keep=1.5),  # type: ignore[arg-type]
            log.tail(-1),
            log.tail(True),
            _read(log, -1),
            _read(log, "1"),  # type: ignore[arg-type]
        )
        await refused(ValueEncodingError, log.append("a", {1}))
        await refused(InvalidTTLError, log.append("a", ttl=0))
        assert await log.length() == 0

    async def test_a_value_beyond_the_limit_is_refused(self, store_factory: StoreFactory) -> None:
        async with store_factory(max_value_bytes=10) as store:
            await refused(ValueTooLargeError, store.log(CHAT).append("short", "x" * 20))
            assert await store.log(CHAT).length() == 0


JOBS = ("jobs",)


class QueueConformance(StoreFixtures):
    """What every backend promises of queues."""

    @pytest.fixture
    def queue(self, store: Store) -> Queue:
        """A queue without jobs."""
        return store.queue(JOBS)

    async def test_jobs_come_in_the_order_of_put(self, store: Store, queue: Queue) -> None:
        ids = [await queue.put({"n": n}) for n in range(3)]
        assert ids == sorted(ids)
        for n in range(3):
            job = await queue.take(timeout=0)
            assert job is not None
            assert (job.id, job.value, job.attempt) == (ids[n], {"n": n}, 1)
            await job.done()
        assert await queue.take(timeout=0) is None
        assert await queue.size() == QueueSize(0, 0, 0, 0)
        assert await store.count(JOBS) == 0

    async def test_a_queue_without_jobs(self, store: Store, queue: Queue) -> None:
        assert await queue.take(timeout=0) is None
        assert await queue.size() == QueueSize(0, 0, 0, 0)
        assert await queue.dead() == []
        assert await queue.revive("1") == 0
        await store.put(CHAT, key_of(1), "no job")
        assert await store.queue(CHAT).size() == QueueSize(0, 0, 0, 0)
        assert await store.delete(CHAT, key_of(1))
        assert await store.list_namespaces() == []

    async def test_a_lease_ends_at_its_instant(self, store: Store, clock: ManualClock) -> None:
        queue = store.queue(JOBS, lease=10)
        await queue.put("a")
        first = await _taken(queue)
        clock.advance(9)
        assert await queue.take(timeout=0) is None
        await first.extend(10)
        clock.advance(9)
        assert await queue.take(timeout=0) is None
        clock.advance(1)
        assert await queue.size() == QueueSize(1, 0, 0, 0)
        await refused(
            LeaseLostError,
            first.done(),
            first.retry(),
            first.extend(5),
        )
        second = await _taken(queue)
        assert (second.id, second.attempt) == (first.id, 2)
        await refused(
            LeaseLostError,
            first.done(),
            first.retry(),
            first.extend(5),
        )
        await second.done()
        await refused(LeaseLostError, second.done())

    async def test_a_job_that_was_deleted_is_lost(self, store: Store, queue: Queue) -> None:
        for _ in range(3):
            await queue.put("a")
        one, two, three = [await _taken(queue) for _ in range(3)]
        assert await store.delete(JOBS, one.id)
        assert await store.remove(JOBS, two.id) == 1
        assert await store.remove((), "*", subtree=True) == 1
        for job in (one, two, three):
            await refused(LeaseLostError, job.done())
        assert await queue.size() == QueueSize(0, 0, 0, 0)
        assert int(await queue.put("b")) == 4

    async def test_a_delayed_job_is_ready_when_its_time_comes(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        late = await queue.put("late", delay=timedelta(seconds=5))
        now = await queue.put("now")
        assert await queue.size() == QueueSize(1, 1, 0, 0)
        assert (await _taken(queue)).id == now
        assert await queue.take(timeout=0) is None
        clock.advance(5)
        await queue.put("later")
        assert await queue.size() == QueueSize(2, 0, 1, 0)
        assert (await _taken(queue)).id == late

    async def test_a_retried_job_keeps_its_place(self, store: Store, clock: ManualClock) -> None:
        queue = store.queue(JOBS, backoff=8)
        first = await queue.put("a")
        second = await queue.put("b")
        await (await _taken(queue)).retry()
        clock.advance(6)  # the jitter is 20 %
        assert (await _taken(queue)).id == second
        assert await queue.take(timeout=0) is None
        clock.advance(4)
        again = await _taken(queue)
        assert (again.id, again.attempt) == (first, 2)
        await again.retry(delay=0)
        assert (await _taken(queue)).attempt == 3

    async def test_the_backoff_doubles_up_to_an_hour(self, store: Store) -> None:
        queue = store.queue(JOBS, backoff=2)
        for attempt, seconds in ((1, 2), (2, 4), (5, 32), (12, 3_600), (2_000, 3_600)):
            for _ in range(20):
                assert 0.8 * seconds <= queue.backoff_after(attempt) <= 1.2 * seconds
        assert store.queue(JOBS, backoff=0).backoff_after(3) == 0

    async def test_after_its_attempts_a_job_is_dead_with_the_last_error(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue = store.queue(JOBS, attempts=3, backoff=0)
        id = await queue.put("a")
        for attempt in (1, 2, 3):
            async with await _taken(queue) as job:
                assert job.attempt == attempt
                raise RuntimeError(f"no {attempt}")
        assert "no 3" in caplog.text
        assert await queue.take(timeout=0) is None
        assert await queue.size() == QueueSize(0, 0, 0, 1)
        (dead,) = await queue.dead()
        assert (dead.id, dead.value, dead.attempt) == (id, "a", 3)
        assert dead.error == "RuntimeError: no 3"
        await refused(LeaseLostError, dead.done())
        assert await queue.revive(id, id, "nothing") == 1
        assert await queue.dead() == []
        assert (await _taken(queue)).attempt == 1

    async def test_a_last_lease_that_ran_out_is_dead_from_that_instant(
        self, store: Store, clock: ManualClock
    ) -> None:
        queue = store.queue(JOBS, lease=10, attempts=1)
        id = await queue.put("a", unique="n")
        await _taken(queue)
        clock.advance(10)
        assert await queue.size() == QueueSize(0, 0, 0, 1)
        assert [(job.id, job.error) for job in await queue.dead()] == [(id, "lease ran out")]
        assert await queue.put("b", unique="n") != id
        assert await queue.size() == QueueSize(1, 0, 0, 1)
        clock.advance(365 * 86_400)
        await store.sweep()
        assert len(await queue.dead()) == 1

    async def test_a_name_is_taken_while_its_job_waits_or_runs(
        self, store: Store, clock: ManualClock
    ) -> None:
        queue = store.queue(JOBS, attempts=1)
        first = await queue.put("a", unique="n", delay=5)
        assert await queue.put("b", unique="n") == first
        assert await store.queue(("others",)).put("c", unique="n") is not None
        clock.advance(5)
        job = await _taken(queue)
        assert job.value == "a"
        assert await queue.put("d", unique="n") == first
        await job.retry()
        second = await queue.put("e", unique="n")
        assert second != first
        assert await queue.revive(first) == 0
        await (await _taken(queue)).done()
        assert await queue.revive(first) == 1
        assert await queue.put("f", unique="n") == first

    async def test_names_within_one_transaction(self, store: Store, queue: Queue) -> None:

        def fn(tx: Transaction) -> None:
            for value in "ab":
                tx.queue(JOBS).put(value, unique="n")
            tx.queue(JOBS).put("c")

        await store.transact(fn)
        assert [job.value for job in [await _taken(queue), await _taken(queue)]] == ["a", "c"]
        assert await queue.take(timeout=0) is None

    async def test_left_in_peace_a_job_is_done(self, queue: Queue) -> None:
        await queue.put("a")
        async with await _taken(queue) as job:
            assert job.value == "a"
        assert await queue.size() == QueueSize(0, 0, 0, 0)

    async def test_what_cancels_a_block_does_not_count(self, store: Store) -> None:
        queue = store.queue(JOBS, attempts=1)
        await queue.put("a")

        async def work(raised: type[BaseException]) -> None:
            async with await _taken(queue) as job:
                assert job.attempt == 1
                raise raised

        for raised in (asyncio.CancelledError, KeyboardInterrupt):
            await refused(raised, work(raised))
        assert await queue.size() == QueueSize(1, 0, 0, 0)

    async def test_a_lease_lost_within_a_block_is_told_and_not_raised(
        self, store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue = store.queue(JOBS, lease=30)
        await queue.put("a")
        async with await _taken(queue):
            clock.advance(31)
        assert "too late" in caplog.text
        assert await queue.size() == QueueSize(1, 0, 0, 0)
        async with await _taken(queue) as job:
            await job.retry(delay=5)
        assert await queue.size() == QueueSize(0, 1, 0, 0)

    async def test_within_a_block_the_lease_is_prolonged(
        self, store: Store, clock: ManualClock
    ) -> None:
        queue = store.queue(JOBS, lease=0.25)
        await queue.put("a")
        async with await _taken(queue) as job:
            for _ in range(6):
                clock.advance(0.125)
                assert await job.prolong()
                assert await queue.take(timeout=0) is None
        assert await queue.size() == QueueSize(0, 0, 0, 0)

    async def test_a_taker_that_waits_is_woken(self, store: Store, queue: Queue) -> None:
        waiting = asyncio.create_task(queue.take(timeout=10))
        await asyncio.sleep(0)
        await store.queue(JOBS).put("a")
        job = await waiting
        assert job is not None
        assert job.value == "a"

    async def test_a_taker_waits_so_long_and_no_longer(self, queue: Queue) -> None:
        first = asyncio.create_task(queue.take(timeout=0.05))
        others = [asyncio.create_task(queue.take(timeout=0.01)) for _ in range(3)]
        assert [await task for task in (first, *others)] == [None] * 4

    async def test_takers_are_served_in_the_order_in_which_they_came(self, queue: Queue) -> None:
        served: list[int] = []

        async def take(number: int) -> None:
            async with await _taken(queue, timeout=10):
                served.append(number)

        tasks = []
        for number in range(8):
            tasks.append(asyncio.create_task(take(number)))
            await asyncio.sleep(0)
        for number in range(8):
            await queue.put(number)
        await asyncio.gather(*tasks)
        assert served == list(range(8))

    async def test_a_cancelled_take_leaves_its_job_ready(self, store: Store) -> None:
        queue = store.queue(JOBS, attempts=1)
        await queue.put("a")
        for turns in range(12):
            task = asyncio.create_task(queue.take())
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                with suppress(asyncio.CancelledError):
                    job = await task
                    assert job is not None
                    await queue.give_back(job.token)
            else:
                job = task.result()
                assert job is not None
                await queue.give_back(job.token)
        assert await queue.size() == QueueSize(1, 0, 0, 0)
        assert (await _taken(queue)).attempt == 1

    async def test_each_job_is_taken_by_one(self, store: Store, queue: Queue) -> None:
        await store.transact(lambda tx: [tx.queue(JOBS).put(n) for n in range(40)])
        done: list[int] = []

        async def work() -> None:
            while (job := await queue.take(timeout=0)) is not None:
                async with job:
                    done.append(job.value)

        await asyncio.gather(*(work() for _ in range(5)))
        assert sorted(done) == list(range(40))

    async def test_a_job_is_finished_once_in_a_transaction_whatever_else_ends_it(
        self, store: Store, queue: Queue
    ) -> None:
        for value in "abc":
            await queue.put(value)

        async def end(tx: Transaction) -> None:
            for job in jobs[:2]:
                await tx.get(JOBS, job.id)
                tx.done(job)
                tx.done(job)
                tx.delete(JOBS, job.id)

        def end_by_another(tx: Transaction) -> None:
            tx.delete(JOBS, jobs[2].id)
            tx.done(Job(queue, Item(JOBS, jobs[2].id, "c"), 1, jobs[2].token + 1))

        jobs = [await _taken(queue) for _ in range(3)]
        await store.transact(end)
        assert await queue.size() == QueueSize(0, 0, 1, 0)
        await refused(LeaseLostError, store.transact(end_by_another))
        await jobs[2].done()
        assert await queue.size() == QueueSize(0, 0, 0, 0)
        assert (await store.check()).ok

    async def test_effects_and_the_end_of_a_job_are_one_change(
        self, store: Store, clock: ManualClock
    ) -> None:
        queue = store.queue(JOBS, lease=10)
        await queue.put("a")
        async with await _taken(queue) as job:

            def fn(tx: Transaction) -> None:
                tx.put(("results",), job.id, job.value)
                tx.done(job)

            await store.transact(fn)
        assert await queue.size() == QueueSize(0, 0, 0, 0)
        await queue.put("b")
        late = await _taken(queue)
        clock.advance(10)

        def again(tx: Transaction) -> None:
            tx.put(("results",), late.id, late.value)
            tx.done(late)

        await refused(LeaseLostError, store.transact(again))
        assert await store.count(("results",)) == 1

    async def test_what_no_job_can_be_called_is_none(self, store: Store, queue: Queue) -> None:
        await queue.put("a")
        above = "9" * DIGITS
        assert await queue.revive(above, str(LAST_POSITION + 1)) == 0
        assert await store.get(JOBS, above) is None
        assert not await store.delete(JOBS, above)
        assert await queue.dead(limit=2**70) == []
        assert (await queue.size()).ready == 1

    async def test_reads_see_jobs_and_writes_are_refused(self, store: Store, queue: Queue) -> None:
        id = await queue.put({"a": 1})
        item = await there(store, JOBS, id)
        assert item.value == {"a": 1}
        assert item.expires_at is None
        assert [hit.key for hit in await store.search(JOBS, filter={"a": 1})] == [id]
        for key in (id, "other"):
            await refused(
                InvalidKeyError,
                store.put(JOBS, key, 1),
                store.put(JOBS, key, 1, ttl=5),
                store.put(JOBS, key, 1, if_version=0),
                store.put_many(JOBS, {key: 1}),
                store.update(JOBS, key, lambda value: value),
                store.increment(JOBS, key),
                store.append(JOBS, key, 1),
                store.pop(JOBS, key),
                store.expire(JOBS, key, 5),
                store.transact(lambda tx: tx.put(JOBS, key, 1)),  # noqa: B023 - awaited here
                match="queue",
            )
        assert (await _taken(queue)).value == {"a": 1}

    async def test_taking_prolonging_and_retrying_are_no_changes(self, store: Store) -> None:
        queue = store.queue(JOBS)
        id = await queue.put("a")
        before = await store.get(JOBS, id)
        async with store.watch() as changes:
            job = await _taken(queue)
            await job.extend(60)
            await job.retry(delay=0)
            assert await store.get(JOBS, id) == before
            await (await _taken(queue)).done()
            async with asyncio.timeout(10):
                change = await anext(changes)
        assert before is not None
        assert (change.kind, change.key, change.version) == ("delete", id, before.version + 1)

    async def test_jobs_never_expire(self, store_factory: StoreFactory, clock: ManualClock) -> None:
        options = {"default_ttl": 5, "refresh_ttl": True}
        async with store_factory(clock=clock, sweep_interval=None, **options) as store:
            queue = store.queue(JOBS)
            await queue.put("a", delay=60)
            clock.advance(60)
            await store.sweep()
            assert (await _taken(queue)).value == "a"

    async def test_a_clock_that_is_set_back_makes_no_lease_longer(
        self, store: Store, clock: ManualClock
    ) -> None:
        queue = store.queue(JOBS, lease=10)
        await queue.put("a")
        await queue.put("b", delay=20)
        await _taken(queue)
        clock.advance(-3_600)
        assert await queue.take(timeout=0) is None
        clock.advance(10)
        assert (await _taken(queue)).value == "a"
        clock.advance(10)
        assert {(await _taken(queue)).value for _ in range(2)} == {"a", "b"}

    async def test_a_clock_that_is_set_back_makes_no_prolonged_lease_longer(
        self, store: Store, clock: ManualClock
    ) -> None:
        queue = store.queue(JOBS, lease=10)
        await queue.put("a")
        job = await _taken(queue)
        for _ in range(100):
            clock.advance(9)
            await job.extend(10)
        clock.advance(-600)
        assert await queue.take(timeout=0) is None
        clock.advance(10)
        assert (await _taken(queue)).attempt == 2

    @pytest.mark.parametrize("back", [0.125, 1, 4, 9])
    async def test_a_clock_that_is_set_back_a_little_makes_no_lease_twice_as_long(
        self, store: Store, clock: ManualClock, back: float
    ) -> None:
        queue = store.queue(JOBS, lease=10)
        await queue.put("a")
        await _taken(queue)
        clock.advance(-back)
        await queue.put("b", delay=10)
        job = await store.queue(JOBS, lease=1_000).take(timeout=0)
        assert job is None
        clock.advance(min(12.5, 10 + back))
        assert sorted([(await _taken(queue)).value for _ in range(2)]) == ["a", "b"]

    @pytest.mark.parametrize("ahead", [1, 5, 3_600])
    async def test_a_clock_that_jumps_ahead_ends_leases_and_loses_none(
        self, store: Store, clock: ManualClock, ahead: float
    ) -> None:
        queue = store.queue(JOBS, lease=5)
        await queue.put("a")
        job = await _taken(queue)
        clock.advance(ahead)
        if ahead < 5:
            await job.done()
            return
        await refused(LeaseLostError, job.done())
        again = await _taken(queue)
        assert (again.value, again.attempt) == ("a", 2)
        clock.advance(-ahead)
        await again.done()
        assert await queue.size() == QueueSize(0, 0, 0, 0)

    @pytest.mark.parametrize("waiting", [{}, {"delay": 3_600}, {"unique": "n"}])
    async def test_new_jobs_are_taken_in_order_past_all_others(
        self, store: Store, clock: ManualClock, waiting: dict[str, Any]
    ) -> None:
        queue = store.queue(JOBS, attempts=1)
        for number in range(20):
            await queue.put(f"dead {number}")
        for _ in range(20):
            await (await _taken(queue)).retry(error="no")
        held = []
        for number in range(20):
            await queue.put(f"held {number}")
            held.append(await _taken(queue))
        await queue.put("first", **waiting)
        for number in range(20):
            await queue.put(f"put off {number}", delay=3_600)
        await queue.put("second")
        clock.advance(1)
        values = [job.value for job in [await queue.take(timeout=0) for _ in range(3)] if job]
        assert values == (["second"] if "delay" in waiting else ["first", "second"])
        size = await queue.size()
        assert (size.dead, size.leased, size.ready) == (20, 20 + len(values), 0)
        clock.advance(0.001)
        await held[7].retry(delay=0)  # the only attempt
        assert (await queue.size()).dead == 21

    async def test_a_namespace_is_a_queue_or_a_log_or_neither(self, store: Store) -> None:
        await store.put(("items",), "k", 1)
        await refused(InvalidNamespaceError, store.queue(("items",)).put("a"), match="no jobs")
        await store.log(("log",)).append("a")
        await store.queue(JOBS).put("a")
        await refused(
            InvalidNamespaceError,
            store.queue(("log",)).put("a"),
            store.queue(("log",)).take(timeout=0),
            store.queue(("log",)).size(),
            store.queue(("log",)).dead(),
            store.queue(("log",)).revive("1"),
            store.log(JOBS).length(),
            store.log(JOBS).append("a"),
            store.log(JOBS).pop(),
            store.log(JOBS).trim(keep=0),
            store.log(JOBS).tail(),
        )
        assert await store.count(JOBS) == 1

    async def test_a_queue_outlasts_its_store(self, store: Store, queue: Queue) -> None:
        id = await queue.put("a", unique="n")
        await queue.put("b", delay=60)
        await _taken(queue)
        await store.close()
        await store.open()
        queue = store.queue(JOBS)
        assert await queue.size() == QueueSize(0, 1, 1, 0)
        assert await queue.put("c", unique="n") == id

    async def test_what_is_no_argument_of_a_queue_is_refused(self, store: Store) -> None:
        queue = store.queue(JOBS)
        for options in (
            {"lease": 0},
            {"lease": -1},
            {"lease": float("inf")},
            {"lease": 1e9},
            {"attempts": 0},
            {"backoff": -1},
            {"backoff": 10**400},
        ):
            with pytest.raises(InvalidArgumentError):
                store.queue(JOBS, **options)
        assert store.queue(JOBS, lease=86_400).lease == 86_400
        await refused(
            InvalidArgumentError,
            queue.put("a", delay=-1),
            queue.put("a", delay=float("nan")),
            queue.put("a", unique=5),  # type: ignore[arg-type]
            queue.take(timeout=-1),
            queue.take(timeout=10**400),
            queue.dead(limit=-1),
        )
        assert await queue.size() == QueueSize(0, 0, 0, 0)


async def _taken(queue: Queue, timeout: float = 0) -> Job:  # noqa: ASYNC109
    job = await queue.take(timeout=timeout)
    assert job is not None
    return job


class SequenceConformance(LogConformance, QueueConformance):
    """What every backend promises of logs and queues."""

    async def test_an_export_keeps_positions_and_what_is_known_of_jobs(
        self, store: Store, clock: ManualClock
    ) -> None:
        log, queue = store.log(CHAT), store.queue(JOBS, attempts=2, backoff=0)
        await log.append(*"abcde")
        await log.pop()
        await log.trim(keep=2)
        await store.log(("emptied",)).append("x", "y")
        await store.log(("emptied",)).trim(keep=0)
        await queue.put("dead")
        for _ in range(2):
            await (await _taken(queue)).retry(error="why")
        await queue.put("leased", unique="n")
        held = await _taken(queue)
        await queue.put("delayed", delay=60)
        await queue.put("ready")
        file = io.BytesIO()
        await store.export_items(file)
        file.seek(0)
        async with InMemoryStore(clock=clock, sweep_interval=None) as other:
            await other.import_items(file)
            await _is_the_same(other, held.id)
            async with InMemoryStore(clock=clock, sweep_interval=None) as third:
                await copy(other, third)
                assert await third.log(("emptied",)).append("z") == 3
        await store.remove((), "*", subtree=True)
        file.seek(0)
        await store.import_items(file)
        await _is_the_same(store, held.id)

    async def test_an_import_that_meets_another_entry_is_a_conflict(self, store: Store) -> None:
        await store.log(CHAT).append("a", "b")
        file = io.BytesIO()
        await store.export_items(file)
        async with InMemoryStore() as other:
            log = other.log(CHAT)
            await log.append("a", "another")
            before = await log.tail()
            file.seek(0)
            await refused(ConflictError, other.import_items(file), match="another entry")
            assert await log.tail() == before
            file.seek(0)
            assert await other.import_items(file, on_conflict="skip") == 0
            assert await log.append("c") == 3
        file.seek(0)
        assert await store.import_items(file) == 2
        assert await store.log(CHAT).append("c") == 3

    async def test_an_import_that_fails_leaves_logs_and_queues_as_they_were(
        self, store: Store
    ) -> None:
        await store.log(CHAT).append("a")
        await store.queue(JOBS).put("a")
        plain = ("plain",)
        await store.put(plain, key_of(1), "x")
        ahead = {"kvstore": "log", "namespace": CHAT, "last": 100}
        begun = {"kvstore": "log", "namespace": plain, "last": 5}
        other_kind = {"kvstore": "log", "namespace": JOBS, "last": 5}
        there = {"namespace": plain, "key": key_of(1), "value": "y"}
        for lines in ((ahead, begun, there), (ahead, begun, other_kind)):
            file = io.StringIO("\n".join(map(json.dumps, lines)))
            await refused(ConflictError, store.import_items(file, on_conflict="error"))
        await store.put(plain, key_of(9), "y")
        assert await store.log(CHAT).append("b") == 2
        assert int(await store.queue(JOBS).put("b")) == 2
        assert (await store.check()).ok

    async def test_nothing_but_jobs_comes_into_a_queue_by_an_import(self, store: Store) -> None:
        queue, plain = store.queue(JOBS), ("plain",)
        await queue.put("a")
        await store.put(plain, "note", "x")
        await store.log(CHAT).append("a")
        foreign: dict[str, Any] = {"namespace": JOBS, "key": "x", "value": "y"}
        begun = {"kvstore": "queue", "namespace": plain, "last": 5}
        for lines, named in (
            ([{"namespace": plain, "key": "other", "value": 1}, foreign], "'x' is no job"),
            ([begun, {"namespace": plain, "key": key_of(5), "value": 1}], "plain"),
            ([{**begun, "namespace": ["new"]}, {**foreign, "namespace": ["new"]}], "'x' is no job"),
        ):
            for on_conflict in ("replace", "skip", "error"):
                file = io.StringIO("\n".join(map(json.dumps, lines)))
                with pytest.raises(ConflictError, match=named):
                    await store.import_items(file, on_conflict=on_conflict)
        assert await store.list_namespaces() == [CHAT, JOBS, plain]
        assert await store.keys(plain) == ["note"]
        assert await store.keys(JOBS) == [key_of(1)]
        among = {"namespace": CHAT, "key": "note", "value": "a log may have those beside it"}
        assert await store.import_items(io.StringIO(json.dumps(among))) == 1
        assert (await store.check()).ok

    async def test_an_import_leaves_jobs_that_are_there_as_they_are(self, store: Store) -> None:
        queue = store.queue(JOBS)
        await queue.put("a")
        await queue.put("b")
        held = await _taken(queue)
        dead = [{"position": position, "state": DEAD, "error": "why"} for position in (1, 2, 3)]
        lines: list[dict[str, Any]] = [
            *({"namespace": JOBS, "key": key_of(n), "value": v} for n, v in ((1, "a"), (3, "c"))),
            {"kvstore": "queue", "namespace": JOBS, "last": 3, "jobs": dead},
        ]
        await store.import_items(io.StringIO("\n".join(map(json.dumps, lines))))
        assert await queue.size() == QueueSize(1, 0, 1, 1)
        await held.done()
        assert (await _taken(queue)).value == "b"
        assert [job.value for job in await queue.dead()] == ["c"]
        assert (await store.check()).ok

    async def test_a_rewind_leaves_logs_and_queues_that_it_does_not_name(
        self, history_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with history_factory() as store:
            log, queue = store.log(CHAT), store.queue(JOBS)
            await store.put(("chats",), "title", "old")
            await log.append("a")
            await queue.put("a")
            then = clock.now
            clock.advance(1)
            await store.put(("chats",), "title", "new")
            await log.append("b")
            await (await _taken(queue)).done()
            await queue.put("b")
            held = await _taken(queue)
            assert await store.rewind(then, namespace=CHAT[:1]) == 1
            assert await store.rewind(then, namespace=(), subtree=True) == 0
            assert _values(await log.tail()) == ["a", "b"]
            await held.done()

    async def test_a_rewind_leaves_what_was_there_before_a_queue(
        self, history_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with history_factory() as store:
            await store.put(JOBS, "note", "old")
            then = clock.now
            clock.advance(1)
            await store.delete(JOBS, "note")
            queue = store.queue(JOBS)
            await queue.put("a")
            assert await store.rewind(then, namespace=JOBS) == 1
            assert await store.keys(JOBS) == []
            assert (await store.check()).ok
            await queue.put("b")
            assert (await _taken(queue)).value == "b"

    async def test_a_rewind_of_a_log_leaves_its_positions_used(
        self, history_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with history_factory() as store:
            log = store.log(CHAT)
            await log.append(*"abc")
            then = clock.now
            clock.advance(1)
            await log.append("d")
            await log.trim(keep=2)
            assert await store.rewind(then, namespace=CHAT) == 3
            assert [(entry.position, entry.value) for entry in await log.tail()] == [
                (1, "a"),
                (2, "b"),
                (3, "c"),
            ]
            assert await log.length() == 3
            assert await log.append("e") == 5
            past = store.at(then)
            assert await past.keys(CHAT) == [item.key async for item in past.scan(CHAT)]
            assert [item.value async for item in past.scan(CHAT)] == ["a", "b", "c"]

    async def test_a_rewind_of_a_queue_makes_jobs_ready_and_ends_leases(
        self, history_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with history_factory() as store:
            queue = store.queue(JOBS, attempts=2, backoff=0)
            for value in "abc":
                await queue.put(value, unique=value)
            await queue.put("later", delay=60)
            then = clock.now
            clock.advance(1)
            await (await _taken(queue)).done()
            held = await _taken(queue)
            await queue.put("new")
            assert await store.rewind(then, namespace=JOBS) == 2
            assert await queue.size() == QueueSize(3, 1, 0, 0)
            await refused(LeaseLostError, held.done())
            jobs = [await _taken(queue) for _ in range(3)]
            assert [(job.value, job.attempt) for job in jobs] == [("a", 1), ("b", 1), ("c", 1)]
            for job in jobs:
                await job.done()
            assert await queue.take(timeout=0) is None
            assert int(await queue.put("next")) == 6
            held = await _taken(queue)
            assert await store.rewind(clock.now, namespace=JOBS) == 0  # all items are as they were
            await refused(LeaseLostError, held.done())
            assert await queue.size() == QueueSize(1, 1, 0, 0)
            assert (await store.check()).ok

    async def test_a_job_that_comes_back_is_ready_whatever_it_was_when_it_was_imported(
        self, history_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with history_factory() as store:
            queue = store.queue(JOBS, attempts=1, backoff=0)
            await queue.put("a")
            await (await _taken(queue)).retry(error="why")
            file = io.BytesIO()
            await store.export_items(file)
            await store.remove(JOBS, "*")
            file.seek(0)
            await store.import_items(file)
            then = clock.now
            clock.advance(1)
            (dead,) = await queue.dead()
            assert await queue.revive(dead.id) == 1
            await (await _taken(queue)).done()
            assert await store.rewind(then, namespace=JOBS) == 1
            assert await queue.size() == QueueSize(1, 0, 0, 0)


async def _is_the_same(store: Store, held: str) -> None:
    log, queue = store.log(CHAT), store.queue(JOBS)
    assert _positions(await log.tail()) == [3, 4]
    await refused(HistoryExpiredError, _read(log, 1))
    assert await log.append("f") == 6
    assert await queue.size() == QueueSize(2, 1, 0, 1)
    assert [(job.value, job.error) for job in await queue.dead()] == [("dead", "why")]
    assert await queue.put("again", unique="n") == held
    assert int(await queue.put("new")) == 5
    assert [(await _taken(queue)).value for _ in range(3)] == ["leased", "ready", "new"]
