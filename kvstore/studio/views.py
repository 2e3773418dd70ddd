"""What the page asks for: each view is one bounded read of the store, answered as JSON.

Values travel as text, as the store would write them: a browser's numbers end at 2^53, and
ours do not. Nothing is counted to the end, and no page costs by what the store holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kvstore import codec
from kvstore.backend import Span
from kvstore.errors import ConflictError, InvalidArgumentError, ReadOnlyError, StoreError
from kvstore.filters import parse_filter
from kvstore.namespace import address, decode_namespace, encode_namespace
from kvstore.patterns import compile_pattern
from kvstore.store import Store
from kvstore.types import Change, Item, Namespace

__all__ = ["routes"]

PAGE: Final = 100  # rows and namespaces in one answer
_LOOKS: Final = 100  # at rows that a filter leaves out, a page each, before the page is answered
_PREVIEW: Final = 160  # characters of a value in a table
_FIELDS: Final = 24  # columns that a value's fields may make
_WHOLE: Final = 2**20  # bytes of a value that is shown and edited; of a longer one the beginning
_COUNTED: Final = 10_000  # what is more is shown as "10,000+"
_MODES: Final = ("text", "semantic", "hybrid")

View = Callable[[Store, Request], Awaitable[Any]]


def routes(store: Store, *, is_editable: bool) -> list[Route]:
    """Return the routes of all views of a store."""
    views: dict[str, View] = {
        "/api/store": lambda store, request: _store(store, is_editable),
        "/api/namespaces": _namespaces,
        "/api/items": _items,
        "/api/item": _item,
        "/api/count": _count,
        "/api/search": _search,
        "/api/stats": _stats,
    }
    found = [Route(path, _answering(store, view)) for path, view in views.items()]
    found += [Route("/api/value", _value_of(store)), Route("/api/changes", _changes_of(store))]
    if is_editable:
        found += [
            Route("/api/put", _answering(store, _put), methods=["POST"]),
            Route("/api/delete", _answering(store, _delete), methods=["POST"]),
        ]
    return found


def _answering(store: Store, view: View) -> Callable[[Request], Awaitable[Response]]:
    """Answer with what a view returns, or with the store's own words of what was wrong."""

    async def answer(request: Request) -> Response:
        try:
            body, status = await view(store, request), 200
        except ConflictError as exc:
            body, status = {"error": str(exc)}, 409
        except ReadOnlyError as exc:
            body, status = {"error": str(exc)}, 403
        except StoreError as exc:
            body, status = {"error": str(exc)}, 400
        return Response(orjson.dumps(body), status, media_type="application/json")

    return answer


# Reading


async def _store(store: Store, is_editable: bool) -> Any:
    modes = []
    if store.index is not None:
        modes = list(_MODES) if store.index.embeddings is not None else ["text"]
    return {"store": repr(store), "edit": is_editable, "modes": modes}


async def _namespaces(store: Store, request: Request) -> Any:
    """Return the labels below a namespace, a page of them."""
    parent, offset = _namespace(request), _number(request, "offset")
    depth = len(parent) + 1
    found = await store.list_namespaces(parent, max_depth=depth, limit=PAGE + 1, offset=offset)
    labels = [each[-1] for each in found[:PAGE] if len(each) == depth]
    return {"labels": labels, "next": offset + PAGE if len(found) > PAGE else None}


async def _items(store: Store, request: Request) -> Any:
    """Return a page of items: by key, after one; or the latest, or those that a search finds."""
    namespace, subtree = _namespace(request), "subtree" in request.query_params
    filter = _json(request, "filter")
    if request.query_params.get("order", "key") == "key":
        return await _items_by_key(store, request, namespace, subtree, filter)
    offset = _number(request, "offset")
    items = await store.search(
        namespace, filter=filter, limit=PAGE + 1, offset=offset, subtree=subtree
    )
    following = offset + PAGE if len(items) > PAGE else None
    return {"items": await _rows(items[:PAGE]), "next": following}


async def _items_by_key(
    store: Store, request: Request, namespace: Namespace, subtree: bool, filter: Any
) -> Any:
    """Return the next page after an item, however many rows the filter leaves out."""
    _, path = address(namespace)
    pattern = compile_pattern(request.query_params.get("pattern") or "*")
    wanted, asked = parse_filter(filter), _json(request, "after")
    after = None if asked is None else (encode_namespace(_labels(asked[0])), str(asked[1]))
    items: list[Item] = []
    for _ in range(_LOOKS):
        page = await store.backend.page(Span(path, pattern, subtree, after), wanted, PAGE)
        items += page.items
        after = page.end
        if after is None or len(items) >= PAGE:
            break
    following = None if after is None else [decode_namespace(after[0]), after[1]]
    return {"items": await _rows(items), "next": following}


async def _item(store: Store, request: Request) -> Any:
    item = await _found(store, request)
    data = await _encoded(item)
    text = data[:_WHOLE].decode("utf-8", "ignore")
    if len(data) <= _WHOLE:
        text = orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2).decode()
    return {**_head(item), "size": len(data), "text": text, "is_whole": len(data) <= _WHOLE}


def _value_of(store: Store) -> Callable[[Request], Awaitable[Response]]:
    """Offer the value of an item as a file, whatever its length."""

    async def value(request: Request) -> Response:
        data = await _encoded(await _found(store, request))
        headers = {"content-disposition": 'attachment; filename="value.json"'}
        return Response(data, media_type="application/json", headers=headers)

    return value


async def _count(store: Store, request: Request) -> Any:
    """Count the keys of a namespace, up to a bound."""
    keys = await store.keys(
        _namespace(request),
        request.query_params.get("pattern") or "*",
        subtree="subtree" in request.query_params,
        limit=_COUNTED + 1,
    )
    return {"count": min(len(keys), _COUNTED), "is_more": len(keys) > _COUNTED}


async def _search(store: Store, request: Request) -> Any:
    """Ask a question in every way that the store knows, and tell each item's rank in each."""
    namespace, query = _namespace(request), request.query_params.get("query", "")
    filter, subtree = _json(request, "filter"), "subtree" in request.query_params
    modes = (await _store(store, False))["modes"] or ["auto"]
    rankings: dict[str, list[Item]] = {}
    said: dict[str, str] = {}
    for mode in modes:
        try:
            rankings[mode] = await store.search(
                namespace, query, filter=filter, mode=mode, limit=PAGE, subtree=subtree
            )
        except StoreError as exc:
            said[mode] = str(exc)
    best = next((rankings[mode] for mode in reversed(modes) if mode in rankings), [])
    items = {(item.namespace, item.key): item for item in best}
    for ranking in rankings.values():
        for item in ranking:
            items.setdefault((item.namespace, item.key), item)
    ranks = {
        mode: {(item.namespace, item.key): (at, item.score) for at, item in enumerate(ranking, 1)}
        for mode, ranking in rankings.items()
    }
    shown = list(items.items())[:PAGE]
    rows = await _rows([item for _, item in shown])
    for row, (where, _) in zip(rows, shown, strict=True):
        row["ranks"] = {mode: each[where] for mode, each in ranks.items() if where in each}
    return {"items": rows, "modes": modes, "errors": said}


async def _stats(store: Store, request: Request) -> Any:
    stats = await store.stats()
    roots = sorted(stats.roots.items(), key=lambda entry: -entry[1].bytes)
    return {
        "items": stats.items,
        "namespaces": stats.namespaces,
        "bytes": stats.bytes,
        "file_bytes": stats.file_bytes,
        "wal_bytes": stats.wal_bytes,
        "expired": stats.expired,
        "indexed": stats.indexed,
        "changes": stats.changes,
        "version": stats.version,
        "roots": [
            {"label": root[0] if root else "", "items": each.items, "bytes": each.bytes,
             "namespaces": each.namespaces}
            for root, each in roots[:PAGE]
        ],
    }  # fmt: skip


def _changes_of(store: Store) -> Callable[[Request], Awaitable[Response]]:
    """Tell changes as they come, as server-sent events; the page hangs up when it is hidden."""

    async def changes(request: Request) -> Response:
        namespace = _namespace(request)

        async def events() -> AsyncIterator[bytes]:
            yield b": here\n\n"
            async with store.watch(namespace) as changes:
                async for change in changes:
                    yield b"data: " + orjson.dumps(await _told(change)) + b"\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return changes


async def _told(change: Change) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kind": change.kind,
        "namespace": change.namespace,
        "key": change.key,
        "version": change.version,
    }
    if change.item is not None:
        told["preview"] = (await _encoded(change.item))[:_PREVIEW].decode("utf-8", "ignore")
    return told


# Writing


async def _put(store: Store, request: Request) -> Any:
    """Write an item over the version that the page has shown."""
    asked = await _body(request)
    text = asked.get("text")
    if not isinstance(text, str):
        raise InvalidArgumentError("a value is sent as text")
    try:
        orjson.loads(text)
    except ValueError as exc:
        raise InvalidArgumentError(f"this is not JSON: {exc}") from None
    value = codec.decode(text.encode())
    item = await store.put(
        _labels(asked.get("namespace")),
        asked.get("key"),  # type: ignore[arg-type]  # the store checks it
        value,
        if_version=asked.get("if_version"),
    )
    return (await _rows([item]))[0]


async def _delete(store: Store, request: Request) -> Any:
    asked = await _body(request)
    key: Any = asked.get("key")
    version = asked.get("if_version")
    return {"deleted": await store.delete(_labels(asked.get("namespace")), key, if_version=version)}


async def _body(request: Request) -> dict[str, Any]:
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


def _head(item: Item) -> dict[str, Any]:
    return {
        "namespace": item.namespace,
        "key": item.key,
        "version": item.version,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
        "expires_at": item.expires_at,
        "score": item.score,
    }


async def _rows(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return items as a table shows them; values may be long, so in a thread."""
    return await asyncio.to_thread(lambda: [_row(item) for item in items])


def _row(item: Item) -> dict[str, Any]:
    """Return the beginning of an item's value, and its scalar fields."""
    data = codec.encode(item.value)
    preview = data[: 4 * _PREVIEW].decode("utf-8", "ignore")[:_PREVIEW]
    fields = {}
    if isinstance(item.value, dict):
        for name, each in list(item.value.items())[:_FIELDS]:
            if isinstance(each, (str, int, float, bool)) or each is None:
                shown = each[:_PREVIEW] if isinstance(each, str) else each
                fields[name] = codec.encode(shown).decode()
    return {**_head(item), "size": len(data), "preview": preview, "fields": fields}


async def _encoded(item: Item) -> bytes:
    return await asyncio.to_thread(codec.encode, item.value)


# What is asked


async def _found(store: Store, request: Request) -> Item:
    item = await store.get(_namespace(request), request.query_params.get("key", ""))
    if item is None:
        raise HTTPException(404, "there is no such item any more")
    return item


def _namespace(request: Request) -> Namespace:
    return _labels(_json(request, "ns") or ())


def _labels(labels: Any) -> Namespace:
    if not isinstance(labels, (list, tuple)):
        raise InvalidArgumentError("a namespace is sent as a list of labels")
    return tuple(labels)


def _json(request: Request, name: str) -> Any:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        return orjson.loads(text)
    except ValueError as exc:
        raise InvalidArgumentError(f"{name} is not JSON: {exc}") from None


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not text.isascii() or not text.isdigit():
        raise InvalidArgumentError(f"{name} is a number")
    return int(text[:15])
