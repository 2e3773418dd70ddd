"""How namespaces, keys and items are written on the command line, and read from it.

A namespace is its labels joined by `/`, in which `/`, `%` and what cannot be printed stand as
`%2F`, `%25` and so on; or a JSON list. Whatever is shown can be typed back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import orjson

from kvstore import codec
from kvstore.errors import InvalidArgumentError, InvalidNamespaceError
from kvstore.namespace import check_namespace
from kvstore.types import Change, Item, Namespace

__all__ = [
    "change_line",
    "inert",
    "item_line",
    "object_line",
    "parse_namespace",
    "parse_value",
    "pretty",
    "show_namespace",
    "size",
    "value_line",
    "visible",
]

_NO_WORDS = (b"NaN", b"Infinity")  # numbers that JSON does not have
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def parse_namespace(text: str) -> Namespace:
    """Read a namespace: `users/alice`, `["users","alice"]`; `/` or nothing is the root.

    Raises:
        InvalidNamespaceError: a label is empty or no text.
    """
    if text.startswith("["):
        return check_namespace(codec.read_json(text, "the namespace"))
    text = text.removeprefix("/").removesuffix("/")
    try:
        labels = [unquote_to_bytes(label).decode() for label in text.split("/")] if text else []
    except UnicodeDecodeError:
        raise InvalidNamespaceError(f"the namespace {text!r} is no UTF-8 behind its %") from None
    return check_namespace(labels)


def show_namespace(namespace: Namespace) -> str:
    """Write a namespace; `/` is the root."""
    shown = "/".join(map(_show_label, namespace)) or "/"
    return shown.replace("[", "%5B", 1) if shown.startswith("[") else shown


def _show_label(label: str) -> str:
    return "".join(
        quote(char, safe="") if char in "/%" or not char.isprintable() else char for char in label
    )


def visible(text: str) -> str:
    """Show a text in one line, without anything that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def inert(text: str) -> str:
    """Write what a terminal would obey, or show in another order, as JSON's escapes.

    In JSON that changes nothing of what it says. Letters of all scripts, spaces, and what joins
    letters and emoji stay as they are.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return _OBEYED.sub(_escape, text)


_OBEYED = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    return f"\\u{ord(char):04x}" if char <= "\uffff" else json.dumps(char)[1:-1]


def parse_value(data: bytes, *, is_typed: bool) -> Any:
    """Read a value: JSON, or a bare word or words that were typed, which are text.

    What begins like JSON and is none is refused, not taken for text.

    Raises:
        InvalidArgumentError: it is no JSON, and no words.
    """
    try:
        return codec.read_json(data, "the value")
    except InvalidArgumentError as exc:
        if is_typed and data[:1].isalpha() and data not in _NO_WORDS:
            try:
                return data.decode()
            except UnicodeDecodeError:
                pass
        raise InvalidArgumentError(f"{exc}; --text takes it as it is, as text") from None


def pretty(value: Any) -> str:
    """Write a value for people to read."""
    data = orjson.dumps(orjson.loads(codec.encode(value)), option=orjson.OPT_INDENT_2)
    return inert(data.decode())


def pretty_line(value: Any) -> str:
    """Write a value for people to read, as one line."""
    return " ".join(pretty(value).split())


def item_line(item: Item) -> bytes:
    """Write an item as one line of JSON."""
    written: dict[str, Any] = {
        "namespace": item.namespace,
        "key": item.key,
        "version": item.version,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }
    if item.expires_at is not None:
        written["expires_at"] = item.expires_at
    if item.score is not None:
        written["score"] = item.score
    return value_line(written, item.value)


def change_line(change: Change) -> bytes:
    """Write a change as one line of JSON; the item's value stands in it, as `value`."""
    head: dict[str, Any] = {
        "kind": change.kind,
        "namespace": change.namespace,
        "key": change.key,
        "version": change.version,
        "at": change.at,
    }
    return object_line(head) if change.item is None else value_line(head, change.item.value)


def value_line(head: Mapping[str, Any], value: Any) -> bytes:
    """Write an object as one line of JSON, with a value in it, as `value`."""
    return _line(orjson.dumps(head)[:-1] + b',"value":' + codec.encode(value) + b"}")


def object_line(content: Any) -> bytes:
    """Write an object as one line of JSON."""
    return _line(orjson.dumps(content))


def _line(data: bytes) -> bytes:
    """Write JSON as one line that no terminal obeys."""
    return inert(data.decode()).encode() + b"\n"


def size(number: float) -> str:
    """Write a number of bytes."""
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number /= 1024
        unit += 1
    return f"{number:,.0f} {_UNITS[unit]}" if unit == 0 else f"{number:,.1f} {_UNITS[unit]}"


Progress = Callable[[int, int | None], None]
