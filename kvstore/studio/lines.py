"""Logs and queues as the page shows them, with the jobs that were given up."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from kvstore.errors import InvalidArgumentError
from kvstore.jobs import SequenceRecord
from kvstore.namespace import decode_namespace, encode_namespace
from kvstore.store import Store
from kvstore.studio.asking import PAGE, PREVIEW, body_of, labels_of, namespace_of, number_of

__all__ = ["dead", "revive", "sequences"]


async def sequences(store: Store, request: Request) -> Any:
    """Return a page of the logs and queues of a subtree, and how much is in each."""
    offset = number_of(request, "offset")
    path = encode_namespace(namespace_of(request))
    found = await store.backend.sequences(path, with_jobs=False)
    page = found[offset : offset + PAGE]
    rows = [await _row(store, each) for each in page]
    return {"sequences": rows, "next": offset + PAGE if len(found) > offset + PAGE else None}


async def _row(store: Store, sequence: SequenceRecord) -> dict[str, Any]:
    namespace = decode_namespace(sequence.path)
    row = {"namespace": namespace, "kind": sequence.kind, "last": sequence.last}
    if sequence.kind == "log":
        return {**row, "length": await store.log(namespace).length()}
    size = await store.queue(namespace).size()
    sizes = {"ready": size.ready, "delayed": size.delayed, "leased": size.leased}
    return {**row, **sizes, "dead": size.dead}


async def dead(store: Store, request: Request) -> Any:
    """Return jobs of a queue that were given up, and why."""
    jobs = await store.queue(namespace_of(request)).dead(limit=PAGE)
    return {
        "jobs": [
            {"id": job.id, "attempt": job.attempt, "error": job.error,
             "preview": repr(job.value)[:PREVIEW]}
            for job in jobs
        ]
    }  # fmt: skip


async def revive(store: Store, request: Request) -> Any:
    """Give jobs that were given up new attempts."""
    asked = await body_of(request)
    ids = asked.get("ids")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise InvalidArgumentError("jobs are sent as a list of their ids")
    return {"revived": await store.queue(labels_of(asked.get("namespace"))).revive(*ids)}
