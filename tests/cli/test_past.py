"""The commands on the past, in a pipe."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import orjson
import pytest

import kvstore
from tests.cli.conftest import Run

pytestmark = pytest.mark.slow  # each command is a process of its own


async def fill(path: Path) -> None:
    async with kvstore.open(path, history=3600) as store:
        await store.put(("a",), "k", 1)
        await store.put(("a",), "k", [2])
        await store.delete(("a",), "k")


def test_the_past_is_told_read_and_brought_back(run: Run, tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "past.db"))
    lines = run("history", "past.db", "a", "k", "--json").stdout.splitlines()
    told = [orjson.loads(line) for line in lines]
    assert [(each["kind"], each["version"]) for each in told] == [
        ("delete", 3),
        ("put", 2),
        ("put", 1),
    ]
    instants = [datetime.fromisoformat(each["at"]) for each in told]
    assert instants == sorted(instants, reverse=True)
    assert b"put" in run("history", "past.db", "a", "k", "--limit", "2").stdout
    assert run("get", "past.db", "a", "k", "--at", "2", "--json").stdout.count(b"[2]") == 1
    run("rewind", "past.db", "--to", "1")
    assert run("get", "past.db", "a", "k").stdout.strip() == b"1"


@pytest.mark.parametrize("moment", ["99", "yesterday", "2026-01-01T00:00:00"])
def test_a_moment_that_is_none_is_refused(run: Run, tmp_path: Path, moment: str) -> None:
    asyncio.run(fill(tmp_path / "past.db"))
    assert run("get", "past.db", "a", "k", "--at", moment, code=2).stderr
