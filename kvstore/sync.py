"""`SyncStore`: the whole contract without `await`, from any thread.

The methods are made of those of `Store`: `blocking` gives a coroutine function the same arguments
and the same answer, and runs what it makes by a `Runner`. So nothing is written twice.
"""

from __future__ import annotations

import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import datetime, timedelta
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

from kvstore.alarm import ALARM
from kvstore.arguments import TTL, Indexing, check_function
from kvstore.driving import Runner, runner_for
from kvstore.errors import InvalidArgumentError, StoreError
from kvstore.filenames import FilePath
from kvstore.log import Log
from kvstore.metrics import Metrics
from kvstore.misuse import WithoutAsync
from kvstore.opening import open_store
from kvstore.own_vectors import Given
from kvstore.past_view import Past
from kvstore.queue import Job, Queue
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.transaction import Transaction, TransactionLog, TransactionQueue
from kvstore.typed import Typed
from kvstore.types import Change, Item
from kvstore.watching import Watch

__all__ = [
    "Driven",
    "SyncJob",
    "SyncLog",
    "SyncPast",
    "SyncQueue",
    "SyncStore",
    "SyncTransaction",
    "SyncTransactionLog",
    "SyncTransactionQueue",
    "SyncTyped",
    "SyncWatch",
    "blocking",
    "viewing",
]

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")

_AT_ONCE = 100  # items of a scan that are taken over together


class Driven(WithoutAsync, Recipe):
    """Something that is awaited, and a runner that runs it."""

    _runner: Runner
    _awaited: Any

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._runner.origin!r})"

    def close(self) -> None:
        """Close the store, if this object opened it; views of it are closed with it."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Return the method that runs an awaited one to its end."""
    name = method.__name__

    @wraps(method)
    def call(self: Driven, *args: P.args, **kwargs: P.kwargs) -> T:
        coroutine: Coroutine[Any, Any, T] = getattr(self._awaited, name)(*args, **kwargs)
        return self._runner.run(coroutine)

    return call  # type: ignore[return-value] # whatever is `Driven`


def _iterating(
    method: Callable[Concatenate[Any, P], V], deliver: Callable[[Runner, V], T]
) -> Callable[Concatenate[Any, P], T]:
    """Return the method that delivers what an awaited one makes."""
    name = method.__name__

    @wraps(method)
    def call(self: Driven, *args: P.args, **kwargs: P.kwargs) -> T:
        runner, make = self._runner, getattr(self._awaited, name)
        return deliver(runner, runner.run(_made(make, *args, **kwargs)))

    return call  # type: ignore[return-value]


def viewing(
    method: Callable[Concatenate[Any, P], Any], view: Callable[[Runner, Any], T]
) -> Callable[Concatenate[Any, P], T]:
    """Return the method that gives a view of what one makes that is not awaited either."""
    name = method.__name__

    @wraps(method)
    def call(self: Driven, *args: P.args, **kwargs: P.kwargs) -> T:
        return view(self._runner, getattr(self._awaited, name)(*args, **kwargs))

    return call  # type: ignore[return-value]


async def _made(make: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return make(*args, **kwargs)


def _batches(runner: Runner, items: AsyncIterator[T]) -> Iterator[T]:
    while some := runner.run(_some(items)):
        yield from some


async def _some(items: AsyncIterator[T]) -> list[T]:
    taken: list[T] = []
    async for item in items:
        taken.append(item)
        if len(taken) >= _AT_ONCE:
            break
    return taken


def _one_by_one(runner: Runner, items: AsyncIterator[T]) -> Iterator[T]:
    """As `_batches`, of what comes one by one and is waited for."""
    while (found := runner.run_waiting(_first(items))) is not None:
        yield found


async def _first(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


def _watching(runner: Runner, watch: Watch) -> SyncWatch:
    return SyncWatch(runner, watch)


class _View(Driven):
    """What is made by a store's method, and driven by the store's runner."""

    def __init__(self, runner: Runner, awaited: Any) -> None:
        self._runner, self._awaited = runner, awaited


class _Sequence(_View):
    """A log or a queue."""

    @property
    def namespace(self) -> tuple[str, ...]:
        """Where its entries or jobs are."""
        namespace: tuple[str, ...] = self._awaited.namespace
        return namespace


class SyncLog(_Sequence):
    """A `Log` for code that does not await; `read` and `follow` are iterators."""

    append = blocking(Log.append)
    tail = blocking(Log.tail)
    read = _iterating(Log.read, _batches)
    follow = _iterating(Log.follow, _one_by_one)
    pop = blocking(Log.pop)
    length = blocking(Log.length)
    trim = blocking(Log.trim)


class SyncQueue(_Sequence):
    """A `Queue` for code that does not await; `jobs` is an iterator."""

    put = blocking(Queue.put)
    size = blocking(Queue.size)
    revive = blocking(Queue.revive)

    def take(self, timeout: float | None = None) -> SyncJob | None:
        """Lease the next job that is ready, waiting for one if there is none; see `Queue.take`."""
        job = self._runner.run_waiting(self._awaited.take(timeout))
        return None if job is None else SyncJob(self._runner, job)

    def jobs(self) -> Iterator[SyncJob]:
        """Iterate over jobs as they come, one at a time; see `Queue.jobs`."""
        while True:
            job = self.take()
            if job is not None:
                yield job

    def dead(self, limit: int = 100) -> list[SyncJob]:
        """Return jobs that were given up; see `Queue.dead`."""
        return [SyncJob(self._runner, job) for job in self._runner.run(self._awaited.dead(limit))]


class SyncStore(Driven):
    """A store for code that does not await: `Store`, with methods that block, from any thread.

    It is opened at once and closed at the end of a `with` block, by `close()`, or by itself: when
    nothing refers to it any more, or at exit. Inside a running event loop it may be used, too; the
    loop then stands still for the moment that a call takes. In a forked child, and as a copy, it
    opens the store anew with its first call. The methods, their arguments and errors are those of
    `Store`; beside them, `WrongLoopError` where a call would wait for the very thread that it is
    made on.

        with kvstore.SyncStore("agent.db") as store:
            store.put(("users", "alice"), "theme", "dark")

    Args:
        target: a path or URL, as for `kvstore.open`, or a store. A store that is open stays its
            owner's, and works on the loop that opened it; this object is then for other threads.
            Or what drives a store already.
        options: those of the store that is opened.
    """

    def __init__(self, target: FilePath | Store | Runner, **options: Any) -> None:
        if isinstance(target, (Store, Runner)) and options:
            raise InvalidArgumentError(
                f"SyncStore takes options with a path or URL, and this is a store: "
                f"{', '.join(options)}"
            )
        if not isinstance(target, Runner):
            store = target if isinstance(target, Store) else open_store(target, **options)
            target = runner_for(store)
        self._runner = target
        self._awaited = target.store

    @classmethod
    def _unopened(cls, store: Store) -> Self:
        """Return one that opens the store with its first call."""
        return cls(runner_for(store, is_lazy=True))

    def _recipe(self) -> Any:
        return self._unopened, (self._runner.origin,), {}

    @property
    def runner(self) -> Runner:
        """What runs the coroutines."""
        return self._runner

    @property
    def store(self) -> Store:
        """The store underneath, whose methods are awaited."""
        return self._runner.store

    put = blocking(Store.put)
    get = blocking(Store.get)
    delete = blocking(Store.delete)
    search = blocking(Store.search)
    list_namespaces = blocking(Store.list_namespaces)
    put_many = blocking(Store.put_many)
    get_many = blocking(Store.get_many)
    delete_many = blocking(Store.delete_many)
    remove = blocking(Store.remove)
    keys = blocking(Store.keys)
    count = blocking(Store.count)
    expire = blocking(Store.expire)
    increment = blocking(Store.increment)
    append = blocking(Store.append)
    pop = blocking(Store.pop)
    sweep = blocking(Store.sweep)
    backup = blocking(Store.backup)
    export_items = blocking(Store.export_items)
    import_items = blocking(Store.import_items)
    check = blocking(Store.check)
    stats = blocking(Store.stats)
    vacuum = blocking(Store.vacuum)
    reindex = blocking(Store.reindex)
    history = blocking(Store.history)
    rewind = blocking(Store.rewind)
    forget = blocking(Store.forget)
    scan = _iterating(Store.scan, _batches)
    watch = _iterating(Store.watch, _watching)
    log = viewing(Store.log, SyncLog)
    queue = viewing(Store.queue, SyncQueue)

    def typed(self, namespace: Sequence[str], model: type[V]) -> SyncTyped[V]:
        """Return a namespace whose values are of one type; see `Store.typed`."""
        return SyncTyped(self._runner, self.store.typed(namespace, model))

    def metrics(self) -> Metrics:
        """Return what this store has counted, and what waits; see `Store.metrics`."""
        return self.store.metrics()

    def at(self, moment: int | datetime, *, root: str | None = None) -> SyncPast:
        """Return the store as it was at a moment; see `Store.at`."""
        runner = self._runner
        return SyncPast(runner, runner.run(_made(self._awaited.at, moment, root=root)))

    def update(
        self,
        namespace: Sequence[str],
        key: str,
        fn: Callable[[Any], Any],
        *,
        default: Any = None,
        attempts: int = 10,
    ) -> Item:
        """Read, change and write an item atomically; see `Store.update`.

        `fn` is a plain function, called on this thread. It may use this object.
        """
        check_function(fn, "update")
        store = self.store
        return self._runner.run_with(
            fn,
            lambda ready: store.update(namespace, key, ready, default=default, attempts=attempts),
        )

    def transact(self, fn: Callable[[SyncTransaction], T], *, attempts: int = 10) -> T:
        """Run `fn(tx)` as one optimistic transaction; see `Store.transact`.

        `fn` is a plain function, called on this thread. It reads and writes by `tx.get(...)`,
        `tx.put(...)` and `tx.delete(...)`.
        """
        check_function(fn, "transact")
        runner, store = self._runner, self.store

        async def run(ready: Callable[[Any], Any]) -> T:
            result: T = await store.transact(ready, attempts=attempts)
            return result

        return runner.run_with(lambda tx: fn(SyncTransaction(runner, tx)), run)


class SyncTyped(_View, Generic[V]):
    """A `Typed` namespace for code that does not await; `scan` is an iterator."""

    _awaited: Typed[V]

    def put(self, key: str, value: V, **options: Any) -> Item[V]:
        """Store a value; see `Store.put`."""
        return self._runner.run(self._awaited.put(key, value, **options))

    def put_many(self, mapping: Mapping[str, V], **options: Any) -> list[Item[V]]:
        """Store many values, all or none; see `Store.put_many`."""
        return self._runner.run(self._awaited.put_many(mapping, **options))

    def get(self, key: str, **options: Any) -> Item[V] | None:
        """Return the item, or `None` if there is none; see `Store.get`."""
        return self._runner.run(self._awaited.get(key, **options))

    def get_many(self, keys: Iterable[str]) -> dict[str, Item[V]]:
        """Return the items that are there, by key; see `Store.get_many`."""
        return self._runner.run(self._awaited.get_many(keys))

    def search(self, query: Any = None, **options: Any) -> list[Item[V]]:
        """Find items by value, by words or by meaning; see `Store.search`."""
        return self._runner.run(self._awaited.search(query, **options))

    def update(self, key: str, fn: Callable[[V], V], **options: Any) -> Item[V]:
        """Read a value, change it by `fn(value)`, and write it; see `SyncStore.update`."""
        awaited = self._awaited
        return self._runner.run_with(fn, lambda ready: awaited.update(key, ready, **options))

    def scan(self, **options: Any) -> Iterator[Item[V]]:
        """Iterate over the items in the order of keys; see `Store.scan`."""
        runner = self._runner
        return _batches(runner, runner.run(_made(self._awaited.scan, **options)))

    def keys(self, pattern: str = "*", **options: Any) -> list[str]:
        """Return the sorted keys that match; see `Store.keys`."""
        return self._runner.run(self._awaited.keys(pattern, **options))

    delete = blocking(Typed.delete)
    count = blocking(Typed.count)


class SyncJob:
    """A `Job` for code that does not await; `with` prolongs its lease, if it lasts, by a thread."""

    def __init__(self, runner: Runner, awaited: Job) -> None:
        self._runner = runner
        self.awaited = awaited
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._alarm: object = None  # for the first prolongation
        self._beat: threading.Thread | None = None

    def __repr__(self) -> str:
        return repr(self.awaited)

    @property
    def id(self) -> str:
        """Its id, which is its item's key."""
        return self.awaited.id

    @property
    def value(self) -> Any:
        """What was put."""
        return self.awaited.value

    @property
    def attempt(self) -> int:
        """Which attempt this one is, from 1."""
        return self.awaited.attempt

    @property
    def error(self) -> str | None:
        """Of a dead one, why its last attempt failed."""
        return self.awaited.error

    def done(self) -> None:
        """Finish it; see `Job.done`."""
        self._runner.run(self.awaited.done())

    def retry(self, delay: float | None = None, *, error: str | None = None) -> None:
        """Have it tried again; see `Job.retry`."""
        self._runner.run(self.awaited.retry(delay, error=error))

    def extend(self, seconds: float) -> None:
        """Let the lease last so many seconds from now; see `Job.extend`."""
        self._runner.run(self.awaited.extend(seconds))

    def __enter__(self) -> Self:
        self._is_over.clear()
        self.awaited.begin()
        self._alarm = ALARM.later(self.awaited.pause_s, self._begin_beat)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        ALARM.drop(self._alarm)
        with self._lock:
            self._is_over.set()
            beat, self._beat = self._beat, None
        if beat is not None:
            beat.join()
        return self._runner.run(self.awaited.settle(exc))

    def _begin_beat(self) -> None:
        with self._lock:
            if not self._is_over.is_set():
                beat = threading.Thread(target=self._prolong, name="kvstore-lease", daemon=True)
                beat.start()
                self._beat = beat  # only now, as what has not started cannot be joined

    def _prolong(self) -> None:
        while not self._is_over.is_set():
            try:
                if not self._runner.run(self.awaited.prolong()):
                    return
            except StoreError:  # it is closed
                return
            self._is_over.wait(self.awaited.pause_s)


class SyncPast(_View):
    """A store as it was, for code that does not await: `Past`, with methods that block."""

    def _recipe(self) -> NoReturn:
        raise InvalidArgumentError("a view of the past is of one open store: it cannot be copied")

    get = blocking(Past.get)
    get_many = blocking(Past.get_many)
    keys = blocking(Past.keys)
    count = blocking(Past.count)
    list_namespaces = blocking(Past.list_namespaces)
    search = blocking(Past.search)
    scan = _iterating(Past.scan, _batches)


class SyncTransaction:
    """The reads and writes of one try of `SyncStore.transact`; of no use after it."""

    def __init__(self, runner: Runner, tx: Transaction) -> None:
        self._runner = runner
        self._tx = tx

    def get(self, namespace: Sequence[str], key: str) -> Item | None:
        """Return the item as this transaction sees it, or `None`; see `Transaction.get`."""
        return self._runner.run(self._tx.get(namespace, key))

    def put(
        self,
        namespace: Sequence[str],
        key: str,
        value: Any,
        *,
        ttl: TTL = None,
        index: Indexing = None,
        vector: Given = None,
    ) -> Item:
        """Store a value when the transaction commits."""
        return self._tx.put(namespace, key, value, ttl=ttl, index=index, vector=vector).result

    def delete(self, namespace: Sequence[str], key: str) -> None:
        """Delete the item when the transaction commits."""
        self._tx.delete(namespace, key)

    def log(self, namespace: Sequence[str]) -> SyncTransactionLog:
        """Return the log of a namespace, to append to it when the transaction commits."""
        return SyncTransactionLog(self._tx.log(namespace))

    def queue(self, namespace: Sequence[str]) -> SyncTransactionQueue:
        """Return the queue of a namespace, to put jobs when the transaction commits."""
        return SyncTransactionQueue(self._tx.queue(namespace))

    def done(self, job: SyncJob) -> None:
        """Finish a job when the transaction commits; see `Transaction.done`."""
        self._tx.done(job.awaited)


class SyncTransactionLog:
    """A log within a transaction; see `TransactionLog`."""

    def __init__(self, log: TransactionLog) -> None:
        self._log = log

    def append(self, value: Any, *more: Any, ttl: TTL = None) -> None:
        """Add entries when the transaction commits, which gives them their positions."""
        self._log.append(value, *more, ttl=ttl)


class SyncTransactionQueue:
    """A queue within a transaction; see `TransactionQueue`."""

    def __init__(self, queue: TransactionQueue) -> None:
        self._queue = queue

    def put(
        self,
        value: Any,
        *,
        delay: float | timedelta = 0,
        unique: str | None = None,
        index: Indexing = None,
    ) -> None:
        """Add a job when the transaction commits, which gives it its id."""
        self._queue.put(value, delay=delay, unique=unique, index=index)


class SyncWatch(Iterator[Change]):
    """The changes of a store as an iterator that waits for the next one; see `Store.watch`.

    With `with store.watch(...) as changes:` the watch begins before the block does.
    """

    def __init__(self, runner: Runner, watch: Watch) -> None:
        self._runner = runner
        self._watch = watch

    @property
    def version(self) -> int | None:
        """Where to resume by `since`; `None` before it begins."""
        return self._watch.version

    def __next__(self) -> Change:
        change = self._runner.run_waiting(_next(self._watch))
        if change is None:
            raise StopIteration
        return change

    def __enter__(self) -> Self:
        self._runner.run(self._watch.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the watch."""
        self._runner.run(self._watch.aclose())


async def _next(watch: Watch) -> Change | None:
    try:
        return await anext(watch)
    except StopAsyncIteration:
        return None
