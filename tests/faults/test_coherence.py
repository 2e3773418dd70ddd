"""No read from the cache is older than what any process was told before it began."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults import coherence

READS = int(os.environ.get("KVSTORE_COHERENCE_READS", "100000"))


@pytest.mark.slow
async def test_no_read_is_older_than_what_was_acknowledged(tmp_path: Path) -> None:
    reads, _, wrong = await coherence.judge(tmp_path, READS)
    assert wrong == []
    assert reads >= READS
    told = coherence.Told(tmp_path / "told")
    assert sum(told.get(key) for key in range(coherence.KEYS)) > 100
