"""Simulated schedules hold, and the simulation finds the faults that are planted for it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvstore.sqlite import driver
from tests.simulation.history import History, is_linearizable
from tests.simulation.schedules import KINDS, Schedule, ScheduleError, StoreType, empty_file, run
from tests.simulation.simulated import Faults, simulation

FEW, MANY = 60, 400  # schedules of each kind; `make simulate` runs thousands
ENOUGH = 150  # schedules in which a planted fault must show


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_file(tmp_path_factory.mktemp("template"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_few_schedules_hold(kind: str, template: Path) -> None:
    for seed in range(FEW):
        run(seed, kind, template)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_schedules_hold(kind: str, template: Path) -> None:
    for seed in range(FEW, FEW + MANY):
        run(seed, kind, template)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_says_everything(kind: str, template: Path) -> None:
    for seed in range(10):
        one, other = run(seed, kind, template), run(seed, kind, template)
        assert one.scheduler.steps == other.scheduler.steps
        assert one.history == other.history


@pytest.mark.slow
def test_what_is_there_to_go_wrong_does(template: Path) -> None:
    """The schedules reach what they are for: cancelled calls, failed ones, waits for the lock."""
    schedules = [run(seed, "file", template) for seed in range(FEW)]
    calls = [call for schedule in schedules for call in schedule.history.calls]
    assert sum(call.has_failed for call in calls) > 20
    assert sum(not call.is_certain and not call.has_failed for call in calls) > 20
    steps = {step for schedule in schedules for step in schedule.scheduler.steps}
    for step in ("sleep", "> worker", "call_soon_threadsafe", "ROLLBACK", "PRAGMA wal_c"):
        assert step in steps, f"nothing ever does {step}"


# Faults that are planted, each of which must be found


class LostUpdates(Schedule):
    """Increments read, and then write."""

    def broken(self, store_class: type[StoreType]) -> type[StoreType]:
        class Broken(store_class):  # type: ignore[misc, valid-type]
            async def increment(self, namespace: Any, key: str, amount: int) -> int:
                item = await self.get(namespace, key)
                total = (item.value if item else 0) + amount
                await self.put(namespace, key, total)
                return int(total)

        return Broken


class TornReads(Schedule):
    """Many keys are read one after another, each by a statement, between which others write."""

    def broken(self, store_class: type[StoreType]) -> type[StoreType]:
        class Broken(store_class):  # type: ignore[misc, valid-type]
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options, read_cache_bytes=0)

            async def get_many(self, namespace: Any, keys: Sequence[str]) -> dict[str, Any]:
                found = {key: await self.get(namespace, key) for key in keys}
                return {key: item for key, item in found.items() if item is not None}

        return Broken


class LyingFaults(Faults):
    def before(self, sql: str, cursor: driver.Cursor) -> None:
        super().before(sql, cursor)
        if sql == "COMMIT" and self.share and self.random.random() < 0.05:
            driver.Cursor.execute(cursor, "ROLLBACK")
            driver.Cursor.execute(cursor, "BEGIN")


class LostCommits(Schedule):
    """Some commits do nothing, and say that they did."""

    simulation = staticmethod(functools.partial(simulation, faults_class=LyingFaults))


class LateFaults(Faults):
    def before(self, sql: str, cursor: driver.Cursor) -> None:
        if sql == "COMMIT" and self.share and self.random.random() < 0.05:
            driver.Cursor.execute(cursor, "COMMIT")
            driver.Cursor.execute(cursor, "BEGIN")
            raise self.error("SQLITE_FULL", "COMMIT")
        super().before(sql, cursor)


class FailuresThatChange(Schedule):
    """Some commits do everything, and say that they failed."""

    simulation = staticmethod(functools.partial(simulation, faults_class=LateFaults))


def run_many(seeds: int, kind: str, template: Path, schedule_class: type[Schedule]) -> None:
    for seed in range(seeds):
        run(seed, kind, template, schedule_class)


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (LostUpdates, "file"),
        (LostUpdates, "threads"),
        (TornReads, "file"),
        (TornReads, "threads"),
        (LostCommits, "file"),
        (LostCommits, "threads"),
        (FailuresThatChange, "file"),
        (FailuresThatChange, "threads"),
    ],
)
@pytest.mark.slow
def test_a_planted_fault_is_found(planted: type[Schedule], kind: str, template: Path) -> None:
    with pytest.raises(
        ScheduleError, match=rf"(?s)seed \d+ of {kind}: .*--kind {kind} --first \d+"
    ):
        run_many(ENOUGH, kind, template, planted)


def test_what_is_linearizable() -> None:
    history = History()
    first = history.begin("increment", "count", 1)
    second = history.begin("increment", "count", 1)
    history.answered(second, 1)
    history.answered(first, 2)
    assert is_linearizable(history)
    read = history.begin("get", "count")
    history.answered(read, 1)
    assert not is_linearizable(history), "it began after the count was 2"
    read.answer = 2
    assert is_linearizable(history)
    failed = history.begin("put", "count", 7)
    history.failed(failed)
    lost = history.begin("put", "count", 9)
    assert is_linearizable(history)
    read = history.begin("get", "count")
    history.answered(read, 9)
    assert is_linearizable(history), "what was cancelled may have happened"
    lost.has_failed = True
    assert not is_linearizable(history), "what failed may not"
