"""Typed namespaces: values of one type in, the same type out, misfits named."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, assert_type

import pytest
import pytest_asyncio
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import kvstore
from kvstore import Item, MissingDependencyError, Store, ValueTypeError
from kvstore.typed import Typed

NS = ("users",)


class User(BaseModel):
    name: str
    born: datetime = datetime(1990, 1, 1, tzinfo=UTC)
    tags: set[str] = Field(default_factory=set)
    picture: bytes = b""


@dataclass
class Point:
    x: int
    y: int = 0


class Named(BaseModel):
    user_id: int = Field(alias="userId")
    role: str = Field(default="", validation_alias="as", serialization_alias="asRole")


class Options(TypedDict):
    size: int


@pytest_asyncio.fixture(params=["memory", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Store]:
    url = "memory://" if request.param == "memory" else str(tmp_path / "a.db")
    async with kvstore.open(url) as store:
        yield store


async def test_a_model_comes_back_as_it_was(store: Store) -> None:
    users = store.typed(NS, User)
    ada = User(name="Ada", tags={"x"}, born=datetime(1815, 12, 10, tzinfo=UTC))
    put = await users.put("ada", ada, ttl=60)
    assert put.value == ada
    assert put.expires_at is not None
    found = await users.get("ada")
    assert found is not None
    assert_type(found, Item[User])
    assert_type(found.value, User)
    assert found.value == ada
    assert found.version == put.version
    assert await users.get("nobody") is None
    bob = User(name="Bob", picture=b"\x00\xff")
    await users.put_many({"bob": bob, "eve": User(name="Eve")})
    assert (await users.get_many(["bob", "none"]))["bob"].value == bob
    assert await users.keys() == ["ada", "bob", "eve"]
    assert await users.count("e*") == 1
    assert [item.value.name async for item in users.scan()] == ["Ada", "Bob", "Eve"]
    (one,) = await users.search(filter={"name": "Eve"})
    assert one.value.name == "Eve"
    assert await users.delete("eve")


@pytest.mark.parametrize(
    ("model", "value"),
    [
        *[(Point, Point(1, 2)), (Options, {"size": 3}), (int, 7), (list[Point], [Point(1)])],
        (Named, Named.model_validate({"userId": 5, "as": "x"})),
        (dict[int, set[str]], {1: {"a"}, -2: set()}),
        (dict[date, Named], {date(2026, 1, 2): Named.model_validate({"userId": 5})}),
    ],
)
async def test_whatever_pydantic_validates_is_a_type(store: Store, model: Any, value: Any) -> None:
    typed: Typed[Any] = store.typed(NS, model)
    assert (await typed.put("k", value)).value == value
    found = await typed.get("k")
    assert found is not None
    assert found.value == value


async def test_update_gives_and_takes_the_type(store: Store) -> None:
    points = store.typed(NS, Point)
    await points.put("p", Point(1, 2))

    async def move(point: Point) -> Point:
        return Point(point.x + 1, point.y)

    assert (await points.update("p", move)).value == Point(2, 2)
    moved = await points.update("q", lambda point: Point(point.x, 9), default=Point(0))
    assert moved.value == Point(0, 9)


async def test_what_does_not_fit_is_named_and_its_value_is_not(store: Store) -> None:
    users = store.typed(NS, User)
    await store.put(NS, "old", {"name": "Ada", "born": "very-secret"})
    for read in (users.get("old"), users.search(), users.get_many(["old"])):
        with pytest.raises(ValueTypeError, match=r"'users'.*'old' is no User: \$\.born") as caught:
            await read
        assert "very-secret" not in str(caught.value)
        assert caught.value.__cause__ is None
    with pytest.raises(ValueTypeError, match=r"is no Point: \$\.x"):
        await store.typed(NS, Point).put("k", {"x": "very-secret"})  # type: ignore[arg-type]
    assert await store.keys(NS) == ["old"]


async def test_without_pydantic_the_error_names_the_extra(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(MissingDependencyError, match=r"\[typed\]"):
        store.typed(NS, User)


async def test_a_plain_item_holds_anything(store: Store) -> None:
    item = await store.put(NS, "k", 1)
    assert_type(item, Item[Any])
    assert isinstance(item, Item)


def test_the_same_without_await(tmp_path: Any) -> None:
    with kvstore.SyncStore(tmp_path / "a.db") as store:
        points = store.typed(NS, Point)
        assert_type(points.put("p", Point(1)), Item[Point])
        assert points.update("p", lambda point: Point(point.x + 1)).value == Point(2)
        assert [item.value for item in points.scan()] == [Point(2)]
        assert points.get("none") is None
        assert points.keys() == ["p"]
        assert points.count() == 1
        assert points.delete("p")


@pytest.mark.parametrize("target", ["memory://", "sqlite"])
def test_an_update_calls_the_function_on_the_callers_thread(tmp_path: Any, target: str) -> None:
    with kvstore.SyncStore(tmp_path / "a.db" if target == "sqlite" else target) as store:
        points = store.typed(NS, Point)
        points.put("p", Point(1))
        here, threads = threading.get_ident(), set()

        def move(point: Point) -> Point:
            threads.add(threading.get_ident())
            other = points.get("p")  # it may use the store
            assert other is not None
            return Point(point.x + other.value.x)

        assert points.update("p", move).value == Point(2)
        assert threads == {here}


async def test_a_type_that_pydantic_does_not_know_is_refused(store: Store) -> None:
    with pytest.raises(kvstore.InvalidArgumentError, match="pydantic"):
        store.typed(NS, Store)
