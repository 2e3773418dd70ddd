"""Power loss: every state that it could leave of a store is sound, and holds what was promised."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.disks import memory_directory
from tests.faults.crash_states import compile_recorder, look_through, record

TRACES = int(os.environ.get("KVSTORE_CRASH_TRACES", "6"))
MOST = int(os.environ.get("KVSTORE_CRASH_STATES", "3"))  # at each point of a trace

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
    with memory_directory() as directory:
        count, faults = await look_through(events, directory, seed, durability, MOST)
    print(f"seed {seed}, {durability}: {len(events)} events, {count} states")
    assert faults == []
    assert count > 50


@pytest.mark.parametrize("name", ["store.db-wal", "store.db"])
async def test_a_disk_that_does_not_sync_is_found_out(
    tmp_path: Path, recorder: Path, name: str
) -> None:
    events = record(recorder, tmp_path, 1, "full")
    unsynced = [event for event in events if not (event.kind == "S" and event.name == name)]
    with memory_directory() as directory:
        _, faults = await look_through(unsynced, directory, 1, "full", MOST)
    assert faults, "a disk that does nothing is as good as one that syncs: this proves nothing"


async def test_normal_durability_may_lose_the_last_moments(tmp_path: Path, recorder: Path) -> None:
    events = record(recorder, tmp_path, 1, "normal")
    with memory_directory() as directory:
        _, faults = await look_through(events, directory, 1, "full", MOST)
    assert any("was acknowledged, and is not there" in fault for fault in faults)
