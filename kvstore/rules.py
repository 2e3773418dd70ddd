"""What a store takes: the one rule for what is put, imported and checked.

Namespaces and keys have theirs in `namespace`, what JSON can hold in `codec`, lifetimes in
`instants`. A row on which `row_problem` has nothing to say could have been put.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn

import orjson

from kvstore import codec
from kvstore.errors import InvalidArgumentError, StoreError, ValueTooLargeError
from kvstore.instants import EARLIEST, LATEST
from kvstore.namespace import show
from kvstore.paths import PathError, parse_path
from kvstore.text import WHOLE
from kvstore.types import Namespace

__all__ = [
    "WORDS_ALONE",
    "check_field",
    "encode_value",
    "encode_values",
    "pack_indexing",
    "parse_indexing",
    "row_problem",
    "stored_indexing",
    "unpack_indexing",
]

# Of an item that is found by the words of the store's fields, and has no vectors, such as a job.
# It is no path, so that no put can say so.
WORDS_ALONE: Final = ("",)


def encode_value(value: Any, namespace: Namespace, key: str, max_bytes: int) -> bytes:
    """Encode a value for the item at an address.

    Raises:
        ValueEncodingError: something in it could not come back; names the path.
        ValueTooLargeError: it takes more than `max_bytes`.
    """
    data = codec.encode(value)
    if len(data) > max_bytes:
        _refuse_length(data, namespace, key, max_bytes)
    return data


def encode_values(
    values: Sequence[Any], namespace: Namespace, keys: Sequence[str], max_bytes: int
) -> list[bytes]:
    """As `encode_value` of each, quicker."""
    datas = codec.encode_all(values)
    if max(map(len, datas)) > max_bytes:
        for key, data in zip(keys, datas, strict=True):
            if len(data) > max_bytes:
                _refuse_length(data, namespace, key, max_bytes)
    return datas


def _refuse_length(data: bytes, namespace: Namespace, key: str, max_bytes: int) -> NoReturn:
    raise ValueTooLargeError(
        f"the value of {show(namespace, key)} takes {len(data):,} bytes, and this store's "
        f"max_value_bytes is {max_bytes:,}"
    )


def parse_indexing(index: bool | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return which paths of an item are to be indexed; `None`: those of the store.

    Raises:
        InvalidArgumentError: it is neither a bool nor a list of paths.
    """
    if index is None or index is True:
        return None
    if index is False:
        return ()
    if isinstance(index, str) or not isinstance(index, Sequence):
        raise InvalidArgumentError("index takes False or a list of paths, such as ['title']")
    for path in index:
        check_field(path)
    return tuple(map(str.__str__, index))


def stored_indexing(index: bool | Sequence[str] | None) -> tuple[str, ...] | None:
    """As `parse_indexing`, of what a store has written."""
    if isinstance(index, (list, tuple)) and tuple(index) == WORDS_ALONE:
        return WORDS_ALONE
    return parse_indexing(index)


def pack_indexing(indexing: Sequence[str] | None) -> str | None:
    """Return as a text which paths of an item are indexed."""
    return None if indexing is None else orjson.dumps(indexing).decode()


def unpack_indexing(text: str | None) -> tuple[str, ...] | None:
    """Undo `pack_indexing`."""
    return None if text is None else tuple(orjson.loads(text))


def check_field(field: str) -> None:
    """Require a path whose text can be indexed.

    Raises:
        InvalidArgumentError: it is none.
    """
    if not isinstance(field, str):
        raise InvalidArgumentError(f"a path to index is a str, not {type(field).__name__}")
    if field != WHOLE:
        try:
            parse_path(field)
        except PathError as exc:
            raise InvalidArgumentError(str(exc)) from None


def row_problem(
    data: bytes,
    indexing: Any,
    created_at: Any,
    updated_at: Any,
    expires_at: Any,
    ttl: Any,
) -> str | None:
    """Say what of a stored row could not have been put, if something is.

    Args:
        data: the encoded value.
        indexing: a list of paths, or `None`.
        created_at: this and the next two: in microseconds since the epoch. An item may be changed
            before it was created: by a clock that went back.
        updated_at: when it was last written.
        expires_at: when it is gone, or `None`.
        ttl: its lifetime in microseconds, or `None`.
    """
    try:
        codec.encode(codec.decode(data))
    except StoreError:
        return "its value is not what kvstore writes"
    try:
        if indexing is not None:
            stored_indexing(indexing)
    except StoreError as exc:
        return f"what of it is indexed is not what kvstore writes: {exc}"
    for name, instant in (
        ("created_at", created_at),
        ("updated_at", updated_at),
        ("expires_at", expires_at),
    ):
        if instant is None and name == "expires_at":
            continue
        if type(instant) is not int or not EARLIEST <= instant <= LATEST:
            return f"its {name} lies outside the years 1 to 9999, and shows as the nearest of them"
    if ttl is not None and (type(ttl) is not int or ttl <= 0):
        return "its lifetime is no positive number"
    return None
