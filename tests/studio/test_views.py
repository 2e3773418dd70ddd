"""What the studio's page is told: bounded pages, exact numbers, errors in words."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

import kvstore
from kvstore import IndexConfig, Store
from kvstore.embeddings import HashingEmbeddings
from kvstore.studio import make_app

HOST = "127.0.0.1:8123"


class Page:
    """The page of one session, as JSON."""

    def __init__(self, store: Store, *, edit: bool = True) -> None:
        app = make_app(store, hosts=frozenset({HOST}), token="t", is_editable=edit)
        transport = httpx.ASGITransport(app)
        self.client = httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}")

    async def open(self) -> Page:
        await self.client.get("/", params={"token": "t"})
        return self

    async def ask(self, path: str, **params: Any) -> Any:
        asked = {k: v if isinstance(v, str) else json.dumps(v) for k, v in params.items()}
        return await self.client.get(f"/api/{path}", params=asked)

    async def tell(self, path: str, **body: Any) -> httpx.Response:
        headers = {"origin": f"http://{HOST}"}
        return await self.client.post(f"/api/{path}", json=body, headers=headers)


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Store]:
    async with kvstore.open("memory://", index=IndexConfig(HashingEmbeddings())) as store:
        yield store


@pytest_asyncio.fixture
async def page(store: Store) -> Page:
    return await Page(store).open()


async def test_pages_follow_each_other_to_the_last_item(store: Store, page: Page) -> None:
    await store.put_many(("a",), {f"k{i:04}": {"n": i} for i in range(250)})
    seen: list[str] = []
    after = None
    while True:
        found = (await page.ask("items", ns=["a"], **({"after": after} if after else {}))).json()
        assert len(found["items"]) <= 100
        seen += [item["key"] for item in found["items"]]
        after = found["next"]
        if after is None:
            break
    assert seen == [f"k{i:04}" for i in range(250)]
    few = (await page.ask("items", ns=["a"], filter={"n": 249})).json()
    assert [item["key"] for item in few["items"]] == ["k0249"]
    latest = (await page.ask("items", ns=["a"], order="latest")).json()
    assert latest["items"][0]["key"] == "k0249"
    assert latest["next"] == 100


async def test_namespaces_come_in_pages_level_by_level(store: Store, page: Page) -> None:
    for number in range(150):
        await store.put((f"n{number:03}", "below"), "k", 1)
    first = (await page.ask("namespaces", ns=[])).json()
    assert first["labels"] == [f"n{i:03}" for i in range(100)]
    rest = (await page.ask("namespaces", ns=[], offset=str(first["next"]))).json()
    assert rest["labels"] == [f"n{i:03}" for i in range(100, 150)]
    assert rest["next"] is None
    assert (await page.ask("namespaces", ns=["n007"])).json()["labels"] == ["below"]
    assert (await page.ask("namespaces", ns=["n007", "below"])).json()["labels"] == []


async def test_numbers_are_what_they_were(store: Store, page: Page) -> None:
    await store.put(("a",), "k", {"big": 2**63 - 1, "small": -(2**63)})
    item = (await page.ask("item", ns=["a"], key="k")).json()
    assert str(2**63 - 1) in item["text"]
    told = await page.tell(
        "put", namespace=["a"], key="k", text=item["text"], if_version=item["version"]
    )
    assert told.status_code == 200
    found = await store.get(("a",), "k")
    assert found is not None
    assert found.value == {"big": 2**63 - 1, "small": -(2**63)}


async def test_an_edit_never_goes_over_another_one(store: Store, page: Page) -> None:
    item = await store.put(("a",), "k", 1)
    await store.put(("a",), "k", 2)
    told = await page.tell("put", namespace=["a"], key="k", text="3", if_version=item.version)
    assert told.status_code == 409
    assert "version" in told.json()["error"]
    gone = await page.tell("delete", namespace=["a"], key="k", if_version=item.version)
    assert gone.status_code == 409
    new = await page.tell("put", namespace=["a"], key="k", text="3", if_version=0)
    assert new.status_code == 409
    assert (await page.tell("put", namespace=["a"], key="n", text="3", if_version=0)).is_success


async def test_what_is_wrong_is_said_in_words(store: Store, page: Page) -> None:
    for response in (
        await page.tell("put", namespace=["a"], key="k", text="{"),
        await page.tell("put", namespace="a", key="k", text="1"),
        await page.tell("put", namespace=[""], key="k", text="1"),
        await page.tell("put", namespace=["a"], key=7, text="1"),
        await page.ask("items", ns=["a"], filter='{"a": {"$what": 1}}'),
        await page.ask("items", ns="a"),
        await page.tell("put", namespace=["a"], key="k", text=str(2**70)),
        await page.tell("put", namespace=["a"], key="k", text='{"$bytes": "no base64"}'),
        *[await page.ask(path, ns=[1]) for path in ("items", "charts", "map", "sequences")],
        *[await page.ask(path, ns=[[]]) for path in ("items", "charts", "map", "sequences")],
        *[await page.ask("items", ns=["a"], after=after) for after in (5, [], [["a"]], [1, "k"])],
        await page.ask("items", ns=["a"], pattern="[", order="key"),
        await page.ask("items", ns=["a"], order="latest", offset="-1"),
    ):
        assert response.status_code == 400, response.text
        assert response.json()["error"]
    assert (await page.ask("item", ns=["a"], key="none")).status_code == 404
    assert await store.count((), subtree=True) == 0


async def test_a_long_value_is_shown_in_part_and_offered_whole(store: Store, page: Page) -> None:
    await store.put(("a",), "long", "x" * 10_000_000)
    row = (await page.ask("items", ns=["a"])).json()["items"][0]
    assert len(row["preview"]) <= 160
    item = (await page.ask("item", ns=["a"], key="long")).json()
    assert item["is_whole"] is False
    assert len(item["text"]) < 2_000_000
    whole = await page.ask("value", ns=["a"], key="long")
    assert len(whole.content) == 10_000_002
    assert "attachment" in whole.headers["content-disposition"]


async def test_a_search_tells_the_rank_in_every_way(store: Store, page: Page) -> None:
    await store.put_many(("a",), {"tea": "green tea is warm", "coffee": "coffee is warm"})
    found = (await page.ask("search", ns=["a"], query="green tea")).json()
    assert found["modes"] == ["text", "semantic", "hybrid"]
    assert found["items"][0]["key"] == "tea"
    assert {mode: rank for mode, (rank, _) in found["items"][0]["ranks"].items()} == {
        "text": 1, "semantic": 1, "hybrid": 1,
    }  # fmt: skip


async def test_without_edit_there_is_no_way_to_write(store: Store) -> None:
    page = await Page(store, edit=False).open()
    await store.put(("a",), "k", 1)
    assert (await page.tell("put", namespace=["a"], key="k", text="2")).status_code == 404
    assert (await page.tell("delete", namespace=["a"], key="k")).status_code == 404
    assert (await page.ask("store")).json()["edit"] is False


async def test_sizes_and_counts(store: Store, page: Page) -> None:
    await store.put_many(("a",), {f"k{i}": i for i in range(30)})
    assert (await page.ask("count", ns=["a"])).json() == {"count": 30, "is_more": False}
    stats = (await page.ask("stats")).json()
    assert stats["items"] == 30
    assert [root["label"] for root in stats["roots"]] == ["a"]


async def test_items_come_in_the_order_that_is_asked_for(store: Store, page: Page) -> None:
    await store.put_many(("a",), {"x": {"a.b": 2}, "y": {"a.b": 3}, "z": {"a.b": 1}})
    for order, keys in (
        ('$."a.b"', "zxy"),
        ('-$."a.b"', "yxz"),
        ("-key", "zyx"),
        ("version", "xyz"),
        ("latest", "zyx"),
    ):
        found = (await page.ask("items", ns=["a"], order=order)).json()["items"]
        assert "".join(item["key"] for item in found) == keys, order
    wrong = await page.ask("items", ns=["a"], order="$.[")
    assert wrong.status_code == 400


async def test_the_past_of_an_item_is_told_with_its_values(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "kept.db", history=60) as store:
        page = await Page(store).open()
        for value in ("one", "two"):
            await store.put(("a",), "k", value)
        await store.delete(("a",), "k")
        changes = (await page.ask("history", ns=["a"], key="k")).json()["changes"]
    assert [change["kind"] for change in changes] == ["delete", "put", "put"]
    assert [change.get("text") for change in changes] == [None, '"two"', '"one"']


async def test_logs_and_queues_are_told_with_the_jobs_that_were_given_up(
    store: Store, page: Page
) -> None:
    await store.log(("chats", "monday")).append("a", "b", "c")
    queue = store.queue(("jobs",), attempts=1)
    for number in range(3):
        await queue.put({"page": number})
    job = await queue.take(timeout=0)
    assert job is not None
    await job.retry(error="<b>no</b> such page")
    found = (await page.ask("sequences")).json()
    assert found["next"] is None
    log, jobs = found["sequences"]
    assert (log["namespace"], log["kind"], log["length"]) == (["chats", "monday"], "log", 3)
    assert (jobs["ready"], jobs["leased"], jobs["dead"], jobs["last"]) == (2, 0, 1, 3)
    (dead,) = (await page.ask("dead", ns=["jobs"])).json()["jobs"]
    assert dead["error"] == "<b>no</b> such page"
    assert "'page': 0" in dead["preview"]
    told = await page.tell("revive", namespace=["jobs"], ids=[dead["id"]])
    assert told.json() == {"revived": 1}
    assert (await queue.size()).dead == 0
    assert (await page.tell("revive", namespace=["jobs"], ids=7)).status_code == 400
    read_only = await Page(store, edit=False).open()
    assert (await read_only.tell("revive", namespace=["jobs"], ids=[])).status_code == 404


async def test_a_list_of_queues_holds_no_jobs(store: Store, page: Page) -> None:
    for number in range(3):
        await store.queue(("later",)).put(number, delay=60)
    (whole,) = await store.backend.sequences("")
    (listed,) = await store.backend.sequences("", with_jobs=False)
    assert len(whole.jobs) == 3
    assert listed == replace(whole, jobs=())
    (told,) = (await page.ask("sequences")).json()["sequences"]
    assert (told["ready"], told["delayed"]) == (0, 3)


async def test_a_search_tells_which_words_an_item_holds(store: Store, page: Page) -> None:
    await store.put_many(("a",), {"tea": "green teas", "coffee": "black coffee"})
    found = (await page.ask("search", ns=["a"], query="the green tea")).json()
    assert found["words"] == ["green", "tea"]
    assert {item["key"]: item["words"] for item in found["items"]} == {
        "tea": ["green", "tea"],
        "coffee": [],
    }


async def test_charts_count_every_item_of_a_subtree_once(store: Store, page: Page) -> None:
    await store.put_many(("a", "x"), {f"k{i}": "v" * i for i in range(1, 21)})
    await store.put_many(("a", "y"), {"day": 1, "hour": 2}, ttl=3000)
    await store.put(("b",), "other", 1)
    charts = (await page.ask("charts", ns=["a"])).json()
    assert (charts["of"], charts["is_more"]) == (22, False)
    assert {group["label"]: sum(group["counts"]) for group in charts["growth"]["groups"]} == {
        "x": 20, "y": 2,
    }  # fmt: skip
    assert sum(count for _, count in charts["sizes"]) == 22
    assert dict(charts["expiry"])["never"] == 20
    assert dict(charts["expiry"])["within an hour"] == 2
    assert (await page.ask("charts", ns=["nowhere"])).json()["of"] == 0


async def test_the_map_lays_near_what_means_the_same(tmp_path: Path) -> None:
    texts = {"tea1": "green tea leaves", "tea2": "green tea leaf", "rates": "interest rates rose"}
    index = IndexConfig(HashingEmbeddings())
    async with kvstore.open(tmp_path / "map.db", index=index) as store:
        await store.put_many(("a",), texts)
        await store.put(("b",), "rates", "interest rates fell")
        await _assert_map(store)
    async with kvstore.open(tmp_path / "map.db") as store:  # with no model, and no sqlite-vec
        await _assert_map(store)
    async with kvstore.open("memory://", index=index) as store:
        await store.put_many(("a",), texts)
        await store.put(("b",), "rates", "interest rates fell")
        await _assert_map(store)


async def _assert_map(store: Store) -> None:
    found = (await (await Page(store).open()).ask("map", ns=[])).json()
    assert sorted(found["groups"]) == ["a", "b"]
    places = {(*each["namespace"], each["key"]): each["at"] for each in found["points"]}
    assert len(places) == 4
    assert all(0 <= axis <= 1 for at in places.values() for axis in at)
    near = math.dist(places["a", "tea1"], places["a", "tea2"])
    far = math.dist(places["a", "tea1"], places["a", "rates"])
    assert near < far / 2
    one = (await (await Page(store).open()).ask("map", ns=["b"])).json()
    assert len(one["points"]) == 1


async def test_the_map_of_a_large_store_is_a_sample_of_all_of_it(tmp_path: Path) -> None:
    vectors = {f"k{i:05}": [1.0, i / 6000] for i in range(6000)}
    async with kvstore.open(tmp_path / "map.db", index=IndexConfig(fields=())) as store:
        for key, vector in list(vectors.items())[:3]:
            await store.put(("few",), key, 1, vector=vector)
        await asyncio.gather(
            *(store.put(("many",), key, 1, vector=vector) for key, vector in vectors.items())
        )
        found = (await (await Page(store).open()).ask("map", ns=["many"])).json()
        keys = [each["key"] for each in found["points"]]
    assert 1000 < len(keys) <= 2000
    assert min(keys) < "k00100"
    assert max(keys) > "k05900"


async def test_without_vectors_the_map_is_empty(page: Page) -> None:
    assert (await page.ask("map", ns=[])).json()["points"] == []
