"""The flow facade: `AsyncKeyValueStore` has the meaning, `KeyValueStore` is for sync code."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Self

from kvstore.arguments import TTL
from kvstore.driving import Runner, runner_for
from kvstore.errors import InvalidArgumentError, InvalidPatternError
from kvstore.flow.scopes import (
    ENTITIES,
    RUNS,
    FlowScope,
    check_id,
    entity_of,
    namespace_of,
    namespaces_for,
    sequence_of,
)
from kvstore.log import Log
from kvstore.misuse import WithAsync
from kvstore.namespace import address, check_key
from kvstore.opening import open_store
from kvstore.operations import Delete, Operation, Remove
from kvstore.patterns import EVERY_KEY, compile_pattern
from kvstore.queue import Queue
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.sync import Driven, SyncLog, SyncQueue, SyncStore, applying, blocking, viewing
from kvstore.types import Namespace

__all__ = ["AsyncKeyValueStore", "KeyValueStore"]

Target = str | os.PathLike[str] | Store

# The runs that have begun in this thread or task, each with the facade that it was begun on.
_runs: ContextVar[tuple[tuple[object, str], ...]] = ContextVar("kvstore_runs", default=())


class AsyncKeyValueStore(WithAsync, Recipe):
    """Keys and values for flows, awaited.

    A key is any non-empty text. Keys that begin `$flow.`, `$session.` or `$run.` live in that
    scope, and are other keys in another flow, session or run; all others are the project's. With
    `entity_id` a method sees the keys of that entity alone (a user, an organisation, ...), which
    have nothing to do with the project's or another entity's; scopes work within it, too.

    Every method raises `InvalidKeyError` for what is no key, for a scope without an id and for an
    unknown `$word.`; `InvalidArgumentError` for an entity id that is not a non-empty string; and
    the errors of `Store`.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store. A store that is open stays its
            owner's; anything else is opened by `async with` or `open`, and closed by this object.
        scope: the ids of the present flow, session and run.
    """

    def __init__(self, target: Target, *, scope: FlowScope | None = None) -> None:
        self._store = target if isinstance(target, Store) else open_store(target)
        self._scope = _checked(scope)
        self._is_owner = False

    def _recipe(self) -> Any:
        return AsyncKeyValueStore, (self._store,), {"scope": self._scope}

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._is_owner = False
        return copied

    @property
    def store(self) -> Store:
        """The store underneath."""
        return self._store

    @property
    def base_scope(self) -> FlowScope:
        """The ids that it was made with, whatever run is under way."""
        return self._scope

    @property
    def scope(self) -> FlowScope:
        """The ids that `$flow.`, `$session.` and `$run.` stand for here."""
        runs = _runs.get()
        for facade, run_id in reversed(runs) if runs else ():
            if facade is self:
                return replace(self._scope, run=run_id)
        return self._scope

    # Lifecycle

    async def open(self) -> Self:
        """Open the store, unless it is open."""
        if not self._store.is_open:
            await self._store.open()
            self._is_owner = True
        return self

    async def close(self) -> None:
        """Close the store, if this object opened it."""
        if self._is_owner:
            self._is_owner = False
            await self._store.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def scoped(
        self, *, flow: str | None = None, session: str | None = None, run: str | None = None
    ) -> AsyncKeyValueStore:
        """Return a view of the same store with other ids; those left out stay as they are."""
        return AsyncKeyValueStore(self._store, scope=_with(self.scope, flow, session, run))

    @asynccontextmanager
    async def run(self, run_id: str) -> AsyncIterator[AsyncKeyValueStore]:
        """Name the run for a block of code, and remove what is under `$run.` at its end.

        Within the block, `$run.` keys of this object mean this run: for the task that entered it
        and what it starts. The view that `as` gives means it everywhere, also in threads.

        Args:
            run_id: any text; runs of different ids do not see each other's `$run.` keys.
        """
        view = self.scoped(run=check_id(run_id, "run_id"))
        token = _runs.set((*_runs.get(), (self, run_id)))
        try:
            yield view
        finally:
            _runs.reset(token)
            await self.remove_run(run_id)

    # One key

    async def insert(
        self, key: str, value: Any, entity_id: str | None = None, ttl: TTL = None
    ) -> None:
        """Store a value under a key, over what may be there.

        Args:
            key: where.
            value: text, a number, JSON, bytes, an embedding, or lists and objects of these.
            entity_id: whose key it is; `None`: the project's.
            ttl: lifetime in seconds or as a `timedelta`; `None`: the store's default; `FOREVER`:
                without end, whatever the default.

        Raises:
            ValueEncodingError: something in the value could not come back unchanged.
            ValueTooLargeError: the value is longer than the store takes.
            InvalidTTLError: the ttl is not a positive, finite duration.
        """
        await self._store.put(self._place(key, entity_id), key, value, ttl=ttl)

    async def retrieve(self, key: str, default: Any = None, entity_id: str | None = None) -> Any:
        """Return the value under a key, or `default` if there is none."""
        item = await self._store.get(self._place(key, entity_id), key)
        return default if item is None else item.value

    async def exists(self, key: str, entity_id: str | None = None) -> bool:
        """Whether there is a value under a key, `None` being one."""
        return await self._store.get(self._place(key, entity_id), key) is not None

    async def increment(
        self,
        key: str,
        amount: float = 1,
        *,
        field: str | None = None,
        initial: float = 0,
        ttl: TTL = None,
        entity_id: str | None = None,
    ) -> int | float:
        """Add to a number, atomically across tasks, threads and processes; return the new one.

        Args:
            key: which; a missing number counts as `initial`.
            amount: what to add.
            field: a path into an object, such as `"by_model.small"`; `None`: the value itself.
            initial: what a missing number counts as.
            ttl: lifetime of a number that this call creates; as in `insert`.
            entity_id: whose key it is; `None`: the project's.

        Raises:
            ValueTypeError: what is there is no number.
        """
        return await self._store.increment(
            self._place(key, entity_id), key, amount, field=field, initial=initial, ttl=ttl
        )

    async def append(
        self,
        key: str,
        *values: Any,
        max_length: int | None = None,
        ttl: TTL = None,
        entity_id: str | None = None,
    ) -> int:
        """Add values to the end of a list, atomically; return its new length.

        Args:
            key: which; a missing list is made.
            values: what to add, in order.
            max_length: keep only this many of the last elements.
            ttl: lifetime of a list that this call creates; as in `insert`.
            entity_id: whose key it is; `None`: the project's.

        Raises:
            ValueTypeError: what is there is no list.
        """
        return await self._store.append(
            self._place(key, entity_id), key, *values, max_length=max_length, ttl=ttl
        )

    async def pop(
        self, key: str, index: int = 0, *, default: Any = None, entity_id: str | None = None
    ) -> Any:
        """Take an element out of a list, atomically, and return it.

        Args:
            key: which list.
            index: which element: 0 the first, -1 the last.
            default: what to return if there is no such element.
            entity_id: whose key it is; `None`: the project's.

        Raises:
            ValueTypeError: what is there is no list.
        """
        return await self._store.pop(self._place(key, entity_id), key, index, default=default)

    async def update(
        self,
        key: str,
        fn: Callable[[Any], Any],
        *,
        default: Any = None,
        attempts: int = 10,
        entity_id: str | None = None,
    ) -> Any:
        """Read, change by `fn(value)` and write, atomically; return the new value.

        Nothing is locked while `fn` runs; it runs again when another write came between.

        Args:
            key: which.
            fn: from the value to the new value, sync or async.
            default: what `fn` gets if there is no value.
            attempts: how often `fn` runs at most.
            entity_id: whose key it is; `None`: the project's.

        Raises:
            ConflictError: another write came between every time.
        """
        item = await self._store.update(
            self._place(key, entity_id), key, fn, default=default, attempts=attempts
        )
        return item.value

    # Sequences

    def log(self, key: str, entity_id: str | None = None) -> Log:
        """Return the append-only log of a key, such as a conversation; see `Store.log`.

        It has nothing to do with the value under the same key, and lives as long as the keys of
        its scope: that of a run goes with the run.

        Args:
            key: which.
            entity_id: whose it is; `None`: the project's.
        """
        return self._store.log(sequence_of(self.scope, "log", key, entity_id))

    def queue(
        self,
        key: str,
        entity_id: str | None = None,
        *,
        lease: float = 30.0,
        attempts: int = 5,
        backoff: float = 1.0,
    ) -> Queue:
        """Return the queue of jobs of a key; see `Store.queue` for it and for the options.

        It has nothing to do with the value or the log under the same key.

        Args:
            key: which.
            entity_id: whose it is; `None`: the project's.
            lease: seconds for which a job is leased to who takes it.
            attempts: how often a job is tried, at most.
            backoff: seconds before the second attempt, doubled before each next one.
        """
        place = sequence_of(self.scope, "queue", key, entity_id)
        return self._store.queue(place, lease=lease, attempts=attempts, backoff=backoff)

    # Many keys

    async def remove(self, key: str, entity_id: str | None = None) -> int:
        """Remove the keys that match a pattern; return how many went.

        `*` is any run of characters, `?` one, `[a-z]` one of a set, `[^a]` none of it. A pattern
        without any of them is the one key. It is matched against keys as they are written, scope
        and all, and reaches whatever `list_keys` shows: `"*"` removes all of it, `"$run.*"` what
        is under `$run.`. The key that reads exactly like the pattern goes, too, so that
        `remove(key)` removes any key that `list_keys` gave. All go or none.

        Args:
            key: a key, or a pattern; `kvstore.escape` makes any text literal.
            entity_id: whose keys; `None`: the project's.

        Raises:
            InvalidPatternError: the pattern does not parse, and there is no such key.
        """
        key = check_key(key)
        if "[" not in key and "*" not in key and "?" not in key:
            return int(await self._store.delete(self._place(key, entity_id), key))
        try:
            pattern = compile_pattern(key)
        except InvalidPatternError:
            if await self._store.delete(self._place(key, entity_id), key):
                return 1
            raise
        places = namespaces_for(self.scope, pattern, entity_id)
        unit: list[Operation] = [Remove(*address(place), pattern, False) for place in places]
        if not pattern.matches(key):
            unit.append(Delete(*address(self._place(key, entity_id)), key))
        return sum(map(int, await self._store.apply(unit)))

    async def list_keys(self, pattern: str = "*", entity_id: str | None = None) -> list[str]:
        """List the keys that match a pattern, sorted, as they are written.

        With `"*"` these are all that can be seen here: the project's (or the entity's) keys, and
        those of the scopes that have an id.

        Args:
            pattern: as for `remove`.
            entity_id: whose keys; `None`: the project's.

        Raises:
            InvalidPatternError: the pattern does not parse.
        """
        compiled = compile_pattern(pattern)
        found: list[str] = []
        for place in namespaces_for(self.scope, compiled, entity_id):
            found += await self._store.keys(place, pattern)
        return sorted(found)

    # Entities and runs

    async def list_entities(self) -> list[str]:
        """List the ids of the entities that have any key, in whatever scope, sorted."""
        found = await self._store.list_namespaces((*ENTITIES, ...), max_depth=len(ENTITIES) + 1)
        found += await self._store.list_namespaces((*RUNS, ..., "entity", ...))
        return sorted({entity_of(namespace) for namespace in found})

    async def remove_entity(self, entity_id: str) -> int:
        """Remove all that an entity has, in every scope; return how many keys went."""
        entity_id = check_id(entity_id, "entity_id")
        in_runs = await self._store.list_namespaces((*RUNS, ..., "entity", entity_id))
        return await self._remove_below([(*ENTITIES, entity_id), *in_runs])

    async def remove_run(self, run_id: str) -> int:
        """Remove all that is under `$run.` in a run, of all entities; return how many keys went."""
        return await self._remove_below([(*RUNS, check_id(run_id, "run_id"))])

    async def _remove_below(self, places: list[Namespace]) -> int:
        unit = [Remove(*address(place), EVERY_KEY, True) for place in places]
        return sum(await self._store.apply(unit))

    def _place(self, key: str, entity_id: str | None) -> Namespace:
        return namespace_of(self.scope, key, entity_id)


class KeyValueStore(Driven):
    """Keys and values for flow nodes, scripts and desktop apps: `AsyncKeyValueStore` without await.

    Any thread may use it, also inside a running event loop, which then stands still for the
    moment that a call takes. It is opened at once and closed at the end of a `with` block, by
    `close()`, or by itself: when nothing refers to it any more, or at exit. In a forked child, and
    as a copy that `pickle` or `copy.deepcopy` made, it opens the store anew with its first call.
    The methods, their arguments and errors are those of `AsyncKeyValueStore`; beside them,
    `WrongLoopError` where a call would wait for the very thread that it is made on, as in a signal
    handler or a finalizer that comes in the middle of another. What `update` is given is a plain
    function, which is called on this thread and may use this object.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store. A store that is open stays its
            owner's, and works on the loop that opened it; this object is then for other threads.
        scope: the ids of the present flow, session and run.
    """

    def __init__(self, target: Target, *, scope: FlowScope | None = None) -> None:
        scope = _checked(scope)
        runner = SyncStore(target).runner
        self._drive(runner, AsyncKeyValueStore(runner.store, scope=scope))

    def _drive(self, runner: Runner, awaited: AsyncKeyValueStore) -> None:
        self._runner, self._awaited = runner, awaited

    @classmethod
    def over(cls, runner: Runner, awaited: AsyncKeyValueStore) -> Self:
        """Return the facade whose awaited one is there already, and what drives it."""
        made = cls.__new__(cls)
        made._drive(runner, awaited)
        return made

    @classmethod
    def _unopened(cls, store: Store, scope: FlowScope) -> Self:
        """Return a facade that opens the store with its first call."""
        runner = runner_for(store, is_lazy=True)
        return cls.over(runner, AsyncKeyValueStore(runner.store, scope=scope))

    def _recipe(self) -> Any:
        return self._unopened, (self._runner.origin, self._awaited.base_scope), {}

    @property
    def sync_store(self) -> SyncStore:
        """The store underneath, for code that does not await."""
        return SyncStore(self._runner)

    @property
    def scope(self) -> FlowScope:
        """The ids that `$flow.`, `$session.` and `$run.` stand for here."""
        scope: FlowScope = self._awaited.scope
        return scope

    def scoped(
        self, *, flow: str | None = None, session: str | None = None, run: str | None = None
    ) -> KeyValueStore:
        """Return a view of the same store with other ids; those left out stay as they are."""
        return self.over(self._runner, self._awaited.scoped(flow=flow, session=session, run=run))

    @contextmanager
    def run(self, run_id: str) -> Iterator[KeyValueStore]:
        """Name the run for a block of code; see `AsyncKeyValueStore.run`.

        Within the block, `$run.` keys of this object mean this run: on this thread, or in this
        task. Other threads use the view that `as` gives.
        """
        view = self.scoped(run=check_id(run_id, "run_id"))
        token = _runs.set((*_runs.get(), (self._awaited, run_id)))
        try:
            yield view
        finally:
            _runs.reset(token)
            self.remove_run(run_id)

    insert = blocking(AsyncKeyValueStore.insert)
    retrieve = blocking(AsyncKeyValueStore.retrieve)
    exists = blocking(AsyncKeyValueStore.exists)
    increment = blocking(AsyncKeyValueStore.increment)
    append = blocking(AsyncKeyValueStore.append)
    pop = blocking(AsyncKeyValueStore.pop)
    remove = blocking(AsyncKeyValueStore.remove)
    list_keys = blocking(AsyncKeyValueStore.list_keys)
    list_entities = blocking(AsyncKeyValueStore.list_entities)
    remove_entity = blocking(AsyncKeyValueStore.remove_entity)
    remove_run = blocking(AsyncKeyValueStore.remove_run)
    update = applying(AsyncKeyValueStore.update)
    log = viewing(AsyncKeyValueStore.log, SyncLog)
    queue = viewing(AsyncKeyValueStore.queue, SyncQueue)


def _checked(scope: FlowScope | None) -> FlowScope:
    if scope is None:
        return FlowScope()
    if not isinstance(scope, FlowScope):
        raise InvalidArgumentError(
            f"scope is a FlowScope(flow=, session=, run=), not {type(scope).__name__}"
        )
    return scope


def _with(scope: FlowScope, flow: str | None, session: str | None, run: str | None) -> FlowScope:
    given = {"flow": flow, "session": session, "run": run}
    return replace(scope, **{name: value for name, value in given.items() if value is not None})
