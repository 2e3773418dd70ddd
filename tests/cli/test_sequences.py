"""The commands on logs and queues, in a pipe."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import orjson
import pytest

import kvstore
from tests.cli.conftest import COMMAND, Run, environment

pytestmark = pytest.mark.slow  # each command is a process of its own


async def fill(path: Path) -> list[str]:
    """Make a log, and a queue of which two jobs are dead; return their ids."""
    async with kvstore.open(path) as store:
        await store.log(("chats", "s1")).append({"text": "one"}, "two \x1b[31m", "three")
        queue = store.queue(("jobs", "mail"), attempts=1)
        ids = [await queue.put({"n": n}) for n in range(3)]
        await queue.put("later", delay=60)
        for _ in range(2):
            job = await queue.take(timeout=0)
            assert job is not None
            await job.retry(error="no such\nhost")
        return ids[:2]


@pytest.fixture
def ids(tmp_path: Path) -> list[str]:
    return asyncio.run(fill(tmp_path / "a.db"))


def test_the_tail_of_a_log(run: Run, ids: list[str]) -> None:
    lines = run("log", "tail", "a.db", "chats/s1", "-n", 2, "--json").stdout.splitlines()
    told = [orjson.loads(line) for line in lines]
    assert [(each["position"], each["value"]) for each in told] == [
        (2, "two \x1b[31m"),
        (3, "three"),
    ]
    shown = run("log", "tail", "a.db", "chats/s1").stdout
    assert b'{ "text": "one" }' in shown
    assert b"\x1b" not in shown
    assert b"no entries" in run("log", "tail", "a.db", "chats/s2", code=1).stderr
    assert run("log", "tail", "a.db", "jobs/mail", code=2).stderr


def test_a_log_is_followed_while_others_append(tmp_path: Path, ids: list[str]) -> None:
    command = [*COMMAND, "log", "follow", "a.db", "chats/s1", "-n", "2"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as following:
        assert following.stderr is not None
        assert b"following" in following.stderr.readline()

        async def append() -> None:
            async with kvstore.open(tmp_path / "a.db") as store:
                await store.log(("chats", "s1")).append("four")
                await store.log(("chats", "s1")).append("five")

        asyncio.run(append())
        out, _ = following.communicate(timeout=60)
    assert [line.split()[-1] for line in out.splitlines()] == [b'"four"', b'"five"']
    assert following.returncode == 0


def test_a_log_is_followed_from_a_position_on(run: Run, ids: list[str]) -> None:
    lines = run("log", "follow", "a.db", "chats/s1", "--after", 1, "-n", 2, "--json").stdout
    assert [orjson.loads(line)["position"] for line in lines.splitlines()] == [2, 3]
    assert run("log", "follow", "a.db", "chats/s1", "--after", 9, code=2).stderr


def test_queues_are_listed_and_looked_after(run: Run, ids: list[str]) -> None:
    (line,) = run("queue", "ls", "a.db", "--json").stdout.splitlines()
    sizes = {"ready": 1, "delayed": 1, "leased": 0, "dead": 2}
    assert orjson.loads(line) == {"namespace": ["jobs", "mail"], **sizes}
    assert b"jobs/mail" in run("queue", "ls", "a.db", "jobs").stdout
    run("queue", "ls", "a.db", "chats", code=1)
    told = [
        orjson.loads(each)
        for each in run("queue", "dead", "a.db", "jobs/mail", "--json").stdout.splitlines()
    ]
    assert [(each["id"], each["error"]) for each in told] == [(id, "no such\nhost") for id in ids]
    assert run("queue", "dead", "a.db", "jobs/mail", "--limit", 1).stdout.count(b"no such") == 1
    assert b"revived 1 job" in run("queue", "revive", "a.db", "jobs/mail", ids[1]).stderr
    run("queue", "revive", "a.db", "jobs/mail", ids[1], code=1)
    assert (
        run("queue", "revive", "a.db", "jobs/mail", "--all", "--json").stdout == b'{"revived":1}\n'
    )
    run("queue", "dead", "a.db", "jobs/mail", code=1)
    assert run("queue", "revive", "a.db", "jobs/mail", code=2).stderr
    assert run("queue", "revive", "a.db", "jobs/mail", ids[0], "--all", code=2).stderr
    assert run("queue", "ls", "a.db", "--json", KVSTORE_URL="").stdout.count(b'"ready":3') == 1
    assert run("queue", "dead", "jobs/mail", code=1, KVSTORE_URL="a.db").stderr
