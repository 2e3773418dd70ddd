"""The flow facade: what keys, entities, scopes, runs and wildcards mean, however it is run."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kvstore
from kvstore import AsyncKeyValueStore, FlowScope, InMemoryStore, KeyValueStore
from kvstore.testing import ManualClock
from tests.flow.conftest import Make

ODD = ["a/b", "*", "?", "[x]", "%", "a.b:c", "😀", "Ünïcode", " ", "\n", "\0", "..", "a\tb"]
EVERYWHERE = FlowScope(flow="f1", session="s1", run="r1")


# Values


@pytest.mark.parametrize(
    "value",
    [
        "dark_mode",
        "",
        0,
        -1.5,
        True,
        None,
        b"\x00\xff",
        {"threshold": 0.8, "enabled": True, "tags": ["production", "v2"], "raw": b"1"},
        [{"text": "a segment", "page": 3}, {"text": "another"}],
        [0.25, -1.0, 3.5],
    ],
)
def test_a_value_comes_back_as_it_was_put(kv: KeyValueStore, value: Any) -> None:
    kv.insert("key", value)
    found = kv.retrieve("key", default="missing")
    assert found == value
    assert type(found) is type(value)


def test_an_embedding_comes_back_as_a_list_of_numbers(kv: KeyValueStore) -> None:
    kv.insert("vector", np.array([0.5, -2.0, 1.25], dtype=np.float32))
    assert kv.retrieve("vector") == [0.5, -2.0, 1.25]


def test_insert_replaces(kv: KeyValueStore) -> None:
    kv.insert("key", 1)
    kv.insert("key", {"now": 2})
    assert kv.retrieve("key") == {"now": 2}


def test_a_missing_key_is_none_or_the_default(kv: KeyValueStore) -> None:
    assert kv.retrieve("missing") is None
    assert kv.retrieve("missing", 0.5) == 0.5
    assert kv.retrieve("missing", default=[], entity_id="alice") == []


def test_none_is_a_value(kv: KeyValueStore) -> None:
    kv.insert("nothing", None)
    assert kv.exists("nothing")
    assert not kv.exists("missing")
    assert kv.retrieve("nothing", default="default") is None


def test_what_is_retrieved_is_a_copy(kv: KeyValueStore) -> None:
    kv.insert("list", [1])
    kv.retrieve("list").append(2)
    assert kv.retrieve("list") == [1]


def test_what_json_cannot_hold_is_refused_and_changes_nothing(kv: KeyValueStore) -> None:
    kv.insert("key", "before")
    with pytest.raises(kvstore.ValueEncodingError, match=r"\$\.rows\[1\]"):
        kv.insert("key", {"rows": [1, float("nan")]})
    assert kv.retrieve("key") == "before"


def test_a_lifetime_ends() -> None:
    now = [1000.0]
    with KeyValueStore(kvstore.InMemoryStore(clock=lambda: now[0])) as kv:
        kv.insert("brief", 1, ttl=10)
        kv.insert("brief", 1, "alice", 20)
        now[0] += 10
        assert not kv.exists("brief")
        assert kv.list_keys() == []
        assert kv.retrieve("brief", entity_id="alice") == 1


# Keys


@pytest.mark.parametrize("key", [*ODD, "$", "$5", "$price", "a$run.b", "$ run.x", "$-.x"])
def test_any_text_is_a_key(kv: KeyValueStore, key: str) -> None:
    kv.insert(key, "here")
    kv.insert(key, "alice's", entity_id="alice")
    assert kv.retrieve(key) == "here"
    assert kv.list_keys() == [key]
    assert kv.list_keys(kvstore.escape(key)) == [key]
    assert kv.remove(key) == 1
    assert kv.retrieve(key) is None
    assert kv.retrieve(key, entity_id="alice") == "alice's"


@pytest.mark.parametrize("key", [None, 5, b"key", ("a",), "", "\ud800"])
def test_what_is_no_key_is_refused(kv: KeyValueStore, key: Any) -> None:
    for call in (
        lambda: kv.insert(key, 1),
        lambda: kv.retrieve(key),
        lambda: kv.exists(key),
        lambda: kv.increment(key),
        lambda: kv.append(key, 1),
        lambda: kv.pop(key),
        lambda: kv.update(key, lambda value: value),
        lambda: kv.remove(key),
    ):
        with pytest.raises(kvstore.InvalidKeyError):
            call()
    assert kv.list_keys() == []


@pytest.mark.parametrize("key", ["$sessions.x", "$Session.x", "$env.HOME", "$session_id.x", "$1.x"])
def test_an_unknown_scope_is_refused(make: Make, key: str) -> None:
    kv = make(EVERYWHERE)
    for call in (
        lambda: kv.insert(key, 1),
        lambda: kv.retrieve(key),
        lambda: kv.remove(key),
        lambda: kv.remove(f"{key}*"),
        lambda: kv.list_keys(f"{key}*"),
    ):
        with pytest.raises(kvstore.InvalidKeyError, match=r"\$flow\., \$session\. and \$run\."):
            call()


@pytest.mark.parametrize("name", ["flow", "session", "run"])
def test_a_scope_without_an_id_is_refused(kv: KeyValueStore, name: str) -> None:
    for call in (
        lambda: kv.insert(f"${name}.x", 1),
        lambda: kv.retrieve(f"${name}.x", entity_id="alice"),
        lambda: kv.remove(f"${name}.x"),
        lambda: kv.remove(f"${name}.*"),
        lambda: kv.list_keys(f"${name}.*"),
    ):
        with pytest.raises(kvstore.InvalidKeyError, match=rf"FlowScope\({name}="):
            call()


def test_a_scoped_key_has_a_name(make: Make) -> None:
    with pytest.raises(kvstore.InvalidKeyError, match="empty behind its scope"):
        make(EVERYWHERE).insert("$session.", 1)


# Entities


def test_entities_are_isolated_from_each_other_and_from_the_project(kv: KeyValueStore) -> None:
    kv.insert("preferences", "project")
    for entity in ODD:
        kv.insert("preferences", entity, entity_id=entity)
    assert kv.retrieve("preferences") == "project"
    for entity in ODD:
        assert kv.retrieve("preferences", entity_id=entity) == entity
        assert kv.list_keys(entity_id=entity) == ["preferences"]
    assert kv.list_entities() == sorted(ODD)
    assert kv.remove("*") == 1
    assert kv.list_entities() == sorted(ODD)
    assert kv.remove("*", entity_id="*") == 1
    assert kv.list_entities() == sorted(set(ODD) - {"*"})


@pytest.mark.parametrize("entity", ["", 5, b"alice", ("alice",), "\ud800", True])
def test_what_is_no_entity_is_refused(kv: KeyValueStore, entity: Any) -> None:
    kv.insert("key", "project")
    for call in (
        lambda: kv.insert("key", 1, entity_id=entity),
        lambda: kv.retrieve("key", entity_id=entity),
        lambda: kv.remove("key", entity_id=entity),
        lambda: kv.remove("*", entity_id=entity),
        lambda: kv.list_keys(entity_id=entity),
        lambda: kv.increment("key", entity_id=entity),
        lambda: kv.remove_entity(entity),
    ):
        with pytest.raises(kvstore.InvalidArgumentError):
            call()
    assert kv.retrieve("key") == "project"


def test_remove_entity_needs_an_entity(kv: KeyValueStore) -> None:
    kv.insert("key", "project")
    with pytest.raises(kvstore.InvalidArgumentError):
        kv.remove_entity(None)  # type: ignore[arg-type]
    assert kv.retrieve("key") == "project"


def test_an_entity_goes_with_all_that_it_has_in_every_scope(make: Make) -> None:
    for number in "12":
        kv = make(FlowScope(flow=f"f{number}", session=f"s{number}", run=f"r{number}"))
        for key in ("x", "$flow.x", "$session.x", "$run.x"):
            kv.insert(key, number, entity_id="alice")
            kv.insert(key, number, entity_id="alice2")
            kv.insert(key, number)
    assert kv.list_entities() == ["alice", "alice2"]
    assert kv.remove_entity("alice") == 7  # `x` is the same key in both
    assert kv.list_entities() == ["alice2"]
    assert kv.list_keys(entity_id="alice") == []
    for number in "12":
        kv = make(FlowScope(flow=f"f{number}", session=f"s{number}", run=f"r{number}"))
        assert len(kv.list_keys()) == len(kv.list_keys(entity_id="alice2")) == 4
    assert kv.remove_entity("alice") == 0


def test_an_entity_of_a_run_alone_is_listed_and_removed(make: Make) -> None:
    kv = make(EVERYWHERE)
    kv.insert("$run.x", 1, entity_id="brief/*")
    assert make().list_entities() == ["brief/*"]
    assert make().remove_entity("brief/*") == 1
    assert make().list_entities() == []


# Scopes


@pytest.mark.parametrize("name", ["flow", "session", "run"])
def test_a_scope_is_another_place_under_another_id(make: Make, name: str) -> None:
    one, other = make(FlowScope(**{name: "one"})), make(FlowScope(**{name: "other"}))
    one.insert(f"${name}.cart", ["tea"])
    one.insert("cart", "project")
    assert other.retrieve(f"${name}.cart") is None
    other.insert(f"${name}.cart", ["milk"])
    assert one.retrieve(f"${name}.cart") == ["tea"]
    assert other.retrieve("cart") == "project"
    assert one.remove("$*") == 1
    assert other.retrieve(f"${name}.cart") == ["milk"]


def test_scopes_of_one_id_do_not_meet(make: Make) -> None:
    kv = make(FlowScope(flow="x", session="x", run="x"))
    for entity in (None, "x", "project", "flow"):
        for key in ("k", "$flow.k", "$session.k", "$run.k"):
            kv.insert(key, [key, entity], entity_id=entity)
    for entity in (None, "x", "project", "flow"):
        for key in ("k", "$flow.k", "$session.k", "$run.k"):
            assert kv.retrieve(key, entity_id=entity) == [key, entity]


@pytest.mark.parametrize("odd", ODD)
def test_any_text_is_an_id_of_a_scope(make: Make, odd: str) -> None:
    make(FlowScope(session=odd)).insert("$session.x", odd)
    assert make(FlowScope(session=odd)).retrieve("$session.x") == odd
    assert make(FlowScope(session="*")).list_keys() == (["$session.x"] if odd == "*" else [])


@pytest.mark.parametrize("bad", ["", 5, b"s"])
def test_what_is_no_id_is_refused(bad: Any) -> None:
    with pytest.raises(kvstore.InvalidArgumentError):
        FlowScope(session=bad)


def test_a_scope_is_a_flow_scope(tmp_path: Path) -> None:
    with pytest.raises(kvstore.InvalidArgumentError, match="FlowScope"):
        KeyValueStore(tmp_path / "a.db", scope={"session": "s1"})  # type: ignore[arg-type]


def test_a_view_changes_the_ids_that_it_is_given(make: Make) -> None:
    kv = make(FlowScope(flow="f1", session="s1"))
    view = kv.scoped(session="s2")
    assert view.scope == FlowScope(flow="f1", session="s2")
    assert kv.scope == FlowScope(flow="f1", session="s1")
    view.insert("$session.x", 2)
    view.insert("$flow.x", 1)
    assert kv.list_keys() == ["$flow.x"]


# Wildcards


def test_wildcards_speak_of_keys_as_they_are_written(make: Make) -> None:
    kv = make(EVERYWHERE)
    keys = ["config", "temp_1", "$flow.config", "$session.config", "$session.temp_1", "$run.temp_1"]
    for key in keys:
        kv.insert(key, key)
    make(FlowScope(session="s2")).insert("$session.config", "another session's")
    assert kv.list_keys() == kv.list_keys("*") == sorted(keys)
    assert kv.list_keys("*config") == ["$flow.config", "$session.config", "config"]
    assert kv.list_keys("$session.*") == ["$session.config", "$session.temp_1"]
    assert kv.list_keys("$[fr]*.*") == ["$flow.config", "$run.temp_1"]
    assert kv.list_keys("$s*.temp_?") == ["$session.temp_1"]
    assert kv.list_keys("temp_*") == ["temp_1"]
    assert kv.list_keys("[$]run.*") == ["$run.temp_1"]
    assert kv.list_keys("config") == ["config"]
    assert kv.list_keys("?config") == []
    assert kv.remove("*temp_1") == 3
    assert kv.list_keys() == ["$flow.config", "$session.config", "config"]
    assert kv.remove("*") == 3
    assert make(FlowScope(session="s2")).list_keys() == ["$session.config"]


def test_scopes_without_an_id_are_not_visible(make: Make) -> None:
    make(EVERYWHERE).insert("$session.x", 1)
    kv = make()
    kv.insert("x", 1)
    assert kv.list_keys() == ["x"]
    assert kv.remove("*") == 1
    assert make(EVERYWHERE).list_keys() == ["$session.x"]


def test_remove_takes_what_matches_and_nothing_else(kv: KeyValueStore) -> None:
    for key in ("temp_1", "temp_2", "tempX3", "temp", "temp_", "cache_1", "Temp_1"):
        kv.insert(key, 1)
    assert kv.remove("temp_*") == 3
    assert kv.list_keys() == ["Temp_1", "cache_1", "temp", "tempX3"]
    assert kv.remove("temp_*") == 0
    assert kv.remove("cache_1") == 1
    assert kv.remove("cache_1") == 0


def test_remove_takes_any_key_that_was_listed(kv: KeyValueStore) -> None:
    keys = ["scores[alice]", "scoresa", "[", "a[b", "[]", "[^]", "[z-a]", "plain", "[[]", "[*]"]
    for key in keys:
        kv.insert(key, 1, entity_id="alice")
    for key in keys:
        assert kv.exists(key, entity_id="alice") == (key in kv.list_keys(entity_id="alice"))
    for key in sorted(keys):
        kv.insert(key, 1)
        kv.remove(key)
        assert not kv.exists(key)
    assert len(kv.list_keys(entity_id="alice")) == len(keys)


def test_a_pattern_that_does_not_parse_is_refused(kv: KeyValueStore) -> None:
    with pytest.raises(kvstore.InvalidPatternError):
        kv.remove("temp_[1")
    with pytest.raises(kvstore.InvalidPatternError):
        kv.list_keys("temp_[1")
    with pytest.raises(kvstore.InvalidPatternError):
        kv.list_keys(None)  # type: ignore[arg-type]


# Numbers, lists and updates


def test_counters_are_exact_across_threads(kv: KeyValueStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: kv.increment("visits"), range(200)))
    assert kv.retrieve("visits") == 200


def test_counters(kv: KeyValueStore) -> None:
    assert kv.increment("n") == 1
    assert kv.increment("n", 4) == 5
    assert kv.increment("n", -0.5, entity_id="alice") == -0.5
    assert kv.increment("calls", field="by_model.small") == 1
    assert kv.increment("calls", 2, field="by_model.small", initial=10) == 3
    assert kv.increment("from_ten", initial=10) == 11
    assert kv.retrieve("calls") == {"by_model": {"small": 3}}
    kv.insert("text", "seven")
    with pytest.raises(kvstore.ValueTypeError):
        kv.increment("text")


def test_queues(kv: KeyValueStore) -> None:
    assert kv.append("queue", "a", "b", {"c": 1}) == 3
    assert kv.pop("queue") == "a"
    assert kv.pop("queue", -1) == {"c": 1}
    assert kv.pop("queue", 5, default="none") == "none"
    assert kv.pop("missing") is None
    assert kv.append("log", *range(10), max_length=3) == 3
    assert kv.retrieve("log") == [7, 8, 9]
    assert kv.append("queue", 1, entity_id="alice") == 1


def test_nothing_is_taken_twice_from_a_queue(kv: KeyValueStore) -> None:
    kv.append("queue", *range(100))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: kv.pop("queue"), range(100)))
    assert sorted(taken) == list(range(100))


def test_update_loses_nothing_across_threads(kv: KeyValueStore) -> None:
    def add(number: int) -> None:
        kv.update("seen", lambda seen: {**seen, str(number): True}, default={})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(map(int, kv.retrieve("seen"))) == list(range(40))


def test_update_returns_the_new_value(kv: KeyValueStore) -> None:
    assert kv.update("n", lambda value: value + 1, default=1) == 2
    assert kv.update("n", lambda value: value * 10) == 20
    assert kv.update("n", lambda value: value, entity_id="alice") is None


def test_an_error_in_update_passes_and_changes_nothing(kv: KeyValueStore) -> None:
    kv.insert("n", 1)
    with pytest.raises(ZeroDivisionError):
        kv.update("n", lambda value: value / 0)
    assert kv.retrieve("n") == 1


def test_an_update_may_use_the_facade(kv: KeyValueStore) -> None:
    kv.insert("factor", 3)
    kv.insert("n", 2)
    assert kv.update("n", lambda value: value * kv.retrieve("factor")) == 6


# Runs


def test_what_is_under_run_goes_when_the_run_ends(make: Make) -> None:
    kv = make(FlowScope(session="s1"))
    with kv.run(run_id="r1") as run:
        kv.insert("$run.draft", 1)
        kv.insert("$run.draft", 2, entity_id="alice")
        kv.insert("$session.cart", 3)
        kv.insert("kept", 4)
        assert run.retrieve("$run.draft") == 1
        assert run.scope == kv.scope == FlowScope(session="s1", run="r1")
        assert kv.list_keys() == ["$run.draft", "$session.cart", "kept"]
    assert kv.scope == FlowScope(session="s1")
    assert kv.list_keys() == ["$session.cart", "kept"]
    assert make(FlowScope(run="r1")).list_keys() == ["kept"]
    assert kv.list_entities() == []


def test_a_run_ends_after_an_exception_too(make: Make) -> None:
    kv = make()

    def fails() -> None:
        with kv.run(run_id="r1"):
            kv.insert("$run.draft", 1)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert make(FlowScope(run="r1")).list_keys() == []
    with pytest.raises(kvstore.InvalidKeyError):
        kv.retrieve("$run.draft")


def test_a_run_leaves_other_runs_alone(make: Make) -> None:
    kv = make()
    with kv.run("r1/*") as outer:
        kv.insert("$run.x", "outer")
        with kv.run("r1") as inner:
            assert kv.retrieve("$run.x") is None
            kv.insert("$run.x", "inner")
            assert outer.retrieve("$run.x") == "outer"
            assert inner.retrieve("$run.x") == "inner"
        assert kv.retrieve("$run.x") == "outer"


def test_runs_of_threads_do_not_meet(make: Make) -> None:
    kv = make()

    def work(number: int) -> Any:
        with kv.run(run_id=f"r{number}"):
            kv.insert("$run.mine", number)
            kv.append("order", number)
            return kv.retrieve("$run.mine")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(20))) == list(range(20))
    assert kv.list_keys() == ["order"]


def test_the_view_of_a_run_works_in_other_threads(make: Make) -> None:
    kv = make()
    with kv.run(run_id="r1") as run, ThreadPoolExecutor(1) as pool:
        pool.submit(run.insert, "$run.x", 1).result()
        assert kv.retrieve("$run.x") == 1
        with pytest.raises(kvstore.InvalidKeyError):
            pool.submit(kv.retrieve, "$run.x").result()


@pytest.mark.parametrize("bad", [None, "", 5])
def test_a_run_has_an_id(kv: KeyValueStore, bad: Any) -> None:
    with pytest.raises(kvstore.InvalidArgumentError), kv.run(run_id=bad):
        pass


# The whole


def test_what_is_elsewhere_in_the_store_is_not_touched(tmp_path: Path) -> None:
    async def put_others() -> None:
        async with kvstore.open(tmp_path / "a.db") as store:
            for namespace in ((), ("flows",), ("flo",), ("users", "flow"), ("flow",)):
                await store.put(namespace, "config", "mine")

    async def count_others() -> int:
        async with kvstore.open(tmp_path / "a.db") as store:
            return await store.count((), subtree=True)

    asyncio.run(put_others())
    with KeyValueStore(tmp_path / "a.db") as kv:
        assert kv.list_keys() == kv.list_entities() == []
        assert kv.retrieve("config") is None
        assert kv.remove("*") == 0
    assert asyncio.run(count_others()) == 5


async def test_the_awaited_half_is_the_same(tmp_path: Path) -> None:
    async with AsyncKeyValueStore(tmp_path / "a.db", scope=FlowScope(session="s1")) as kv:
        await kv.insert("$session.cart", ["tea"])
        assert await kv.append("$session.cart", "milk") == 2
        await kv.insert("prefs", {"theme": "dark"}, entity_id="alice")
        async with kv.run(run_id="r1") as run:
            await kv.insert("$run.x", 1)
            assert await run.list_keys() == ["$run.x", "$session.cart"]
        assert await kv.list_keys() == ["$session.cart"]

        async def slowly(value: int) -> int:
            return value + 1

        assert await kv.update("n", slowly, default=0) == 1
        assert await kv.scoped(session="s2").list_keys() == ["n"]
    with pytest.raises(kvstore.StoreClosedError):
        await kv.retrieve("n")
    with KeyValueStore(tmp_path / "a.db", scope=FlowScope(session="s1")) as again:
        assert again.list_keys() == ["$session.cart", "n"]
        assert again.list_entities() == ["alice"]


async def test_the_awaited_half_leaves_an_open_store_to_its_owner() -> None:
    async with kvstore.InMemoryStore() as store:
        async with AsyncKeyValueStore(store) as kv:
            await kv.insert("a", 1)
        assert await AsyncKeyValueStore(store).retrieve("a") == 1


def test_the_two_halves_have_the_same_methods_and_arguments() -> None:
    def methods(cls: type) -> dict[str, list[Any]]:
        return {
            name: [
                (parameter.name, parameter.kind, parameter.default)
                for parameter in inspect.signature(member).parameters.values()
            ]
            for name, member in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    awaited = methods(AsyncKeyValueStore)
    del awaited["open"]  # the sync half opens at once
    assert methods(KeyValueStore) == awaited


def test_what_a_call_creates_has_the_lifetime_that_it_was_given() -> None:
    clock = ManualClock()
    with KeyValueStore(InMemoryStore(clock=clock, default_ttl=60)) as kv:
        kv.insert("short", 1, ttl=5)
        kv.insert("lasting", 1, ttl=kvstore.FOREVER)
        assert kv.increment("number", ttl=10) == 1
        assert kv.append("list", "a", ttl=10) == 1
        clock.advance(6)
        assert kv.list_keys() == ["lasting", "list", "number"]
        assert kv.increment("number", ttl=1_000) == 2  # it keeps its own
        assert kv.append("list", "b", ttl=1_000) == 2
        clock.advance(5)
        assert kv.list_keys() == ["lasting"]
        assert kv.increment("number") == 1
        clock.advance(61)
        assert kv.list_keys() == ["lasting"]
        for wrong in (0, -1, float("nan"), "1"):
            with pytest.raises(kvstore.InvalidTTLError):
                kv.increment("number", ttl=wrong)  # type: ignore[arg-type]
