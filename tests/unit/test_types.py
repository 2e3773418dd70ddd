"""Items, queries and configurations are immutable values."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

import kvstore
from kvstore import Change, IndexConfig, InMemoryStore, Item, SearchQuery, SQLiteStore, types
from kvstore.types import EPOCH, make_item, pack_item

VALUES = [
    Item(("a",), "k", 1),
    make_item(("a",), "k", 1, 5, 0, 0, None),
    pack_item(("a",), "k", b"1", 5, 0, 0, None),
    SearchQuery("words"),
    IndexConfig(None),
    Change("put", ("a",), "k", 1),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_frozen_and_have_slots(value: Any) -> None:
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(value, field.name)
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_equal_by_content_and_can_be_copied(value: Any) -> None:
    for twin in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert twin == value
        assert type(twin) is type(value)
    assert dataclasses.replace(value) == value
    assert hash(value) == hash(copy.copy(value))


@pytest.mark.parametrize("look", [repr, copy.copy, dataclasses.astuple])
def test_an_item_made_on_the_hot_path_is_an_item(look: Callable[[Item], Any]) -> None:
    at = EPOCH + timedelta(microseconds=7)
    plain = Item(("a",), "k", [1], EPOCH, at, 5, at)
    for quick in (
        make_item(("a",), "k", [1], 5, 0, 7, 7),
        pack_item(("a",), "k", b"[1]", 5, 0, 7, 7),
    ):
        assert type(quick) is Item
        assert look(quick) == look(plain)
        assert quick == plain
        assert dataclasses.replace(quick, version=6) == dataclasses.replace(plain, version=6)


def test_a_packed_value_is_one_object_to_all_threads() -> None:
    for _ in range(50):
        item = pack_item(("a",), "k", b"[1]", 5, 0, 0, None)
        barrier = threading.Barrier(4)

        def look(item: Item = item, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return item.value

        with ThreadPoolExecutor(4) as threads:
            values = [future.result() for future in [threads.submit(look) for _ in range(4)]]
        assert all(value is item.value for value in values)


def test_an_interrupted_unpacking_leaves_no_value_to_another_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(dict[int, Any]):
        def setdefault(self, key: int, default: Any = None) -> Any:
            super().setdefault(key, default)
            raise KeyboardInterrupt

    values = Interrupted()
    monkeypatch.setattr(types, "_unpacking", values)
    item = pack_item(("a",), "k", b"[1]", 5, 0, 0, None)
    with pytest.raises(KeyboardInterrupt):
        _ = item.value
    assert not values
    monkeypatch.undo()
    assert item.value == [1]


def test_a_value_is_unpacked_while_another_one_is() -> None:
    data = b"[" + b",".join([b'{"a":1}'] * 3_000) + b"]"
    inner: list[Any] = []

    class Curious:
        def __init__(self) -> None:
            self.itself = self
            self.item = pack_item(("a",), "k", b"[1]", 5, 0, 0, None)

        def __del__(self) -> None:  # in the middle of another item's decoding
            inner.append(self.item.value)

    thresholds = gc.get_threshold()
    gc.set_threshold(100)
    try:
        for _ in range(20):
            Curious()
            assert len(pack_item(("a",), "k", data, 5, 0, 0, None).value) == 3_000
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert inner == [[1]] * 20


@pytest.mark.parametrize("item", [pack_item(("a",), "k", b"1", 5, 0, 0, None), VALUES[0]], ids=repr)
def test_an_item_has_no_other_attributes(item: Item) -> None:
    with pytest.raises(AttributeError, match="'other'"):
        item.other  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(item, "__array__")


def test_the_defaults_of_a_query_are_those_of_search() -> None:
    of_search = inspect.signature(kvstore.Store.search).parameters
    for each in dataclasses.fields(SearchQuery):
        assert of_search[each.name].default == each.default


def test_an_index_has_the_whole_value_by_default() -> None:
    assert IndexConfig().fields == ("$",)
    assert IndexConfig(fields=["title", "chunks[*].text"]).fields == ("title", "chunks[*].text")


def test_with_embeddings_is_short_for_an_index() -> None:
    def model(texts: list[str]) -> list[list[float]]:
        return [[1.0] for _ in texts]

    assert InMemoryStore.with_embeddings(model).index == IndexConfig(model)
    assert SQLiteStore.with_embeddings("agent.db", model).index == IndexConfig(model)
