"""`SyncStore`: the whole contract without `await`, from any thread.

The methods are made of those of `Store`: `blocking` gives a coroutine function the same arguments
and the same answer, and runs what it makes by a `Runner`. So nothing is written twice.
"""

from __future__ import annotations

import inspect
import re
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
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

from kvstore.alarm import ALARM
from kvstore.arguments import check_function
from kvstore.driving import Runner, runner_for
from kvstore.errors import InvalidArgumentError, StoreError
from kvstore.files import FilePath
from kvstore.log import Log
from kvstore.misuse import WithoutAsync
from kvstore.opening import open_store
from kvstore.past_view import Past
from kvstore.queue import Job, Queue
from kvstore.recipe import Recipe
from kvstore.report import Metrics
from kvstore.store import Store
from kvstore.transaction import Ready, Transaction, TransactionLog, TransactionQueue
from kvstore.typed import Typed
from kvstore.types import Change, Item

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
    "applying",
    "blocking",
    "viewing",
]

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")

_AT_ONCE = 100  # items of a scan that are taken over together
_AWAITED = re.compile(r"^(?:Async(Iterator\[.*)|Ready\[(.*)\])$")


class _Over:
    """What is over something that is awaited, and the runner that runs it."""

    def __init__(self, runner: Runner, awaited: Any) -> None:
        self._runner, self._awaited = runner, awaited


class Driven(WithoutAsync, Recipe):
    """Something that is awaited, and a runner that runs it, which may be closed."""

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


def _calling(
    method: Callable[..., Any],
    answer: Callable[[Runner, Callable[[], Any]], Any],
    returns: type | None = None,
) -> Any:
    """Return the method that gives what `answer` makes of a runner and of a call of `method`.

    `help` shows it with what it returns: with the type that is given, or with what is left of an
    `AsyncIterator` or of a `Ready`.
    """
    name, signature = method.__name__, inspect.signature(method)
    annotation = returns or _AWAITED.sub(r"\1\2", signature.return_annotation)

    @wraps(method)
    def call(self: Driven, *args: Any, **kwargs: Any) -> Any:
        return answer(self._runner, partial(getattr(self._awaited, name), *args, **kwargs))

    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=annotation
    )
    return call


def _iterating(
    method: Callable[Concatenate[Any, P], V], deliver: Callable[[Runner, V], T]
) -> Callable[Concatenate[Any, P], T]:
    """Return the method that delivers what an awaited one makes."""
    made: Callable[Concatenate[Any, P], T] = _calling(
        method,
        lambda runner, make: deliver(runner, runner.run(_made(make))),
        deliver if isinstance(deliver, type) else None,
    )
    return made


def viewing(
    method: Callable[Concatenate[Any, P], Any], view: Callable[[Runner, Any], T]
) -> Callable[Concatenate[Any, P], T]:
    """Return the method that gives a view of what one makes that is not awaited either."""
    made: Callable[Concatenate[Any, P], T] = _calling(
        method,
        lambda runner, make: view(runner, make()),
        view if isinstance(view, type) else None,
    )
    return made


def _buffered(
    method: Callable[Concatenate[Any, P], Ready[T]],
) -> Callable[Concatenate[Any, P], T]:
    """Return the method that gives what an awaited one has ready."""
    made: Callable[Concatenate[Any, P], T] = _calling(method, lambda _, make: make().result)
    return made


def applying(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """As `blocking`, of a method that takes a function, `fn`, which is called on this thread."""
    name, signature = method.__name__, inspect.signature(method)
    at = list(signature.parameters).index("fn") - 1  # among the arguments

    @wraps(method)
    def call(self: Driven, *args: P.args, **kwargs: P.kwargs) -> T:
        if len(args) <= at and "fn" not in kwargs:
            signature.bind(self, *args, **kwargs)  # which says what is missing
        fn: Any = args[at] if len(args) > at else kwargs["fn"]
        check_function(fn, name)

        def start(ready: Callable[[Any], Any]) -> Coroutine[Any, Any, T]:
            awaited: Callable[..., Coroutine[Any, Any, T]] = getattr(self._awaited, name)
            if len(args) > at:
                return awaited(*args[:at], ready, *args[at + 1 :], **kwargs)
            return awaited(*args, **{**kwargs, "fn": ready})

        return self._runner.run_with(fn, start)

    return call  # type: ignore[return-value]


async def _made(make: Callable[[], T]) -> T:
    return make()


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


class _Sequence(_Over, Driven):
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


class SyncPast(_Over, Driven):
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


class SyncWatch(_Over, Iterator[Change]):
    """The changes of a store as an iterator that waits for the next one; see `Store.watch`.

    With `with store.watch(...) as changes:` the watch begins before the block does.
    """

    @property
    def version(self) -> int | None:
        """Where to resume by `since`; `None` before it begins."""
        version: int | None = self._awaited.version
        return version

    def __next__(self) -> Change:
        change: Change | None = self._runner.run_waiting(_first(self._awaited))
        if change is None:
            raise StopIteration
        return change

    def __enter__(self) -> Self:
        self._runner.run(self._awaited.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the watch."""
        self._runner.run(self._awaited.aclose())


class SyncStore(Driven):
    """A store for code that does not await: `Store`, with methods that block, from any thread.

    It is opened at once and closed at the end of a `with` block, by `close()`, or by itself: when
    nothing refers to it any more, or at exit. Inside a running event loop it may be used, too; the
    loop then stands still for the moment that a call takes. In a forked child, and as a copy, it
    opens the store anew with its first call. The methods, their arguments and errors are those of
    `Store`; beside them, `WrongLoopError` where a call would wait for the very thread that it is
    made on. What `update` and `transact` are given is a plain function, which is called on this
    thread and may use this object; `transact` gives it what reads and writes without `await`.

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
    watch = _iterating(Store.watch, SyncWatch)
    at = _iterating(Store.at, SyncPast)
    update = applying(Store.update)
    log = viewing(Store.log, SyncLog)
    queue = viewing(Store.queue, SyncQueue)

    def typed(self, namespace: Sequence[str], model: type[V]) -> SyncTyped[V]:
        """Return a namespace whose values are of one type; see `Store.typed`."""
        return SyncTyped(self._runner, self.store.typed(namespace, model))

    def metrics(self) -> Metrics:
        """Return what this store has counted, and what waits; see `Store.metrics`."""
        return self.store.metrics()

    def transact(self, fn: Callable[[SyncTransaction], T], *, attempts: int = 10) -> T:
        """Run `fn(tx)` as one optimistic transaction; see `Store.transact`."""
        check_function(fn, "transact")
        runner, store = self._runner, self.store

        async def run(ready: Callable[[Any], Any]) -> T:
            result: T = await store.transact(ready, attempts=attempts)
            return result

        return runner.run_with(lambda tx: fn(SyncTransaction(runner, tx)), run)


class SyncTyped(_Over, Driven, Generic[V]):
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
        return _batches(runner, runner.run(_made(partial(self._awaited.scan, **options))))

    def keys(self, pattern: str = "*", **options: Any) -> list[str]:
        """Return the sorted keys that match; see `Store.keys`."""
        return self._runner.run(self._awaited.keys(pattern, **options))

    delete = blocking(Typed.delete)
    count = blocking(Typed.count)


class SyncJob(_Over):
    """A `Job` for code that does not await; `with` prolongs its lease, if it lasts, by a thread."""

    def __init__(self, runner: Runner, awaited: Job) -> None:
        super().__init__(runner, awaited)
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

    done = blocking(Job.done)
    retry = blocking(Job.retry)
    extend = blocking(Job.extend)

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


class SyncTransactionLog(_Over):
    """A log within a transaction; see `TransactionLog`."""

    append = _buffered(TransactionLog.append)


class SyncTransactionQueue(_Over):
    """A queue within a transaction; see `TransactionQueue`."""

    put = _buffered(TransactionQueue.put)


class SyncTransaction(_Over):
    """The reads and writes of one try of `SyncStore.transact`; of no use after it."""

    get = blocking(Transaction.get)
    put = _buffered(Transaction.put)
    delete = _buffered(Transaction.delete)
    log = viewing(Transaction.log, SyncTransactionLog)
    queue = viewing(Transaction.queue, SyncTransactionQueue)

    def done(self, job: SyncJob) -> None:
        """Finish a job when the transaction commits; see `Transaction.done`."""
        self._awaited.done(job.awaited)
