"""The codec: what is stored is JSON that reads well, and what is refused is named."""

from __future__ import annotations

import collections
import enum
import tracemalloc
import types
import uuid
from datetime import UTC, datetime, time
from typing import Any

import numpy as np
import pytest

from kvstore import StoreCorruptError, ValueEncodingError
from kvstore.codec import LONG, decode, encode, encode_all
from kvstore.testing import CONVERTED_VALUES, JSON_VALUES, REFUSED_VALUES

Row = collections.namedtuple("Row", "x y")  # noqa: PYI024


class Shade(enum.StrEnum):
    DARK = "dark"


class Half(float):
    pass


@pytest.mark.parametrize("name", JSON_VALUES)
def test_json_and_bytes_come_back(name: str) -> None:
    assert repr(decode(encode(JSON_VALUES[name]))) == repr(JSON_VALUES[name])


@pytest.mark.parametrize("length", [10, 1_000, 20_000])
def test_an_encoded_value_takes_no_more_room_than_it_has(length: int) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [encode("x" * length) for _ in range(100)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < 2 * 100 * (len(kept[0]) + 64)


@pytest.mark.parametrize("name", CONVERTED_VALUES)
def test_other_forms(name: str) -> None:
    value, form = CONVERTED_VALUES[name]
    assert decode(encode(value)) == form


@pytest.mark.parametrize("filler", [[], ["x" * LONG]], ids=["short", "long"])
def test_many_are_encoded_as_each_is(filler: list[Any]) -> None:
    values = [*JSON_VALUES.values(), *(value for value, _ in CONVERTED_VALUES.values()), *filler]
    assert encode_all(values) == [encode(value) for value in values]
    for value, path in REFUSED_VALUES.values():
        with pytest.raises(ValueEncodingError) as refusal:
            encode_all([*values, value])
        assert f" {path}" in str(refusal.value)


def test_pydantic_models_are_objects() -> None:
    pydantic = pytest.importorskip("pydantic")
    inner = pydantic.create_model("Inner", raw=(bytes, ...), price=(float, 1.5))
    outer = pydantic.create_model("Outer", at=(datetime, ...), rows=(list[Any], ...))
    model = outer(at=datetime(2026, 1, 1, tzinfo=UTC), rows=[inner(raw=b"\xff")])
    form = {"at": "2026-01-01T00:00:00+00:00", "rows": [{"raw": b"\xff", "price": 1.5}]}
    assert decode(encode(model)) == form
    assert decode(encode({"deep": [model, {"$bytes": "no tag"}]})) == {
        "deep": [form, {"$bytes": "no tag"}]
    }
    bad = outer(at=datetime(2026, 1, 1, tzinfo=UTC), rows=[inner(raw=b"", price=float("nan"))])
    with pytest.raises(ValueEncodingError, match=r"\$\.x\.rows\[0\]\.price"):
        encode({"x": bad})
    with pytest.raises(ValueEncodingError, match=r"\$\[0\]"):
        encode([outer])  # the class itself


@pytest.mark.parametrize("name", REFUSED_VALUES)
def test_what_could_not_come_back_is_refused(name: str) -> None:
    value, path = REFUSED_VALUES[name]
    with pytest.raises(ValueEncodingError) as refusal:
        encode(value)
    assert f" {path}" in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": [1, None, True, "é"]}, '{"a":[1,null,true,"é"]}'),
        (b"\x00\xff", '{"$bytes":"AP8="}'),
        ({"$bytes": "AP8="}, '{"$$bytes":"AP8="}'),
        ({"$$bytes": b"x"}, '{"$$$bytes":{"$bytes":"eA=="}}'),
        ({"$bytes": 1, "other": 2}, '{"$bytes":1,"other":2}'),
        ('"$bytes"', '"\\"$bytes\\""'),
    ],
)
def test_what_is_stored(value: Any, stored: str) -> None:
    assert encode(value) == stored.encode()
    assert decode(stored.encode()) == value


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (np.array([[1.5, 2.5], [3.5, 4.5]]).T, [[1.5, 3.5], [2.5, 4.5]]),
        (np.array([1, 2**64 - 1], dtype=np.uint64), [1, 2**64 - 1]),
        (np.array([{"$bytes": "x"}, b"x", None], dtype=object), [{"$bytes": "x"}, b"x", None]),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.bytes_(b"x"), b"x"),
        (Shade.DARK, "dark"),
        (collections.OrderedDict(a=b"x"), {"a": b"x"}),
        (memoryview(b"abcd")[::2], b"ac"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (time(1, 2, 3), "01:02:03"),
    ],
    ids=lambda each: f"{each!r:.40}".split(" at 0x")[0],
)
def test_what_orjson_knows_beyond_json(value: Any, form: Any) -> None:
    assert decode(encode({"v": [value]})) == {"v": [form]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [Row(1, 2)]}, r"Row at \$\.a\[0\]"),
        ({"a b": {Shade.DARK: 1}}, r"object at \$\['a b'\] has a key of type Shade"),
        ([Half(0.5)], r"Half at \$\[0\]"),
        ([time(1, tzinfo=UTC)], r"time at \$\[0\]"),
        ({"a": np.array([1, 2], dtype=">i4")}, r"ndarray at \$\.a .*endian"),
        ({"a": np.datetime64("NaT", "s")}, r"datetime64 at \$\.a"),
        ({"a": np.array([1.0, np.nan], dtype=np.float32)}, r"number at \$\.a\[1\] is not finite"),
        ({"a": types.MappingProxyType({})}, r"mappingproxy at \$\.a"),
        ([collections.deque()], r"deque at \$\[0\]"),
        ([datetime], r"type at \$\[0\]"),
    ],
    ids=lambda each: f"{each!r:.40}".split(" at 0x")[0],
)
def test_what_orjson_does_not_know_is_named_by_path(value: Any, said: str) -> None:
    with pytest.raises(ValueEncodingError, match=said):
        encode(value)


def test_nesting_is_limited_by_name() -> None:
    deep: Any = []
    for _ in range(260):
        deep = [deep]
    with pytest.raises(ValueEncodingError, match="nests deeper than 250 levels"):
        encode(deep)


def test_a_wide_value_that_holds_itself_is_refused() -> None:
    cycle: dict[str, Any] = {"a": 1}
    cycle["self"] = [cycle, cycle]
    with pytest.raises(ValueEncodingError, match="contains itself"):
        encode(cycle)


def test_nulls_beside_plain_numbers_are_no_reason_to_refuse() -> None:
    value = [None, 0.5, "null", {"null": None}, Shade.DARK, np.array([0.5])]
    assert decode(encode(value)) == [None, 0.5, "null", {"null": None}, "dark", [0.5]]


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"nonsense", b"[1", b"\xff", b"NaN", b'{"$bytes":5}', b'{"$bytes":"A"}'),
        *(b'{"$bytes":"\xc3\xa9\xc3\xa9"}', b'{"$bytes":{"a":1}}', b'{"$bytes":"A A="}'),
    ],
)
def test_what_was_not_encoded_is_an_error_without_the_value(data: bytes) -> None:
    with pytest.raises(StoreCorruptError) as refusal:
        decode(data)
    assert "nonsense" not in str(refusal.value)
