"""What is little enough for the event loop's own thread, as far as can be told beforehand.

`Pace.allows` decides, and lists the cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvstore.backend import NamespaceQuery, Span
from kvstore.filters import ALL, Filter, comparisons
from kvstore.operations import (
    Append,
    Check,
    Delete,
    Expire,
    ExtendJob,
    FinishJob,
    GiveBackJob,
    Mutate,
    Operation,
    PopEntry,
    Put,
    PutJob,
    Remove,
    RetryJob,
    TakeJob,
    Touch,
)
from kvstore.patterns import Pattern
from kvstore.sqlite import driver, reading, statements
from kvstore.sqlite.engine.limits import (
    GROUP_READS,
    INLINE_BYTES,
    INLINE_COMPARISONS,
    INLINE_PUTS,
    LONG_PATH,
)
from kvstore.sqlite.plain_puts import are_bare_puts
from kvstore.sqlite.writing import INLINE_OPS

__all__ = [
    "Weigh",
    "are_few",
    "are_light_puts",
    "is_light_write",
    "light_listing",
    "light_look",
    "light_page",
]


def are_few(path: str, keys: Sequence[str]) -> bool:
    """Whether some items of a namespace are few and shortly named."""
    return len(keys) <= GROUP_READS and len(path) + sum(map(len, keys)) <= LONG_PATH


Weigh = Callable[[driver.Connection], bool]
"""Tells on a connection whether a read takes but a moment."""


def light_look(
    path: str,
    subtree: bool,
    pattern: Pattern | None = None,
    filter: Filter = ALL,
    text: str | None = None,
) -> Weigh | None:
    """Return what tells whether a look at each item of a namespace is little; `None`: it is not."""
    if (
        statements.READS_LENGTH_ALONE
        and not subtree
        and len(path) <= LONG_PATH
        and (pattern is None or pattern.is_quick)
        and comparisons(filter) <= INLINE_COMPARISONS
        and len(text or "") <= INLINE_COMPARISONS
    ):
        return lambda connection: reading.is_light(connection, INLINE_BYTES, path)
    return None


def light_page(span: Span, filter: Filter, limit: int | None, now: int) -> Weigh | None:
    """Return what tells whether a look at the first items of a span is little; `None`: it is not.

    So a page costs by itself, however large the namespace is, unless a pattern passes items over.
    """
    if (
        statements.READS_LENGTH_ALONE
        and limit is not None
        and limit <= statements.FEW
        and span.pattern.matches_all
        and len(span.path) <= LONG_PATH
        and comparisons(filter) <= INLINE_COMPARISONS
    ):
        return lambda connection: reading.is_light_page(connection, INLINE_BYTES, span, limit, now)
    return light_look(span.path, span.subtree, span.pattern, filter)


def light_listing(asked: NamespaceQuery, now: int) -> Weigh | None:
    """Return what tells whether expired items hold up a list of namespaces.

    How many they are only the list itself can tell. `None`: it is cut, or, as with the other looks,
    SQLite is an older one.
    """
    if asked.max_depth is not None or not statements.READS_LENGTH_ALONE:
        return None
    expired = statements.has_expired(now, statements.FEW)
    return lambda connection: driver.run(connection, expired).fetchone() is None


def are_light_puts(number: int, size: int, *, is_heavy: bool) -> bool:
    """As `is_light_write`, of plain puts alone."""
    return size <= INLINE_BYTES and number <= (INLINE_OPS if is_heavy else INLINE_PUTS)


def is_light_write(ops: Sequence[Operation], size: int, *, is_heavy: bool) -> bool:
    """Whether operations are a little bounded work in one transaction.

    Args:
        ops: of all its units.
        size: of what they write, in bytes, roughly.
        is_heavy: whether the file has an index or is watched, so that each costs more.
    """
    if size > INLINE_BYTES:
        return False
    if len(ops) > INLINE_OPS:
        is_little = are_light_puts(len(ops), size, is_heavy=is_heavy)
        return is_little and are_bare_puts(ops)
    for op in ops:
        match op:
            case Put() | Delete() | Mutate() | Check() | Expire() | PopEntry():
                continue
            case PutJob() | FinishJob() | TakeJob() | RetryJob() | ExtendJob() | GiveBackJob():
                continue
            case Append(data=data) if len(data) <= INLINE_OPS:
                continue
            case Touch(keys=keys) if len(keys) <= INLINE_OPS:
                continue
            case Remove(subtree=False, pattern=pattern) if pattern.is_quick and len(ops) == 1:
                return not is_heavy
        return False
    return True
