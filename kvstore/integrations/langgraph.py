"""LangGraph's long-term memory in a kvstore: `LangGraphStore` is a LangGraph `BaseStore`.

It means what LangGraph's own stores mean, where these agree. Where they do not, or break their own
documentation: an expired item is gone at its instant, and not at the next sweep; `created_at` stays
when an item is updated; a filter means the same everywhere (`filters_of`); what JSON cannot hold is
refused, NaN included; a call that fails fails alone.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import EllipsisType, TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from kvstore.errors import InvalidArgumentError, MissingDependencyError, ValueEncodingError
from kvstore.flow.driving import Driver, driver_for
from kvstore.flow.facade import AsyncKeyValueStore, KeyValueStore
from kvstore.flow.scopes import FlowScope
from kvstore.instants import lifetime
from kvstore.opening import open_store
from kvstore.paths import PathError, parse_path
from kvstore.store import Store, Transaction
from kvstore.types import IndexConfig, Namespace
from kvstore.types import Item as StoredItem

try:
    from langgraph.store.base import (
        NOT_PROVIDED,
        BaseStore,
        GetOp,
        InvalidNamespaceError,
        Item,
        ListNamespacesOp,
        MatchCondition,
        NamespacePath,
        NotProvided,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        ensure_embeddings,
    )
    from langgraph.store.base import IndexConfig as LangGraphIndexConfig
except ImportError as exc:
    raise MissingDependencyError(
        "kvstore.integrations.langgraph needs LangGraph: pip install 'kvstore[langgraph]'"
    ) from exc

__all__ = ["LangGraphStore"]

T = TypeVar("T")

_MINUTE_S: Final = 60.0
_SWEEP_MINUTES: Final = 5.0  # LangGraph's own default
_LARGEST: Final = sys.float_info.max
