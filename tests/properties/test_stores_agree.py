"""SQLiteStore and PostgresStore do what InMemoryStore does, whatever is asked, in whatever order.

Both sides get the same calls, at the same instants. The other side is two stores over one file or
schema, as two programs would have it: either may be asked, and both are closed and opened again in
between. After each step both sides hold the same. Versions are compared by their order, not by
their numbers.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import kvstore
from kvstore import (
    IndexConfig,
    InMemoryStore,
    Item,
    SQLiteStore,
    Store,
    StoreError,
    Transaction,
    codec,
)
from kvstore.embeddings import HashingEmbeddings
from kvstore.postgres.store import PostgresBackend
from kvstore.testing import ManualClock
from tests.postgres.server import Database

from .strategies import (
    filters,
    integers,
    json_values,
    objects,
    paths,
    patterns,
    scalars,
    stored_values,
)

Namespace = tuple[str, ...]
Call = Callable[[Store], Awaitable[Any]]

# Few enough that calls meet what others have put, and each a trap for some encoding.
LABELS = ["a", "A", "ab", "a\t", "\x00", "*", "🙂"]
NAMESPACES: list[Namespace] = [
    *(("a",), ("a", "a"), (), ("a", "A", "\x00"), ("A",), ("ab",), ("a\t",), ("a", "\t")),
    ("*", "🙂"),
]  # fmt: skip
KEYS = [
    *("", "a", "A", "aa", "a\x00", "a\x00b", "\x00", "*", "[a]", "a.b", "$", "'", '"', "\n"),
    *("é", "e\u0301", "\ufffd", "\ufffe", "\uffff", "\U00010000", "🙂", "\U0010ffff"),
]  # fmt: skip
LOGS: list[Namespace] = [("log",), ("a", "log")]
QUEUES: list[Namespace] = [("jobs",), ("a", "jobs")]
ORDERS: list[Any] = [
    *(None, None, "key", "-key", "version", "-updated_at", "created_at", "-expires_at", "a", "-a"),
    ["-a", "key"],
    ["expires_at", "-version"],
]
QUERIES = ["a", "A", "É", "ss", "1", "0.3", "\x00", "%", "🙂", "", "bytes", "\ufffe"]

labels = st.sampled_from(LABELS)
namespaces = st.sampled_from(NAMESPACES)
keys = st.sampled_from(KEYS)
key_lists = st.lists(keys, max_size=5)
ttls = st.sampled_from([None, None, None, 0.25, 1, 5, timedelta(seconds=10), kvstore.FOREVER])
label_patterns = st.lists(labels | st.just(...), max_size=2)
limits = st.none() | st.integers(0, 5)
places = st.dictionaries(
    st.sampled_from(["after", "before"]), st.tuples(namespaces, keys), max_size=2
)
refreshing = st.sampled_from([None, True, False])
modes = st.sampled_from(["auto", "text", "semantic", "hybrid"])
sentences = st.lists(
    st.sampled_from(["tea", "green", "tea pot", "the", "東京都", "v1.2"]), min_size=1, max_size=4
).map(" ".join)


scripts = st.lists(
    st.tuples(st.sampled_from(["get", "put", "delete"]), namespaces, keys, json_values), max_size=5
)


few_namespaces, few_keys = st.sampled_from(NAMESPACES[:3]), st.sampled_from(KEYS[:4])


def _write(name: str, *args: st.SearchStrategy[Any], **options: st.SearchStrategy[Any]) -> Any:
    arguments = st.tuples(few_namespaces, *args)
    return st.tuples(st.just(name), arguments, st.fixed_dictionaries(options))


writes = (
    _write("put", few_keys, scalars)
    | _write("put", few_keys, objects, ttl=ttls)
    | _write("put", few_keys, scalars, index=st.sampled_from([False, ["a"]]))
    | _write("put", few_keys, scalars, if_version=st.sampled_from([0, 0, 1]))
    | _write("put", few_keys, st.just({1}))
    | _write("put_many", st.dictionaries(few_keys, scalars, max_size=4), ttl=ttls)
    | _write("delete", few_keys)
    | _write("delete_many", st.lists(few_keys, max_size=3))
    | _write("increment", few_keys, integers)
    | _write("append", few_keys, scalars)
    | _write("pop", few_keys)
    | _write("remove", st.sampled_from(["*", "a*", "?", "[^a]"]), subtree=st.booleans())
)


def _work(name: str, **options: st.SearchStrategy[Any]) -> Any:
    return st.tuples(st.just(name), st.integers(0, 9), st.fixed_dictionaries(options))


# What is done to a queue; the numbers say to which job, or what it is to be.
works = (
    _work("put")
    | _work(
        "put",
        delay=st.sampled_from([0, 0, 1, 10]),
        unique=st.sampled_from([None, None, "n", "m"]),
    )
    | _work("take", lease=st.sampled_from([0.5, 4, 30]), attempts=st.integers(1, 3))
    | _work("take")
    | _work("finish")
    | _work("finish")
    | _work("retry", delay=st.sampled_from([0, 0, 1]), error=st.just("why"))
    | _work("extend", seconds=st.just(5))
    | _work("give_back")
    | _work("revive")
    | _work("cancel")
)


# Of an imported line: seconds from now, or what is no time, or one that hardly is.
_times = (
    st.sampled_from([-100, -1, -0.000001, 0, 0.000001, 1, 100])
    | st.sampled_from([None, 0, "", "now", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00"])
    | st.sampled_from(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-23:59"])
    | st.sampled_from(["1969-12-31T23:59:59.999999Z", "2026-01-01T01:00:00+01:00"])
)
_seconds = st.sampled_from([-100, -1, -0.000001, 0.000001, 1, 100])
_plain_lines = st.fixed_dictionaries(
    {"namespace": few_namespaces, "key": few_keys, "value": scalars},
    optional={
        "created_at": _seconds,
        "updated_at": _seconds,
        "expires_at": _seconds,
        "version": st.integers(0, 6),
        "index": st.sampled_from([False, ["a"]]),
    },
)
_odd_lines = st.tuples(
    _plain_lines, st.sampled_from(["created_at", "updated_at", "expires_at"]), _times
).map(lambda drawn: {**drawn[0], drawn[1]: drawn[2]})
imported = st.lists(_plain_lines, min_size=1, max_size=5) | st.lists(
    _plain_lines | _odd_lines, min_size=1, max_size=3
)


class StoresAgree(RuleBasedStateMachine):
    has_sequences = keeps_history = True
    is_indexed = has_model = False

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="kvstore-agree-"))
        self.clock = ManualClock()
        self.others: list[Store] = []
        # The others' for each of the model's, by root where those are of a root
        self.versions: dict[tuple[str, int], int] = {}
        self.greatest: dict[str, tuple[int, int]] = {}
        self.moments: list[tuple[int, int]] = []  # versions after a step, the model's and theirs
        self.held: list[tuple[Namespace, str, dict[bool, int]]] = []  # jobs, and whose tokens

    @initialize(
        default_ttl=ttls,
        refresh_ttl=st.booleans(),
        durability=st.sampled_from(["normal", "normal", "full"]),
        history=st.sampled_from([None, 3_600]),
        indexes=st.sampled_from([None, "words", "meaning", "meaning"]),
        first=st.lists(st.dictionaries(keys, stored_values, min_size=5), max_size=3),
    )
    def open(
        self,
        default_ttl: Any,
        refresh_ttl: bool,
        durability: Any,
        history: float | None,
        indexes: str | None,
        first: list[dict[str, Any]],
    ) -> None:
        options: dict[str, Any] = {
            "default_ttl": default_ttl,
            "refresh_ttl": refresh_ttl,
            "clock": self.clock,
            "sweep_interval": None,
            "max_value_bytes": 2_000,
        }
        self.has_history = history is not None and self.keeps_history
        self.is_indexed = indexes is not None
        self.has_model = indexes == "meaning"
        if self.is_indexed:
            model = HashingEmbeddings(dimensions=16) if self.has_model else None
            options["index"] = IndexConfig(model)
        if self.has_history:
            options["history"] = history
        self.model = InMemoryStore(**options)
        self.make_other = self.maker(durability, options)
        self.runner.run(self.model.open())
        self.open_other()
        self.open_other()
        for namespace, mapping in zip(NAMESPACES, first, strict=False):
            self.put_many(namespace, mapping, None)

    def maker(self, durability: Any, options: dict[str, Any]) -> Callable[[], Store]:
        return partial(SQLiteStore, self.folder / "store.db", durability=durability, **options)

    def open_other(self) -> None:
        store = self.make_other()
        self.runner.run(store.open())
        self.others.append(store)

    def close_other(self) -> None:
        self.runner.run(self.others.pop(0).close())

    def teardown(self) -> None:
        while self.others:
            self.close_other()
        self.runner.close()
        shutil.rmtree(self.folder)

    # How both are asked, and their answers compared

    def agree(self, call: Call) -> None:
        """Ask the model and one of the other stores, in turn.

        What the call changes outside of the store it makes anew each time.
        """
        self.others.reverse()
        self.compare(self.ask(self.model, call), self.ask(self.others[0], call))

    def root_of(self, namespace: Namespace) -> str:
        """Return whose version an item of a namespace has: here, all have the store's."""
        return ""

    def greatest_of(self, root: str) -> tuple[int, int]:
        return self.greatest.get(root, (0, 0))

    def ask(self, store: Store, call: Call) -> tuple[Any, list[tuple[str, int]]]:
        """Return the answer, or the error, in a form to compare; and the versions in it."""

        async def answer() -> Any:
            return await call(store)

        versions: list[tuple[str, int]] = []
        try:
            found = _comparable(self.runner.run(answer()), versions, self.root_of)
            return found, versions
        except StoreError as exc:
            return type(exc), versions

    def compare(
        self,
        expected: tuple[Any, list[tuple[str, int]]],
        found: tuple[Any, list[tuple[str, int]]],
    ) -> None:
        """Compare answers, and the order of versions.

        Writes of one step may get their versions in any order, but greater than all before.
        """
        assert found[0] == expected[0]
        for (root, ours), (_, theirs) in zip(expected[1], found[1], strict=True):
            if (root, ours) not in self.versions:
                assert theirs not in [each for (of, _), each in self.versions.items() if of == root]
                known = self.greatest_of(root)
                assert theirs > known[1] or ours < known[0]
                self.versions[root, ours] = theirs
            assert self.versions[root, ours] == theirs

    @invariant()
    def both_hold_the_same(self) -> None:
        if self.others:  # from the first step on
            expected = self.ask(self.model, _everything)
            for store in self.others:
                self.compare(expected, self.ask(store, _everything))
            for (root, ours), theirs in self.versions.items():
                known = self.greatest_of(root)
                self.greatest[root] = max(ours, known[0]), max(theirs, known[1])
            if self.greatest_of("") not in self.moments:
                self.moments.append(self.greatest_of(""))

    # Time, and the file

    @rule(seconds=st.sampled_from([0.25, 0.75, 1, 4, 10, 100]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.agree(lambda store: store.sweep())

    @rule(both=st.booleans())
    def reopen(self, both: bool) -> None:
        self.close_other()
        if both:
            self.close_other()
            self.open_other()
        self.open_other()

    # Writes

    @rule(namespace=namespaces, key=keys, value=stored_values, ttl=ttls)
    def put(self, namespace: Namespace, key: str, value: Any, ttl: Any) -> None:
        self.agree(lambda store: store.put(namespace, key, value, ttl=ttl))

    @rule(namespace=namespaces, mapping=st.dictionaries(keys, objects, max_size=6), ttl=ttls)
    def put_many(self, namespace: Namespace, mapping: dict[str, Any], ttl: Any) -> None:
        self.agree(lambda store: store.put_many(namespace, mapping, ttl=ttl))

    @rule(namespace=namespaces, key=keys, value=json_values, delete=st.booleans())
    def write_over_what_is_there(
        self, namespace: Namespace, key: str, value: Any, delete: bool
    ) -> None:
        async def write(store: Store) -> Any:
            item = await store.get(namespace, key, refresh_ttl=False)
            version = item.version if item is not None else 0
            if delete:
                return await store.delete(namespace, key, if_version=version)
            return await store.put(namespace, key, value, if_version=version)

        self.agree(write)

    @rule(namespace=namespaces, key=keys, back=st.integers(0, 10), delete=st.booleans())
    def write_over_some_version(
        self, namespace: Namespace, key: str, back: int, delete: bool
    ) -> None:
        root = self.root_of(namespace)
        pairs = [(0, 0), *((ours, all) for (of, ours), all in self.versions.items() if of == root)]
        ours, theirs = pairs[-1 - back % len(pairs)]

        async def write(store: Store) -> Any:
            version = ours if store is self.model else theirs
            if delete:
                return await store.delete(namespace, key, if_version=version)
            return await store.put(namespace, key, "over", if_version=version)

        self.agree(write)

    @rule(namespace=namespaces, key=keys, ttl=ttls)
    def expire(self, namespace: Namespace, key: str, ttl: Any) -> None:
        self.agree(lambda store: store.expire(namespace, key, ttl))

    @rule(namespace=namespaces, key=keys)
    def delete(self, namespace: Namespace, key: str) -> None:
        self.agree(lambda store: store.delete(namespace, key))

    @rule(namespace=namespaces, some=key_lists)
    def delete_many(self, namespace: Namespace, some: list[str]) -> None:
        self.agree(lambda store: store.delete_many(namespace, some))

    @rule(namespace=namespaces, pattern=patterns, subtree=st.booleans())
    def remove(self, namespace: Namespace, pattern: str, subtree: bool) -> None:
        self.agree(lambda store: store.remove(namespace, pattern, subtree=subtree))

    @rule(
        namespace=namespaces,
        key=keys,
        amount=integers | st.floats(),
        field=st.none() | paths,
        initial=st.sampled_from([0, 0, 5, 0.5, 2**63]),
    )
    def increment(
        self, namespace: Namespace, key: str, amount: float, field: str | None, initial: float
    ) -> None:
        self.agree(
            lambda store: store.increment(namespace, key, amount, field=field, initial=initial)
        )

    @rule(
        namespace=namespaces,
        key=keys,
        values=st.lists(json_values, max_size=3),
        max_length=st.none() | st.integers(0, 4),
        ttl=ttls,
    )
    def append(
        self, namespace: Namespace, key: str, values: list[Any], max_length: int | None, ttl: Any
    ) -> None:
        self.agree(
            lambda store: store.append(namespace, key, *values, max_length=max_length, ttl=ttl)
        )

    @rule(namespace=namespaces, key=keys, index=st.integers(-3, 3), default=scalars)
    def pop(self, namespace: Namespace, key: str, index: int, default: Any) -> None:
        self.agree(lambda store: store.pop(namespace, key, index, default=default))

    @rule(namespace=namespaces, key=keys, new=json_values, default=scalars, rival=st.booleans())
    def update(self, namespace: Namespace, key: str, new: Any, default: Any, rival: bool) -> None:
        async def update(store: Store) -> Any:
            seen: list[str] = []

            async def change(value: Any) -> Any:
                seen.append(repr(value))
                if rival and len(seen) == 1:
                    await store.put(namespace, key, "rival")
                return new

            return [await store.update(namespace, key, change, default=default), seen]

        self.agree(update)

    @rule(script=scripts, rival=st.none() | st.tuples(namespaces, keys), fails=st.booleans())
    def transact(self, script: list[Any], rival: tuple[Namespace, str] | None, fails: bool) -> None:
        async def transact(store: Store) -> Any:
            tries: list[list[Any]] = []

            async def work(tx: Transaction) -> None:
                seen: list[Any] = []
                tries.append(seen)
                for what, namespace, key, value in script:
                    match what:
                        case "get":
                            seen.append(await tx.get(namespace, key))
                        case "put":
                            await tx.put(namespace, key, value, ttl=5)
                        case "delete":
                            await tx.delete(namespace, key)
                if rival and len(tries) == 1:
                    await store.put(*rival, "rival")
                if fails and len(tries) == 2:
                    raise StoreError("the caller's own")

            await store.transact(work)
            return tries

        self.agree(transact)

    @rule(script=st.lists(writes, min_size=2, max_size=12))
    def write_together(self, script: list[Any]) -> None:
        """Writes that wait together are committed together, in the order of the calls.

        Where texts wait for their vectors meanwhile, writes may overtake each other: then these
        are of one item each.
        """
        if self.has_model:
            script = _apart(script)

        async def write(store: Store) -> Any:
            calls = (getattr(store, name)(*args, **options) for name, args, options in script)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            return [type(each) if isinstance(each, StoreError) else each for each in outcomes]

        self.agree(write)

    # Logs and queues

    @rule(
        namespace=st.sampled_from(LOGS),
        values=st.lists(json_values, min_size=1, max_size=3),
        ttl=ttls,
    )
    def append_to_a_log(self, namespace: Namespace, values: list[Any], ttl: Any) -> None:
        if self.has_sequences:
            self.agree(lambda store: store.log(namespace).append(*values, ttl=ttl))

    @rule(namespace=st.sampled_from(LOGS), keep=st.none() | st.integers(0, 4))
    def shorten_a_log(self, namespace: Namespace, keep: int | None) -> None:
        if self.has_sequences and keep is None:
            self.agree(lambda store: store.log(namespace).pop())
        elif self.has_sequences and keep is not None:
            self.agree(lambda store: store.log(namespace).trim(keep))

    @rule(namespace=st.sampled_from(LOGS), after=st.integers(0, 8), limit=st.integers(0, 5))
    def read_a_log(self, namespace: Namespace, after: int, limit: int) -> None:
        async def read(store: Store) -> list[Any]:
            log = store.log(namespace)
            last = await log.tail(limit)
            return [await log.length(), last, [entry async for entry in log.read(after)]]

        if self.has_sequences:
            self.agree(read)

    @rule(namespace=st.sampled_from(QUEUES), script=st.lists(works, min_size=2, max_size=10))
    def work_on_a_queue(self, namespace: Namespace, script: list[Any]) -> None:
        taken: dict[bool, list[tuple[str, int]]] = {}

        async def work(store: Store) -> list[Any]:
            answers: list[Any] = []
            is_model = store is self.model
            held = [(id, tokens[is_model]) for place, id, tokens in self.held if place == namespace]
            mine = taken[is_model] = []
            for name, number, options in script:
                queue = store.queue(namespace, **(options if name == "take" else {}))
                try:
                    match name:
                        case "put":
                            answers.append(await queue.put(number, **options))
                        case "take":
                            job = await queue.take(timeout=0)
                            answers.append(job and [job.id, job.value, job.attempt])
                            if job is not None:
                                mine.append((job.id, job.token))
                        case "revive":
                            answers.append(await queue.revive(f"{number:019}", "no such job"))
                        case "cancel":
                            answers.append(await store.delete(namespace, f"{number:019}"))
                        case _ if held or mine:
                            id, token = [*held, *mine][-1 - number % len([*held, *mine])]
                            end = getattr(queue, name)
                            args = (
                                (token,) if name == "give_back" else (id, token, *options.values())
                            )
                            answers.append(await end(*args))
                except StoreError as exc:
                    answers.append(type(exc))
                answers.append(await queue.size())
            answers += [[job.id, job.attempt, job.error] for job in await queue.dead()]
            return answers

        if self.has_sequences:
            self.agree(work)
            for (id, ours), (_, theirs) in zip(taken[True], taken[False], strict=True):
                self.held.append((namespace, id, {True: ours, False: theirs}))

    # The past

    @rule(lines=imported, on_conflict=st.sampled_from(["replace", "replace", "skip", "error"]))
    def import_lines(self, lines: list[dict[str, Any]], on_conflict: Any) -> None:
        def at(value: Any) -> Any:
            is_time = isinstance(value, (int, float)) and value
            return (self.clock.now + timedelta(seconds=value)).isoformat() if is_time else value

        names = ("created_at", "updated_at", "expires_at")
        data = b"".join(
            codec.encode({name: at(it) if name in names else it for name, it in line.items()})
            + b"\n"
            for line in lines
        )
        self.agree(lambda store: store.import_items(io.BytesIO(data), on_conflict=on_conflict))

    @precondition(lambda self: self.is_indexed)
    @rule()
    def reindex(self) -> None:
        self.agree(lambda store: store.reindex())

    @precondition(lambda self: self.is_indexed)
    @rule(
        namespace=few_namespaces,
        texts=st.dictionaries(few_keys, sentences, min_size=1),
        query=sentences,
        mode=modes,
        subtree=st.booleans(),
        offset=st.integers(0, 2),
    )
    def rank(
        self,
        namespace: Namespace,
        texts: dict[str, str],
        query: str,
        mode: str,
        subtree: bool,
        offset: int,
    ) -> None:
        self.put_many(namespace, texts, None)
        where = namespace[:1] if subtree else namespace
        self.agree(
            lambda store: store.search(where, query, mode=mode, subtree=subtree, offset=offset)
        )

    @rule(back=st.integers(0, 6), filter=st.none() | filters)
    def look_back(self, back: int, filter: dict[str, Any] | None) -> None:
        if not self.has_history or not self.moments:
            return
        ours, theirs = self.moments[-1 - back % len(self.moments)]

        async def look(store: Store) -> list[Item]:
            past = store.at(ours if store is self.model else theirs)
            return [item async for item in past.scan(filter=filter, batch_size=3)]

        self.agree(look)

    @rule(
        back=st.integers(0, 6),
        namespace=st.just(()) | namespaces | st.sampled_from(LOGS + QUEUES),
        subtree=st.booleans(),
    )
    def go_back(self, back: int, namespace: Namespace, subtree: bool) -> None:
        if not self.has_history or not self.moments:
            return
        ours, theirs = self.moments[-1 - back % len(self.moments)]
        self.agree(
            lambda store: store.rewind(
                ours if store is self.model else theirs, namespace=namespace, subtree=subtree
            )
        )

    # Reads

    @rule(namespace=namespaces, key=keys, refresh=refreshing)
    def get(self, namespace: Namespace, key: str, refresh: bool | None) -> None:
        self.agree(lambda store: store.get(namespace, key, refresh_ttl=refresh))

    @rule(namespace=namespaces, some=key_lists, refresh=refreshing)
    def get_many(self, namespace: Namespace, some: list[str], refresh: bool | None) -> None:
        self.agree(lambda store: store.get_many(namespace, some, refresh_ttl=refresh))

    @rule(
        namespace=namespaces,
        query=st.none() | st.sampled_from(QUERIES),
        filter=st.none() | filters,
        order_by=st.sampled_from(ORDERS),
        limit=st.integers(0, 12),
        offset=st.integers(0, 3),
        subtree=st.booleans(),
        refresh=refreshing,
    )
    def search(
        self,
        namespace: Namespace,
        query: str | None,
        filter: dict[str, Any] | None,
        order_by: Any,
        limit: int,
        offset: int,
        subtree: bool,
        refresh: bool | None,
    ) -> None:
        if not namespace and self.root_of(("a",)) != self.root_of(("b",)):
            subtree = False  # which write of two roots is the later one, nobody knows
        self.agree(
            lambda store: store.search(
                namespace,
                query,
                filter=filter,
                order_by=order_by,
                limit=limit,
                offset=offset,
                subtree=subtree,
                refresh_ttl=refresh,
            )
        )

    @rule(
        namespace=namespaces,
        pattern=patterns,
        subtree=st.booleans(),
        bounds=places,
        reverse=st.booleans(),
        limit=limits,
    )
    def keys(
        self,
        namespace: Namespace,
        pattern: str,
        subtree: bool,
        bounds: dict[str, Any],
        reverse: bool,
        limit: int | None,
    ) -> None:
        within = _bounds(bounds, subtree)
        self.agree(
            lambda store: store.keys(
                namespace, pattern, subtree=subtree, reverse=reverse, limit=limit, **within
            )
        )

    @rule(namespace=namespaces, pattern=patterns, subtree=st.booleans())
    def count(self, namespace: Namespace, pattern: str, subtree: bool) -> None:
        self.agree(lambda store: store.count(namespace, pattern, subtree=subtree))

    @rule(
        namespace=namespaces,
        pattern=st.just("*") | patterns,
        filter=st.none() | filters,
        subtree=st.booleans(),
        bounds=places,
        reverse=st.booleans(),
        batch_size=st.integers(1, 5),
    )
    def scan(
        self,
        namespace: Namespace,
        pattern: str,
        filter: dict[str, Any] | None,
        subtree: bool,
        bounds: dict[str, Any],
        reverse: bool,
        batch_size: int,
    ) -> None:
        within = _bounds(bounds, subtree)

        async def scan(store: Store) -> list[Item]:
            items = store.scan(
                namespace,
                pattern=pattern,
                filter=filter,
                subtree=subtree,
                reverse=reverse,
                batch_size=batch_size,
                **within,
            )
            return [item async for item in items]

        self.agree(scan)

    @rule(
        prefix=label_patterns,
        suffix=label_patterns,
        max_depth=st.none() | st.integers(1, 3),
        limit=limits,
        offset=st.integers(0, 2),
    )
    def list_namespaces(
        self,
        prefix: list[Any],
        suffix: list[Any],
        max_depth: int | None,
        limit: int | None,
        offset: int,
    ) -> None:
        self.agree(
            lambda store: store.list_namespaces(
                prefix, suffix=suffix, max_depth=max_depth, limit=limit, offset=offset
            )
        )


def _bounds(bounds: dict[str, Any], subtree: bool) -> dict[str, Any]:
    """Return the bounds of a listing as it takes them: without `subtree` they are keys."""
    return bounds if subtree else {name: key for name, (_, key) in bounds.items()}


def _apart(script: list[Any]) -> list[Any]:
    """Return the calls of a script that touch no item which one before them touches."""
    touched: set[tuple[Namespace, str]] = set()
    kept = []
    for call in script:
        name, (namespace, *rest), _ = call
        of_many = name in ("put_many", "delete_many")
        keys = KEYS if name == "remove" else rest[0] if of_many else rest[:1]
        spaces = NAMESPACES if name == "remove" else [namespace]
        own = {(space, key) for space in spaces for key in keys}
        if not own & touched:
            kept.append(call)
            touched |= own
    return kept


async def _everything(store: Store) -> list[Item]:
    return [item async for item in store.scan(batch_size=100)]


def _comparable(
    answer: Any, versions: list[tuple[str, int]], root_of: Callable[[Namespace], str]
) -> Any:
    """Return the answer with values as text, which tells 1, 1.0 and True apart."""
    match answer:
        case Item():
            versions.append((root_of(answer.namespace), answer.version))
            return replace(answer, version=0, value=repr(answer.value))
        case list():
            return [_comparable(each, versions, root_of) for each in answer]
        case dict() if answer and all(isinstance(each, Item) for each in answer.values()):
            return [(key, _comparable(each, versions, root_of)) for key, each in answer.items()]
    return repr(answer)


class PostgresAgrees(StoresAgree):
    database: Database
    has_sequences = PostgresBackend.has_sequences
    keeps_history = False  # it does, and a version is a root label's there

    def root_of(self, namespace: Namespace) -> str:
        return f"of {namespace[:1]}"

    def maker(self, durability: Any, options: dict[str, Any]) -> Callable[[], Store]:
        self.url = self.database.new_schema()
        is_pooler = durability == "full"  # nothing else is asked of it here
        return partial(kvstore.open, self.url, pooler=is_pooler, pool_size=2, **options)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "url"):
            self.database.drop_schema(self.url)


@pytest.fixture(scope="class")
def _database(postgres: Database) -> None:
    PostgresAgrees.database = postgres


_MOST_ON_A_SERVER = settings().max_examples // 5

TestStoresAgree = pytest.mark.slow(StoresAgree.TestCase)
TestPostgresAgrees = pytest.mark.usefixtures("_database")(PostgresAgrees.TestCase)
TestPostgresAgrees.settings = settings(max_examples=_MOST_ON_A_SERVER)
if settings.default is not None and settings.default.derandomize:
    # To make a failure short takes minutes, and any run makes the same one again.
    _quick = settings(phases=set(Phase) - {Phase.shrink, Phase.explain})
    TestStoresAgree.settings = _quick
    TestPostgresAgrees.settings = settings(_quick, max_examples=_MOST_ON_A_SERVER)
