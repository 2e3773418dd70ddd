"""`Transaction`: what one try of `Store.transact` has read and is to write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

from kvstore import codec
from kvstore.arguments import TTL, Indexing
from kvstore.namespace import address, check_key
from kvstore.operations import Append, Check, Delete, FinishJob, Operation, Put, PutJob
from kvstore.own_vectors import Given
from kvstore.queue import Job
from kvstore.types import Item, Namespace

__all__ = ["Ready", "Transaction", "TransactionLog", "TransactionQueue"]

T = TypeVar("T")


class Transaction:
    """The reads and writes of one try of `Store.transact`; of no use after it."""

    def __init__(
        self,
        read: Callable[[Namespace, str, str], Awaitable[list[Item]]],
        prepare_put: Callable[..., Put],
        prepare_append: Callable[..., Append],
        prepare_job: Callable[..., PutJob],
    ) -> None:
        self._find = read
        self._prepare_put = prepare_put
        self._prepare_append = prepare_append
        self._prepare_job = prepare_job
        self._read: dict[tuple[str, str], tuple[Namespace, Item | None]] = {}
        self._written: dict[tuple[str, str], Put | Delete] = {}
        self._appended: list[Append | PutJob] = []
        self._finished: dict[tuple[str, str, int], FinishJob] = {}  # by path, key and token
        self._done: list[Job] = []

    async def get(self, namespace: Sequence[str], key: str) -> Item | None:
        """Return the item as this transaction sees it, or `None`.

        What it has put comes back with `version` 0: it has none yet.
        """
        labels, path = address(namespace)
        key = check_key(key)
        written = self._written.get((path, key))
        if isinstance(written, Put):
            return _unversioned(written)
        if written is not None:
            return None
        if (path, key) not in self._read:
            found = await self._find(labels, path, key)
            self._read.setdefault((path, key), (labels, found[0] if found else None))
        return self._read[path, key][1]

    def put(
        self,
        namespace: Sequence[str],
        key: str,
        value: Any,
        *,
        ttl: TTL = None,
        index: Indexing = None,
        vector: Given = None,
    ) -> Ready[Item]:
        """Store a value when the transaction commits; arguments and errors are those of `put`."""
        op = self._prepare_put(namespace, key, value, ttl=ttl, index=index, vector=vector)
        self._written[op.path, op.key] = op
        return Ready(_unversioned(op))

    def delete(self, namespace: Sequence[str], key: str) -> Ready[None]:
        """Delete the item when the transaction commits."""
        labels, path = address(namespace)
        key = check_key(key)
        self._written[path, key] = Delete(labels, path, key)
        return Ready(None)

    def log(self, namespace: Sequence[str]) -> TransactionLog:
        """Return the log of a namespace, to append to it when the transaction commits."""
        address(namespace)
        return TransactionLog(namespace, self._prepare_append, self._appended)

    def queue(self, namespace: Sequence[str]) -> TransactionQueue:
        """Return the queue of a namespace, to put jobs when the transaction commits."""
        address(namespace)
        return TransactionQueue(namespace, self._prepare_job, self._appended)

    def done(self, job: Job) -> Ready[None]:
        """Finish a job when the transaction commits, which raises `LeaseLostError` if it is lost.

        So what a job does in the same store and that it is done are one change.
        """
        labels, path = address(job.queue.namespace)
        self._finished[path, job.id, job.token] = FinishJob(labels, path, job.id, job.token)
        self._done.append(job)
        return Ready(None)

    def committed(self) -> None:
        """Take note that it is committed."""
        for job in self._done:
            job.is_settled = True

    def unit(self) -> list[Operation]:
        """Return what is to be applied: that the items read are as they were, and the writes.

        No two of them write one item: a job that is finished goes by that alone.
        """
        unit: list[Operation] = []
        for path, key, _ in self._finished:
            if isinstance(self._written.get((path, key)), Delete):
                del self._written[path, key]
        for (path, key), (labels, item) in self._read.items():
            version = item.version if item is not None else 0
            written = self._written.get((path, key))
            if written is None:
                unit.append(Check(labels, path, key, version))
            else:
                written.expected = version
        unit.extend(self._written.values())
        return [*unit, *self._appended, *self._finished.values()]


class _Part:
    """A log or a queue within a transaction.

    Args:
        namespace: which.
        prepare: makes the operation of an entry or a job.
        appended: takes it.
    """

    def __init__(
        self,
        namespace: Sequence[str],
        prepare: Callable[..., Append | PutJob],
        appended: list[Append | PutJob],
    ) -> None:
        self._namespace = namespace
        self._prepare = prepare
        self._appended = appended


class TransactionQueue(_Part):
    """A queue within a transaction."""

    def put(
        self,
        value: Any,
        *,
        delay: float | timedelta = 0,
        unique: str | None = None,
        index: Indexing = None,
    ) -> Ready[None]:
        """Add a job when the transaction commits, which gives it its id.

        Arguments and errors are those of `Queue.put`.
        """
        self._appended.append(self._prepare(self._namespace, value, delay, unique, index))
        return Ready(None)


class TransactionLog(_Part):
    """A log within a transaction. Two transactions that append to it do not conflict."""

    def append(self, value: Any, *more: Any, ttl: TTL = None) -> Ready[None]:
        """Add entries when the transaction commits, which gives them their positions.

        Arguments and errors are those of `Log.append`.
        """
        self._appended.append(self._prepare(self._namespace, (value, *more), ttl))
        return Ready(None)


class Ready(Generic[T]):
    """An awaitable that is done already, so that a buffered write may be awaited or not.

    Attributes:
        result: what awaiting it gives.
    """

    __slots__ = ("result",)

    def __init__(self, result: T) -> None:
        self.result = result

    def __await__(self) -> Generator[Any, None, T]:
        return self.result
        yield


def _unversioned(op: Put) -> Item:
    return Item(op.namespace, op.key, codec.decode(op.data))
