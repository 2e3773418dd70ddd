"""`Alarm`: calls at their time, on one thread."""

from __future__ import annotations

import threading
import time

import pytest

from kvstore import InMemoryStore, Job, SyncStore, alarm
from kvstore.alarm import Alarm
from kvstore.testing import ManualClock


def test_calls_come_when_they_are_due_and_not_when_they_were_dropped() -> None:
    clock, over = Alarm(), threading.Event()
    told: list[str] = []
    clock.later(0.2, over.set)
    clock.later(0.1, lambda: told.append("late"))
    clock.later(0.05, lambda: told.append("early"))
    clock.drop(clock.later(0.07, lambda: told.append("dropped")))
    assert over.wait(5)
    assert told == ["early", "late"]


def test_calls_that_are_late_come_in_the_order_of_their_times() -> None:
    clock, over = Alarm(), threading.Event()
    told: list[str] = []
    is_ready = threading.Event()
    clock.later(0, lambda: is_ready.wait(20))  # which keeps the thread until all are late
    clock.later(0.003, over.set)
    clock.later(0.002, lambda: told.append("second"))
    clock.later(0.001, lambda: told.append("first"))
    time.sleep(0.01)
    is_ready.set()
    assert over.wait(5)
    assert told == ["first", "second"]


def test_a_call_that_fails_leaves_the_next_ones_be() -> None:
    clock, over = Alarm(), threading.Event()

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    clock.later(0.01, fail)
    clock.later(0.03, over.set)
    assert over.wait(5)


def _without_threads_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_others)


def test_where_no_thread_could_be_had_the_next_call_tries_again() -> None:
    clock, over = Alarm(), threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        _without_threads_called("kvstore-alarm", patch)
        with pytest.raises(RuntimeError):
            clock.later(0, over.set)
    clock.later(0, over.set)
    assert over.wait(5)


def test_a_job_is_finished_where_no_thread_could_be_had_to_prolong_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _without_threads_called("kvstore-lease", monkeypatch)
    with SyncStore(InMemoryStore()) as store:
        queue = store.queue(("jobs",), lease=1.5)
        queue.put("work")
        job = queue.take(timeout=0)
        assert job is not None
        with job:
            time.sleep(0.7)  # the lease is to be prolonged after a third of it
        assert queue.size().leased == 0


def test_the_thread_ends_when_there_is_nothing_and_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarm, "_IDLE_S", 0.01)
    clock, before = Alarm(), threading.active_count()
    for _ in range(3):
        over = threading.Event()
        clock.later(0, over.set)
        assert over.wait(5)
        until = time.monotonic() + 5
        while threading.active_count() > before:
            assert time.monotonic() < until
            time.sleep(0.005)


def test_a_job_that_ends_soon_takes_no_thread_and_a_long_one_keeps_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, prolonged = ManualClock(), threading.Semaphore(0)
    prolong = Job.prolong

    async def prolong_and_tell(job: Job) -> bool:
        is_useful = await prolong(job)
        prolonged.release()
        return is_useful

    monkeypatch.setattr(Job, "prolong", prolong_and_tell)
    with SyncStore(InMemoryStore(clock=clock)) as store:
        queue = store.queue(("jobs",), lease=0.3, attempts=1)
        for number in range(2):
            queue.put(number)
        job = queue.take(timeout=0)
        assert job is not None
        with job:
            pass
        job = queue.take(timeout=0)
        assert job is not None
        with job:
            for _ in range(3):
                clock.advance(0.2)
                while prolonged.acquire(blocking=False):
                    pass
                for _ in range(2):  # the first may have looked at the clock before
                    assert prolonged.acquire(timeout=20)
            assert "kvstore-lease" in {each.name for each in threading.enumerate()}
        assert "kvstore-lease" not in {each.name for each in threading.enumerate()}
        assert queue.size().dead == 0
