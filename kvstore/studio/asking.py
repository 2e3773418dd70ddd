"""What the page asks, read out of requests, and items as they travel back.

Values travel as text, as the store would write them: a browser's numbers end at 2^53, and
ours do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from kvstore import codec
from kvstore.errors import ConflictError, InvalidArgumentError, ReadOnlyError, StoreError
from kvstore.namespace import check_namespace
from kvstore.store import Store
from kvstore.types import Item, Namespace

__all__ = [
    "PAGE",
    "PREVIEW",
    "View",
    "answering",
    "body_of",
    "encoded",
    "found_item",
    "head_of",
    "json_of",
    "labels_of",
    "namespace_of",
    "number_of",
    "preview_of",
    "rows_of",
    "shown",
]

PAGE: Final = 100  # rows and namespaces in one answer
PREVIEW: Final = 160  # characters of a value in a table
_FIELDS: Final = 24  # columns that a value's fields may make
_WHOLE: Final = 2**20  # bytes of a value that is shown and edited; of a longer one the beginning

_STATUSES: Final = {ConflictError: 409, ReadOnlyError: 403}

View = Callable[[Store, Request], Awaitable[Any]]


def answering(store: Store, view: View) -> Callable[[Request], Awaitable[Response]]:
    """Answer with what a view returns, or with the store's own words of what was wrong."""

    async def answer(request: Request) -> Response:
        try:
            body, status = await view(store, request), 200
        except StoreError as exc:
            body, status = {"error": str(exc)}, _STATUSES.get(type(exc), 400)
        return Response(orjson.dumps(body), status, media_type="application/json")

    return answer


async def body_of(request: Request) -> dict[str, Any]:
    """Return the object that a page has sent."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "send application/json")
    try:
        asked = orjson.loads(await request.body())
    except ValueError:
        raise HTTPException(400, "this is not JSON") from None
    if not isinstance(asked, dict):
        raise HTTPException(400, "send an object")
    return asked


# What travels


def head_of(item: Item) -> dict[str, Any]:
    """Return all of an item but its value."""
    return {name: getattr(item, name) for name in item.__dataclass_fields__ if name != "value"}


async def shown(item: Item, most: int = _WHOLE) -> dict[str, Any]:
    """Return the value of an item as text, laid out, or the beginning of a long one."""
    data = await encoded(item)
    is_whole = len(data) <= most
    if is_whole:
        text = orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2).decode()
    else:
        text = data[:most].decode("utf-8", "ignore")
    return {"size": len(data), "text": text, "is_whole": is_whole}


async def rows_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return items as a table shows them; values may be long, so in a thread."""
    return await asyncio.to_thread(lambda: [_row(item) for item in items])


def _row(item: Item) -> dict[str, Any]:
    """Return the beginning of an item's value, and its scalar fields."""
    data = codec.encode(item.value)
    fields = {}
    if isinstance(item.value, dict):
        for name, each in list(item.value.items())[:_FIELDS]:
            if isinstance(each, (str, int, float, bool)) or each is None:
                fields[name] = codec.encode(
                    each[:PREVIEW] if isinstance(each, str) else each
                ).decode()
    return {**head_of(item), "size": len(data), "preview": preview_of(data), "fields": fields}


def preview_of(data: bytes) -> str:
    """Return the beginning of a value, as the store writes it."""
    return data[: 4 * PREVIEW].decode("utf-8", "ignore")[:PREVIEW]


async def encoded(item: Item) -> bytes:
    """Return the value of an item as the store writes it."""
    return await asyncio.to_thread(codec.encode, item.value)


# What is asked


async def found_item(store: Store, request: Request) -> Item:
    """Return the item that is asked for; an answer 404 if there is none."""
    item = await store.get(namespace_of(request), request.query_params.get("key", ""))
    if item is None:
        raise HTTPException(404, "there is no such item any more")
    return item


def namespace_of(request: Request) -> Namespace:
    """Return the namespace that is asked for; the root if none is."""
    return check_namespace(json_of(request, "ns") or ())


def labels_of(labels: Any) -> Namespace:
    """Return a namespace that was sent as a list."""
    return check_namespace(labels)


def json_of(request: Request, name: str) -> Any:
    """Return a parameter that is JSON; `None` if it is left out."""
    text = request.query_params.get(name)
    return codec.read_json(text, name) if text else None


def number_of(request: Request, name: str) -> int:
    """Return a parameter that is a number; 0 if it is left out."""
    text = request.query_params.get(name, "0")
    if not text.isascii() or not text.isdigit():
        raise InvalidArgumentError(f"{name} is a number")
    return int(text[:15])
