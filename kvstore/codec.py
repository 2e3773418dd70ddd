"""Values to bytes and back: JSON by orjson, with `bytes` as a tagged object.

`bytes` are written as `{"$bytes": "<base64>"}`. An object of the user's own whose only key is
`$bytes`, or that with more dollars in front, gets one dollar more, so that nothing is mistaken
for what it is not. What JSON would change in silence is refused, and the error names its path:
NaN and infinities (orjson writes them as `null` and has no option against it), integers beyond
64 bits, keys that are no strings, lone surrogates, sets and other objects.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
import re
from collections.abc import Sequence, ValuesView
from itertools import islice, repeat
from typing import Any

import orjson

from kvstore.errors import InvalidArgumentError, StoreCorruptError, ValueEncodingError

__all__ = [
    "LONG",
    "decode",
    "encode",
    "encode_all",
    "is_any_long",
    "is_long",
    "parse_all",
    "parse_json",
    "read_json",
    "untag",
]

_TAG = "$bytes"
_DOLLAR = ord("$")  # in bytes, a number is found five times as fast as a byte
_TAG_BYTES = b'$bytes"'
_TAG_KEY = re.compile(r"\$+bytes")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_ROOMY = 2**16  # bytes up to which a result of orjson holds 8 times its room, in pages of its own
LONG = 2**20  # bytes of JSON that take some milliseconds
_NOTHING = (b"", b"")  # with bytes between the two, a copy of them
_FEW = 16  # parts of a value that are looked at, to tell whether it is long ...
_DEPTH = 3  # ... and how deep
_SHORT = frozenset({int, float, bool, type(None)})
_MAX_DEPTH = 250  # orjson gives up at 254 levels and does not say where
_INTEGERS = range(-(2**63), 2**64)  # what orjson reads and writes exactly
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_INTEGER = b"0" * 19  # the digits of the least integer that may not fit 64 bits


def encode(value: Any) -> bytes:
    """Encode a value as JSON.

    Raises:
        ValueEncodingError: something in it could not come back; names the path.
    """
    try:
        data = orjson.dumps(value, _default, _OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as exc:
        _refuse_culprit(value)
        raise ValueEncodingError(f"the value at $ cannot be encoded as JSON: {exc}") from exc
    if b"null" in data and _may_hold_nan(value):
        _refuse_culprit(value)
    if _DOLLAR in data and _TAG_BYTES in data:  # it is found ten times as fast
        # Rare: objects that look like the tag, or real bytes beside them.
        data = orjson.dumps(_tagged(value), _default, _OPTIONS)
    return data if len(data) > _ROOMY else b"".join((data, b""))  # a copy holds what it needs


def encode_all(values: Sequence[Any]) -> list[bytes]:
    """As `encode` of each, in less than two thirds of the time where they are short.

    Raises:
        ValueEncodingError: of the first that could not come back.
    """
    try:
        written = map(orjson.dumps, values, repeat(_default), repeat(_OPTIONS))
        datas = list(map(bytes.join, written, repeat(_NOTHING)))  # copies, as there
    except (orjson.JSONEncodeError, RecursionError):
        return [encode(value) for value in values]
    if sum(map(len, datas)) < LONG:  # one look at all of them takes less than one at each
        whole = b"".join(datas)
        if b"null" not in whole and _TAG_BYTES not in whole:
            return datas
    return [
        encode(value) if b"null" in data or _TAG_BYTES in data else data
        for value, data in zip(values, datas, strict=True)
    ]


def is_long(value: Any) -> bool:
    """Whether a value is likely to take more than a moment to encode.

    It looks at but a few parts, so that it takes none itself.
    """
    return not _is_short(value, LONG) and _weigh(value, 0) > LONG


def is_any_long(values: Sequence[Any]) -> bool:
    """Whether one of some values `is_long`."""
    return not all(map(_is_short, values, repeat(LONG))) and any(map(is_long, values))


def _is_short(value: Any, most: int) -> bool:
    """Whether a value has so few parts, and so short ones, that it cannot weigh more: quickly."""
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return kind in _SHORT or (kind is str and len(value) <= most)
    if len(value) > _FEW or not most:  # or it nests deep
        return False
    most //= _FEW
    for part in value:
        kind = type(part)
        if kind is str:
            if len(part) > most:
                return False
        elif kind not in _SHORT and not _is_short(part, most):
            return False
    return True


def _weigh(value: Any, depth: int) -> int:
    """Estimate the bytes of a value by its first parts, and theirs."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        return len(value)
    if _is_model(value):
        value = vars(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple, ValuesView)):
        size = getattr(value, "nbytes", _FEW)  # of an array
        return size if isinstance(size, int) else _FEW
    some = list(islice(value, _FEW))
    if not some or depth == _DEPTH:
        return _FEW * len(value)
    return sum(_weigh(part, depth + 1) for part in some) * len(value) // len(some)


def decode(data: bytes) -> Any:
    """Decode what `encode` wrote.

    Raises:
        StoreCorruptError: it is not what `encode` writes.
    """
    try:
        value = orjson.loads(data)
        return _untagged(value) if _DOLLAR in data and _TAG_BYTES in data else value
    except (ValueError, TypeError, RecursionError) as exc:  # no JSON, or no base64 in the tag
        raise StoreCorruptError("a stored value is not the JSON that kvstore writes") from exc


def parse_json(text: bytes) -> Any:
    """Read JSON that comes from elsewhere, exactly; `bytes` stay tagged, see `untag`.

    orjson makes floats of integers beyond 64 bits and says nothing. These come back as they are,
    and `encode` refuses them by name.

    Raises:
        ValueError: it is no JSON, or nests deeper than anything that can be stored.
    """
    value = orjson.loads(text)
    if _LONG_INTEGER in text.translate(_AS_ZEROS):
        try:
            return json.loads(text, parse_int=_parse_integer)
        except RecursionError:
            raise ValueError("it nests too deep") from None
    return value


def parse_all(texts: Sequence[bytes]) -> list[Any]:
    """As `parse_json` of each, quicker."""
    values = list(map(orjson.loads, texts))
    if _LONG_INTEGER in b"\n".join(texts).translate(_AS_ZEROS):
        return list(map(parse_json, texts))
    return values


def _parse_integer(digits: str) -> int:
    # What is longer fits 64 bits less still, and Python takes its time over very long ones.
    return int(digits[:25])


def untag(value: Any) -> Any:
    """Put `bytes` in the place of the tagged objects that stand for them in JSON.

    Raises:
        ValueEncodingError: a tag holds no base64.
    """
    try:
        return _untagged(value)
    except (ValueError, TypeError, RecursionError) as exc:
        raise ValueEncodingError(
            'an object {"$bytes": ...} holds no base64; write {"$$bytes": ...} for one that is '
            "meant as it stands"
        ) from exc


def read_json(text: str | bytes, what: str) -> Any:
    """Read JSON that somebody has written, with `{"$bytes": "<base64>"}` for bytes.

    Raises:
        InvalidArgumentError: it is none; it is called `what`.
        ValueEncodingError: a tag holds no base64.
    """
    try:
        return untag(parse_json(text if isinstance(text, bytes) else text.encode()))
    except ValueError as exc:  # among them text that is no UTF-8
        raise InvalidArgumentError(f"{what} is not JSON: {exc}") from None


def _default(value: Any) -> Any:
    """Write what orjson does not know; called by orjson."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {_TAG: base64.b64encode(bytes(value)).decode("ascii")}
    if _is_numpy(value):  # an array that is not contiguous, or holds objects
        return _tagged(value.tolist())
    if _is_model(value):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _is_numpy(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "tolist")


def _is_model(value: Any) -> bool:
    """Whether it is an instance of a pydantic model."""
    return hasattr(type(value), "__pydantic_validator__") and hasattr(value, "model_dump")


def _tagged(value: Any) -> Any:
    """Tag bytes, and escape objects that look like the tag."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _default(value)
    value = _plain(value)
    if isinstance(value, dict):
        if len(value) == 1 and _TAG_KEY.fullmatch(key := next(iter(value))):
            return {f"${key}": _tagged(value[key])}
        return {key: _tagged(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tagged(element) for element in value]
    return value


def _untagged(value: Any) -> Any:
    if isinstance(value, dict):
        if len(value) == 1:
            (key,) = value
            if key == _TAG:
                return base64.b64decode(value[key], validate=True)
            if _TAG_KEY.fullmatch(key):
                return {key[1:]: _untagged(value[key])}
        return {key: _untagged(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_untagged(element) for element in value]
    return value


def _plain(value: Any) -> Any:
    """Return what is written of a model, an enum's member or a dataclass; others as they are."""
    if _is_model(value):
        value = value.model_dump()
    if isinstance(value, enum.Enum):
        value = value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = _fields(value)
    return value


def _fields(value: Any) -> dict[str, Any]:
    """Return what orjson writes of a dataclass instance: what it holds but the private names."""
    if hasattr(value, "__dict__") and "__slots__" not in type(value).__dict__:
        held = value.__dict__
    else:
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: element for name, element in held.items() if not name.startswith("_")}


def _may_hold_nan(value: Any) -> bool:
    """Whether the slow search for a culprit is due: a quick look at the plain types."""
    match value:
        case None | str() | int():
            return False
        case float():
            return not math.isfinite(value)
        case dict():
            return any(map(_may_hold_nan, value.values()))
        case list() | tuple():
            return any(map(_may_hold_nan, value))
    return True  # an array, a dataclass, an enum, ...


def _refuse_culprit(value: Any) -> None:
    """Raise for the first thing in `value` that cannot come back, if there is one."""
    stack: list[tuple[Any, str, int]] = [(value, "$", 0)]
    while stack:
        current, path, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise ValueEncodingError(
                f"the value nests deeper than {_MAX_DEPTH} levels, or contains itself, at "
                f"{path[:80]}"
            )
        current = _plain(current)
        if _is_numpy(current):
            if current.dtype != object:
                _refuse_unwritable(current, path)
            current = current.tolist()
        if isinstance(current, dict):
            for key in current:
                if type(key) is not str:  # orjson does not take subclasses of str here
                    raise ValueEncodingError(
                        f"the object at {path} has a key of type {type(key).__name__}; "
                        "keys of JSON objects are strings"
                    )
                _refuse_leaf(key, f"{path} (a key)")
            children = [(child, path + _member(key), depth + 1) for key, child in current.items()]
            stack.extend(reversed(children))
        elif isinstance(current, list) or type(current) is tuple:
            elements = [(child, f"{path}[{at}]", depth + 1) for at, child in enumerate(current)]
            stack.extend(reversed(elements))
        else:
            _refuse_leaf(current, path)


def _member(key: str) -> str:
    return f".{key}" if key.isidentifier() else f"[{key!r}]"


def _refuse_leaf(leaf: Any, path: str) -> None:
    if isinstance(leaf, str):
        try:
            leaf.encode()
        except UnicodeEncodeError:
            raise ValueEncodingError(f"the string at {path} holds a lone surrogate") from None
    elif isinstance(leaf, int):
        if leaf not in _INTEGERS:
            raise ValueEncodingError(
                f"the integer at {path} does not fit 64 bits; store it as a string"
            )
    elif isinstance(leaf, float) and not math.isfinite(leaf):
        raise ValueEncodingError(
            f"the number at {path} is not finite, and JSON has no such number; store None"
        )
    _refuse_unwritable(leaf, path)


def _refuse_unwritable(leaf: Any, path: str) -> None:
    try:
        orjson.dumps(leaf, _default, _OPTIONS)
    except orjson.JSONEncodeError as exc:
        raise ValueEncodingError(
            f"the {type(leaf).__name__} at {path} is not JSON and could not come back ({exc}); "
            "convert it to strings, numbers, lists or objects first"
        ) from None
