"""The commands in a real terminal: questions, bars, Ctrl-C, and the browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from rich.cells import cell_len

import kvstore
from kvstore.cli.browse import Browser
from tests.cli.conftest import Run, Terminal

pytestmark = pytest.mark.slow  # each command is a process of its own

Start = Callable[..., Terminal]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with kvstore.open(tmp_path / "agent.db") as store:
            await store.put(("users", "alice"), "theme", {"name": "dark"})
            await store.put(("users", "alice"), "city", {"name": "Lisbon"})
            await store.put_many(("many",), {f"{n:05}": "x" * 100 for n in range(40_000)})

    asyncio.run(fill())
    return tmp_path / "agent.db"


def test_rm_asks_and_obeys(terminal: Start, filled: Path) -> None:
    with terminal("rm", filled, "users/alice", "t*") as screen:
        screen.expect("users/alice theme")
        screen.expect("Remove this 1? [y/N]")
        screen.type("n\n")
        screen.expect("nothing removed")
        assert screen.end() == 1
    with terminal("rm", filled, "users/alice", "t*") as screen:
        screen.expect("[y/N]")
        screen.type("y\n")
        screen.expect("removed 1 item")
        assert screen.end() == 0


def test_long_work_shows_a_bar_with_rate_and_time(
    terminal: Start, filled: Path, tmp_path: Path
) -> None:
    with terminal("export", filled, "out.jsonl") as screen:
        screen.expect("exporting")
        screen.expect("40,002 items exported")
        assert screen.end() == 0
        assert re.search(r"\d+/40002 .*[\d,]+/s", screen.seen.replace("\x1b", " "))
    with terminal("import", "new.db", "out.jsonl") as screen:
        screen.expect("importing")
        screen.expect("40,002 items imported")
        assert screen.end() == 0


def test_values_are_coloured_for_people(terminal: Start, filled: Path) -> None:
    with terminal("get", filled, "users/alice", "theme") as screen:
        screen.expect('"name"')
        assert screen.end() == 0
        assert "\x1b[" in screen.seen


def test_stats_draw_the_sizes_of_the_roots(terminal: Start, run: Run, tmp_path: Path) -> None:
    run("put", "agent.db", "large", "k", "--text", "x" * 1000)
    run("put", "agent.db", "small", "k", "--text", "x" * 100)
    drawn = terminal("stats", "agent.db")
    assert drawn.end() == 0
    bars = [line.count("█") for line in drawn.text().splitlines() if "█" in line]
    assert bars == [20, 2]
    assert "█" not in run("stats", "agent.db").stdout.decode()


def test_a_listing_fits_the_terminal(terminal: Start, run: Run) -> None:
    run("put", "agent.db", "long", "k", orjson.dumps("x" * 500).decode())
    run("put", "agent.db", "long", "猫" * 20, orjson.dumps(["猫" * 200]).decode())
    for command, headings in (("ls", 1), ("search", 1), ("scan", 0)):
        with terminal(command, "agent.db", "long") as shown:
            assert shown.end() == 0
        lines = [line for line in shown.text().splitlines() if line.strip()]
        assert len(lines) == headings + 2
        assert all(cell_len(line) <= 120 for line in lines)
        assert any("…" in line for line in lines)


def test_nothing_stored_steers_a_terminal(terminal: Start, tmp_path: Path) -> None:
    """Controls of 8 bits, DEL and what turns the order of letters round: in values, too."""
    evil = "\x1b[31m \x9b31m \x9d0;title\x9c \u202egpj.exe\u2069 \x7f \u2028 \U000e0041"

    async def fill() -> None:
        async with kvstore.open(tmp_path / "agent.db") as store:
            await store.put((f"a{evil}",), f"k{evil}", {evil: [evil]})
            await store.put(("raw",), "k", evil)
            await store.put(("raw",), "bytes", evil.encode())

    asyncio.run(fill())
    harmful = re.compile("[\x7f-\x9f\u2028\u202e\u2069\U000e0041]")
    for command in (
        ("scan",),
        ("scan", "--json"),
        ("search", "raw"),
        ("keys", "raw"),
        ("tree",),
        ("get", "raw", "k"),
        ("get", "raw", "k", "--raw"),
        ("get", "raw", "bytes", "--raw"),
        ("get", "raw", "k", "--json"),
    ):
        with terminal(command[0], tmp_path / "agent.db", *command[1:]) as screen:
            assert screen.end() == 0
            assert not harmful.search(screen.seen), command


def test_ctrl_c_ends_a_watch(terminal: Start, filled: Path) -> None:
    with terminal("watch", filled) as screen:
        screen.expect("watching; Ctrl-C ends it")
        screen.interrupt()
        screen.expect("kvstore: stopped")
        assert screen.end() == 130
        assert "Traceback" not in screen.seen


def test_ctrl_c_ends_an_import_that_waits_for_its_input(
    terminal: Start, filled: Path, tmp_path: Path
) -> None:
    with terminal("import", filled) as screen:
        screen.type('{"namespace":["new"],"key":"k","value":1}\n')
        screen.expect("importing")
        screen.interrupt()
        screen.expect("kvstore: stopped")
        assert screen.end() == 130
        assert "Traceback" not in screen.seen

    async def count() -> int:
        async with kvstore.open(filled) as store:
            assert (await store.check()).ok
            return await store.count(("new",))

    assert asyncio.run(count()) == 0


def test_the_browser_shows_searches_and_follows(terminal: Start, filled: Path) -> None:
    with terminal("browse", filled) as screen:
        screen.expect("users")
        screen.type("\x1b[B\x1b[B")  # down to users
        screen.type("\r")  # opens it
        screen.expect("alice")
        screen.type("\x1b[B")
        screen.expect("Lisbon")
        screen.expect("2 items in users/alice")

        async def write() -> None:
            async with kvstore.open(filled) as store:
                await store.put(("users", "alice"), "new", "just written")

        asyncio.run(write())
        screen.expect("just written")
        screen.type("/")
        screen.expect("type to search")
        screen.type("dark")
        screen.expect("1 found in users/alice and below")
        screen.type("\r")
        screen.type("\x11")  # Ctrl-Q, wherever one is
        assert screen.end() == 0


def test_the_browser_says_why_it_cannot(terminal: Start, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but long enough to be read as one")
    with terminal("browse", "text.db") as screen:
        screen.expect("is not a database")
        assert screen.end() == 3
    with terminal("browse", "typo.db") as screen:
        screen.expect("typo.db does not exist")
        assert screen.end() == 3


async def test_the_browser_survives_hostile_names(tmp_path: Path) -> None:
    store = kvstore.open(tmp_path / "s.db")
    async with store:
        await store.put(("[red]", "\x1b[31m"), "[bold]\x1b[0m\n", {"[/]": "\x1b[31m[x]"})
    browser = Browser(store)
    async with browser.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await pilot.press("down", "enter", "down", "tab", "tab")
        await pilot.pause()
        await browser.action_refresh_all()
        await browser.workers.wait_for_complete(
            [worker for worker in browser.workers if worker.group == "items"]
        )
        assert "\x1b" not in browser.export_screenshot()
    assert not store.is_open


def test_the_screenshot_is_one_of_this_browser() -> None:
    root = Path(__file__).parents[2]
    drawn = (root / "docs" / "browse.svg").read_text()
    for word in ("Search", "Tree", "Refresh", "Quit", "key", "value", "updated"):
        assert word in drawn
    assert (root / "docs" / "browse.png").read_bytes().startswith(b"\x89PNG")
