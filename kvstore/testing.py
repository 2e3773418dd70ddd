"""`StoreConformance`: the contract of a store as a pytest class, for authors of backends.

A backend is right when this passes, with pytest and pytest-asyncio, in either of its modes:

    from functools import partial

    import pytest
    from kvstore.testing import StoreConformance

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store_factory(self, tmp_path):
            return partial(MyStore, tmp_path / "my.store")

`store_factory(**options)` makes a store that is not open yet. It takes the options of `Store`:
`clock`, `default_ttl`, `refresh_ttl`, `max_value_bytes` and `sweep_interval`. Each test calls it
once, and what the store holds at first is nothing. All else is built on it: `clock` is a
`ManualClock`, and `store` is an opened store that goes by this clock and sweeps only when told.

For assertions that show their values, put `pytest.register_assert_rewrite("kvstore.testing")`
into your `conftest.py`. What a store may do beyond the contract (last, be shared by processes,
rank) is not tested here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import math
import re
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from kvstore.distribution import or_install
from kvstore.errors import (
    ConflictError,
    InvalidArgumentError,
    InvalidFilterError,
    InvalidKeyError,
    InvalidNamespaceError,
    InvalidPatternError,
    InvalidTTLError,
    StoreClosedError,
    StoreError,
    ValueEncodingError,
    ValueTooLargeError,
    ValueTypeError,
    WrongLoopError,
)
from kvstore.instants import FOREVER
from kvstore.past_view import Past
from kvstore.patterns import escape
from kvstore.store import Store
from kvstore.transaction import Transaction
from kvstore.types import EPOCH, Item, SearchQuery

_NEEDS = "kvstore.testing needs pytest and pytest-asyncio"
with or_install(_NEEDS, "test", "pytest", "pytest-asyncio"):
    import pytest
    import pytest_asyncio

__all__ = ["ManualClock", "StoreConformance", "StoreFactory"]

StoreFactory = Callable[..., Store]


class ManualClock:
    """A clock that stands still until it is moved: `Store(clock=ManualClock())`.

    It counts in binary fractions of a second, so that no instant is off by a rounding.

    Args:
        start: seconds since the epoch at which it stands at first.

    Attributes:
        seconds: those at which it stands; may be set.
    """

    def __init__(self, start: float = 1_750_000_000.0) -> None:
        self.seconds = start

    def __call__(self) -> float:
        """Return the present time in seconds since the epoch."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move the clock on; at best by whole seconds or halves, quarters, eighths of one."""
        self.seconds += seconds

    @property
    def now(self) -> datetime:
        """The present time as a store writes it."""
        return EPOCH + timedelta(seconds=self.seconds)


NS = ("users", "alice")
SPAN = 3600.0  # seconds of history, where it is kept

# Texts that have broken stores: each is a label and a key here.
ADVERSARIAL_TEXTS = [
    *("a", "A", "ab", "a b", " ", "%", "_", "*", "?", "[", "]", "[a]", "a*", "a%", "^", "-"),
    *("/", "a/b", ":", "::", ".", "..", "a.b", "\\", "'", '"', "';--", "$", "$.a", "{}", "#", "~"),
    *("\t", "\n", "\r", "a\tb", "a\nb", "\nI", "\n@", "\x00", "a\x00", "a\x00b", "\x01", "\x7f"),
    *("é", "e\u0301", "É", "ß", "ẞ", "İ", "ı", "\u00a0", "\u2028", "日本", "\ud7ff", "\ue000"),
    *("\ufdd0", "\ufffd", "\ufffe", "\uffff", "\U00010000", "🙂", "👩‍👩‍👧", "\U0010ffff"),
]  # fmt: skip

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

# Values and what comes back for them; JSON itself comes back as it is.
JSON_VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "int": -42,
    "least int": -(2**63),
    "largest signed int": 2**63 - 1,
    "largest int": 2**64 - 1,
    "float": 0.1,
    "integral float": 1.0,
    "negative zero": -0.0,
    "17 digits": 0.30000000000000004,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "empty string": "",
    "adversarial strings": ADVERSARIAL_TEXTS,
    "empty list": [],
    "empty object": {},
    "nested": {"a": [{"b": [[], {}, None, False, 0, ""]}]},
    "strange keys": {text: at for at, text in enumerate(["", *ADVERSARIAL_TEXTS])},
    "deep": eval("[" * 100 + "]" * 100),  # noqa: S307 - a literal
    "bytes": b"\x00\xff",
    "no bytes": b"",
    "bytes in the value": {"a": [b"\x00", {"b": b"\xff"}]},
    "what looks like tagged bytes": {"$bytes": "AA=="},
    "the same below": [{"$bytes": 1}, {"$$bytes": b"x"}, {"$$$bytes": {"$bytes": None}}],
    "and beside": {"$bytes": "AA==", "other": b"x"},
}


@dataclasses.dataclass
class _Point:
    x: int
    y: bytes


CONVERTED_VALUES: dict[str, tuple[Any, Any]] = {
    "tuple": ((1, (2,)), [1, [2]]),
    "bytearray": (bytearray(b"x"), b"x"),
    "memoryview": ({"a": memoryview(b"x")}, {"a": b"x"}),
    "datetime": (datetime(2024, 2, 29, tzinfo=UTC), "2024-02-29T00:00:00+00:00"),
    "date": ([date(2024, 2, 29)], ["2024-02-29"]),
    "dataclass": (_Point(1, b"y"), {"x": 1, "y": b"y"}),
}

_cycle: list[Any] = []
_cycle.append(_cycle)

# Values that could not come back, and the path that the error names.
REFUSED_VALUES: dict[str, tuple[Any, str]] = {
    "NaN": (math.nan, "$"),
    "NaN deep inside": ({"rows": [{}, {}, {"price": math.nan}]}, "$.rows[2].price"),
    "infinity": ([1, math.inf], "$[1]"),
    "NaN beside null": ([None, {"a": -math.inf}], "$[1].a"),
    "large integer": ({"n": 2**64}, "$.n"),
    "small integer": ([-(2**63) - 1], "$[0]"),
    "non-string key": ({"a": {1: "one"}}, "$.a"),
    "null key": ({None: 1}, "$"),
    "set": ({"tags": {1}}, "$.tags"),
    "object": ([object()], "$[0]"),
    "complex": (1j, "$"),
    "lone surrogate": (["\ud800"], "$[0]"),
    "lone surrogate in a key": ({"a": {"\udfff": 1}}, "$.a"),
    "cycle": (_cycle, "$[0][0]"),
    "beside bytes": ([b"x", {"a": math.nan}], "$[1].a"),
}  # fmt: skip

# Pattern, keys that it matches, keys that it does not. The meaning is that of SQLite's GLOB.
GLOBS: list[tuple[str, list[str], list[str]]] = [
    ("*", ["", "a", "\x00", "a\nb", "\ufffe", "🙂"], []),
    ("**", ["", "a"], []),
    ("", [""], ["a"]),
    ("a", ["a"], ["", "A", "aa", "a\x00"]),
    ("a*", ["a", "ab", "a\x00b", "a\U0010ffff"], ["", "A", "ba"]),
    ("*a", ["a", "ba", "\x00a"], ["ab", "a\x00"]),
    ("*a*", ["a", "bab", "\x00a\x00"], ["b", "\x00"]),
    ("a*b*c", ["abc", "aXbYc", "abcbc", "a\nb\nc"], ["ab", "acb", "abcd"]),
    ("?", ["a", "é", "🙂", "\x00", "\n", "\ufffe"], ["", "ab", "e\u0301"]),
    ("??*", ["ab", "abc"], ["", "a"]),
    ("[abc]", ["a", "b", "c"], ["d", "", "ab", "A", "[abc]"]),
    ("[a-c]x", ["ax", "cx"], ["dx", "-x", "Ax"]),
    ("[^a]", ["b", "^", "\x00", "\n", "🙂"], ["a", ""]),
    ("[^a-c]*", ["d", "dab"], ["a", "abc", ""]),
    ("[a^]", ["a", "^"], ["b"]),
    ("[]]", ["]"], ["[", "[]", ""]),
    ("[^]]", ["[", "a"], ["]"]),
    ("[]a]", ["]", "a"], ["[", "]a"]),
    ("[-a]", ["-", "a"], ["b"]),
    ("[a-]", ["-", "a"], ["b"]),
    ("[c-a]", ["c"], ["a", "b", "-"]),
    ("[^c-a]", ["a", "b", "-"], ["c"]),
    ("[a-c-e]", ["a", "b", "c", "-", "e"], ["d"]),
    ("[*]", ["*"], ["a", ""]),
    ("[?]", ["?"], ["a"]),
    ("[[]", ["["], ["]", "a"]),
    ("[[]a]", ["[a]"], ["[", "a", "[a"]),
    ("\\*", ["\\", "\\a"], ["*", "a"]),
    ("%", ["%"], ["a"]),
    ("_", ["_"], ["a"]),
    ("temp_*", ["temp_", "temp_1"], ["tempX1", "Temp_1", "temp"]),
    ("[à-ü]*", ["é", "éa"], ["e", "a"]),
    ("*🙂?", ["🙂a", "a🙂🙂"], ["🙂"]),
    ("*\x00*", ["\x00", "a\x00b"], ["", "a"]),
    ("[\x00-\x02]", ["\x00", "\x01"], ["a", "\x03"]),
    ("*\ufffd", ["\ufffd"], ["\ufffe", "\uffff"]),
    ("[\ufffe]", ["\ufffe"], ["\ufffd", "\uffff"]),
    ("[[:alpha:]]", ["[]", ":]", "a]"], ["a", "b]"]),
]

UNCLOSED_PATTERNS = ["[", "a[", "[a", "[^", "[]", "[^]", "[]a", "[a-", "*[", "[a]["]

# What filters are tried on; the keys stand for the values below.
FILTERED: dict[str, Any] = {
    "null": {"f": None},
    "true": {"f": True},
    "false": {"f": False},
    "0": {"f": 0},
    "1": {"f": 1},
    "1.0": {"f": 1.0},
    "1.5": {"f": 1.5},
    "2**53": {"f": 2**53},
    "2**53+1": {"f": 2**53 + 1},
    "2**63": {"f": 2**63},
    "2**64-1": {"f": 2**64 - 1},
    "text": {"f": "text"},
    "Text": {"f": "Text"},
    "text 1": {"f": "1"},
    "empty text": {"f": ""},
    "NUL": {"f": "a\x00b"},
    "bytes": {"f": b"text"},
    "[]": {"f": []},
    "[1]": {"f": [1]},
    "[1,text]": {"f": [1, "text", None, [2], {"a": 1}]},
    "{}": {"f": {}},
    "object": {"f": {"a": 1, "b": [10, 20, {"c": True}], "x.y": "dotted", "": "unnamed"}},
    "missing": {"g": 1},
    "no object": "text",
    "a list": [{"f": 1}, 2],
}
_PRESENT = {name for name, value in FILTERED.items() if isinstance(value, dict) and "f" in value}
_BIG = {"2**53", "2**53+1", "2**63", "2**64-1"}

FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set(FILTERED)),
    ({"f": None}, {"null"}),
    ({"f": True}, {"true"}),
    ({"f": False}, {"false"}),
    ({"f": 0}, {"0"}),
    ({"f": 1}, {"1", "1.0"}),
    ({"f": 1.0}, {"1", "1.0"}),
    ({"f": "1"}, {"text 1"}),
    ({"f": 2**53 + 1}, {"2**53+1"}),
    ({"f": float(2**53)}, {"2**53"}),
    ({"f": 2**63}, {"2**63"}),
    ({"f": 2**64 - 1}, {"2**64-1"}),
    ({"f": float(2**64)}, set()),
    ({"f": "text"}, {"text"}),
    ({"f": b"text"}, {"bytes"}),
    ({"f": "a\x00b"}, {"NUL"}),
    ({"f": "a"}, set()),
    ({"f": []}, {"[]"}),
    ({"f": [1.0]}, {"[1]"}),
    ({"f": [True]}, set()),
    ({"f": {}}, {"{}"}),
    ({"f": {"a": 1}}, set()),
    ({"f": {"$eq": 1}}, {"1", "1.0"}),
    ({"f": {"$eq": None}}, {"null"}),
    ({"f": {"$eq": [1]}}, {"[1]"}),
    ({"f": {"$ne": 1}}, set(FILTERED) - {"1", "1.0"}),
    ({"f": {"$ne": None}}, set(FILTERED) - {"null"}),
    ({"f": {"$gt": 1}}, {"1.5", *_BIG}),
    ({"f": {"$gt": 2**53}}, _BIG - {"2**53"}),
    ({"f": {"$gt": float(2**53)}}, _BIG - {"2**53"}),
    ({"f": {"$gte": 2**63}}, {"2**63", "2**64-1"}),
    ({"f": {"$gt": 2**63}}, {"2**64-1"}),
    ({"f": {"$lt": 2**64 - 1}}, {"0", "1", "1.0", "1.5", *_BIG} - {"2**64-1"}),
    ({"f": {"$lte": 1}}, {"0", "1", "1.0"}),
    ({"f": {"$gte": 0, "$lt": 1.5}}, {"0", "1", "1.0"}),
    ({"f": {"$gt": ""}}, {"text", "Text", "text 1", "NUL"}),
    ({"f": {"$lt": "a"}}, {"Text", "text 1", "empty text"}),
    ({"f": {"$lte": "a\x00b"}}, {"Text", "text 1", "empty text", "NUL"}),
    ({"f": {"$gt": "a"}}, {"text", "NUL"}),
    ({"f": {"$lt": "9"}}, {"text 1", "empty text"}),
    ({"f": {"$gt": None}}, set()),
    ({"f": {"$gte": []}}, set()),
    ({"f": {"$gte": b"a"}}, set()),
    ({"f": {"$in": [1, "text", None]}}, {"1", "1.0", "text", "null"}),
    ({"f": {"$in": []}}, set()),
    ({"f": {"$in": [[], True]}}, {"[]", "true"}),
    ({"f": {"$nin": [1, "text"]}}, set(FILTERED) - {"1", "1.0", "text"}),
    ({"f": {"$nin": []}}, set(FILTERED)),
    ({"f": {"$exists": True}}, _PRESENT),
    ({"f": {"$exists": False}}, set(FILTERED) - _PRESENT),
    ({"f": {"$contains": 1}}, {"[1]", "[1,text]"}),
    ({"f": {"$contains": True}}, set()),
    ({"f": {"$contains": "text"}}, {"text", "[1,text]"}),
    ({"f": {"$contains": "ex"}}, {"text", "Text"}),
    ({"f": {"$contains": ""}}, {"text", "Text", "text 1", "empty text", "NUL"}),
    ({"f": {"$contains": "\x00"}}, {"NUL"}),
    ({"f": {"$contains": None}}, {"[1,text]"}),
    ({"f": {"$contains": [2]}}, {"[1,text]"}),
    ({"f": {"$contains": {"a": 1.0}}}, {"[1,text]"}),
    ({"f": {"$not": {"$gt": 0}}}, set(FILTERED) - {"1", "1.0", "1.5", *_BIG}),
    ({"f.a": 1}, {"object"}),
    ({"f.b[0]": 10}, {"object"}),
    ({"f.b[-1].c": True}, {"object"}),
    ({"f.b[3]": {"$exists": True}}, set()),
    ({"f[0]": 1}, {"[1]", "[1,text]"}),
    ({"f[-1]": 1}, {"[1]"}),
    ({"f[-1].a": 1}, {"[1,text]"}),
    ({"[0].f": 1}, {"a list"}),
    ({"[1]": 2}, {"a list"}),
    ({'f."x.y"': "dotted"}, {"object"}),
    ({"f.x.y": {"$exists": True}}, set()),
    ({'f.""': "unnamed"}, {"object"}),
    ({"f.length": {"$exists": True}}, set()),
    ({"$and": [{"f": {"$gte": 1}}, {"f": {"$lt": 2}}]}, {"1", "1.0", "1.5"}),
    ({"$and": []}, set(FILTERED)),
    ({"$or": [{"f": 0}, {"g": 1}]}, {"0", "missing"}),
    ({"$or": []}, set()),
    ({"$not": {"f": {"$exists": True}}}, set(FILTERED) - _PRESENT),
    ({"f": 1, "g": {"$exists": False}}, {"1", "1.0"}),
    ({"f": "' OR 1=1 --"}, set()),
    ({"f') OR 1=1 --": 1}, set()),
    ({"f\"') OR 1=1 --": {"$exists": True}}, set()),
]

BAD_FILTERS: list[Any] = [
    {"$where": "1"},
    {"f": {"$regex": "a"}},
    {"f": {"$gt": 1, "plain": 2}},
    {"f": {"$gt') OR 1=1 --": 1}},
    {"$and": {"f": 1}},
    {"$or": "f"},
    {"$and": [1]},
    {"$not": 1},
    {"f": {"$in": "text"}},
    {"f": {"$nin": 3}},
    {"f": {"$exists": 1}},
    {"f": {"$not": 1}},
    {"f": math.nan},
    {"f": {"$gt": 2**64}},
    {"f": {"$in": [object()]}},
    {"": 1},
    {"f.": 1},
    {"f..g": 1},
    {"f[": 1},
    {"f[x]": 1},
    {"f[*]": 1},
    {'"f': 1},
    {"\ud800": 1},
    {"f": "\ud800"},
    {1: 1},
    [],
    "f",
]

BAD_NAMESPACES: list[Any] = [
    *("users", b"users", None, 5, {"users"}, {"users": 1}, ("",), ("users", ""), ("users", 1)),
    *(("users", None), ("users", b"x"), ("\ud800",), ("a", "b\udfff"), (("a",),), ([],)),
]  # fmt: skip
BAD_KEYS: list[Any] = [None, 5, b"k", ("k",), "\ud800", "a\udfffb"]
BAD_TTLS: list[Any] = [
    *(0, -1, -0.5, math.nan, math.inf, -math.inf, "1", True, timedelta(0), timedelta(seconds=-1)),
    *(timedelta.max, 1e300, 10**400),
]  # fmt: skip


async def _scan(store: Store, *args: Any, **options: Any) -> list[Item]:
    return [item async for item in store.scan(*args, **options)]


async def _put_in(tx: Transaction, namespace: Any, key: Any) -> None:
    tx.put(namespace, key, 1)


async def _delete_in(tx: Transaction, namespace: Any, key: Any) -> None:
    tx.delete(namespace, key)


# Every public method, as a call on a store, a namespace and a key.
CALLS: dict[str, Callable[[Store, Any, Any], Awaitable[Any]]] = {
    "put": lambda store, ns, key: store.put(ns, key, 1),
    "get": lambda store, ns, key: store.get(ns, key),
    "delete": lambda store, ns, key: store.delete(ns, key),
    "put_many": lambda store, ns, key: store.put_many(ns, {key: 1}),
    "get_many": lambda store, ns, key: store.get_many(ns, [key]),
    "delete_many": lambda store, ns, key: store.delete_many(ns, [key]),
    "expire": lambda store, ns, key: store.expire(ns, key, 1),
    "increment": lambda store, ns, key: store.increment(ns, key),
    "append": lambda store, ns, key: store.append(ns, key, 1),
    "pop": lambda store, ns, key: store.pop(ns, key),
    "update": lambda store, ns, key: store.update(ns, key, lambda value: value),
    "transact get": lambda store, ns, key: store.transact(lambda tx: tx.get(ns, key)),
    "transact put": lambda store, ns, key: store.transact(lambda tx: _put_in(tx, ns, key)),
    "transact delete": lambda store, ns, key: store.transact(lambda tx: _delete_in(tx, ns, key)),
    "search": lambda store, ns, key: store.search(ns),
    "remove": lambda store, ns, key: store.remove(ns, "*"),
    "keys": lambda store, ns, key: store.keys(ns),
    "count": lambda store, ns, key: store.count(ns),
    "scan": lambda store, ns, key: _scan(store, ns),
    "list_namespaces": lambda store, ns, key: store.list_namespaces(ns),
    "list_namespaces suffix": lambda store, ns, key: store.list_namespaces(suffix=ns),
    "sweep": lambda store, ns, key: store.sweep(),
}
TAKES_NAMESPACE = sorted(CALLS.keys() - {"sweep"})
TAKES_KEY = sorted(
    CALLS.keys()
    - {"search", "remove", "keys", "count", "scan", "sweep"}
    - {"list_namespaces", "list_namespaces suffix"}
)


async def there(
    store: Store | Past | Transaction, namespace: Sequence[str], key: str, **options: Any
) -> Item:
    """Return an item that must be there."""
    item = await store.get(namespace, key, **options)
    assert item is not None
    return item


async def refused(
    error: type[BaseException], *calls: Awaitable[Any], match: str | None = None
) -> None:
    """Await calls, each of which must raise an error."""
    for call in calls:
        with pytest.raises(error, match=match):
            await call


def stable_id(value: Any) -> str:
    """Return a test's id that is the same in every process, as pytest-xdist needs it."""
    return re.sub(r" at 0x\w+", "", ascii(sorted(value) if isinstance(value, set) else value))


@pytest.mark.asyncio
class StoreFixtures:
    """What every conformance class is built on."""

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        """To be overridden: what makes a store that is not open yet, from options."""
        pytest.fail(f"{type(self).__name__} is to give the fixture 'store_factory'")

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The clock that `store` goes by."""
        return ManualClock()

    @pytest_asyncio.fixture
    async def store(self, store_factory: StoreFactory, clock: ManualClock) -> AsyncIterator[Store]:
        """An empty, open store whose time stands still."""
        async with store_factory(clock=clock, sweep_interval=None) as store:
            yield store

    @pytest.fixture
    def history_factory(self, store_factory: StoreFactory, clock: ManualClock) -> StoreFactory:
        """What makes a store that keeps its history; skips where none can be kept."""
        if not store_factory().backend.keeps_history:
            with pytest.raises(InvalidArgumentError, match="keeps no history"):
                store_factory(history=SPAN)
            pytest.skip("this backend keeps no history")
        usual = {"clock": clock, "history": SPAN, "sweep_interval": None}
        return lambda **options: store_factory(**{**usual, **options})


class StoreConformance(StoreFixtures):
    """The contract of `Store`; subclass it and give it the fixture `store_factory`."""

    # Lifecycle

    @pytest.mark.parametrize("method", CALLS)
    async def test_every_method_works_as_the_first_call(self, store: Store, method: str) -> None:
        await asyncio.wait_for(CALLS[method](store, NS, "k"), timeout=30)

    @pytest.mark.parametrize("method", CALLS)
    async def test_every_method_is_refused_before_opening_and_after_closing(
        self, store_factory: StoreFactory, method: str
    ) -> None:
        store = store_factory()
        await refused(StoreClosedError, CALLS[method](store, NS, "k"))
        async with store:
            pass
        await refused(StoreClosedError, CALLS[method](store, NS, "k"))

    async def test_open_and_close_may_be_repeated(self, store_factory: StoreFactory) -> None:
        store = store_factory()
        await store.close()
        assert await store.open() is store
        assert await store.open() is store
        await store.put(NS, "k", 1)
        await store.close()
        await store.close()

    async def test_entering_gives_the_store_itself(self, store_factory: StoreFactory) -> None:
        store = store_factory()
        async with store as entered:
            assert entered is store

    async def test_a_reopened_store_holds_what_it_held(self, store: Store) -> None:
        await store.put_many(NS, {"a": 1, "b": [b"x"]}, ttl=60)
        await store.delete(NS, "a")
        before = await _scan(store)
        await store.close()
        await store.open()
        assert await _scan(store) == before

    async def test_versions_go_on_after_reopening(self, store: Store) -> None:
        await store.put(NS, "a", 1)
        last = await store.put(NS, "b", 1)
        await store.delete(NS, "b")
        await store.close()
        await store.open()
        assert (await store.put(NS, "c", 1)).version > last.version

    async def test_close_finishes_what_was_accepted(self, store: Store) -> None:
        puts = [asyncio.ensure_future(store.put(NS, f"{n}", n)) for n in range(50)]
        await asyncio.sleep(0)
        await store.close()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        await store.open()
        stored = set(await store.keys(NS))
        for n, outcome in enumerate(outcomes):
            assert isinstance(outcome, Item | StoreClosedError), outcome
            assert (f"{n}" in stored) == isinstance(outcome, Item)

    async def test_nothing_is_left_running_after_close(self, store_factory: StoreFactory) -> None:
        before = asyncio.all_tasks()
        async with store_factory(sweep_interval=60.0) as store:
            await asyncio.gather(*(store.put(NS, f"{n}", n) for n in range(20)))
            await store.search(NS)
        assert asyncio.all_tasks() <= before

    @pytest.mark.parametrize("method", CALLS)
    async def test_another_loop_is_refused_and_told_of_the_sync_facade(
        self, store: Store, method: str
    ) -> None:
        async def call() -> None:
            await CALLS[method](store, NS, "k")

        with pytest.raises(WrongLoopError, match="KeyValueStore"):
            await asyncio.to_thread(lambda: asyncio.run(call()))
        assert await _scan(store) == []

    # put, get, delete

    async def test_put_returns_the_stored_item(self, store: Store, clock: ManualClock) -> None:
        item = await store.put(NS, "k", {"a": 1})
        assert item == await store.get(NS, "k")
        assert (item.namespace, item.key, item.value) == (NS, "k", {"a": 1})
        assert item.created_at == item.updated_at == clock.now
        assert item.created_at.tzinfo is UTC
        assert item.expires_at is None
        assert item.score is None
        assert item.version > 0

    async def test_a_namespace_may_be_any_sequence(self, store: Store) -> None:
        item = await store.put(["users", "alice"], "k", 1)
        assert item.namespace == NS
        assert await store.get(["users", "alice"], "k") == item
        assert await store.get(NS, "k") == item

    async def test_a_missing_item_is_none(self, store: Store) -> None:
        await store.put(NS, "k", 1)
        assert await store.get(NS, "other") is None
        assert await store.get(("users",), "k") is None
        assert await store.get((*NS, "below"), "k") is None

    async def test_the_root_is_a_namespace(self, store: Store) -> None:
        await store.put((), "k", "root")
        await store.put(("a",), "k", "below")
        found = await there(store, (), "k")
        assert (found.namespace, found.value) == ((), "root")
        assert [item.value for item in await store.search(())] == ["root"]
        assert await store.list_namespaces() == [(), ("a",)]
        assert await store.remove((), "*") == 1
        assert await store.get(("a",), "k") is not None

    async def test_put_over_an_item_keeps_created_at(
        self, store: Store, clock: ManualClock
    ) -> None:
        first = await store.put(NS, "k", 1)
        clock.advance(1)
        second = await store.put(NS, "k", 2)
        assert second.created_at == first.created_at
        assert second.updated_at == clock.now > first.updated_at
        assert second == await store.get(NS, "k")

    async def test_put_over_an_item_replaces_its_value_whole(self, store: Store) -> None:
        await store.put(NS, "k", {"a": 1})
        await store.put(NS, "k", {"b": 2})
        assert await _value(store, "k") == {"b": 2}

    async def test_putting_the_same_again_keeps_it(self, store: Store) -> None:
        await store.put(NS, "k", 1)
        await store.put(NS, "k", 1)
        assert await _value(store, "k") == 1
        assert await store.count(NS) == 1

    async def test_delete_says_whether_it_was_there(self, store: Store) -> None:
        await store.put(NS, "k", 1)
        assert await store.delete(NS, "k") is True
        assert await store.delete(NS, "k") is False
        assert await store.get(NS, "k") is None

    async def test_a_deleted_item_begins_anew(self, store: Store, clock: ManualClock) -> None:
        await store.put(NS, "k", 1)
        await store.delete(NS, "k")
        clock.advance(1)
        assert (await store.put(NS, "k", 2)).created_at == clock.now

    async def test_items_are_immutable_and_share_nothing_with_the_store(self, store: Store) -> None:
        value = {"list": [1]}
        item = await store.put(NS, "k", value)
        value["list"].append(2)
        item.value["list"].append(3)
        read = await there(store, NS, "k")
        read.value["list"].append(4)
        assert await _value(store, "k") == {"list": [1]}
        with pytest.raises(dataclasses.FrozenInstanceError):
            item.key = "other"  # type: ignore[misc]
        assert not hasattr(item, "__dict__")

    # Values

    @pytest.mark.parametrize("name", JSON_VALUES)
    async def test_json_and_bytes_come_back_as_they_went_in(self, store: Store, name: str) -> None:
        value = JSON_VALUES[name]
        item = await store.put(NS, "k", value)
        assert repr(item.value) == repr(value)
        assert repr(await _value(store, "k")) == repr(value)

    @pytest.mark.parametrize("name", CONVERTED_VALUES)
    async def test_what_json_has_another_form_for_comes_back_in_it(
        self, store: Store, name: str
    ) -> None:
        value, form = CONVERTED_VALUES[name]
        assert (await store.put(NS, "k", value)).value == form
        assert await _value(store, "k") == form

    async def test_of_an_item_the_value_is_stored(self, store: Store) -> None:
        item = await store.put(("other",), "other", {"a": b"x"}, ttl=5)
        assert (await store.put(NS, "k", item)).value == {"a": b"x"}
        await store.put_many(NS, {"many": item})
        await store.update(NS, "updated", lambda _: item)
        await store.transact(lambda tx: tx.put(NS, "tx", item))
        items = await store.search(NS)
        assert [each.key for each in items] == ["tx", "updated", "many", "k"]
        assert all(each.value == {"a": b"x"} and each.expires_at is None for each in items)

    async def test_addresses_come_back_as_plain_strings(self, store: Store) -> None:
        """A subclass of `str` is taken as the text that it is."""

        class Name(str, enum.Enum):  # noqa: UP042 - a StrEnum is written as its text anyway
            KEY = "key"
            LABEL = "label"

        item = await store.put((Name.LABEL,), Name.KEY, 1)
        await store.put_many((Name.LABEL,), {Name.KEY: 2})
        await store.update((Name.LABEL,), Name.KEY, lambda value: value + 1)
        await store.transact(lambda tx: tx.put((Name.LABEL,), Name.KEY, 3))
        got = await there(store, (Name.LABEL,), Name.KEY)
        many = await store.get_many((Name.LABEL,), [Name.KEY])
        scanned = await _scan(store)
        for each in (item, got, *many.values(), *scanned):
            assert type(each.key) is str
            assert [type(label) for label in each.namespace] == [str]
        for text in (*await store.keys((Name.LABEL,)), *many):
            assert type(text) is str
        assert await store.list_namespaces((Name.LABEL,)) == [("label",)]
        assert await store.delete((Name.LABEL,), Name.KEY)

    @pytest.mark.parametrize("name", REFUSED_VALUES)
    async def test_what_could_not_come_back_is_refused_by_path(
        self, store: Store, name: str
    ) -> None:
        value, path = REFUSED_VALUES[name]
        await store.put(NS, "k", "before")
        before = await _scan(store)
        for call in (
            lambda: store.put(NS, "k", value),
            lambda: store.put_many(NS, {"first": 1, "k": value, "last": 1}),
            lambda: store.update(NS, "k", lambda _: value),
            lambda: store.transact(lambda tx: tx.put(NS, "k", value)),
        ):
            with pytest.raises(ValueEncodingError) as refusal:
                await call()
            assert path in str(refusal.value)
        await refused(ValueEncodingError, store.append(NS, "new", 1, value))
        assert await _scan(store) == before

    async def test_a_value_beyond_the_limit_is_refused(self, store_factory: StoreFactory) -> None:
        async with store_factory(max_value_bytes=100) as store:
            await store.put(NS, "k", "x" * 98)  # and two quotes
            await store.put(NS, "list", ["x" * 90])
            before = await _scan(store)
            for call in (
                lambda: store.put(NS, "k", "x" * 99),
                lambda: store.put(NS, "k", b"x" * 90),
                lambda: store.put_many(NS, {"first": 1, "k": "x" * 99}),
                lambda: store.update(NS, "k", lambda value: value + "x"),
                lambda: store.append(NS, "list", "x" * 10),
                lambda: store.transact(lambda tx: tx.put(NS, "k", "x" * 99)),
            ):
                with pytest.raises(ValueTooLargeError) as refusal:
                    await call()
                assert "max_value_bytes" in str(refusal.value)
                assert "xxx" not in str(refusal.value)
            assert await _scan(store) == before

    async def test_a_value_may_be_long(self, store: Store) -> None:
        value = {"text": "é" * 1_000_000, "bytes": bytes(1_000_000), "list": list(range(100_000))}
        await store.put(NS, "k", value)
        assert await _value(store, "k") == value

    # Namespaces and keys

    @pytest.mark.parametrize("text", ADVERSARIAL_TEXTS, ids=ascii)
    async def test_any_text_is_a_label_and_a_key(self, store: Store, text: str) -> None:
        namespaces = [(text,), (text, text), ("a", text, "b")]
        for at, namespace in enumerate(namespaces):
            assert (await store.put(namespace, text, at)).namespace == namespace
        for at, namespace in enumerate(namespaces):
            item = await there(store, namespace, text)
            assert (item.namespace, item.key, item.value) == (namespace, text, at)
            assert await store.keys(namespace) == [text]
            assert await store.keys(namespace, escape(text)) == [text]
            assert list(await store.get_many(namespace, [text])) == [text]
            assert list(await store.get_many(namespace, ["other", text, ""])) == [text]
        assert await store.list_namespaces() == sorted(namespaces)
        for namespace in namespaces:
            assert await store.delete(namespace, text)
        assert await _scan(store) == []

    async def test_the_empty_key_is_a_key(self, store: Store) -> None:
        await store.put(NS, "", 1)
        await store.put(NS, "k", 2)
        assert await store.keys(NS) == ["", "k"]
        assert await store.remove(NS, "") == 1
        assert await store.keys(NS) == ["k"]

    async def test_texts_that_look_alike_are_different(self, store: Store) -> None:
        composed, decomposed = "é", unicodedata.normalize("NFD", "é")
        pairs = [("foo", "Foo"), (composed, decomposed), ("a", "a "), ("a", "a\x00"), ("ı", "i")]
        for one, other in pairs:
            await store.put((one,), one, 1)
            assert await store.get((one,), other) is None
            assert await store.get((other,), one) is None
            assert await store.search((other,), subtree=True) == []
            assert await store.list_namespaces((other,)) == []
            assert await store.remove((other,), "*", subtree=True) == 0
            assert await store.remove((one,), escape(other)) == 0
            assert not await store.delete((one,), other)
            assert await store.remove((), "*", subtree=True) == 1

    async def test_no_two_namespaces_share_anything(self, store: Store) -> None:
        alike: list[tuple[str, ...]] = [
            *(("a", "b"), ("a\tb",), ("a\nb",), ("a/b",), ("a:b",), ("a.b",), ("a", "b", "c")),
            *(("a\x00b",), ("a\x1fb",), ("ab",), ("a",), ("b",), ("b", "a"), ("a\t", "b")),
            *(("a", "\tb"), ("a\n", "b"), ("a", "\nb"), ("a\nIb",), ("a\\", "b"), ("a,b",)),
            *(("a", "b\t"), ("a%b",), ("a_b",), ("('a', 'b')",), ('["a","b"]',), ()),
        ]  # fmt: skip
        for namespace in alike:
            await store.put(namespace, "k", list(namespace))
        for namespace in alike:
            assert await store.keys(namespace) == ["k"]
            (found,) = await store.search(namespace)
            assert found.namespace == namespace
            assert found.value == list(namespace)
            below = {other for other in alike if other[: len(namespace)] == namespace}
            found_below = await store.search(namespace, subtree=True, limit=100)
            assert {item.namespace for item in found_below} == below
            assert await store.count(namespace, subtree=True) == len(below)
            assert set(await store.list_namespaces(namespace)) == below
            assert {item.namespace for item in await _scan(store, namespace)} == below
        assert await store.list_namespaces() == sorted(alike)
        assert [item.namespace for item in await _scan(store)] == sorted(alike)

    @pytest.mark.parametrize("mark", PUNCTUATION)
    async def test_punctuation_in_a_label_is_never_a_wildcard(
        self, store: Store, mark: str
    ) -> None:
        decoys = {"johnXdoe", "john", "johndoe", "john--doe", "JOHN-DOE"}
        label = f"john{mark}doe"
        for each in {label, *decoys}:
            await store.put((each,), "k", 1)
            await store.put((each, "below"), "k", 1)
        mine = {(label,), (label, "below")}
        found = await store.search((label,), subtree=True, limit=100)
        assert {item.namespace for item in found} == mine
        assert set(await store.list_namespaces((label,))) == mine
        assert await store.list_namespaces(suffix=(label,)) == [(label,)]
        assert await store.count((label,), subtree=True) == 2
        assert await store.remove((label,), "*", subtree=True) == 2
        assert await store.count((), subtree=True) == 2 * len(decoys)

    # Many at once

    async def test_put_many_stores_all_in_the_order_of_the_mapping(self, store: Store) -> None:
        items = await store.put_many(NS, {"b": 1, "a": 2, "": 3}, ttl=60)
        assert [(item.key, item.value) for item in items] == [("b", 1), ("a", 2), ("", 3)]
        assert [await store.get(NS, item.key) for item in items] == items
        assert all(item.expires_at is not None for item in items)
        assert len({item.version for item in items}) == 3
        assert await store.put_many(NS, {}) == []

    async def test_get_many_gives_what_is_there_in_the_order_asked(self, store: Store) -> None:
        await store.put_many(NS, {"a": 1, "b": 2, "c": 3})
        await store.put(("other",), "d", 4)
        found = await store.get_many(NS, iter(["c", "d", "a", "c"]))
        assert list(found) == ["c", "a"]
        assert found["a"] == await store.get(NS, "a")
        assert await store.get_many(NS, []) == {}

    async def test_delete_many_counts_what_was_there(self, store: Store) -> None:
        await store.put_many(NS, {"a": 1, "b": 2, "c": 3})
        assert await store.delete_many(NS, iter(["a", "missing", "b", "a"])) == 2
        assert await store.keys(NS) == ["c"]
        assert await store.delete_many(NS, []) == 0

    async def test_a_str_is_no_collection_of_keys(self, store: Store) -> None:
        await store.put_many(NS, {"a": 1, "b": 2})
        await refused(InvalidKeyError, store.get_many(NS, "ab"), store.delete_many(NS, "ab"))
        assert await store.keys(NS) == ["a", "b"]

    async def test_thousands_at_once(self, store: Store) -> None:
        values = {f"{n:05}": n for n in range(10_001)}
        await store.put_many(NS, values)
        assert list(await store.get_many(NS, values)) == list(values)
        assert await store.keys(NS) == list(values)
        assert await store.delete_many(NS, values) == len(values)

    # Versions

    async def test_versions_grow_with_every_write_and_are_never_used_twice(
        self, store: Store
    ) -> None:
        versions = [
            (await store.put(NS, "a", 1)).version,
            (await store.put(NS, "b", 1)).version,
            (await store.put(NS, "a", 1)).version,
            *(item.version for item in await store.put_many(("other",), {"x": 1, "y": 1})),
            (await store.update(NS, "a", lambda value: value)).version,
        ]
        await store.delete(NS, "a")
        versions.append((await store.put(NS, "a", 1)).version)
        change: Callable[[], Awaitable[Any]]
        for change in (
            lambda: store.increment(NS, "a"),
            lambda: store.append(NS, "list", 1),
            lambda: store.pop(NS, "list"),
        ):
            await change()
            versions.append(max(item.version for item in await _scan(store)))
        await store.remove(NS, "*")
        versions.append((await store.put(NS, "a", 1)).version)
        assert versions == sorted(set(versions))

    async def test_if_version_writes_only_over_that_version(self, store: Store) -> None:
        first = await store.put(NS, "k", 1)
        second = await store.put(NS, "k", 2, if_version=first.version)
        before = await _scan(store)
        for stale in (first.version, 0, second.version + 1):
            with pytest.raises(ConflictError) as conflict:
                await store.put(NS, "k", 3, if_version=stale)
            assert "'alice'" in str(conflict.value)
            assert "'k'" in str(conflict.value)
            await refused(ConflictError, store.delete(NS, "k", if_version=stale))
        assert await _scan(store) == before
        assert await store.delete(NS, "k", if_version=second.version) is True

    async def test_if_version_0_writes_only_where_nothing_is(self, store: Store) -> None:
        await store.put(NS, "k", 1, if_version=0)
        await refused(ConflictError, store.put(NS, "k", 2, if_version=0))
        assert await _value(store, "k") == 1
        assert await store.delete(NS, "missing", if_version=0) is False
        await refused(
            ConflictError,
            store.put(NS, "missing", 1, if_version=1),
            store.delete(NS, "missing", if_version=1),
        )

    async def test_delete_and_recreate_is_seen_by_if_version(self, store: Store) -> None:
        first = await store.put(NS, "k", 1)
        await store.delete(NS, "k")
        await store.put(NS, "k", 1)
        await refused(ConflictError, store.put(NS, "k", 2, if_version=first.version))

    async def test_one_of_many_rivals_wins(self, store: Store) -> None:
        puts = (store.put(NS, "k", n, if_version=0) for n in range(20))
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        (winner,) = (item for item in outcomes if isinstance(item, Item))
        assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 19
        assert await store.get(NS, "k") == winner

    # Concurrency

    async def test_one_bad_write_fails_none_of_its_neighbours(self, store: Store) -> None:
        taken = await store.put(NS, "taken", 1)
        outcomes = await asyncio.gather(
            *(store.put(NS, f"{n}", n) for n in range(100)),
            store.put(NS, "nan", math.nan),
            store.put(NS, "taken", 2, if_version=0),
            store.increment(NS, "0", field="a"),
            *(store.put(NS, f"{n}", n) for n in range(100, 200)),
            return_exceptions=True,
        )
        errors = [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)]
        assert errors == [ValueEncodingError, ConflictError, ValueTypeError]
        assert await store.count(NS) == 201
        assert await store.get(NS, "taken") == taken

    async def test_a_read_sees_every_write_that_was_awaited(self, store: Store) -> None:
        async def work(name: str) -> None:
            for n in range(20):
                await store.put((name,), "k", n)
                item = await there(store, (name,), "k")
                assert item.value == n
                assert [item.value for item in await store.search((name,))] == [n]

        await asyncio.gather(*(work(f"{n}") for n in range(10)))

    async def test_puts_of_one_item_at_once_keep_their_order(self, store: Store) -> None:
        first = await store.put(NS, "k0", "before")
        puts = (store.put(NS, f"k{n % 3}", n) for n in range(600))
        items = await asyncio.gather(*puts)
        assert [item.value for item in items] == list(range(600))
        assert len({item.version for item in items}) == 600
        for key in range(3):
            versions = [item.version for item in items[key::3]]
            assert versions == sorted(versions)
            item = await store.get(NS, f"k{key}")
            assert item == items[597 + key]
        assert {item.created_at for item in items[::3]} == {first.created_at}

    async def test_thousands_of_puts_in_one_gather(self, store: Store) -> None:
        items = await asyncio.gather(*(store.put(NS, f"{n}", n) for n in range(3_000)))
        assert [item.value for item in items] == list(range(3_000))
        assert len({item.version for item in items}) == 3_000
        assert await store.count(NS) == 3_000

    async def test_gets_at_once_each_get_their_own_item(self, store: Store) -> None:
        other = ("users", "bob")
        names = ["", "plain", "a\0b", "a\0c", "\ufeff", "*", "\U0001f600", "long"]
        for number, key in enumerate(names):
            await store.put(NS, key, "x" * 100_000 if key == "long" else {"n": number})
            await store.put(other, key, {"other": number})
        wanted = [(labels, key) for labels in (NS, other) for key in [*names, "absent"]] * 3
        items = await asyncio.gather(*(store.get(labels, key) for labels, key in wanted))
        alone = {place: await store.get(*place) for place in wanted}
        assert items == [alone[place] for place in wanted]
        first = items[wanted.index((NS, "plain"))]
        assert first is not None
        first.value["n"] = "changed"  # nobody else's value is this one
        assert items.count(alone[NS, "plain"]) == 2

    # increment, append, pop

    async def test_increment_adds_and_returns_the_sum(self, store: Store) -> None:
        assert await store.increment(NS, "n") == 1
        assert await store.increment(NS, "n", 5) == 6
        assert await store.increment(NS, "n", -10) == -4
        total = await store.increment(NS, "n", 0.5)
        assert total == -3.5
        assert await _value(store, "n") == -3.5
        assert type(await store.increment(NS, "other", 2)) is int

    async def test_increment_begins_at_initial(self, store: Store) -> None:
        assert await store.increment(NS, "n", initial=10) == 11
        assert await store.increment(NS, "n", initial=10) == 12
        assert await store.increment(NS, "x", field="a", initial=1.5) == 2.5

    async def test_increment_of_a_field_leaves_the_rest(self, store: Store) -> None:
        await store.put(NS, "k", {"a": {"n": 1, "keep": b"x"}, "list": [1, {"m": 2}]})
        assert await store.increment(NS, "k", field="a.n") == 2
        assert await store.increment(NS, "k", 3, field="list[0]") == 4
        assert await store.increment(NS, "k", field="list[-1].m") == 3
        assert await store.increment(NS, "k", field="new.deep") == 1
        assert await store.increment(NS, "k", field='"dotted.name"') == 1
        assert await _value(store, "k") == {
            "a": {"n": 2, "keep": b"x"},
            "list": [4, {"m": 3}],
            "new": {"deep": 1},
            "dotted.name": 1,
        }
        assert await store.increment(NS, "made", field="a.b") == 1
        assert await _value(store, "made") == {"a": {"b": 1}}

    @pytest.mark.parametrize("value", [None, True, "1", b"1", [], {}], ids=repr)
    async def test_increment_of_what_is_no_number_is_refused(
        self, store: Store, value: Any
    ) -> None:
        await store.put_many(NS, {"k": value, "object": {"a": value}, "list": [value]})
        before = await _scan(store)
        call: Callable[[], Awaitable[float]]
        for call in (
            lambda: store.increment(NS, "k"),
            lambda: store.increment(NS, "object", field="a"),
            lambda: store.increment(NS, "list", field="[0]"),
        ):
            with pytest.raises(ValueTypeError) as refusal:
                await call()
            assert "'alice'" in str(refusal.value)
        assert await _scan(store) == before

    async def test_increment_of_a_place_that_cannot_be_is_refused(self, store: Store) -> None:
        await store.put_many(NS, {"n": 1, "list": [1], "object": {"a": "text"}})
        before = await _scan(store)
        for key, field in [
            *(("n", "a"), ("list", "a"), ("list", "[1]"), ("list", "[-2]"), ("object", "a.b")),
            *(("object", "list[0]"), ("missing", "[0]"), ("missing", "a[0]")),
        ]:  # fmt: skip
            await refused(ValueTypeError, store.increment(NS, key, field=field))
        for bad in (5, b"a", ["a"], "", "a..b", "list[*]"):
            with pytest.raises(InvalidArgumentError):
                await store.increment(NS, "object", field=bad)  # type: ignore[arg-type]
        assert await _scan(store) == before
        assert await store.increment(NS, "n", field="$") == 2  # the value itself

    async def test_increment_beyond_what_json_holds_is_refused(self, store: Store) -> None:
        await store.put_many(NS, {"int": 2**64 - 1, "float": 1.7e308, "half": 0.5})
        before = await _scan(store)
        for key, amount in [
            *(("int", 1), ("float", 1.7e308), ("half", 10**400), ("new", 2**64), ("new", math.nan)),
            ("new", -math.inf),
        ]:  # fmt: skip
            await refused(ValueEncodingError, store.increment(NS, key, amount))
        assert await _scan(store) == before

    async def test_no_increment_is_lost(self, store: Store) -> None:
        async def work(key: str, field: str | None) -> list[float]:
            return [await store.increment(NS, key, field=field) for _ in range(10)]

        totals = await asyncio.gather(
            *(work("n", None) for _ in range(20)), *(work("m", "f") for _ in range(20))
        )
        for rivals in (totals[:20], totals[20:]):
            assert sorted(total for each in rivals for total in each) == list(range(1, 201))
        assert await _value(store, "n") == 200
        assert await _value(store, "m") == {"f": 200}

    async def test_append_and_pop_make_a_queue(self, store: Store) -> None:
        assert await store.append(NS, "q", {"task": 1}) == 1
        assert await store.append(NS, "q", b"two", None, [3]) == 4
        assert await store.pop(NS, "q") == {"task": 1}
        assert await store.pop(NS, "q", -1) == [3]
        assert await store.pop(NS, "q", 1) is None
        assert await _value(store, "q") == [b"two"]
        assert await store.pop(NS, "q") == b"two"
        assert await store.pop(NS, "q", default="empty") == "empty"
        assert await store.pop(NS, "missing", default="none") == "none"
        assert await store.get(NS, "missing") is None

    async def test_pop_beyond_the_ends_gives_the_default(self, store: Store) -> None:
        await store.put(NS, "q", [1, 2])
        before = await _scan(store)
        for index in (2, -3, 2**70):
            assert await store.pop(NS, "q", index, default="none") == "none"
        assert await store.pop(NS, "q", 5) is None
        assert await _scan(store) == before

    async def test_append_keeps_the_last_of_max_length(self, store: Store) -> None:
        assert await store.append(NS, "q", 1, 2, 3, max_length=2) == 2
        assert await store.append(NS, "q", 4, max_length=3) == 3
        assert await _value(store, "q") == [2, 3, 4]
        assert await store.append(NS, "q", max_length=1) == 1
        assert await store.append(NS, "q", 5, max_length=0) == 0
        assert await _value(store, "q") == []

    @pytest.mark.parametrize("value", [None, 1, "text", b"bytes", {}], ids=repr)
    async def test_append_and_pop_of_what_is_no_list_are_refused(
        self, store: Store, value: Any
    ) -> None:
        await store.put(NS, "k", value)
        before = await _scan(store)
        await refused(ValueTypeError, store.append(NS, "k", 1), store.pop(NS, "k"))
        assert await _scan(store) == before

    async def test_each_element_is_popped_once(self, store: Store) -> None:
        await asyncio.gather(*(store.append(NS, "q", n) for n in range(100)))
        taken = await asyncio.gather(*(store.pop(NS, "q", n % 2 - 1) for n in range(101)))
        assert sorted(n for n in taken if n is not None) == list(range(100))

    # update

    async def test_update_changes_a_value_by_a_function(self, store: Store) -> None:
        await store.put(NS, "k", {"n": 1})
        item = await store.update(NS, "k", lambda value: value | {"m": 2})
        assert item == await store.get(NS, "k")
        assert item.value == {"n": 1, "m": 2}

        async def later(value: Any) -> Any:
            await asyncio.sleep(0)
            return [value]

        assert (await store.update(NS, "k", later)).value == [{"n": 1, "m": 2}]

    async def test_update_of_a_missing_item_begins_at_the_default(self, store: Store) -> None:
        assert (await store.update(NS, "a", lambda value: [value])).value == [None]
        assert (await store.update(NS, "b", lambda value: value + 1, default=1)).value == 2

    async def test_update_runs_again_when_another_write_came_between(self, store: Store) -> None:
        first = await store.put(NS, "k", 1)
        seen = []

        async def rivalled(value: int) -> int:
            seen.append(value)
            if len(seen) == 1:
                await store.put(NS, "k", 10)
            return value + 1

        item = await store.update(NS, "k", rivalled)
        assert seen == [1, 10]
        assert item.value == 11
        assert item.created_at == first.created_at

    async def test_update_sees_a_rival_that_creates_or_deletes(self, store: Store) -> None:
        seen: list[Any] = []

        async def rivalled(value: Any) -> Any:
            seen.append(value)
            if len(seen) == 1:
                await store.put(NS, "k", "made")
            elif len(seen) == 2:
                await store.delete(NS, "k")
            return len(seen)

        assert (await store.update(NS, "k", rivalled, default="absent")).value == 3
        assert seen == ["absent", "made", "absent"]

    async def test_an_error_in_update_passes_and_writes_nothing(self, store: Store) -> None:
        await store.put(NS, "k", [1])
        before = await _scan(store)

        def fail(value: list[int]) -> None:
            value.append(2)
            raise LookupError("mine")

        await refused(LookupError, store.update(NS, "k", fail), match="mine")
        assert await _scan(store) == before

    async def test_no_update_is_lost(self, store: Store) -> None:
        # Each conflict is another's update, of which there are 19.
        updates = (
            store.update(NS, "n", lambda n: n + 1, default=0, attempts=20) for _ in range(20)
        )
        await asyncio.gather(*updates)
        assert await _value(store, "n") == 20

    # transact

    async def test_transact_reads_its_own_writes_and_returns(self, store: Store) -> None:
        await store.put_many(NS, {"a": 1, "b": 2})

        async def work(tx: Transaction) -> str:
            assert await tx.get(NS, "a") == await store.get(NS, "a")
            assert await tx.get(NS, "missing") is None
            put = await tx.put(NS, "a", {"n": 10})
            assert put.value == {"n": 10}
            tx.put(("other",), "c", 3)  # need not be awaited
            await tx.delete(NS, "b")
            seen = await there(tx, NS, "a")
            assert (seen.namespace, seen.key, seen.value) == (NS, "a", {"n": 10})
            assert await tx.get(NS, "b") is None
            assert await _value(store, "a") == 1  # and nobody else does
            return "done"

        assert await store.transact(work) == "done"
        assert {(item.namespace, item.key): item.value for item in await _scan(store)} == {
            (NS, "a"): {"n": 10},
            (("other",), "c"): 3,
        }

    async def test_transact_takes_a_plain_function(self, store: Store) -> None:
        def work(tx: Transaction) -> int:
            tx.put(NS, "a", 1)
            tx.put(NS, "a", 2)
            tx.delete(NS, "b")
            return 5

        assert await store.transact(work) == 5
        assert await _value(store, "a") == 2

    async def test_transact_applies_ttl(self, store: Store, clock: ManualClock) -> None:
        await store.transact(lambda tx: tx.put(NS, "k", 1, ttl=10))
        clock.advance(10)
        assert await store.get(NS, "k") is None

    async def test_an_error_in_transact_passes_and_writes_nothing(self, store: Store) -> None:
        async def fail(tx: Transaction) -> None:
            await tx.put(NS, "a", 1)
            await tx.delete(NS, "k")
            raise LookupError("mine")

        await store.put(NS, "k", 1)
        before = await _scan(store)
        await refused(LookupError, store.transact(fail), match="mine")
        assert await _scan(store) == before

    @pytest.mark.parametrize("rival", ["put", "delete", "create"])
    async def test_transact_runs_again_when_what_it_read_has_changed(
        self, store: Store, rival: str
    ) -> None:
        if rival != "create":
            await store.put(NS, "read", 1)
        tries = []

        async def work(tx: Transaction) -> None:
            item = await tx.get(NS, "read")
            tries.append(item.value if item else None)
            if len(tries) == 1:
                if rival == "delete":
                    await store.delete(NS, "read")
                else:
                    await store.put(NS, "read", 2)
            await tx.put(NS, "written", tries[-1])

        await store.transact(work)
        expected = {"put": [1, 2], "delete": [1, None], "create": [None, 2]}[rival]
        assert tries == expected
        assert await _value(store, "written") == expected[-1]

    async def test_transact_over_what_it_read_sees_delete_and_recreate(self, store: Store) -> None:
        await store.put(NS, "k", 1)
        tries = 0

        async def work(tx: Transaction) -> None:
            nonlocal tries
            tries += 1
            item = await there(tx, NS, "k")
            if tries == 1:
                await store.delete(NS, "k")
                await store.put(NS, "k", 5)
            await tx.put(NS, "k", item.value + 1)

        await store.transact(work)
        assert tries == 2
        assert await _value(store, "k") == 6

    async def test_transact_that_only_reads_is_checked(self, store: Store) -> None:
        await store.put_many(NS, {"a": 1, "b": 1})
        tries = 0

        async def work(tx: Transaction) -> list[Any]:
            nonlocal tries
            tries += 1
            first = await tx.get(NS, "a")
            if tries == 1:
                await store.put_many(NS, {"a": 2, "b": 2})
            second = await tx.get(NS, "b")
            return [item and item.value for item in (first, second)]

        assert await store.transact(work) == [2, 2]
        assert tries == 2

    async def test_transact_gives_up_after_attempts(self, store: Store) -> None:
        tries = 0

        async def unlucky(tx: Transaction) -> None:
            nonlocal tries
            tries += 1
            await tx.get(NS, "k")
            await store.put(NS, "k", tries)
            await tx.put(NS, "written", 1)

        await refused(ConflictError, store.transact(unlucky, attempts=3))
        assert tries == 3
        assert await store.get(NS, "written") is None

    async def test_transactions_keep_a_sum(self, store: Store) -> None:
        await store.put_many(NS, {f"{n}": 100 for n in range(5)})

        async def move(source: str, target: str) -> None:
            async def work(tx: Transaction) -> None:
                a, b = await tx.get(NS, source), await tx.get(NS, target)
                assert a is not None
                assert b is not None
                await tx.put(NS, source, a.value - 7)
                await tx.put(NS, target, b.value + 7)

            await store.transact(work, attempts=1_000)

        await asyncio.gather(*(move(f"{n % 5}", f"{(n + 1 + n // 5) % 5}") for n in range(20)))
        items = await store.get_many(NS, [f"{n}" for n in range(5)])
        assert sum(item.value for item in items.values()) == 500

    # Lifetimes

    async def test_an_item_is_gone_at_its_instant_for_every_method(
        self, store: Store, clock: ManualClock
    ) -> None:
        old = await store.put(NS, "k", [1], ttl=10)
        await store.put(("left",), "k", 1)
        assert old.expires_at == clock.now + timedelta(seconds=10)
        clock.advance(9.5)
        assert await store.get(NS, "k") == old
        clock.advance(0.5)
        assert await store.get(NS, "k") is None
        assert await store.get_many(NS, ["k"]) == {}
        assert await store.search(NS) == []
        assert await store.search((), "1", subtree=True) == await store.search(("left",))
        assert await store.keys(NS) == []
        assert await store.keys(NS, "k") == []
        assert await store.keys((), subtree=True) == ["k"]
        assert await store.count(NS) == 0
        assert await store.count((), subtree=True) == 1
        assert await store.list_namespaces() == [("left",)]
        assert await store.list_namespaces(max_depth=1) == [("left",)]
        assert await store.list_namespaces(("users",)) == []
        assert [item.namespace for item in await _scan(store)] == [("left",)]
        assert await store.transact(lambda tx: tx.get(NS, "k")) is None
        assert await store.pop(NS, "k", default="gone") == "gone"
        assert await store.delete(NS, "k") is False
        assert await store.delete_many(NS, ["k"]) == 0
        assert await store.remove(NS, "*") == 0
        assert await store.remove(NS, "k") == 0
        await refused(
            ConflictError,
            store.put(NS, "k", 1, if_version=old.version),
            store.delete(NS, "k", if_version=old.version),
        )

    @pytest.mark.parametrize("method", ["put", "put_many", "increment", "append", "update", "tx"])
    async def test_an_item_written_after_its_end_begins_anew(
        self, store: Store, clock: ManualClock, method: str
    ) -> None:
        old = await store.put(NS, "k", ["old"], ttl=10)
        clock.advance(10)
        match method:
            case "put":
                await store.put(NS, "k", 1, if_version=0)
            case "put_many":
                await store.put_many(NS, {"k": 1})
            case "increment":
                await store.increment(NS, "k")
            case "append":
                assert await store.append(NS, "k", 1) == 1
            case "update":
                await store.update(NS, "k", lambda value: value, default=1)
            case "tx":
                await store.transact(_write_1_over_what_is_there)
        item = await there(store, NS, "k")
        assert item.value in (1, [1])
        assert item.created_at == clock.now
        assert item.expires_at is None
        assert item.version > old.version
        clock.advance(1_000)
        assert await store.sweep() == 0
        assert await store.get(NS, "k") == item

    async def test_a_ttl_may_be_a_timedelta_or_a_fraction(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "delta", 1, ttl=timedelta(minutes=1))
        await store.put(NS, "fraction", 1, ttl=0.25)
        await store.put(NS, "instant", 1, ttl=1e-9)
        assert await store.count(NS) == 3
        clock.advance(0.25)
        assert await store.keys(NS) == ["delta"]
        clock.advance(59.75)
        assert await store.keys(NS) == []

    async def test_put_without_a_ttl_ends_an_earlier_one(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "k", 1, ttl=10)
        assert (await store.put(NS, "k", 2)).expires_at is None
        clock.advance(10)
        assert await _value(store, "k") == 2

    async def test_changes_keep_the_lifetime(self, store: Store, clock: ManualClock) -> None:
        await store.put_many(NS, {"n": 1, "list": [1, 2], "value": 1}, ttl=10)
        clock.advance(5)
        await store.increment(NS, "n")
        await store.append(NS, "list", 3)
        await store.pop(NS, "list")
        await store.update(NS, "value", lambda value: value)
        clock.advance(4.5)
        assert await store.count(NS) == 3
        clock.advance(0.5)
        assert await store.count(NS) == 0

    async def test_the_default_ttl_is_for_items_without_one(
        self, store_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with store_factory(clock=clock, default_ttl=10, sweep_interval=None) as store:
            await store.put(NS, "put", 1)
            await store.put(NS, "own", 1, ttl=20)
            await store.put_many(NS, {"many": 1})
            await store.increment(NS, "n")
            await store.append(NS, "list", 1)
            await store.update(NS, "update", lambda _: 1)
            await store.transact(lambda tx: tx.put(NS, "tx", 1))
            assert await store.count(NS) == 7
            clock.advance(10)
            assert await store.keys(NS) == ["own"]
            clock.advance(10)
            assert await store.keys(NS) == []

    async def test_for_ever_is_for_ever_whatever_the_default(
        self, store_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with store_factory(clock=clock, default_ttl=10, sweep_interval=None) as store:
            assert (await store.put(NS, "put", 1, ttl=FOREVER)).expires_at is None
            await store.put_many(NS, {"many": 1}, ttl=FOREVER)
            await store.increment(NS, "n", ttl=FOREVER)
            await store.append(NS, "list", 1, ttl=FOREVER)
            await store.transact(lambda tx: tx.put(NS, "tx", 1, ttl=FOREVER))
            await store.put(NS, "default", 1)
            clock.advance(10)
            assert await store.keys(NS) == ["list", "many", "n", "put", "tx"]
        async with store_factory(clock=clock, default_ttl=FOREVER) as store:
            assert (await store.put(NS, "k", 1)).expires_at is None

    async def test_a_ttl_is_of_what_a_change_creates(
        self, store: Store, clock: ManualClock
    ) -> None:
        for _ in range(2):  # the second finds what the first has made
            await store.increment(NS, "n", ttl=10)
            await store.append(NS, "list", 1, ttl=10)
            clock.advance(4)
        assert [item.value for item in await _scan(store)] == [[1, 1], 2]
        clock.advance(2)
        assert await store.count(NS) == 0
        assert await store.increment(NS, "n", ttl=timedelta(seconds=1)) == 1
        await store.put(NS, "for ever", 1)
        await store.increment(NS, "for ever", ttl=1)
        clock.advance(1)
        assert await store.keys(NS) == ["for ever"]

    async def test_an_item_gets_another_lifetime(self, store: Store, clock: ManualClock) -> None:
        before = await store.put(NS, "k", {"n": 1}, index=False)
        other = await store.put(NS, "other", 1, ttl=5)
        clock.advance(1)
        assert await store.expire(NS, "k", 10) is True
        after = await store.get(NS, "k")
        assert after == dataclasses.replace(before, expires_at=clock.now + timedelta(seconds=10))
        assert await store.expire(NS, "other", FOREVER) is True
        clock.advance(6)
        assert await store.get(NS, "other") == dataclasses.replace(other, expires_at=None)
        assert (await store.get(NS, "k", refresh_ttl=True)) is not None  # by its new lifetime
        clock.advance(9)
        assert await store.expire(NS, "k", timedelta(seconds=2)) is True
        clock.advance(2)
        assert await store.get(NS, "k") is None
        assert await store.expire(NS, "k", 10) is False
        assert await store.expire(NS, "missing", FOREVER) is False
        assert await store.keys(NS) == ["other"]

    async def test_an_item_without_a_lifetime_gets_the_default_one(
        self, store_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with store_factory(clock=clock, default_ttl=10, sweep_interval=None) as store:
            await store.put(NS, "k", 1, ttl=FOREVER)
            assert await store.expire(NS, "k", None)
            clock.advance(10)
            assert await store.get(NS, "k") is None
            assert await store.sweep() == 1

    async def test_reads_renew_a_lifetime_when_told(self, store: Store, clock: ManualClock) -> None:
        await store.put_many(NS, {"get": 1, "many": 1, "not": 1}, ttl=10)
        for_ever = await store.put(NS, "for ever", 1)
        before = await store.get(NS, "get")
        clock.advance(6)
        item = await there(store, NS, "get", refresh_ttl=True)
        assert before is not None
        assert item.expires_at == clock.now + timedelta(seconds=10)
        assert item == dataclasses.replace(before, expires_at=item.expires_at)
        assert item == await store.get(NS, "get")
        await store.get_many(NS, ["many", "missing"], refresh_ttl=True)
        await store.get(NS, "not")
        assert await store.get(NS, "for ever", refresh_ttl=True) == for_ever
        clock.advance(4)
        assert await store.keys(NS) == ["for ever", "get", "many"]
        clock.advance(6)
        assert await store.keys(NS) == ["for ever"]

    async def test_a_store_may_renew_by_default(
        self, store_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with store_factory(clock=clock, refresh_ttl=True, sweep_interval=None) as store:
            await store.put_many(NS, {"get": 1, "many": 1, "not": 1}, ttl=10)
            await store.put((*NS, "below"), "search", 1, ttl=10)
            await store.put((*NS, "scan"), "scanned", 1, ttl=10)
            clock.advance(6)
            await store.get(NS, "get")
            await store.get_many(NS, ["many"])
            await store.get(NS, "not", refresh_ttl=False)
            (found,) = await store.search((*NS, "below"))
            assert found.expires_at == clock.now + timedelta(seconds=10)
            (found,) = [item async for item in store.scan((*NS, "scan"))]
            assert found.expires_at == clock.now + timedelta(seconds=10)
            clock.advance(4)
            assert await store.keys(NS, subtree=True) == ["get", "many", "search", "scanned"]
            assert await store.get(NS, "not") is None

    async def test_a_renewed_item_lives_by_its_own_ttl(
        self, store_factory: StoreFactory, clock: ManualClock
    ) -> None:
        async with store_factory(clock=clock, default_ttl=100, refresh_ttl=True) as store:
            await store.put(NS, "k", 1, ttl=10)
            clock.advance(5)
            assert (await there(store, NS, "k")).expires_at == clock.now + timedelta(seconds=10)

    async def test_an_expired_item_is_not_revived_by_reading(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "k", 1, ttl=10)
        clock.advance(10)
        assert await store.get(NS, "k", refresh_ttl=True) is None
        assert await store.get_many(NS, ["k"], refresh_ttl=True) == {}
        assert await store.get(NS, "k") is None

    async def test_sweep_counts_what_it_frees(self, store: Store, clock: ManualClock) -> None:
        await store.put_many(NS, {f"{n}": n for n in range(1_203)}, ttl=10)
        await store.put_many(("left",), {"a": 1, "b": 2}, ttl=20)
        assert await store.sweep() == 0
        clock.advance(10)
        assert await store.sweep() == 1_203
        assert await store.sweep() == 0
        assert await store.count((), subtree=True) == 2

    async def test_the_sweeper_works_by_itself(
        self, store_factory: StoreFactory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = store_factory(clock=clock, sweep_interval=0.01)
        sweep, swept = store.sweep, asyncio.get_running_loop().create_future()

        async def observed() -> int:
            freed = await sweep()
            if freed and not swept.done():
                swept.set_result(freed)
            return freed

        monkeypatch.setattr(store, "sweep", observed)
        async with store:
            await store.put_many(NS, {"a": 1, "b": 2}, ttl=10)
            clock.advance(10)
            assert await asyncio.wait_for(swept, timeout=30) == 2

    # Wildcards

    @pytest.mark.parametrize(("pattern", "matching", "others"), GLOBS, ids=ascii)
    async def test_patterns_mean_what_glob_means(
        self, store: Store, pattern: str, matching: list[str], others: list[str]
    ) -> None:
        await store.put_many(NS, dict.fromkeys([*matching, *others], 1))
        await store.put_many((*NS, "below"), dict.fromkeys(matching, 1))
        await store.put_many(("users", "alic"), dict.fromkeys(matching, 1))
        assert await store.keys(NS, pattern) == sorted(matching)
        assert await store.keys(NS, pattern, subtree=True) == sorted(matching) * 2
        assert await store.keys(NS, pattern, limit=1) == sorted(matching)[:1]
        assert await store.count(NS, pattern) == len(matching)
        assert await store.count(NS, pattern, subtree=True) == 2 * len(matching)
        found = await _scan(store, NS, pattern=pattern, subtree=False, batch_size=2)
        assert [item.key for item in found] == sorted(matching)
        assert await store.remove(NS, pattern) == len(matching)
        assert await store.keys(NS) == sorted(others)
        assert await store.remove(("users",), pattern, subtree=True) == 2 * len(matching)
        assert await store.keys(("users",), subtree=True) == sorted(others)

    @pytest.mark.parametrize("pattern", [*UNCLOSED_PATTERNS, "\ud800", None, 5, b"*"], ids=ascii)
    async def test_what_is_no_pattern_is_refused(self, store: Store, pattern: Any) -> None:
        await store.put(NS, "k", 1)
        await refused(
            InvalidPatternError,
            store.keys(NS, pattern),
            store.count(NS, pattern),
            store.remove(NS, pattern),
            _scan(store, pattern=pattern),
        )
        assert await store.count(NS) == 1

    async def test_remove_says_how_many_went(self, store: Store) -> None:
        await store.put_many(NS, {"temp_1": 1, "temp_2": 2, "Temp_3": 3, "tempo": 4})
        await store.put((*NS, "below"), "temp_5", 5)
        assert await store.remove(NS, "temp_*") == 2
        assert await store.remove(NS, "temp_*") == 0
        assert await store.keys(NS, subtree=True) == ["Temp_3", "tempo", "temp_5"]

    async def test_keys_are_sorted_by_namespace_then_key(self, store: Store) -> None:
        for namespace in [("b",), ("a", "z"), ("a",), ("a-",), ("a\t",), ()]:
            await store.put_many(namespace, {f"{namespace} 2": 1, f"{namespace} 1": 1})
        order = [(), ("a",), ("a", "z"), ("a\t",), ("a-",), ("b",)]
        expected = [f"{namespace} {n}" for namespace in order for n in (1, 2)]
        assert await store.keys((), subtree=True) == expected
        assert await store.keys((), subtree=True, limit=3) == expected[:3]
        assert await store.keys((), limit=0) == []

    # Search without a query

    async def test_search_gives_the_latest_write_first(
        self, store: Store, clock: ManualClock
    ) -> None:
        """What one call wrote counts as written in its order, and clocks have no say."""
        await store.put_many(NS, {"b": 1, "c": 1, "a": 1})
        clock.advance(-1)
        await store.put_many(NS, {"e": 1, "d": 1})
        await store.put(NS, "b", 2)
        items = await store.search(NS)
        assert [item.key for item in items] == ["b", "d", "e", "a", "c"]
        assert items[0] == await store.get(NS, "b")
        assert all(item.score is None for item in items)

    async def test_a_clock_that_was_wrong_leaves_nothing_behind(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "first", 1)
        right = clock.seconds
        clock.advance(100 * 365 * 86_400)
        await store.put(NS, "ahead", 1)
        clock.seconds = 0.0
        await store.put(NS, "behind", 1)
        clock.seconds = right + 1
        for key in ("ahead", "behind"):
            item = await store.put(NS, key, 2, ttl=60)
            assert item.updated_at == clock.now
            assert item.expires_at == clock.now + timedelta(seconds=60)
            assert item == await store.get(NS, key)
        await store.put(NS, "last", 1)
        assert [item.key for item in await store.search(NS)] == [
            "last",
            "behind",
            "ahead",
            "first",
        ]
        assert (await store.check()).ok

    @pytest.mark.parametrize("instant", [1.8e12, -1e12, math.nan, math.inf, None, "noon"])
    async def test_a_clock_that_gives_no_seconds_is_refused(
        self, store: Store, clock: ManualClock, instant: Any
    ) -> None:
        """Milliseconds, say: by such a clock every lifetime would be over."""
        before = await store.put(NS, "k", 1, ttl=60)
        right, clock.seconds = clock.seconds, instant
        await refused(
            InvalidArgumentError,
            store.put(NS, "k", 2),
            store.get(NS, "k"),
            store.search(NS),
            store.sweep(),
            match="the clock gives seconds",
        )
        clock.seconds = right
        assert await store.get(NS, "k") == before

    @pytest.mark.parametrize(
        ("order_by", "expected"),
        [
            *(("key", "abcdefgh"), ("-key", "hgfedcba"), ("version", "abcdefgh")),
            *(("-version", "hgfedcba"), ("$.n", "cefgadhb"), ("-n", "hdgafecb")),
            *((["$.n", "key"], "cefagdhb"), (["-n", "-key"], "hdgafecb"), ("nothing", "hgfedcba")),
        ],
        ids=stable_id,
    )
    async def test_search_in_an_order_of_ones_own(
        self, store: Store, order_by: str | list[str], expected: str
    ) -> None:
        """By type, then by value; what is missing last; where all is equal, the latest first."""
        values: list[Any] = [2, ..., None, "1", True, -1.5, 2, [0]]
        mapping = {
            key: {} if value is ... else {"n": value}
            for key, value in zip("abcdefgh", values, strict=True)
        }
        await store.put_many(NS, mapping)
        found = [item.key for item in await store.search(NS, order_by=order_by)]
        assert "".join(found) == expected
        page = await store.search(NS, order_by=order_by, limit=3, offset=2)
        assert [item.key for item in page] == found[2:5]
        numbers = await store.search(NS, order_by=order_by, filter={"n": {"$lt": 5}})
        assert [item.key for item in numbers] == [key for key in found if key in "afg"]

    async def test_texts_with_a_nul_have_their_place_in_an_order(self, store: Store) -> None:
        texts = ["a\0b", "", "\0", "a", "\0\0", "\0a", "é"]
        await store.put_many(NS, {text: {"n": text} for text in texts})
        for order_by, expected in (("n", sorted(texts)), ("-n", sorted(texts, reverse=True))):
            found = await store.search(NS, order_by=order_by)
            assert [item.value["n"] for item in found] == expected

    async def test_search_keeps_to_its_namespace_unless_told(self, store: Store) -> None:
        for namespace in [("foo",), ("foo", "b"), ("foo", "a"), ("foobar",), ("fo",), ()]:
            await store.put(namespace, "k", 1)
        assert [item.namespace for item in await store.search(("foo",))] == [("foo",)]
        below = await store.search(("foo",), subtree=True)
        assert [item.namespace for item in below] == [("foo", "a"), ("foo", "b"), ("foo",)]
        assert len(await store.search((), subtree=True)) == 6

    async def test_pages_join_to_the_whole(self, store: Store, clock: ManualClock) -> None:
        for n in range(25):
            await store.put((*NS, f"{n % 3}"), f"{n % 7}", n)
            clock.advance(n % 2)
        whole = await store.search(NS, subtree=True, limit=100)
        for size in (1, 4, 25):
            pages = [
                await store.search(NS, subtree=True, limit=size, offset=offset)
                for offset in range(0, 30, size)
            ]
            assert [item for page in pages for item in page] == whole
        assert len(await store.search(NS, subtree=True)) == 10
        assert await store.search(NS, subtree=True, limit=0) == []
        assert await store.search(NS, subtree=True, offset=2**40) == []
        assert await store.search(NS, subtree=True, limit=2**40) == whole

    @pytest.mark.parametrize(("filter", "expected"), FILTERS, ids=stable_id)
    async def test_filters(self, store: Store, filter: dict[str, Any], expected: set[str]) -> None:
        await store.put_many(NS, FILTERED)
        await store.put_many(("other",), FILTERED)
        found = await store.search(NS, filter=filter, limit=100)
        latest_first = [key for key in reversed(FILTERED) if key in expected]
        assert [item.key for item in found] == latest_first
        scanned = await _scan(store, NS, filter=filter, batch_size=3)
        assert [item.key for item in scanned] == sorted(expected)

    async def test_a_name_is_not_the_head_of_another(self, store: Store) -> None:
        """Neither before a NUL, which ends texts in C, nor before a dot."""
        values = [{"a": 1}, {"a\0b": 1}, {"a\0": 1}, {"a.b": 1}, {"": 1}, {"\0": 1}, {"b": "\0"}]
        await store.put_many(NS, {f"{n}": value for n, value in enumerate(values)})

        async def found(filter: dict[str, Any]) -> list[str]:
            return sorted(item.key for item in await store.search(NS, filter=filter))

        assert await found({"a": 1}) == ["0"]
        assert await found({"a": {"$in": [1, 2]}}) == ["0"]
        assert await found({"a": {"$gte": 1}}) == ["0"]
        assert await found({"a": {"$exists": True}}) == ["0"]
        assert await found({"a": {"$ne": 1}}) == ["1", "2", "3", "4", "5", "6"]
        assert await found({"a\0b": 1}) == ["1"]
        assert await found({'"a.b"': 1}) == ["3"]
        assert await found({"a.b": 1}) == []
        assert await found({'""': {"$exists": True}}) == ["4"]
        assert await found({"\0": 1}) == ["5"]
        assert await found({"b": {"$contains": "\0"}}) == ["6"]

    async def test_a_filter_may_be_wide(self, store: Store) -> None:
        await store.put_many(NS, {f"{n}": {"n": n} for n in range(5)})
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({"$or": [{"n": n} for n in range(3, 3_000)]}, ["3", "4"]),
            ({"$and": [{"n": {"$ne": n}} for n in range(3, 3_000)]}, ["0", "1", "2"]),
            ({"n": {"$in": list(range(3, 40_000))}}, ["3", "4"]),
            ({"$.n": {"$gte": 3}}, ["3", "4"]),  # a path from the value itself
            ({f"missing{n}": {"$exists": False} for n in range(3_000)}, ["0", "1", "2", "3", "4"]),
        ]
        for wide, expected in cases:
            found = [item.key for item in await store.search(NS, filter=wide)]
            assert found == expected[::-1]
            assert [item.key for item in await _scan(store, NS, filter=wide)] == expected

    @pytest.mark.parametrize("filter", BAD_FILTERS, ids=stable_id)
    async def test_what_is_no_filter_is_refused(self, store: Store, filter: Any) -> None:
        await store.put(NS, "k", {"f": 1})
        await refused(
            InvalidFilterError,
            store.search(NS, filter=filter),
            _scan(store, filter=filter),
            store.search(NS, SearchQuery(filter=filter)),
        )

    async def test_a_filter_and_a_limit_give_as_many_as_match(self, store: Store) -> None:
        await store.put_many(NS, {f"{n:03}": {"even": n % 2 == 0} for n in range(100)})
        found = await store.search(NS, filter={"even": True}, limit=20, offset=5)
        assert [item.key for item in found] == [f"{n:03}" for n in range(88, 48, -2)]

    async def test_a_search_query_says_it_all(self, store: Store) -> None:
        await store.put_many((*NS, "below"), {f"{n}": {"n": n} for n in range(10)})
        query = SearchQuery(filter={"n": {"$gte": 3}}, limit=2, offset=1, subtree=True)
        found = await store.search(NS, query)
        assert [item.key for item in found] == ["8", "7"]
        await refused(InvalidArgumentError, store.search(NS, query, limit=5))

    async def test_without_an_index_a_query_finds_a_part_whatever_the_case(
        self, store: Store
    ) -> None:
        await store.put_many(
            NS,
            {
                "plain": "The quick brown Fox",
                "nested": {"a": ["x", {"b": "QUICK_fox%"}]},
                "other": {"quick": "only the key"},
                "sharp s": "Straße",
                "umlaut": ["ÄPFEL"],
                "NUL": "a\x00FOX",
                "bytes": b"fox",
                "none": None,
            },
        )
        await store.put((*NS, "below"), "k", "fox")

        async def keys(query: str, **options: Any) -> list[str]:
            return [item.key for item in await store.search(NS, query, **options)]

        assert await keys("fox") == ["NUL", "nested", "plain"]
        assert await keys("FOX", limit=1, offset=1) == ["nested"]
        assert await keys("quick brown") == ["plain"]
        assert await keys("STRASSE") == ["sharp s"]
        assert await keys("nest") == ["nested"]  # of the key
        assert await keys("Sharp") == ["sharp s"]
        assert await keys("apfel") == ["umlaut"]
        assert await keys("a\u0308PFEL") == ["umlaut"]
        assert await keys("äpfel") == ["umlaut"]
        assert await keys("_fox%") == ["nested"]
        assert await keys("q%k") == []
        assert await keys("fox", subtree=True) == ["k", "NUL", "nested", "plain"]
        assert await keys("quick", filter={"a[0]": "x"}) == ["nested"]
        assert all(item.score is None for item in await store.search(NS, "fox"))
        assert len(await store.search(NS, "", limit=100)) == 8

    @pytest.mark.parametrize("mode", ["semantic", "text", "hybrid"])
    async def test_without_an_index_a_ranked_search_is_refused(
        self, store: Store, mode: str
    ) -> None:
        await store.put(NS, "k", "text")
        await refused(StoreError, store.search(NS, "text", mode=mode))

    # Listings and scans

    async def test_namespaces_are_listed_once_and_sorted(self, store: Store) -> None:
        for namespace in [("b",), ("a", "z"), ("a-",), ("a",), ("a", "y"), ("B",), ("a\t",)]:
            await store.put_many(namespace, {"1": 1, "2": 2})
        assert await store.list_namespaces() == [
            *(("B",), ("a",), ("a", "y"), ("a", "z"), ("a\t",), ("a-",), ("b",)),
        ]  # fmt: skip
        assert await store.list_namespaces(limit=2, offset=1) == [("a",), ("a", "y")]
        assert await store.list_namespaces(offset=6) == [("b",)]
        assert await store.list_namespaces(offset=7) == []
        assert await store.list_namespaces(limit=0) == []

    async def test_an_emptied_namespace_is_not_listed(self, store: Store) -> None:
        await store.put(("a",), "k", 1)
        await store.put(("b",), "k", 1)
        await store.put(("c",), "k", 1)
        await store.get(("d",), "k")
        await store.delete(("a",), "k")
        await store.remove(("b",), "*")
        assert await store.list_namespaces() == [("c",)]
        await store.put(("a",), "k", 1)
        assert await store.list_namespaces() == [("a",), ("c",)]

    async def test_namespaces_by_prefix_and_suffix(self, store: Store) -> None:
        for namespace in [
            *((), ("users",), ("users", "alice"), ("users", "alice", "prefs"), ("user",)),
            *(("users", "bob", "prefs"), ("users", "bob", "tasks"), ("teams", "x", "prefs")),
            *(("prefs",), ("usersx", "alice")),
        ]:  # fmt: skip
            await store.put(namespace, "k", 1)

        async def listed(*args: Any, **options: Any) -> list[tuple[str, ...]]:
            return await store.list_namespaces(*args, **options)

        assert await listed(("users",)) == [
            *(("users",), ("users", "alice"), ("users", "alice", "prefs")),
            *(("users", "bob", "prefs"), ("users", "bob", "tasks")),
        ]  # fmt: skip
        assert await listed(["users", "alice"]) == [("users", "alice"), ("users", "alice", "prefs")]
        assert await listed(("users", ..., "prefs")) == [
            ("users", "alice", "prefs"),
            ("users", "bob", "prefs"),
        ]
        assert await listed((..., "alice")) == [
            ("users", "alice"),
            ("users", "alice", "prefs"),
            ("usersx", "alice"),
        ]
        assert await listed(suffix=("prefs",)) == [
            *(("prefs",), ("teams", "x", "prefs"), ("users", "alice", "prefs")),
            ("users", "bob", "prefs"),
        ]  # fmt: skip
        assert await listed(("users",), suffix=("bob", ...)) == [
            ("users", "bob", "prefs"),
            ("users", "bob", "tasks"),
        ]
        assert await listed((..., ..., ...), suffix=("prefs",), limit=1, offset=1) == [
            ("users", "alice", "prefs")
        ]
        assert await listed(("users", "alice"), suffix=("alice",)) == [("users", "alice")]
        assert await listed(("missing",)) == []

    async def test_namespaces_cut_to_a_depth_are_distinct(self, store: Store) -> None:
        for namespace in [
            *((), ("a",), ("a", "b", "c"), ("a", "b", "d"), ("a", "e"), ("b", "x", "y")),
        ]:  # fmt: skip
            await store.put(namespace, "k", 1)
        assert await store.list_namespaces(max_depth=1) == [(), ("a",), ("b",)]
        assert await store.list_namespaces(max_depth=2) == [
            *((), ("a",), ("a", "b"), ("a", "e"), ("b", "x")),
        ]  # fmt: skip
        assert await store.list_namespaces(("a",), max_depth=2) == [("a",), ("a", "b"), ("a", "e")]
        assert await store.list_namespaces(("a",), max_depth=2, limit=1, offset=1) == [("a", "b")]
        assert await store.list_namespaces(suffix=("c",), max_depth=2) == [("a", "b")]
        assert await store.list_namespaces(("a", "b"), max_depth=1) == [("a",)]
        assert await store.list_namespaces(max_depth=9) == await store.list_namespaces()

    async def test_scan_goes_through_everything_in_order(self, store: Store) -> None:
        namespaces = [(), ("a",), ("a", "z"), ("a\t",), ("a-",), ("b",)]
        for namespace in namespaces:
            await store.put_many(namespace, dict.fromkeys(("b", "", "a", "🙂", "\ue000"), 1))
        order = [(ns, key) for ns in namespaces for key in ("", "a", "b", "\ue000", "🙂")]
        for batch_size in (1, 7, 30, 500):
            items = await _scan(store, batch_size=batch_size)
            assert [(item.namespace, item.key) for item in items] == order
        assert [item.key for item in await _scan(store, ("a",), subtree=False)] == [
            *("", "a", "b", "\ue000", "🙂")
        ]
        below = await _scan(store, ("a",), pattern="[ab]", batch_size=2)
        assert [(item.namespace, item.key) for item in below] == [
            *((("a",), "a"), (("a",), "b"), (("a", "z"), "a"), (("a", "z"), "b"))
        ]
        assert await store.get(("a", "z"), "b") == below[-1]

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_listing_begins_and_ends_where_it_is_told(
        self, store: Store, reverse: bool
    ) -> None:
        keys = ["", "\x00", "a", "a\x00", "ab", "b", "é", "🙂"]
        await store.put_many(NS, {key: key for key in keys})
        await store.put_many((*NS, "below"), {"a": 1})
        await store.put_many(("z",), {"a": 1})
        for after in (None, *keys, "A", "aa", "zz"):
            for before in (None, *keys, "A", "aa", "zz"):
                expected = [
                    key
                    for key in sorted(keys, reverse=reverse)
                    if (after is None or key > after) and (before is None or key < before)
                ]
                bounds: dict[str, Any] = {"after": after, "before": before, "reverse": reverse}
                assert await store.keys(NS, **bounds) == expected
                assert await store.keys(NS, limit=2, **bounds) == expected[:2]
                starred = [key for key in expected if key.startswith("a")]
                assert await store.keys(NS, "a*", **bounds) == starred
                found = await _scan(store, NS, subtree=False, batch_size=3, **bounds)
                assert [item.key for item in found] == expected

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_scan_goes_on_where_another_ended(self, store: Store, reverse: bool) -> None:
        namespaces = [("a",), ("a", "b"), ("a", "c"), ("ab",), ("b",)]
        for namespace in namespaces:
            await store.put_many(namespace, {"k1": 1, "k2": 2})
        whole = await _scan(store, reverse=reverse)
        assert whole == sorted(whole, key=lambda item: (item.namespace, item.key), reverse=reverse)
        part = [item for item in whole if item.namespace[0] == "a"]
        for item in whole:
            name = "before" if reverse else "after"
            bound: dict[str, Any] = {name: item}
            rest = [each for each in part if each in whole[whole.index(item) + 1 :]]
            assert await _scan(store, ("a",), reverse=reverse, batch_size=1, **bound) == rest
            bound = {name: (item.namespace, item.key)}
            assert await _scan(store, ("a",), reverse=reverse, **bound) == rest
            found = await store.keys(("a",), subtree=True, reverse=reverse, **bound)
            assert found == [each.key for each in rest]
        between = {"after": (("a", "b"), "k1"), "before": (("ab",), "k1")}
        found_between = await _scan(store, reverse=reverse, **between)
        expected = [(("a", "b"), "k2"), (("a", "c"), "k1"), (("a", "c"), "k2")]
        assert [(item.namespace, item.key) for item in found_between] == (
            expected[::-1] if reverse else expected
        )
        assert await _scan(store, after=whole[-1], before=whole[0], reverse=reverse) == (
            whole[1:-1] if reverse else []
        )

    async def test_places_of_a_listing_that_are_none_are_refused(self, store: Store) -> None:
        item = await store.put(("other",), "k", 1)
        for subtree, place in (
            *((True, "k"), (True, ("k",)), (True, 5), (True, [NS, "k"]), (True, (NS, "k", 1))),
            *((False, 5), (False, item), (False, (("other",), "k"))),
        ):
            for name in ("after", "before"):
                bound: dict[str, Any] = {name: place}
                await refused(
                    InvalidArgumentError,
                    store.keys(NS, subtree=subtree, **bound),
                    _scan(store, NS, subtree=subtree, **bound),
                )
        await refused(InvalidKeyError, store.keys(NS, after="\ud800"))
        await refused(InvalidNamespaceError, store.keys(NS, subtree=True, after=("n", "k")))

    async def test_scan_passes_what_a_filter_leaves_out(self, store: Store) -> None:
        await store.put_many(NS, {f"{n:03}": {"n": n} for n in range(100)})
        found = await _scan(store, filter={"n": {"$in": [3, 50, 99]}}, batch_size=10)
        assert [item.value["n"] for item in found] == [3, 50, 99]

    async def test_scan_bears_writes_meanwhile(self, store: Store) -> None:
        await store.put_many(NS, {f"{n:03}": n for n in range(50)})
        seen = []
        async for item in store.scan(batch_size=10):
            seen.append(item.key)
            await store.put(NS, f"{item.key}+", 1)
            await store.delete(NS, item.key)
            await store.put(NS, "049", "changed")
        assert [key for key in seen if len(key) == 3] == [f"{n:03}" for n in range(50)]
        assert len(seen) == len(set(seen))

    async def test_scan_may_be_left_early(self, store: Store) -> None:
        await store.put_many(NS, {f"{n:03}": n for n in range(50)})
        async for item in store.scan(batch_size=10):
            assert item.key == "000"
            break
        await store.put(NS, "after", 1)

    # Bad input

    @pytest.mark.parametrize("method", TAKES_NAMESPACE)
    async def test_what_is_no_namespace_is_refused(self, store: Store, method: str) -> None:
        await store.put(NS, "k", 1)
        before = await _scan(store)
        for namespace in BAD_NAMESPACES:
            await refused(InvalidNamespaceError, CALLS[method](store, namespace, "k"))
        assert await _scan(store) == before

    async def test_a_str_for_a_namespace_is_told_the_tuple_to_write(self, store: Store) -> None:
        await refused(InvalidNamespaceError, store.put("users", "k", 1), match=r"\('users',\)")

    @pytest.mark.parametrize("method", TAKES_KEY)
    async def test_what_is_no_key_is_refused(self, store: Store, method: str) -> None:
        await store.put(NS, "k", 1)
        before = await _scan(store)
        for key in BAD_KEYS:
            await refused(InvalidKeyError, CALLS[method](store, NS, key))
        assert await _scan(store) == before

    @pytest.mark.parametrize("ttl", BAD_TTLS, ids=lambda ttl: f"{ttl!r:.20}")
    async def test_what_is_no_lifetime_is_refused(
        self, store: Store, store_factory: StoreFactory, ttl: Any
    ) -> None:
        await store.put(NS, "k", 1)
        before = await _scan(store)
        await refused(
            InvalidTTLError,
            store.put(NS, "k", 1, ttl=ttl),
            store.put_many(NS, {"k": 1}, ttl=ttl),
            store.transact(lambda tx: tx.put(NS, "k", 1, ttl=ttl)),
            store.increment(NS, "k", ttl=ttl),
            store.append(NS, "list", 1, ttl=ttl),
            store.expire(NS, "k", ttl),
        )
        assert await _scan(store) == before
        with pytest.raises(InvalidTTLError):
            store_factory(default_ttl=ttl)

    @pytest.mark.parametrize("number", [-1, 1.0, "1", True], ids=repr)
    async def test_numbers_outside_their_domain_are_refused(
        self, store: Store, number: Any
    ) -> None:
        await store.put(NS, "k", [1])
        before = await _scan(store)
        await refused(
            InvalidArgumentError,
            store.search(NS, limit=number),
            store.search(NS, offset=number),
            store.search(NS, SearchQuery(limit=number)),
            store.keys(NS, limit=number),
            store.list_namespaces(limit=number),
            store.list_namespaces(offset=number),
            store.list_namespaces(max_depth=number),
            _scan(store, batch_size=number),
            store.put(NS, "k", 2, if_version=number),
            store.delete(NS, "k", if_version=number),
            store.append(NS, "k", 2, max_length=number),
            store.transact(lambda tx: tx.put(NS, "k", 2), attempts=number),
        )
        assert await _scan(store) == before

    async def test_numbers_may_be_larger_than_any_store(self, store: Store) -> None:
        items = await store.put_many(NS, {"a": 1, "b": 2})
        for huge in (2**31, 2**63 - 1, 2**63, 2**70):
            assert await store.search(NS, limit=huge) == items[::-1]
            assert await store.search(NS, limit=huge, offset=huge) == []
            assert await store.keys(NS, limit=huge) == ["a", "b"]
            assert await store.list_namespaces(limit=huge, max_depth=huge) == [NS]
            assert await store.list_namespaces(limit=huge, offset=1) == []
            assert await store.list_namespaces(limit=huge, offset=huge) == []
            assert await _scan(store, batch_size=huge) == items
            await refused(ConflictError, store.put(NS, "a", 3, if_version=huge))
            assert await store.append(NS, "list", max_length=huge) == 0
            await store.delete(NS, "list")

    async def test_other_arguments_outside_their_domain_are_refused(self, store: Store) -> None:
        await store.put(NS, "k", [1])
        before = await _scan(store)
        await refused(
            InvalidArgumentError,
            store.search(NS, mode="fuzzy"),
            store.search(NS, 5),  # type: ignore[arg-type]
            store.search(NS, "\ud800"),
            store.search(NS, min_score=0.5),
            store.list_namespaces(max_depth=0),
            _scan(store, batch_size=0),
            store.put_many(NS, [("k", 1)]),  # type: ignore[arg-type]
            store.pop(NS, "k", "0"),  # type: ignore[arg-type]
            store.pop(NS, "k", True),
            store.increment(NS, "k", field=""),
            store.increment(NS, "k", field="a[*]"),
            store.increment(NS, "k", field="a["),
            store.put(NS, "k", 1, index="title"),
            store.put(NS, "k", 1, index=["a["]),
            store.put(NS, "k", 1, index=[1]),  # type: ignore[list-item]
            store.transact(lambda tx: tx.put(NS, "k", 2), attempts=0),
        )
        for number in ("1", None, True, [1]):
            await refused(
                ValueTypeError,
                store.increment(NS, "k", number),  # type: ignore[arg-type]
                store.increment(NS, "new", initial=number),  # type: ignore[arg-type]
            )
        assert await _scan(store) == before

    async def test_put_many_is_all_or_nothing(self, store: Store) -> None:
        await store.put(NS, "b", 1)
        before = await _scan(store)
        for bad in ({"a": 1, "b": 2, "c": math.nan}, {"a": 1, 5: 2}, {"a": 1, "\ud800": 2}):
            with pytest.raises((ValueEncodingError, InvalidKeyError)):
                await store.put_many(NS, bad)  # type: ignore[arg-type]
        assert await _scan(store) == before

    @pytest.mark.parametrize("rival_is_written", [False, True])
    async def test_the_whole_of_a_transaction_or_nothing(
        self, store: Store, rival_is_written: bool
    ) -> None:
        await store.put_many(NS, {"a": 1, "b": 1})
        before = await store.get_many(NS, ["a", "b"])

        async def work(tx: Transaction) -> None:
            await tx.put(NS, "a", 2)
            await tx.delete(NS, "b")
            await tx.get(NS, "rival")
            await store.put(NS, "rival", 1)
            if rival_is_written:
                await tx.put(NS, "rival", 3)
            await tx.put(NS, "c", 3)

        await refused(ConflictError, store.transact(work, attempts=1))
        assert await store.get_many(NS, ["a", "b"]) == before
        assert await _value(store, "rival") == 1
        assert await store.keys(NS) == ["a", "b", "rival"]


async def _value(store: Store, key: str) -> Any:
    return (await there(store, NS, key)).value


async def _write_1_over_what_is_there(tx: Transaction) -> None:
    assert await tx.get(NS, "k") is None
    await tx.put(NS, "k", 1)
