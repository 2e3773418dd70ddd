"""What a newcomer types: help, tables in a notebook, and errors that say what to write."""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import InvalidArgumentError, InvalidNamespaceError, WrongLoopError

HOSTILE = "<img src=x onerror=alert(1)>"


def test_help_opens_with_an_example_that_compiles() -> None:
    shown = pydoc.plain(pydoc.render_doc(kvstore)).splitlines()[:30]
    assert any("async with kvstore.open(" in line for line in shown)
    example = inspect.cleandoc(kvstore.__doc__ or "").split("\n\n    ", 1)[1]
    code = re.match(r"(?:(?:    .*)?\n)*", "    " + example)
    assert code is not None
    compile(inspect.cleandoc("\n" + code[0]), "help", "exec")


@pytest.mark.parametrize("kind", [kvstore.Store, kvstore.SQLiteStore, kvstore.InMemoryStore])
def test_open_names_every_option(kind: Any) -> None:
    parameters = inspect.signature(kind).parameters.values()
    for option in parameters:
        if option.kind is inspect.Parameter.KEYWORD_ONLY:
            assert f"`{option.name}" in (kvstore.open.__doc__ or "")


@pytest.mark.parametrize("url", ["a.db", "sqlite:///a.db", "memory://"])
def test_an_option_that_is_not_there_is_refused_with_those_that_are(url: str) -> None:
    with pytest.raises(TypeError, match=r"'indeks'.*mean index.*default_ttl"):
        kvstore.open(url, indeks=1)
    with pytest.raises(TypeError, match=r"'what' is no option.*default_ttl"):
        kvstore.open(url, what=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: kvstore.SQLiteStore("a.db", indeks=1),
        lambda: kvstore.InMemoryStore(indeks=1),
        lambda: kvstore.SyncStore("a.db", indeks=1),
    ],
)
def test_so_it_is_by_the_classes_themselves(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"'indeks'.*Store \(did you mean index\?\)"):
        make()


def test_no_path_is_told_from_a_path() -> None:
    with pytest.raises(kvstore.InvalidArgumentError, match="not NoneType"):
        kvstore.open(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make", [lambda: kvstore.open("memory://"), lambda: kvstore.AsyncKeyValueStore("memory://")]
)
def test_with_says_that_async_with_is_meant(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"'async with'.*SyncStore"), make():
        pass


@pytest.mark.parametrize("kind", [kvstore.SyncStore, kvstore.KeyValueStore])
async def test_async_with_says_that_with_is_meant(kind: Any) -> None:
    made = kind("memory://")
    with pytest.raises(TypeError, match=r"'with', without 'async'.*kvstore.open"):
        async with made:
            pass
    made.close()


@pytest.mark.parametrize("url", ["memory://", "a.db"])
def test_on_a_loop_that_is_not_asyncios_the_error_names_the_way(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opening = kvstore.open(url).open()  # driven by hand, as another library's loop drives it
    with pytest.raises(WrongLoopError, match=r"asyncio.*trio.*SyncStore"):
        opening.send(None)


async def test_a_dict_as_query_and_a_str_as_namespace_say_what_to_write() -> None:
    query: Any = {"status": "open"}
    namespace: Any = "users"
    async with kvstore.open("memory://", history=60) as store:
        for reads in (store, store.at(0)):
            with pytest.raises(InvalidArgumentError, match=r"search\(namespace, filter="):
                await reads.search(("a",), query)
            with pytest.raises(InvalidNamespaceError, match=r"write \('users',\)"):
                await reads.search(namespace)
        function: Any = 7
        with pytest.raises(InvalidArgumentError, match="takes a function, not int"):
            await store.transact(function)


async def test_a_notebook_shows_tables_in_which_nothing_is_markup() -> None:
    async with kvstore.open("memory://") as store:
        item: Any = await store.put(("a", HOSTILE), HOSTILE, {"text": HOSTILE}, ttl=60)
        many: Any = await store.put_many(("b",), {f"k{i}": "x" * 500 for i in range(60)})
        found: Any = await store.search(("a",), subtree=True)
        stats: Any = await store.stats()
    for shown in (item, many, found, stats):
        html = shown._repr_html_()
        assert html.startswith("<table>")
        assert html.count("<table>") == html.count("</table>")
        assert "<img" not in html
    assert "&lt;img" in item._repr_html_()
    assert "expires_at" in item._repr_html_()
    assert "&lt;img" in found._repr_html_()
    assert "and 10 more" in many._repr_html_()
    assert len(many._repr_html_()) < 30_000
    assert "<td>60</td>" in stats._repr_html_()


async def test_the_lists_are_lists() -> None:
    async with kvstore.open("memory://") as store:
        put = await store.put_many(("a",), {"k": 1, "l": 2})
        found = await store.search(("a",))
    assert found == list(reversed(put))
    assert isinstance(found, list)
    assert repr(found) == repr(list(found))


def test_a_facade_names_its_store() -> None:
    with kvstore.SyncStore("memory://") as store, kvstore.KeyValueStore("memory://") as facade:
        assert repr(store) == "SyncStore(InMemoryStore())"
        assert repr(facade) == "KeyValueStore(InMemoryStore())"
