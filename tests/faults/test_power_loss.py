"""Power loss: what `durability` promises, against a model that forgets all that was not synced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kvstore
from tests.faults.programs import NAMESPACE
from tests.faults.test_processes import ROOT, integrity

ACKNOWLEDGED = 4_000  # 20 MB: enough for several checkpoints

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="the model is a preloaded library: it needs Linux and a C compiler",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("model") / "power_loss.so"
    source = Path(__file__).with_name("power_loss.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def lose_power(path: Path, durability: str, model: Path) -> set[str]:
    """Have a child write, kill it, put the durable files into place; return what it was told."""
    command = [sys.executable, "-m", "tests.faults.programs", "acknowledge", str(path), durability]
    acknowledged: set[str] = set()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "LD_PRELOAD": str(model)},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                acknowledged.add(line.split()[1])
            if len(acknowledged) == ACKNOWLEDGED:
                process.kill()
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        file.unlink(missing_ok=True)
        durable = path.with_name(file.name + ".durable")
        if durable.exists():
            durable.rename(file)
    return acknowledged


async def test_full_keeps_every_acknowledged_write(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged = lose_power(path, "full", model)
    assert len(acknowledged) >= ACKNOWLEDGED
    assert integrity(path) == "ok"
    async with kvstore.open(path) as store:
        assert acknowledged <= set(await store.keys(NAMESPACE))


async def test_normal_loses_the_last_moments_at_most(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged = lose_power(path, "normal", model)
    assert integrity(path) == "ok"
    async with kvstore.open(path) as store:
        kept = set(await store.keys(NAMESPACE))
    assert kept, "a checkpoint syncs"
    assert not acknowledged <= kept, "the model forgets nothing, so it proves nothing"
    runs = sorted(int(key.split("-")[1]) for key in kept if key.startswith("one-"))
    assert runs == list(range(len(runs)))  # a prefix of history, without gaps
