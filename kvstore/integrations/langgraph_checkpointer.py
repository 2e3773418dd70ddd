"""LangGraph's short-term memory in a kvstore: `LangGraphCheckpointer` is a checkpoint saver.

It means what LangGraph's own `InMemorySaver` means, and has what that lacks: `prune`,
`copy_thread` and `delete_for_runs`. Where the savers differ: `list` gives the newest first over all
namespaces, as the database savers do; a filter compares as Python does; of the writes of a task to
one channel with a place of its own (an interrupt, an error) the last counts, of the others the
first; a thread's id is taken as text.

This module translates LangGraph's shapes; `langgraph_checkpoints` says how they are stored.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from kvstore.errors import InvalidArgumentError
from kvstore.integrations.access import Access, Adapter, Setup, Target, halves
from kvstore.integrations.requirements import needing
from kvstore.namespace import is_text
from kvstore.recipe import Recipe
from kvstore.store import Store

with needing("LangGraphCheckpointer", "langgraph-checkpoint", "4.0", extra="langgraph"):
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        BaseCheckpointSaver,
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        PendingWrite,
        get_checkpoint_metadata,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol

from kvstore.integrations.langgraph_checkpoints import Checkpoints, VanishedError, Write
from kvstore.integrations.langgraph_drafts import Memory, Place, Saved

if TYPE_CHECKING:  # since langgraph-checkpoint 4.1
    from langgraph.checkpoint.base import DeltaChannelHistory

__all__ = ["LangGraphCheckpointer"]

_NAME: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*")  # what is no syntax in a path
_STRATEGIES: Final = ("keep_latest", "delete")
_PAGE: Final = 50  # checkpoints of a list that are read at once
_IN_HAND: Final = 1_000  # of them in all, where they are of many threads


class LangGraphCheckpointer(Recipe, Adapter, BaseCheckpointSaver[str]):
    """A LangGraph checkpoint saver over any kvstore: for `compile(checkpointer=...)`.

    Both halves work at once: await the `a...` methods on any event loop, and call the others from
    any thread but that of the loop that the store is open on, where they raise
    `asyncio.InvalidStateError`. The first call opens the store. What it opened, `with`, `async
    with`, `close` and `aclose` close; after sync calls it closes at exit by itself.

    A checkpoint holds of a large list or dict, such as a chat's messages, only what is new in it.
    Encryption is by `serde`, as with LangGraph's own savers: metadata stays in the clear, and rows
    that were written without it are read. Beside a `LangGraphStore` in one file each has
    namespaces of its own.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store. A store that is open stays its
            owner's.
        serde: what turns values into bytes; `None`: LangGraph's own.
    """

    def __init__(self, target: Target, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self._access = Access(target, type(self).__name__)
        self._memory = Memory()

    @classmethod
    def from_conn_string(cls, conn_string: str, *, serde: SerializerProtocol | None = None) -> Self:
        """Return a saver for `with` or `async with`, as LangGraph's SQLite savers have it."""
        return cls(conn_string, serde=serde)

    # Lifecycle

    def setup(self) -> Setup:
        """Open the store, when awaited; there is no need to, as the first call does so."""
        return Setup(self._access.open)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._access.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return the version after one; two that follow the same one differ."""
        number = 0 if current is None else int(str(current).split(".")[0])
        return f"{number + 1:032}.{random.getrandbits(32):08x}"

    # Each of these in two halves

    async def _get_tuple(self, store: Store, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that a config names, or else its thread's last one."""
        checkpoints, place, id = self._on(store), _place_of(config), _id_of(config)
        named = config if id else None
        while (saved := await checkpoints.get(place, id)) is not None:
            try:
                return await self._tuple(checkpoints, place, saved, named, remember=True)
            except VanishedError:
                continue  # another one may be the last now
        return None

    get_tuple, aget_tuple = halves(_get_tuple)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, the newest first; see `list`."""
        listing = _Listing(self, config, filter, before, limit)
        while not listing.is_over:
            for found in await self._access.run(listing.page):
                yield found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, the newest first; no lock is held meanwhile.

        Args:
            config: of which thread, and if it says so, of which namespace and id; `None`: all.
            filter: what their metadata must equal; what is missing there is `None`.
            before: only those before the one whose id this holds.
            limit: how many at most.
        """
        listing = _Listing(self, config, filter, before, limit)
        while not listing.is_over:
            yield from self._access.run_sync("list", "alist", listing.page)

    async def _put(
        self,
        store: Store,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, all or nothing; return the config that names it.

        Args:
            store: where.
            config: of its thread, with its parent's id.
            checkpoint: it; one of the same id is replaced.
            metadata: what `list` finds it by.
            new_versions: the channels whose values are new.

        Raises:
            ValueEncodingError: the serializer does not take a value.
        """
        place, parent = _place_of(config), _id_of(config)
        if not isinstance(checkpoint.get("id"), str):
            raise InvalidArgumentError("a checkpoint has an id, which is a text")
        described: Any = get_checkpoint_metadata(config, metadata)
        await self._on(store).put(place, parent, checkpoint, described, new_versions)
        return {
            "configurable": {
                "thread_id": config["configurable"]["thread_id"],
                "checkpoint_ns": place.ns,
                "checkpoint_id": checkpoint["id"],
            }
        }

    put, aput = halves(_put)

    async def _put_writes(
        self,
        store: Store,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store a task's writes beside a checkpoint, which may come later.

        Raises:
            ValueEncodingError: the serializer does not take a value.
        """
        place, id = _place_of(config), _id_of(config)
        if id is None:
            raise InvalidArgumentError("put_writes is for a checkpoint: the config names none")
        await self._on(store).put_writes(place, id, writes, task_id, task_path)

    put_writes, aput_writes = halves(_put_writes)

    async def _delete_thread(self, store: Store, thread_id: str) -> None:
        """Delete all that belongs to a thread."""
        await self._on(store).delete_thread(str(thread_id))

    delete_thread, adelete_thread = halves(_delete_thread)

    async def _delete_for_runs(self, store: Store, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, with their writes, in one transaction.

        One that a remaining checkpoint needs stays: a `DeltaChannel` has its value in the writes
        of those before it.
        """
        await self._on(store).delete_runs(_texts(run_ids))

    delete_for_runs, adelete_for_runs = halves(_delete_for_runs)

    async def _copy_thread(
        self, store: Store, source_thread_id: str, target_thread_id: str
    ) -> None:
        """Copy all that belongs to a thread to another; of an unknown thread nothing."""
        await self._on(store).copy_thread(str(source_thread_id), str(target_thread_id))

    copy_thread, acopy_thread = halves(_copy_thread)

    async def _prune(
        self, store: Store, thread_ids: Sequence[str], *, strategy: str = "keep_latest"
    ) -> None:
        """Delete old checkpoints of threads, with their writes; of each in one transaction.

        Args:
            store: where.
            thread_ids: whose.
            strategy: `"keep_latest"` keeps the last checkpoint of each namespace, and those that
                it needs for a `DeltaChannel`; `"delete"` keeps nothing.
        """
        if strategy not in _STRATEGIES:
            raise InvalidArgumentError(
                f"strategy is one of {', '.join(_STRATEGIES)}, not {strategy!r}"
            )
        for thread in _texts(thread_ids):
            if strategy == "delete":
                await self._on(store).delete_thread(thread)
            else:
                await self._on(store).keep_latest(thread)

    prune, aprune = halves(_prune)

    async def _history(
        self, store: Store, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what made up channels that store no more than each step's news."""
        found = await self._on(store).history(_place_of(config), _id_of(config), list(channels))
        history: dict[str, DeltaChannelHistory] = {}
        for channel, (writes, seed) in found.items():
            loaded = [
                (each.task_id, channel, self.serde.loads_typed(each.value)) for each in writes
            ]
            history[channel] = {"writes": loaded}
            if seed:
                history[channel]["seed"] = seed[0]
        return history

    get_delta_channel_history, aget_delta_channel_history = halves(_history)

    # What they share

    def _on(self, store: Store) -> Checkpoints:
        return Checkpoints(store, self.serde, self._memory)

    async def _tuple(
        self,
        checkpoints: Checkpoints,
        place: Place,
        saved: Saved,
        config: RunnableConfig | None = None,
        *,
        remember: bool = False,
    ) -> CheckpointTuple:
        beside = self.serde.loads_typed(saved.record)
        values = await checkpoints.values(place, saved, remember=remember)
        writes = await checkpoints.writes(place, saved.id)
        checkpoint: Any = {
            **beside,
            "id": saved.id,
            "channel_versions": saved.versions,
            "channel_values": values,
        }
        return CheckpointTuple(
            config=config or _config_of(place, saved.id),
            checkpoint=checkpoint,
            metadata=saved.metadata,  # type: ignore[arg-type]
            parent_config=_config_of(place, saved.parent) if saved.parent else None,
            pending_writes=[*self._loaded(writes)],
        )

    def _loaded(self, writes: Iterable[Write]) -> Iterator[PendingWrite]:
        for write in writes:
            yield write.task_id, write.channel, self.serde.loads_typed(write.value)


class _Listing:
    """A `list` under way: pages, each of which is read by itself."""

    def __init__(
        self,
        saver: LangGraphCheckpointer,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        if limit is not None and not isinstance(limit, int):
            raise InvalidArgumentError(f"limit is a number, or None for all, not {limit!r}")
        self.is_over = limit is not None and limit <= 0
        self._saver = saver
        self._config = config
        self._filter = filter or {}
        self._before = _id_of(before)
        self._left = limit
        self._sources: list[_Newest] | None = None

    async def page(self, store: Store) -> list[CheckpointTuple]:
        """Return the next ones."""
        checkpoints = self._saver._on(store)
        if self._sources is None:
            self._sources = await self._begin(checkpoints)
        most = max(1, min(_PAGE, _IN_HAND // max(1, len(self._sources)), self._left or _PAGE))
        found: list[CheckpointTuple] = []
        while not self.is_over and len(found) < _PAGE:
            there = [each for each in self._sources if await each.fill(checkpoints, most)]
            if not there:
                self.is_over = True
                break
            source = max(there, key=lambda each: each.page[0].id)
            saved = source.page.popleft()
            self._sources = there
            try:
                found.append(await self._saver._tuple(checkpoints, source.place, saved))
            except VanishedError:
                continue
            self._left = None if self._left is None else self._left - 1
            self.is_over = self._left == 0
        return found

    async def _begin(self, checkpoints: Checkpoints) -> list[_Newest]:
        ns, only = _settings(self._config).get("checkpoint_ns"), _id_of(self._config)
        if self._config is None:
            places = await checkpoints.places()
        else:
            thread = _place_of(self._config).thread
            places = await checkpoints.places(thread) if ns is None else [Place(thread, ns)]
        return [_Newest(place, self._filter, self._before, only) for place in places]


@dataclass(slots=True)
class _Newest:
    """The checkpoints of a place, the newest first, read by pages.

    Attributes:
        filter: what their metadata must equal, as Python compares; what is missing is `None`.
        before: the id in front of which the next page begins; `None`: the end.
        only: just this id, which need not be there.
        page: those in hand.
    """

    place: Place
    filter: Mapping[str, Any]
    before: str | None
    only: str | None
    page: deque[Saved] = field(default_factory=deque)
    is_over: bool = False

    async def fill(self, checkpoints: Checkpoints, most: int) -> bool:
        """Read the next ones, at most so many, if none is in hand; whether one is."""
        if self.page or self.is_over:
            return bool(self.page)
        self.is_over = True
        if self.only is not None:
            saved = await checkpoints.get(self.place, self.only)
            if saved is not None and self._takes(saved):
                self.page.append(saved)
            return bool(self.page)
        items = checkpoints.store.scan(
            self.place.checkpoints,
            filter=self._wanted,
            subtree=False,
            before=self.before,
            reverse=True,
            batch_size=most,
        )
        async for item in items:
            self.before = item.key
            if self._takes(saved := checkpoints.saved(item)):
                self.page.append(saved)
                if len(self.page) == most:
                    self.is_over = False
                    break
        return bool(self.page)

    def _takes(self, saved: Saved) -> bool:
        """Whether one is asked for."""
        is_before = self.only is None or self.before is None or saved.id < self.before
        return is_before and all(
            saved.metadata.get(key) == wanted for key, wanted in self.filter.items()
        )

    @property
    def _wanted(self) -> dict[str, Any] | None:
        """What the store can tell of it, in its own words; it lets through what it cannot."""
        told = [
            {f"metadata.{key}": {"$in": [value, bool(value)] if value in (0, 1) else [value]}}
            for key, value in self.filter.items()
            if type(value) in (str, int, float) and _NAME.fullmatch(key) and _is_plain(value)
        ]
        return {"$or": [{"$and": told}, {"sealed": True}]} if told else None


def _is_plain(value: str | float) -> bool:
    """Whether a filter of the store takes a value."""
    if isinstance(value, str):
        return is_text(value)
    return -(2**63) <= value < 2**63


def _settings(config: RunnableConfig | None) -> Mapping[str, Any]:
    return (config or {}).get("configurable") or {}


def _place_of(config: RunnableConfig) -> Place:
    settings = _settings(config)
    if "thread_id" not in settings:
        raise InvalidArgumentError(
            "the config names no thread: write {'configurable': {'thread_id': ...}}"
        )
    return Place(str(settings["thread_id"]), settings.get("checkpoint_ns") or "")


def _id_of(config: RunnableConfig | None) -> str | None:
    """Return the id of the checkpoint that a config names, if it names one."""
    id: Any = _settings(config).get("checkpoint_id")
    if id is not None and not isinstance(id, str):
        raise InvalidArgumentError(f"the id of a checkpoint is a text, not {id!r}")
    return id or None


def _config_of(place: Place, id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": place.thread,
            "checkpoint_ns": place.ns,
            "checkpoint_id": id,
        }
    }


def _texts(ids: Sequence[str]) -> Sequence[str]:
    return [str(each) for each in ids]
