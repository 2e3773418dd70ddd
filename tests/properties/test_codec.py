"""Any Python value comes back as its JSON, or is refused by an error that names the path."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import uuid
from contextlib import suppress
from datetime import UTC, timedelta, timezone
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore import StoreCorruptError, ValueEncodingError
from kvstore.codec import decode, encode

from .strategies import any_text, names, stored_values


@dataclasses.dataclass
class Plain:
    a: Any
    b: Any = None
    _private: Any = math.nan


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    a: Any
    b: Any = None


class Colour(enum.Enum):
    RED = "red"
    ONE = 1
    NAN = math.nan
    LIST = [None, b"x"]  # noqa: RUF012 - what orjson writes of a member is its value
    TAG = {"$bytes": "no base64"}  # noqa: RUF012


class Shade(enum.StrEnum):
    DARK = "dark"


class Odd:
    pass


REFUSED = object()  # what the oracle says of a value that cannot come back


def as_json(value: Any) -> Any:
    """Say by plain rules what comes back for a value, or that it is refused."""
    match value:
        case enum.Enum():
            return as_json(value.value)
        case None | bool():
            return value
        case np.generic() | np.ndarray():
            return as_json(value.tolist())
        case int():
            return value if -(2**63) <= value < 2**64 else REFUSED
        case float():
            return value if math.isfinite(value) else REFUSED
        case str():
            return REFUSED if any("\ud800" <= char <= "\udfff" for char in value) else value
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case Plain() | Slotted():
            return as_json({"a": value.a, "b": value.b})
        case dict():
            if any(type(key) is not str or as_json(key) is REFUSED for key in value):
                return REFUSED
            members = {key: as_json(element) for key, element in value.items()}
            return REFUSED if any(each is REFUSED for each in members.values()) else members
        case list() | tuple():
            elements = [as_json(element) for element in value]
            return REFUSED if any(each is REFUSED for each in elements) else elements
        case set() | frozenset() | complex() | Odd() | timedelta():
            return REFUSED
    try:
        return orjson.loads(orjson.dumps(value))  # text of dates and of the like
    except TypeError:
        return REFUSED


zones = st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-9, minutes=-30)))
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | any_text
    | st.binary(max_size=4)
    | st.binary(max_size=4).map(bytearray)
    | st.binary(max_size=4).map(lambda data: memoryview(data))  # noqa: PLW0108 - typed
    | st.binary(max_size=4).map(lambda data: memoryview(data)[::-1])
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([*Colour, Shade.DARK, Odd(), {1}, frozenset(), 1j, range(3)])
    | st.sampled_from([np.float32(1.5), np.float32(math.nan), np.float16(-math.inf)])
    | st.integers(-100, 100).map(np.int64)
    | st.booleans().map(np.bool_)
    | st.lists(st.floats(), max_size=3).map(np.array)
    | st.lists(st.integers(0, 2**64 - 1), max_size=3).map(lambda row: np.array(row, dtype="u8"))
    | st.just(np.arange(6).reshape(2, 3).T)
    | st.just(np.array([{"$bytes": "x"}, b"x"], dtype=object))
)
keys = names | any_text | st.integers(0, 3) | st.none() | st.just(Shade.DARK)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(names | any_text, inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=2)
        | st.builds(Plain, inner, inner)
        | st.builds(Slotted, inner)
    )


python_values = st.recursive(leaves, _containers, max_leaves=8)


@given(stored_values)
def test_json_and_bytes_come_back_as_they_went_in(value: Any) -> None:
    assert repr(decode(encode(value))) == repr(value)


@given(python_values)
@example([Colour.TAG])
@example({"a": np.array([None, math.nan], dtype=object)})
def test_any_value_comes_back_as_json_or_is_refused(value: Any) -> None:
    expected = as_json(value)
    if expected is REFUSED:
        with pytest.raises(ValueEncodingError, match=r"\$"):
            encode(value)
    else:
        assert repr(decode(encode(value))) == repr(expected)


@given(python_values.filter(lambda value: as_json(value) is REFUSED), names, st.integers(0, 3))
def test_the_error_names_the_path_of_the_culprit(culprit: Any, name: str, before: int) -> None:
    with pytest.raises(ValueEncodingError) as alone:
        encode(culprit)
    with pytest.raises(ValueEncodingError) as inside:
        encode({"first": [None, b"x"], name: [*range(before), {"x": culprit}]})
    member = f".{name}" if name.isidentifier() else f"[{name!r}]"
    head = f"${member}[{before}].x"
    assert head in str(inside.value)
    assert str(alone.value).split(" at $")[0] == str(inside.value).split(f" at {head}")[0]


@given(stored_values)
def test_what_is_stored_is_json_for_anybody(value: Any) -> None:
    json.loads(encode(value))


@given(st.binary(max_size=20) | stored_values.map(encode).map(lambda data: data[:-1]))
@example(b'{"$bytes": "\xc3\xa9"}')
@example(b'{"$bytes": 5}')
@example(b'{"$bytes": null}')
@example(b'{"$bytes": "A"}')
@example(b"[" * 100_000)
def test_what_was_not_encoded_is_a_value_or_a_named_error(data: bytes) -> None:
    with suppress(StoreCorruptError):
        decode(data)


@given(st.uuids(), st.datetimes(timezones=st.just(UTC)))
def test_a_date_and_a_uuid_come_back_as_their_text(number: uuid.UUID, when: Any) -> None:
    assert decode(encode([number, when])) == [str(number), when.isoformat()]
