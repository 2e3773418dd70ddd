"""The change feed, as backends keep it: its pieces, and its lease.

Writers record changes only while a lease says that somebody watches; see `kvstore.watching`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.operations import Trim
from kvstore.positions import Position
from kvstore.types import Change

__all__ = ["GRACE", "MOST_CHANGES", "ChangePage", "lease_after"]

MOST_CHANGES = 1_000_000  # that are kept, however young: some 100 MB
GRACE = 10_000_000  # microseconds from the end of the lease to that of the recording


@dataclass(frozen=True, slots=True)
class ChangePage:
    """A piece of the feed.

    Attributes:
        changes: those that pass, in order; not too many.
        position: the version up to which this is everything.
        begin: the kept history holds every change after this version.
        lease: when the lease ends, in microseconds; 0 or less: nothing is recorded any more, or
            soon will not be.
        has_expired: whether there are rows whose time is over.
        now: the instant of all this, by the store's clock.
    """

    changes: list[Change]
    position: Position
    begin: Position
    lease: int
    has_expired: bool
    now: int


def lease_after(until: int, op: Trim, now: int) -> int:
    """Return the lease as a look at the clock leaves it.

    One that is over is marked first, and ends some time later: watchers that the machine's sleep
    or a set clock has surprised get the time to renew it. One that a clock took which was ahead is
    cut to what it could be now.
    """
    if op.is_watched:
        return max(until, now + op.history // 2)
    if until > 0:
        return -now if until <= now else min(until, now + op.history)
    if -until > now:
        return -now
    return 0 if now >= GRACE - until else until
