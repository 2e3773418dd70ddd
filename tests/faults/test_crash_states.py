"""Power loss: every state that it could leave of a store is sound, and holds what was promised."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.disks import memory_directory
from tests.faults.crash_classes import AllStates, raw_pages, view_of
from tests.faults.crash_states import States, compile_recorder, look_through, record

TRACES = int(os.environ.get("KVSTORE_CRASH_TRACES", "6"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None,
        reason="the recorder is a preloaded library: it needs Linux and a C compiler",
    ),
]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_recorder(tmp_path_factory.mktemp("recorder"))


@pytest.mark.parametrize("durability", ["normal", "full"])
@pytest.mark.parametrize("seed", range(TRACES // 2))
@pytest.mark.slow
async def test_every_state_is_sound(
    tmp_path: Path, recorder: Path, seed: int, durability: str
) -> None:
    events = record(recorder, tmp_path, seed, durability)
    states = AllStates(seed, raw_pages(events))
    with memory_directory() as directory:
        count, faults = await look_through(events, directory, seed, durability, states)
    print(f"seed {seed}, {durability}: {len(events)} events, {count} states{states.remark}")
    assert faults == []
    assert count > 50


@pytest.mark.parametrize("name", ["store.db-wal", "store.db"])
async def test_a_disk_that_does_not_sync_is_found_out(
    tmp_path: Path, recorder: Path, name: str
) -> None:
    events = record(recorder, tmp_path, 1, "full")
    unsynced = [event for event in events if not (event.kind == "S" and event.name == name)]
    with memory_directory() as directory:
        _, faults = await look_through(unsynced, directory, 1, "full", States(1, 3))
    assert faults, "a disk that does nothing is as good as one that syncs: this proves nothing"


async def test_normal_durability_may_lose_the_last_moments(tmp_path: Path, recorder: Path) -> None:
    events = record(recorder, tmp_path, 1, "normal")
    with memory_directory() as directory:
        _, faults = await look_through(events, directory, 1, "full", States(1, 3))
    assert any("was acknowledged, and is not there" in fault for fault in faults)


@pytest.mark.parametrize("durability", ["normal", "full"])
async def test_the_classes_hold_all_states(tmp_path: Path, recorder: Path, durability: str) -> None:
    events = record(recorder, tmp_path, 1, durability)
    raw = raw_pages(events)
    few, all_of_few = AllStates(1, raw), States(1, 64)
    compared = 0
    for event in events:
        few.take(event)
        all_of_few.take(event)
        pending = sum(len(file.pending) for file in few.names.values())
        if 1 < pending < 7 and event.kind == "W":
            found = {few.digest(state) for state in few.possible()}
            assert {view_of(state, raw) for state in all_of_few.possible()} <= found
            compared += 1
    assert compared > 20
