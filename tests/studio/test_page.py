"""The studio's page in a real Chromium, where the machine has one."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import IndexConfig, Store
from kvstore.embeddings import HashingEmbeddings
from kvstore.studio import serve

playwright = pytest.importorskip("playwright.async_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SHOTS = os.environ.get("KVSTORE_SHOTS")  # a folder for pictures of the page
HOSTILE = "<img src=x onerror=alert(1)>"


async def fill(store: Store) -> None:
    notes = {
        f"n{i:04}": {"title": f"Note {i}", "status": ("open", "done")[i % 2], "n": i}
        for i in range(250)
    }
    for user in ("alice", "bob"):
        await store.put_many(("users", user, "notes"), notes)
    value = {"html": "<script>alert(1)</script>", "big": 2**63 - 1, "control": "\x1b[31m\u202eevil"}
    await store.put(("users", "alice"), HOSTILE, value)
    await store.put(("long",), "ten megabytes", "x" * 10_000_000)


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[tuple[Store, Any]]:
    """Give a store and the page of its studio."""
    path = tmp_path / "agent.db"
    async with kvstore.open(path, index=IndexConfig(HashingEmbeddings())) as store:
        await fill(store)
        link = asyncio.get_running_loop().create_future()
        server = asyncio.create_task(serve(store, is_editable=True, started=link.set_result))
        async with playwright.async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = await browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(20_000)
            said: list[str] = []
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            try:
                await page.goto(await link)
                assert "token" not in page.url
                yield store, page
                assert said == []
            finally:
                await browser.close()
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def shoot(page: Any, name: str) -> None:
    if SHOTS:
        await page.screenshot(path=Path(SHOTS, f"{name}.png"))


async def choose(page: Any, *labels: str) -> None:
    """Click through the tree of namespaces."""
    for depth in range(1, len(labels) + 1):
        shown = "[" + ",".join(f'"{label}"' for label in labels[:depth]) + "]"
        await page.locator(f"[data-namespace='{shown}'] > .node").click()


async def test_a_person_finds_reads_and_edits_an_item(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, page):
        await choose(page, "users", "alice", "notes")
        await page.get_by_text("250 items").wait_for()
        await page.get_by_role("button", name="More").click()
        await page.get_by_role("row", name="n0150").wait_for()
        await page.get_by_role("row", name="n0007").click()
        detail = page.get_by_role("complementary", name="Item")
        await detail.get_by_text('"Note 7"', exact=True).wait_for()
        await shoot(page, "studio")
        await detail.get_by_role("button", name="Edit").click()
        await detail.get_by_label("Value as JSON").fill(
            '{"title": "New", "n": 9223372036854775807}'
        )
        await detail.get_by_role("button", name="Save").click()
        await page.get_by_text("written at version").wait_for()
        item = await store.get(("users", "alice", "notes"), "n0007")
        assert item is not None
        assert item.value == {"title": "New", "n": 2**63 - 1}


async def test_nothing_stored_becomes_markup(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, page):
        await choose(page, "users", "alice")
        await page.get_by_role("row", name="<img").click()
        await page.locator(".json").get_by_text(str(2**63 - 1)).first.wait_for()
        assert await page.locator("img").count() == 0
        assert await page.locator("#view script, #detail script").count() == 0
        assert "\u202e" not in await page.locator("body").inner_text()
        await choose(page, "long")
        await page.get_by_role("row", name="ten megabytes").click()
        await page.get_by_text("This is its beginning").wait_for()


async def test_the_keyboard_reaches_everything(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, page):
        await page.locator("[role=treeitem][aria-selected=true]").first.wait_for()
        for key in ("ArrowDown", "ArrowDown", "Enter", "ArrowRight"):  # to `users`
            await page.keyboard.press(key)
        await page.locator("""[data-namespace='["users","alice"]']""").wait_for()
        await page.keyboard.press("/")
        assert await page.evaluate("document.activeElement.id") == "filter"


async def test_the_views_of_search_changes_and_sizes(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, page):
        await choose(page, "users", "bob", "notes")
        await page.get_by_role("tab", name="Search").click()
        await page.get_by_label("Question").fill("note 17")
        await page.get_by_label("Question").press("Enter")
        await page.get_by_role("columnheader", name="by meaning").wait_for()
        await shoot(page, "studio-search")
        await page.get_by_role("tab", name="Changes").click()
        await page.get_by_text("listening").wait_for()
        await store.put(("users", "bob", "notes"), "new", "a change as it comes")
        await page.get_by_role("cell", name="a change as it comes").wait_for()
        await page.get_by_role("tab", name="Sizes").click()
        await page.get_by_role("img", name="Bytes by root namespace").wait_for()
        await shoot(page, "studio-sizes")
