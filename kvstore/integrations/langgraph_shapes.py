"""Shapes and units between LangGraph and kvstore: pure functions, both ways."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any, Final, Literal

import orjson
from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
)
from langgraph.store.base import (
    IndexConfig as LangGraphIndexConfig,
)
from langgraph.store.base import (
    InvalidNamespaceError as LangGraphInvalidNamespaceError,
)

from kvstore import errors
from kvstore.caching import Known
from kvstore.errors import InvalidArgumentError, InvalidFilterError, InvalidTTLError
from kvstore.integrations.langgraph_drafts import ROOT
from kvstore.paths import PathError, parse_path
from kvstore.store import Store
from kvstore.types import IndexConfig, Namespace
from kvstore.types import Item as StoredItem

__all__ = [
    "SECONDS_A_MINUTE",
    "Labels",
    "checked",
    "embeddings_of",
    "index_config_of",
    "index_settings_of",
    "indexing_of",
    "is_of_a_thread",
    "item_of",
    "labels_of",
    "labels_to_put",
    "may_hold_threads",
    "merged",
    "pattern_of",
    "search_item_of",
    "seconds_of",
    "translate",
    "ttl_config_of",
]

SECONDS_A_MINUTE: Final = 60
_MICROS_A_MINUTE: Final = 60_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")

Labels = Sequence[str]


class _InvalidNamespaceError(LangGraphInvalidNamespaceError, errors.InvalidNamespaceError):
    """A namespace that LangGraph does not have, by the name of either library."""


def index_config_of(index: LangGraphIndexConfig) -> IndexConfig:
    """Return kvstore's form of LangGraph's settings for semantic search.

    Args:
        index: `embed`, what LangGraph takes for it, or kvstore's own `IndexConfig`; `dims`; and
            `fields` (or `text_fields`, as LangGraph's SQLite stores have it), by default all of
            the value.

    Raises:
        InvalidArgumentError: it has no `embed`, another distance than cosine, or settings that
            kvstore does not have.
    """
    settings: dict[str, Any] = dict(index)
    unknown = settings.keys() - {"dims", "embed", "fields", "text_fields", "distance_type"}
    if unknown:
        raise InvalidArgumentError(f"index has settings that kvstore does not: {sorted(unknown)}")
    if settings.get("embed") is None:
        raise InvalidArgumentError("index names no embedding model: {'dims': ..., 'embed': ...}")
    if settings.get("distance_type", "cosine") != "cosine":
        raise InvalidArgumentError("kvstore's semantic search is by cosine similarity alone")
    fields = settings.get("text_fields") or settings.get("fields") or ["$"]
    embed = settings["embed"]
    return IndexConfig(
        # Anything else is given as it is: the index remembers models by their names.
        ensure_embeddings(embed) if isinstance(embed, str) else embed,
        fields=_paths(fields),
        dimensions=settings.get("dims"),
    )


def embeddings_of(index: LangGraphIndexConfig) -> Any:
    """Return the model of LangGraph's settings, as its own stores show it; ours as it is."""
    embed: Any = index["embed"]
    return embed if hasattr(embed, "embed_documents") else ensure_embeddings(embed)


def index_settings_of(config: IndexConfig | None) -> dict[str, Any] | None:
    """Return LangGraph's form of what a store indexes; `None` if it has no embeddings."""
    if config is None or config.embeddings is None:
        return None
    fields = list(config.fields)
    return {"dims": config.dimensions, "embed": config.embeddings, "fields": fields}


def indexing_of(index: Literal[False] | list[str] | None) -> Literal[False] | list[str] | None:
    """Return what a put says of indexing in kvstore's form."""
    return _paths(index) if index else index


def _paths(fields: Sequence[str]) -> list[str]:
    """Return LangGraph's field paths as kvstore's.

    Raises:
        InvalidArgumentError: a path with a `*` that is no subscript, which kvstore lacks.
    """
    paths = [path for field in fields for path in _without_braces(field or "$")]
    for path in paths:
        try:
            names = [segment for segment in parse_path(path) if isinstance(segment, str)]
        except PathError as exc:
            raise InvalidArgumentError(str(exc)) from None
        if any(set("*{}") & set(name) for name in names):
            raise InvalidArgumentError(
                f"kvstore indexes no path such as {path!r}; name the fields, and write '[*]' for "
                "all elements of a list"
            )
    return paths


def _without_braces(path: str) -> list[str]:
    """Write `a.{b,c}` as `a.b` and `a.c`."""
    found = _BRACES.search(path)
    if found is None:
        return [path]
    before, after = path[: found.start()], path[found.end() :]
    parts = (before + part.strip() + after for part in found[1].split(","))
    return list(dict.fromkeys(itertools.chain.from_iterable(map(_without_braces, parts))))


def ttl_config_of(store: Store) -> TTLConfig | None:
    """Return what a store does about lifetimes as LangGraph's settings."""
    told = store.settings
    if told.default_ttl is None and not told.refresh_ttl:
        return None
    settings: TTLConfig = {"refresh_on_read": told.refresh_ttl}
    if told.default_ttl is not None:
        settings["default_ttl"] = told.default_ttl / _MICROS_A_MINUTE
    return settings


def seconds_of(minutes: Any) -> float | None:
    """Return a lifetime in seconds; `None` is for ever."""
    if minutes is None:
        return None
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)):
        raise InvalidTTLError(f"a ttl is a number of minutes, not {type(minutes).__name__}")
    return minutes * SECONDS_A_MINUTE


def labels_of(namespace: Labels) -> Namespace:
    """Return a namespace as LangGraph allows it to be named."""
    if isinstance(namespace, str):
        raise _InvalidNamespaceError(
            f"a namespace is a tuple of labels, not a str: write {(namespace,)!r}"
        )
    try:
        return _CHECKED[tuple(namespace)]
    except TypeError:
        raise _InvalidNamespaceError(
            f"a namespace is a tuple of strings, not {namespace!r}"
        ) from None


def _checked_labels(labels: Namespace) -> Namespace:
    for label in labels:
        if not isinstance(label, str):
            raise _InvalidNamespaceError(
                f"the namespace {labels} has a label of type {type(label).__name__}, not str"
            )
        if not label or "." in label or "\0" in label:
            raise _InvalidNamespaceError(
                f"the namespace {labels} has the label {label!r}; in LangGraph a label is not "
                "empty and holds no period and no NUL"
            )
    return labels


_CHECKED: Final = Known(_checked_labels, 16_384)


def labels_to_put(namespace: Labels) -> Namespace:
    """Return a namespace as LangGraph allows something to be put there."""
    labels = labels_of(namespace)
    if not labels or labels[0] == "langgraph":
        raise _InvalidNamespaceError(
            f"nothing can be put into the namespace {labels}: in LangGraph it has a label at "
            "least, and the first is not 'langgraph'"
        )
    return labels


def may_hold_threads(prefix: Sequence[str | EllipsisType]) -> bool:
    """Whether what a `LangGraphCheckpointer` keeps in the same store may lie below a prefix."""
    return all(part in (..., label) for part, label in zip(prefix, ROOT, strict=False))


def is_of_a_thread(namespace: Namespace) -> bool:
    """Whether a namespace is a `LangGraphCheckpointer`'s, which no `LangGraphStore` shows."""
    return namespace[: len(ROOT)] == ROOT


def checked(op: Op) -> Op:
    """Return an operation with its namespace checked, and a key that is a str."""
    match op:
        case GetOp() | PutOp():
            return op._replace(namespace=labels_of(op.namespace), key=str(op.key))
        case SearchOp():
            return op._replace(namespace_prefix=labels_of(op.namespace_prefix))
        case ListNamespacesOp():
            for condition in op.match_conditions or ():
                labels_of(condition.path)
            return op
    raise InvalidArgumentError(f"LangGraph has no operation such as {type(op).__name__}")


def pattern_of(condition: MatchCondition) -> tuple[str | EllipsisType, ...]:
    """Return a condition's path with `...` for its wildcards."""
    return tuple(... if label == "*" else label for label in condition.path)


def merged(
    patterns: Iterable[tuple[str | EllipsisType, ...]],
) -> tuple[str | EllipsisType, ...] | None:
    """Return the pattern that matches what all of them do; `None` if nothing does."""
    merged: tuple[str | EllipsisType, ...] = ()
    for pattern in patterns:
        pairs = list(itertools.zip_longest(merged, pattern, fillvalue=...))
        if any(... not in pair and pair[0] != pair[1] for pair in pairs):
            return None
        merged = tuple(right if left is ... else left for left, right in pairs)
    return merged


def item_of(stored: StoredItem) -> Item:
    """Return a stored item as LangGraph's."""
    return Item(
        value=stored.value,
        key=stored.key,
        namespace=stored.namespace,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
    )


def search_item_of(stored: StoredItem) -> SearchItem:
    """Return a stored item, with its score, as LangGraph's."""
    return SearchItem(
        stored.namespace,
        stored.key,
        stored.value,
        stored.created_at,
        stored.updated_at,
        stored.score,
    )


# Filters


Spec = dict[str, Any]

_NO_KEY = re.compile(r"[\x00-\x1f\x7f'\"`\[\](){}]|^\$|^$")
_INTEGERS = range(-(2**63), 2**64)
_LARGEST: Final = sys.float_info.max
_NOTHING: Final[Spec] = {"$or": []}


def translate(filter: Mapping[str, Any] | None) -> Spec | None:
    """Return a filter of LangGraph's as one of kvstore's.

    LangGraph's own stores disagree about the corners; here, in each of them:

    - Operators are `$eq $ne $gt $gte $lt $lte`; others raise.
    - `a.b` is first the field `b` of the object `a`, and then a field that is really called `a.b`.
    - A missing field equals `None`; every other comparison with it is false, `$ne` included.
    - Values of different types never compare, so a comparison never fails.
    - A list equals a list element by element. An object must have the fields of the filter's
      object, recursively, and may have more; an empty one asks for nothing.

    Raises:
        InvalidFilterError: a key holds quotes, brackets or control characters, or an operator is
            not LangGraph's.
    """
    if not filter:
        return None
    return {"$and": [_field(name, spec) for name, spec in filter.items()]}


def _field(name: Any, spec: Any) -> Spec:
    if not isinstance(name, str) or _NO_KEY.search(name):
        raise InvalidFilterError(
            f"Invalid filter key: {name!r}; it has no quotes, brackets or control characters, and "
            "does not begin with a dollar sign"
        )
    literal = _condition((name,), spec)
    nested = tuple(name.split("."))
    if len(nested) == 1 or "" in nested:
        return literal
    there = {_quoted(nested): {"$exists": True}}
    return {
        "$or": [
            {"$and": [there, _condition(nested, spec)]},
            {"$and": [{"$not": there}, literal]},
        ]
    }


def _condition(path: tuple[str, ...], spec: Any) -> Spec:
    if not isinstance(spec, Mapping):
        return _operation(path, "$eq", spec)
    if any(isinstance(name, str) and name.startswith("$") for name in spec):
        return {"$and": [_operation(path, op, operand) for op, operand in spec.items()]}
    return {"$and": [_condition((*path, name), part) for name, part in spec.items()]}


def _operation(path: tuple[str, ...], op: Any, operand: Any) -> Spec:
    field, number = _quoted(path), _number(operand)
    match op:
        case "$eq" if operand is None:
            return {"$or": [{field: None}, {field: {"$exists": False}}]}
        case "$eq":
            return {field: {"$eq": operand}} if number is None else _equal(field, number)
        case "$ne":
            equal = _operation(path, "$eq", operand)
            return {"$and": [{field: {"$exists": True}}, {"$not": equal}]}
        case "$gt" | "$gte" | "$lt" | "$lte":
            return {field: {op: operand}} if number is None else _compared(field, op, number)
    raise InvalidFilterError(f"Unsupported operator: {op}; there are $eq $ne $gt $gte $lt $lte")


def _number(operand: Any) -> float | None:
    """Return a number that JSON does not hold as a float, and `None` for all else."""
    if isinstance(operand, int) and operand not in _INTEGERS:
        try:
            return float(operand)
        except OverflowError:
            return math.inf if operand > 0 else -math.inf
    return operand if isinstance(operand, float) and not math.isfinite(operand) else None


def _equal(field: str, number: float) -> Spec:
    return {field: {"$eq": number}} if math.isfinite(number) else _NOTHING


def _compared(field: str, op: str, number: float) -> Spec:
    if math.isfinite(number):
        return {field: {op: number}}
    is_true = number == (math.inf if op in ("$lt", "$lte") else -math.inf)
    return {field: {"$gte": -_LARGEST}} if is_true else _NOTHING  # any number, or none


def _quoted(segments: tuple[str, ...]) -> str:
    """Write a path with every name quoted."""
    try:
        return ".".join(orjson.dumps(segment).decode() for segment in segments)
    except TypeError as exc:
        raise InvalidFilterError(f"Invalid filter key: {segments!r} ({exc})") from None
