"""Locks are kept whatever else the process does: nothing acknowledged is lost, nothing is damaged.

`KVSTORE_CROWD_S=60` lets each of them run for so many seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kvstore
from tests.faults.programs import NAMESPACE

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("KVSTORE_CROWD_S", "3"))


def start(what: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.crowds", what, str(path), str(SECONDS)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["second_store", "stock_sqlite"])
async def test_nothing_is_lost_beside_whoever_opens_and_closes_the_file(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await store.put(NAMESPACE, "first", 1)
    processes = [start(what, path), start("open_often", path)]
    said = {}
    for process in processes:
        out, err = process.communicate(timeout=SECONDS * 3 + 60)
        assert process.returncode == 0, err[-2_000:]
        name, acknowledged, *problems = out.strip().split("|")
        assert not problems
        said[name] = int(acknowledged)
    assert all(said.values())
    async with kvstore.open(path) as store:
        assert (await store.check()).ok
        found = {key: item.value for key, item in (await store.get_many(NAMESPACE, said)).items()}
        assert found == said
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]
