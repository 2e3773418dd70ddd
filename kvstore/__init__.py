"""Asyncio-native key-value store: state for agents, flows and desktop apps in one SQLite file.

    import asyncio
    import kvstore

    async def main():
        async with kvstore.open("agent.db") as store:
            await store.put(("users", "alice"), "theme", {"name": "dark"})
            theme = await store.get(("users", "alice"), "theme")
            print(theme.value["name"], await store.increment(("app",), "visits"))

    asyncio.run(main())

Code that does not await has the same contract as `kvstore.SyncStore("agent.db")`, and plain keys
with scopes and entities as `kvstore.KeyValueStore("agent.db")`.

- Begin with `help(kvstore.open)` and `help(kvstore.Store)`.
- `kvstore.errors` draws the tree of errors.
- `kvstore.embeddings` has models for a search by meaning, `kvstore.IndexConfig` says of what.
- `kvstore.integrations` has the adapters of frameworks, such as `kvstore.integrations.langgraph`.
"""

from kvstore import distribution, opening
from kvstore.errors import (
    ConflictError,
    EmbeddingError,
    HistoryExpiredError,
    IndexMismatchError,
    InvalidArgumentError,
    InvalidFilterError,
    InvalidKeyError,
    InvalidNamespaceError,
    InvalidPatternError,
    InvalidTTLError,
    LeaseLostError,
    MissingDependencyError,
    ReadOnlyError,
    SchemaError,
    StoreAccessError,
    StoreBusyError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReplacedError,
    ValueEncodingError,
    ValueTooLargeError,
    ValueTypeError,
    WatchExpiredError,
    WrongLoopError,
)
from kvstore.flow import AsyncKeyValueStore, FlowScope, KeyValueStore, KeyValueStoreNode
from kvstore.instants import FOREVER
from kvstore.jobs import QueueSize
from kvstore.log import Entry, Log
from kvstore.memory import InMemoryStore
from kvstore.past_view import Past
from kvstore.patterns import escape
from kvstore.queue import Job, Queue
from kvstore.report import Metrics, Report, RootStats, Stats
from kvstore.runtime import RuntimeAwareTool, ToolRuntime
from kvstore.sqlite import SQLiteStore
from kvstore.store import Store
from kvstore.sync import SyncJob, SyncLog, SyncQueue, SyncStore
from kvstore.transaction import Transaction
from kvstore.transfer import copy, restore_backup
from kvstore.types import Change, IndexConfig, Item, SearchQuery
from kvstore.watching import Watch

__all__ = [
    "FOREVER",
    "AsyncKeyValueStore",
    "Change",
    "ConflictError",
    "EmbeddingError",
    "Entry",
    "FlowScope",
    "HistoryExpiredError",
    "InMemoryStore",
    "IndexConfig",
    "IndexMismatchError",
    "InvalidArgumentError",
    "InvalidFilterError",
    "InvalidKeyError",
    "InvalidNamespaceError",
    "InvalidPatternError",
    "InvalidTTLError",
    "Item",
    "Job",
    "KeyValueStore",
    "KeyValueStoreNode",
    "LeaseLostError",
    "Log",
    "Metrics",
    "MissingDependencyError",
    "Past",
    "Queue",
    "QueueSize",
    "ReadOnlyError",
    "Report",
    "RootStats",
    "RuntimeAwareTool",
    "SQLiteStore",
    "SchemaError",
    "SearchQuery",
    "Stats",
    "Store",
    "StoreAccessError",
    "StoreBusyError",
    "StoreClosedError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreReplacedError",
    "SyncJob",
    "SyncLog",
    "SyncQueue",
    "SyncStore",
    "ToolRuntime",
    "Transaction",
    "ValueEncodingError",
    "ValueTooLargeError",
    "ValueTypeError",
    "Watch",
    "WatchExpiredError",
    "WrongLoopError",
    "__version__",
    "copy",
    "escape",
    "restore_backup",
]

__version__ = distribution.VERSION
open = opening.open_store  # not in __all__: a star import leaves the builtin alone
