"""What a store tells of its own work: metrics, an observer, OpenTelemetry, the log."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import ConflictError, InvalidArgumentError, LeaseLostError, Store
from kvstore.observing import OBSERVED
from kvstore.report import Metrics
from kvstore.testing import ManualClock

NS = ("a",)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return str(tmp_path / "a.db")
    found: str = request.getfixturevalue("postgres_url")
    return found


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float, BaseException | None]] = []

    def __call__(self, name: str, seconds: float, error: BaseException | None) -> None:
        self.calls.append((name, seconds, error))


async def test_a_store_counts_its_commits_and_groups(url: str) -> None:
    assert kvstore.open(url).metrics() == Metrics()
    async with kvstore.open(url, sweep_interval=None) as store:
        await asyncio.gather(*(store.put(NS, str(number), number) for number in range(100)))
        await store.increment(NS, "n")
        found = store.metrics()
        assert found.units == 101
        assert 0 < found.commits <= 101
        assert found.group_size == found.units / found.commits
        assert 1 <= found.largest_group <= 100
        assert (found.queued, found.queued_bytes, found.retries) == (0, 0, 0)
        writing = [asyncio.ensure_future(store.put(NS, str(n), n)) for n in range(50)]
        await asyncio.sleep(0)
        assert 0 <= store.metrics().queued <= 50
        await asyncio.gather(*writing)


async def test_a_file_counts_what_its_cache_answers(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "a.db") as store:
        await store.put(NS, "k", 1)
        for _ in range(5):
            await store.get(NS, "k")
        assert store.metrics().cache_hits >= 3


async def test_an_observer_hears_of_each_call_and_its_error(url: str) -> None:
    notes = Notes()
    async with kvstore.open(url, observer=notes, sweep_interval=None) as store:
        await store.put(NS, "k", 1)
        await store.get(NS, "k")
        with pytest.raises(ConflictError) as conflict:
            await store.put(NS, "k", 2, if_version=99)
        await store.search(NS, filter={"x": 1})
    assert [name for name, _, _ in notes.calls] == ["put", "get", "put", "search"]
    assert [error for _, _, error in notes.calls] == [None, None, conflict.value, None]
    assert all(0 <= seconds < 60 for _, seconds, _ in notes.calls)


async def test_an_observer_that_fails_harms_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with kvstore.open("memory://", observer=fail) as store:
        assert (await store.put(NS, "k", 1)).value == 1
    assert "observer" in caplog.text


async def test_what_is_no_observer_is_refused() -> None:
    async def later(*_: object) -> None:
        return None

    for wrong in (3, later):
        with pytest.raises(InvalidArgumentError, match="observer"):
            kvstore.open("memory://", observer=wrong)


def test_every_call_is_observed_and_costs_nothing_unobserved() -> None:
    of_the_library = {"open", "close", "apply", "find", "renewed", "room"}
    awaited = {name for name, it in vars(Store).items() if asyncio.iscoroutinefunction(it)}
    calls = {name for name in awaited - of_the_library if not name.startswith("_")}
    assert calls == set(OBSERVED)
    assert not set(vars(kvstore.open("memory://"))) & set(OBSERVED)


def test_sync_code_and_copies_are_observed(tmp_path: Path) -> None:
    notes = Notes()
    with kvstore.SyncStore(tmp_path / "a.db", observer=notes) as store:
        store.put(NS, "k", 1)
        assert store.get(NS, "k") is not None
        assert store.metrics().units == 1
    assert [name for name, _, _ in notes.calls] == ["put", "get"]
    copied = pickle.loads(pickle.dumps(kvstore.open(tmp_path / "a.db", observer=partial(print))))
    assert "put" in vars(copied)


def test_an_observed_store_is_not_kept_alive() -> None:
    store = kvstore.open("memory://", observer=Notes())
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


async def test_a_wait_for_a_lock_is_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from kvstore.sqlite import driver  # another library in this process has no lock against it

    caplog.set_level(logging.INFO, "kvstore")
    async with kvstore.open(tmp_path / "a.db") as store:
        await store.put(NS, "k", 1)
        other = driver.connect((tmp_path / "a.db").as_uri())
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        putting = asyncio.create_task(store.put(NS, "k", 2))
        await asyncio.sleep(0.1)
        other.execute("ROLLBACK")
        other.close()
        await putting
        assert store.metrics().lock_waits >= 1
    assert "for another writer" in caplog.text


# OpenTelemetry


async def test_spans_and_metrics_of_calls() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from kvstore.integrations.opentelemetry import OpenTelemetryObserver

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider(metric_readers=[reader])
    observer = OpenTelemetryObserver("memory", tracer_provider=tracers, meter_provider=meters)
    async with kvstore.open("memory://", observer=observer) as store:
        observer.collect(store)
        with tracers.get_tracer("test").start_as_current_span("outer"):
            await store.put(NS, "secret-key", 1)
        with pytest.raises(ConflictError):
            await store.put(NS, "k", 2, if_version=99)
        data: Any = reader.get_metrics_data()
    good, outer, bad = spans.get_finished_spans()
    assert good.name == "put memory"
    assert good.parent is not None
    assert good.parent.span_id == outer.context.span_id
    assert good.start_time is not None
    assert good.end_time is not None
    assert good.start_time <= good.end_time
    assert dict(good.attributes or {}) == {"db.system.name": "memory", "db.operation.name": "put"}
    assert (bad.attributes or {})["error.type"] == "ConflictError"
    assert not bad.status.is_ok
    assert not any("secret" in span.to_json() for span in (good, bad))
    named = {
        metric.name: metric.data.data_points[0]
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }
    assert named["kvstore.commits"].value == 1
    assert named["kvstore.queued"].value == 0
    assert named["db.client.operation.duration"].count == 1
    meters.shutdown()


async def test_an_observer_hears_of_logs_queues_and_the_past(url: str) -> None:
    if not kvstore.open(url).backend.keeps_history:
        pytest.skip("this backend keeps no history")
    notes = Notes()
    async with kvstore.open(url, observer=notes, sweep_interval=None, history=60) as store:
        await store.log(("log",)).append(1)
        queue = store.queue(("jobs",), backoff=0)
        await queue.put("a")
        job = await queue.take()
        assert job is not None
        async with job:
            raise ZeroDivisionError("of the work")
        await store.history(NS, "k")
    assert [name for name, _, _ in notes.calls] == [
        *("log.append", "queue.put", "queue.take", "queue.retry", "job", "history")
    ]
    errors = [error for _, _, error in notes.calls if error is not None]
    assert [str(error) for error in errors] == ["of the work"]


async def test_an_observer_hears_of_a_job_that_could_not_be_finished(tmp_path: Path) -> None:
    notes = Notes()
    async with kvstore.open(tmp_path / "a.db", observer=notes) as store:
        await store.queue(("jobs",)).put("a")
        job = await store.queue(("jobs",)).take()
        assert job is not None
        with pytest.raises(kvstore.StoreClosedError):
            async with job:
                await store.close()
    assert [(name, type(error)) for name, _, error in notes.calls if error is not None] == [
        ("queue.finish", kvstore.StoreClosedError),
        ("job", kvstore.StoreClosedError),
    ]


async def test_an_observer_hears_of_a_lease_that_was_lost_in_a_block(url: str) -> None:
    if not kvstore.open(url).backend.has_sequences:
        pytest.skip("this backend has no queues")
    notes, clock = Notes(), ManualClock()
    async with kvstore.open(url, observer=notes, sweep_interval=None, clock=clock) as store:
        queue = store.queue(("jobs",))
        await queue.put("a")
        job = await queue.take()
        assert job is not None
        async with job:
            clock.advance(31)
    assert [(name, type(error)) for name, _, error in notes.calls if error is not None] == [
        ("queue.finish", LeaseLostError),
        ("job", LeaseLostError),
    ]
