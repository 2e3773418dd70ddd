"""Asyncio-native key-value store: state for agents, flows and desktop apps in one SQLite file."""

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
from kvstore.log import Entry, Log
from kvstore.memory import InMemoryStore
from kvstore.patterns import escape
from kvstore.report import Report, RootStats, Stats
from kvstore.restoring import restore_backup
from kvstore.runtime import RuntimeAwareTool, ToolRuntime
from kvstore.sqlite import SQLiteStore
from kvstore.store import Store
from kvstore.sync import SyncLog, SyncStore
from kvstore.transaction import Transaction
from kvstore.transfer import copy
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
    "KeyValueStore",
    "KeyValueStoreNode",
    "Log",
    "MissingDependencyError",
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
    "SyncLog",
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
