"""What the page asks for: each view is one bounded read of the store, answered as JSON.

Nothing is counted to the end, and no page costs by what the store holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kvstore import codec
from kvstore.arguments import check_place
from kvstore.backend import Span
from kvstore.errors import InvalidArgumentError, StoreError
from kvstore.filters import parse_filter
from kvstore.jobs import SequenceRecord
from kvstore.namespace import address, decode_namespace, encode_namespace
from kvstore.patterns import compile_pattern
from kvstore.store import Store
from kvstore.studio import pictures
from kvstore.studio.asking import (
    PAGE,
    PREVIEW,
    View,
    answering,
    body_of,
    encoded,
    found_item,
    head_of,
    json_of,
    labels_of,
    namespace_of,
    number_of,
    preview_of,
    rows_of,
    shown,
)
from kvstore.text import query_words, texts_of, words_of
from kvstore.types import Change, Item, Namespace

__all__ = ["routes"]

_LOOKS: Final = 100  # at rows that a filter leaves out, a page each, before the page is answered
_COUNTED: Final = 10_000  # what is more is shown as "10,000+"
_CHANGES: Final = 100  # of the past of one item
_PAST: Final = 64 * 2**10  # bytes of each value of it
_READ: Final = 100_000  # characters of a text in which the words of a question are looked for
_MODES: Final = ("text", "semantic", "hybrid")


def routes(store: Store, *, is_editable: bool) -> list[Route]:
    """Return the routes of all views of a store."""
    views: dict[str, View] = {
        "/api/store": lambda store, request: _store(store, is_editable),
        "/api/namespaces": _namespaces,
        "/api/items": _items,
        "/api/item": _item,
        "/api/count": _count,
        "/api/history": _history,
        "/api/search": _search,
        "/api/sequences": _sequences,
        "/api/dead": _dead,
        "/api/stats": pictures.stats,
        "/api/charts": pictures.charts,
        "/api/map": pictures.embeddings,
    }
    found = [Route(path, answering(store, view)) for path, view in views.items()]
    found += [Route("/api/value", _value_of(store)), Route("/api/changes", _changes_of(store))]
    if is_editable:
        found += [
            Route("/api/put", answering(store, _put), methods=["POST"]),
            Route("/api/delete", answering(store, _delete), methods=["POST"]),
            Route("/api/revive", answering(store, _revive), methods=["POST"]),
        ]
    return found


# Reading


async def _store(store: Store, is_editable: bool) -> Any:
    modes = []
    if store.index is not None:
        modes = list(_MODES) if store.index.embeddings is not None else ["text"]
    return {"store": repr(store), "edit": is_editable, "modes": modes}


async def _namespaces(store: Store, request: Request) -> Any:
    """Return the labels below a namespace, a page of them."""
    parent, offset = namespace_of(request), number_of(request, "offset")
    depth = len(parent) + 1
    found = await store.list_namespaces(parent, max_depth=depth, limit=PAGE + 1, offset=offset)
    labels = [each[-1] for each in found[:PAGE] if len(each) == depth]
    return {"labels": labels, "next": offset + PAGE if len(found) > PAGE else None}


async def _items(store: Store, request: Request) -> Any:
    """Return a page of items: by key, after one; or the latest first, or in another order."""
    namespace, subtree = namespace_of(request), "subtree" in request.query_params
    filter = json_of(request, "filter")
    order = request.query_params.get("order", "key")
    if order == "key":
        return await _items_by_key(store, request, namespace, subtree, filter)
    offset = number_of(request, "offset")
    items = await store.search(
        namespace,
        filter=filter,
        order_by=None if order == "latest" else order,
        limit=PAGE + 1,
        offset=offset,
        subtree=subtree,
    )
    following = offset + PAGE if len(items) > PAGE else None
    return {"items": await rows_of(items[:PAGE]), "next": following}


async def _items_by_key(
    store: Store, request: Request, namespace: Namespace, subtree: bool, filter: Any
) -> Any:
    """Return the next page after an item, however many rows the filter leaves out."""
    _, path = address(namespace)
    pattern = compile_pattern(request.query_params.get("pattern") or "*")
    wanted, asked = parse_filter(filter), json_of(request, "after")
    place = tuple(asked) if isinstance(asked, list) else asked
    after = check_place(place, "after", path, subtree=True)
    items: list[Item] = []
    for _ in range(_LOOKS):
        page = await store.backend.page(Span(path, pattern, subtree, after), wanted, PAGE)
        items += page.items
        after = page.end
        if after is None or len(items) >= PAGE:
            break
    following = None if after is None else [decode_namespace(after[0]), after[1]]
    return {"items": await rows_of(items), "next": following}


async def _item(store: Store, request: Request) -> Any:
    item = await found_item(store, request)
    return {**head_of(item), **await shown(item)}


async def _history(store: Store, request: Request) -> Any:
    """Return what is kept of an item's past, the newest change first."""
    key = request.query_params.get("key", "")
    changes = await store.history(namespace_of(request), key, limit=_CHANGES)
    return {"changes": [await _change(change) for change in changes]}


async def _change(change: Change) -> dict[str, Any]:
    told = {"kind": change.kind, "version": change.version, "at": change.at}
    return told if change.item is None else {**told, **await shown(change.item, _PAST)}


def _value_of(store: Store) -> Callable[[Request], Awaitable[Response]]:
    """Offer the value of an item as a file, whatever its length."""

    async def value(request: Request) -> Response:
        data = await encoded(await found_item(store, request))
        headers = {"content-disposition": 'attachment; filename="value.json"'}
        return Response(data, media_type="application/json", headers=headers)

    return value


async def _count(store: Store, request: Request) -> Any:
    """Count the keys of a namespace, up to a bound."""
    keys = await store.keys(
        namespace_of(request),
        request.query_params.get("pattern") or "*",
        subtree="subtree" in request.query_params,
        limit=_COUNTED + 1,
    )
    return {"count": min(len(keys), _COUNTED), "is_more": len(keys) > _COUNTED}


async def _search(store: Store, request: Request) -> Any:
    """Ask a question in every way that the store knows, and tell each item's rank in each."""
    namespace, query = namespace_of(request), request.query_params.get("query", "")
    filter, subtree = json_of(request, "filter"), "subtree" in request.query_params
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
    shown_items = list(items.items())[:PAGE]
    rows = await rows_of([item for _, item in shown_items])
    for row, (where, _) in zip(rows, shown_items, strict=True):
        row["ranks"] = {mode: each[where] for mode, each in ranks.items() if where in each}
    asked = query_words(query)
    held = await asyncio.to_thread(_shared, asked, [item for _, item in shown_items], store)
    for row, words in zip(rows, held, strict=True):
        row["words"] = words
    return {"items": rows, "modes": modes, "errors": said, "words": asked}


def _shared(asked: Sequence[str], items: Sequence[Item], store: Store) -> list[list[str]]:
    """Return which of a question's words each item holds where it is indexed."""
    fields = ("$",) if store.index is None else store.index.fields
    texts = ([text[:_READ] for text in texts_of(item.value, fields)] for item in items)
    return [[word for word in asked if word in held] for held in map(set, map(words_of, texts))]


def _changes_of(store: Store) -> Callable[[Request], Awaitable[Response]]:
    """Tell changes as they come, as server-sent events; the page hangs up when it is hidden."""

    async def changes(request: Request) -> Response:
        namespace = namespace_of(request)

        async def events() -> AsyncIterator[bytes]:
            yield b": here\n\n"
            async with store.watch(namespace) as changes:
                async for change in changes:
                    yield b"data: " + orjson.dumps(await _told(change)) + b"\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return changes


async def _told(change: Change) -> dict[str, Any]:
    named = ("kind", "namespace", "key", "version")
    told: dict[str, Any] = {name: getattr(change, name) for name in named}
    if change.item is not None:
        told["preview"] = preview_of(await encoded(change.item))
    return told


# Logs and queues


async def _sequences(store: Store, request: Request) -> Any:
    """Return a page of the logs and queues of a subtree, and how much is in each."""
    offset = number_of(request, "offset")
    path = encode_namespace(namespace_of(request))
    found = await store.backend.sequences(path, with_jobs=False)
    page = found[offset : offset + PAGE]
    rows = [await _sequence(store, each) for each in page]
    return {"sequences": rows, "next": offset + PAGE if len(found) > offset + PAGE else None}


async def _sequence(store: Store, sequence: SequenceRecord) -> dict[str, Any]:
    namespace = decode_namespace(sequence.path)
    row = {"namespace": namespace, "kind": sequence.kind, "last": sequence.last}
    if sequence.kind == "log":
        return {**row, "length": await store.log(namespace).length()}
    return {**row, **asdict(await store.queue(namespace).size())}


async def _dead(store: Store, request: Request) -> Any:
    """Return jobs of a queue that were given up, and why."""
    jobs = await store.queue(namespace_of(request)).dead(limit=PAGE)
    return {
        "jobs": [
            {"id": job.id, "attempt": job.attempt, "error": job.error,
             "preview": repr(job.value)[:PREVIEW]}
            for job in jobs
        ]
    }  # fmt: skip


# Writing


async def _put(store: Store, request: Request) -> Any:
    """Write an item over the version that the page has shown."""
    asked = await body_of(request)
    text = asked.get("text")
    if not isinstance(text, str):
        raise InvalidArgumentError("a value is sent as text")
    item = await store.put(
        labels_of(asked.get("namespace")),
        asked.get("key"),  # type: ignore[arg-type]  # the store checks it
        codec.read_json(text, "this"),
        if_version=asked.get("if_version"),
    )
    return (await rows_of([item]))[0]


async def _delete(store: Store, request: Request) -> Any:
    asked = await body_of(request)
    key: Any = asked.get("key")
    version = asked.get("if_version")
    return {
        "deleted": await store.delete(labels_of(asked.get("namespace")), key, if_version=version)
    }


async def _revive(store: Store, request: Request) -> Any:
    """Give jobs that were given up new attempts."""
    asked = await body_of(request)
    ids = asked.get("ids")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise InvalidArgumentError("jobs are sent as a list of their ids")
    return {"revived": await store.queue(labels_of(asked.get("namespace"))).revive(*ids)}
