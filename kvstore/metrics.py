"""What a store counts of its own work: `Metrics`, and the counters that backends keep for it."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Counters", "Metrics"]


@dataclass(slots=True)
class Counters:
    """Numbers that a backend counts up from its opening on; the names are those of `Metrics`."""

    commits: int = 0
    units: int = 0
    largest_group: int = 0
    lock_waits: int = 0
    retries: int = 0
    reconnects: int = 0

    def committed(self, units: int) -> None:
        """Count a transaction, and the calls whose writes are in it."""
        self.commits += 1
        self.units += units
        if units > self.largest_group:  # quicker than `max`
            self.largest_group = units


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one store object, in this process, has done since it opened, and what waits now.

    Attributes:
        commits: write transactions that were committed.
        units: calls that wrote something; `units / commits` is the mean size of a group.
        largest_group: calls in one transaction, at most.
        lock_waits: how often a transaction found another one at work, and waited for it.
        retries: how often something was done again, after a lost connection or a conflict.
        reconnects: how often a connection was opened in the place of a lost one.
        cache_hits: reads that the cache answered.
        queued: writes that are accepted and not yet done.
        queued_bytes: what they hold in memory, roughly.
        connections: of the pool, those that are open; 0: there is no pool.
        idle_connections: those of them that nobody uses now.
        waiting_reads: reads that wait for one of them.
    """

    commits: int = 0
    units: int = 0
    largest_group: int = 0
    lock_waits: int = 0
    retries: int = 0
    reconnects: int = 0
    cache_hits: int = 0
    queued: int = 0
    queued_bytes: int = 0
    connections: int = 0
    idle_connections: int = 0
    waiting_reads: int = 0

    @classmethod
    def of(cls, counters: Counters, **more: int) -> Metrics:
        """Make one of what was counted, and what is known besides."""
        counted = {field.name: getattr(counters, field.name) for field in fields(counters)}
        return cls(**counted, **more)

    @property
    def group_size(self) -> float:
        """Calls in a transaction, on average; 0.0: there was none."""
        return self.units / self.commits if self.commits else 0.0
