"""The browser reaches, finds, changes and copies every item, and follows others at little cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import TextArea

import kvstore
from kvstore.cli.browse import Browser
from kvstore.cli.dialogs import Editor, Question
from tests.cli.conftest import Run
from tests.waiting import until

pytestmark = pytest.mark.slow  # a screen is drawn for each

NS = ("flat",)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[kvstore.Store]:
    """Open another handle on the file that is browsed."""
    async with kvstore.open(tmp_path / "a.db") as opened:
        await opened.put_many(NS, {f"k{n:04}": {"n": n} for n in range(1_000)})
        yield opened


def browser(tmp_path: Path) -> Browser:
    return Browser(kvstore.open(tmp_path / "a.db"))


async def on_the_items(app: Browser, pilot: Pilot[Any]) -> None:
    await until(lambda: len(app._tree.root.children) == 1)
    await pilot.press("down")
    await until(lambda: app._table.row_count > 0)
    app._table.focus()
    await pilot.pause()


async def test_the_table_reads_on_to_the_last_item(store: kvstore.Store, tmp_path: Path) -> None:
    app = browser(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await on_the_items(app, pilot)
        assert app._table.row_count < 1_000
        while app._table.row_count < 1_000:
            rows = app._table.row_count
            await pilot.press("ctrl+end")
            await until(lambda rows=rows: app._table.row_count > rows)
        await pilot.press("ctrl+end")
        await pilot.pause()
        item = app._item()
        assert item is not None
        assert item.key == "k0999"


async def test_a_search_finds_keys_and_values(store: kvstore.Store, tmp_path: Path) -> None:
    await store.put(("other",), "plain", "a needle in it")
    app = browser(tmp_path)
    async with app.run_test(size=(100, 30)):
        await until(lambda: len(app._tree.root.children) == 2)
        for words, keys in (("k0777", ["k0777"]), ("needle", ["plain"]), ("[k*", [])):
            app.query_one("#query").focus()
            app.query_one("#query").value = words  # type: ignore[attr-defined]
            await until(lambda keys=keys: [item.key for item in app._items] == keys)


async def test_namespaces_are_paged_and_counted_where_they_are_seen(
    store: kvstore.Store, tmp_path: Path
) -> None:
    for n in range(1_200):
        await store.put(("wide", f"u{n:04}"), "k", n)
    app = browser(tmp_path)
    async with app.run_test(size=(100, 30)):
        await until(lambda: len(app._tree.root.children) == 2)
        wide = app._tree.root.children[1]
        wide.expand()
        await until(lambda: len(wide.children) == 501)
        for pages in (1_001, 1_200):
            app._tree.select_node(wide.children[-1])
            app._tree.action_select_cursor()
            await until(lambda pages=pages: len(wide.children) == pages)
        assert [child.data for child in wide.children] == [
            ("wide", f"u{n:04}") for n in range(1_200)
        ]
        counted = [child for child in wide.children if "  1" in str(child.label)]
        assert len(counted) < 200


async def test_an_item_is_deleted_after_a_question(store: kvstore.Store, tmp_path: Path) -> None:
    app = browser(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await on_the_items(app, pilot)
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, Question))
        await pilot.press("n")
        await pilot.pause()
        assert await store.count(NS) == 1_000
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, Question))
        await pilot.press("y")
        await until(lambda: app._items[0].key == "k0001")
    assert await store.get(NS, "k0000") is None
    assert await store.count(NS) == 999


async def test_a_value_is_edited_and_nothing_of_others_is_lost(
    store: kvstore.Store, tmp_path: Path
) -> None:
    await store.put(NS, "k0000", {"n": 0}, ttl=1_000)
    app = browser(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await on_the_items(app, pilot)

        async def edit(text: str) -> None:
            await pilot.press("e")
            await until(lambda: isinstance(app.screen, Editor))
            app.screen.query_one(TextArea).text = text
            await pilot.press("ctrl+s")
            await pilot.pause()

        await edit("{half")
        assert isinstance(app.screen, Editor)
        await pilot.press("escape")
        await edit('{"n": 5}')
        await until(lambda: app._items[0].value == {"n": 5})
        item = await store.get(NS, "k0000")
        assert item is not None
        assert item.expires_at is not None
        await pilot.press("e")
        await until(lambda: isinstance(app.screen, Editor))
        await store.put(NS, "k0000", "of another")
        app.screen.query_one(TextArea).text = "6"
        await pilot.press("ctrl+s")
        await until(lambda: app._items[0].value == "of another")


async def test_a_value_is_copied(store: kvstore.Store, tmp_path: Path) -> None:
    await store.put(NS, "a", "text as it is")
    app = browser(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await on_the_items(app, pilot)
        await pilot.press("c")
        await pilot.pause()
        assert app.clipboard == "text as it is"


async def test_new_and_vanished_namespaces_are_followed(
    store: kvstore.Store, tmp_path: Path
) -> None:
    app = browser(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await on_the_items(app, pilot)
        await store.put(("new",), "k", 1)
        await until(lambda: len(app._tree.root.children) == 2)
        await store.delete(("new",), "k")
        await until(lambda: len(app._tree.root.children) == 1)
        await store.put(NS, "a-first", 1)
        await until(lambda: app._items[0].key == "a-first")


def test_without_a_terminal_it_is_refused(run: Run, tmp_path: Path) -> None:
    run("put", "a.db", "a", "k", "1")
    assert b"browse needs a terminal" in run("browse", "a.db", code=2).stderr
