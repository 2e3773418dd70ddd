"""Items, queries and configurations are immutable values."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from kvstore import Change, IndexConfig, InMemoryStore, Item, SearchQuery, SQLiteStore
from kvstore.types import EPOCH, make_item

VALUES = [
    Item(("a",), "k", 1),
    make_item(("a",), "k", 1, EPOCH, EPOCH, 5, None),
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


def test_an_item_made_on_the_hot_path_is_an_item() -> None:
    quick = make_item(("a",), "k", [1], EPOCH, EPOCH, 5, EPOCH)
    plain = Item(("a",), "k", [1], EPOCH, EPOCH, 5, EPOCH)
    assert type(quick) is Item
    assert quick == plain
    assert repr(quick) == repr(plain)
    assert dataclasses.replace(quick, version=6) == dataclasses.replace(plain, version=6)


def test_the_defaults_of_a_query_are_those_of_search() -> None:
    query = SearchQuery()
    assert dataclasses.astuple(query) == (None, None, 10, 0, "auto", False, None)


def test_an_index_has_the_whole_value_by_default() -> None:
    assert IndexConfig().fields == ("$",)
    assert IndexConfig(fields=["title", "chunks[*].text"]).fields == ("title", "chunks[*].text")


def test_with_embeddings_is_short_for_an_index() -> None:
    def model(texts: list[str]) -> list[list[float]]:
        return [[1.0] for _ in texts]

    assert InMemoryStore.with_embeddings(model).index == IndexConfig(model)
    assert SQLiteStore.with_embeddings("agent.db", model).index == IndexConfig(model)
