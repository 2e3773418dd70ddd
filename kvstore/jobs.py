"""The jobs of queues beside their items: leases, delays, attempts and names, and their rules.

A job is ready, delayed, leased or dead. What becomes so by time alone (a delay that is over, a
lease that ran out) is written by whoever comes next; readers compute it. The rules are here, over
the few things that a backend does with its own table of jobs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from kvstore.errors import ConflictError, InvalidNamespaceError, LeaseLostError
from kvstore.namespace import decode_namespace, show
from kvstore.sequences import SequenceKind, SequenceState
from kvstore.types import Namespace

__all__ = [
    "DEAD",
    "DELAYED",
    "LEASED",
    "RAN_OUT",
    "READY",
    "JobState",
    "Jobs",
    "QueueSize",
    "SequenceRecord",
    "lease_lost",
    "no_job",
    "other_items",
    "require_lease",
    "seen_at",
]

READY, DELAYED, LEASED, DEAD = range(4)
RAN_OUT = "lease ran out"

_SEEN_PART = 4  # of a lease or a delay may go by unseen when a clock is set back


@dataclass(frozen=True, slots=True)
class QueueSize:
    """How many jobs of a queue there are.

    Attributes:
        ready: that `take` would give.
        delayed: put off, by a delay or after an attempt that failed.
        leased: at work.
        dead: given up; see `Queue.dead`.
    """

    ready: int
    delayed: int
    leased: int
    dead: int


class JobState(NamedTuple):
    """What is kept of a job beside its item; instants and spans in microseconds.

    Attributes:
        state: `READY`, `DELAYED`, `LEASED` or `DEAD`.
        due: of a delayed one, when it will be ready; of a leased one, when the lease ends.
        span: how long that was from when it was set: no clock that was set back makes it longer.
        attempt: how often it was taken.
        token: of the last take; 0: there was none.
        is_last: whether no other attempt follows the present one.
        name: that no other job has which waits or runs.
        error: of the last attempt that failed.
    """

    path: str
    position: int
    state: int = READY
    due: int = 0
    span: int = 0
    attempt: int = 0
    token: int = 0
    is_last: bool = False
    name: str | None = None
    error: str | None = None

    @property
    def is_just_ready(self) -> bool:
        """Whether there is nothing to be known of it, but that it is there."""
        return (self.state, self.attempt, self.name, self.error) == (READY, 0, None, None)


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """A log or a queue beside its items, as exports and copies carry it.

    Attributes:
        kind: which of the two.
        last: the position that was given last.
        trimmed: the last position that a trim has taken away.
        jobs: those that are not just ready; who holds them is not carried along.
    """

    path: str
    kind: SequenceKind
    last: int
    trimmed: int = 0
    jobs: tuple[JobState, ...] = ()

    def onto(self, state: SequenceState, *, is_taken: bool) -> None:
        """Make what is there go on above both.

        Args:
            state: of what is there.
            is_taken: whether the namespace holds items and is neither a log nor a queue.

        Raises:
            ConflictError: it is of the other kind, or holds items that are no jobs.
        """
        if state.kind not in (None, self.kind):
            where = show(decode_namespace(self.path))
            raise ConflictError(f"{where} is a {state.kind} here; nothing was imported")
        if is_taken and self.kind == "queue":
            where = show(decode_namespace(self.path))
            raise ConflictError(
                f"{where} is a queue there, and holds items here that are no jobs; nothing was "
                "imported"
            )
        state.kind = self.kind
        state.last = max(state.last, self.last)
        state.trimmed = max(state.trimmed, self.trimmed)


def lease_lost(namespace: Namespace, key: str) -> LeaseLostError:
    """Return the error for a job that is not the caller's any more."""
    return LeaseLostError(
        f"the job {show(namespace, key)} is not yours any more: its lease ran out, or it was done, "
        "retried, revived or deleted; leave it, another attempt goes its own way"
    )


def other_items(namespace: Namespace) -> InvalidNamespaceError:
    """Return the error for a namespace that cannot become a queue."""
    return InvalidNamespaceError(
        f"{show(namespace)} holds items that are no jobs; name another namespace for the queue"
    )


def no_job(path: str, key: str) -> str:
    """Return how `check` names an item in a queue that is no job."""
    return f"queue: {show(decode_namespace(path), key)} is no job, and nobody will take it"


def require_lease(
    job: JobState | None, token: int, now: int, namespace: Namespace, key: str
) -> JobState:
    """Return a job, or raise `LeaseLostError` unless it is held by a token."""
    if job is None or job.state != LEASED or job.token != token or job.due <= now:
        raise lease_lost(namespace, key)
    return job


def seen_at(seen: int, now: int, span: int) -> int:
    """Return the instant by which a clock is told that was set back, as a lease or a delay begins.

    It stays behind, by a part of the span at most: calls of several processes, which come in
    another order than that of their instants, are not taken for such a clock.

    Args:
        seen: what it was.
        now: the present instant.
        span: of the lease or the delay.
    """
    return now - span // (2 * _SEEN_PART) if now - seen > span // _SEEN_PART else seen


class Jobs(ABC):
    """The jobs of a store within one write, at one instant; a backend has the table.

    Args:
        now: the instant, in microseconds.
    """

    def __init__(self, now: int) -> None:
        self._now = now

    # What a backend does

    @abstractmethod
    def look(self, path: str) -> SequenceState:
        """Return what is kept of a queue, to be read."""

    @abstractmethod
    def state(self, path: str) -> SequenceState:
        """Return what is kept of a queue, to be changed."""

    @abstractmethod
    def get(self, path: str, position: int) -> JobState | None:
        """Return a job."""

    @abstractmethod
    def named(self, path: str, name: str) -> JobState | None:
        """Return the job of a name that is not dead."""

    @abstractmethod
    def first_ready(self, path: str) -> JobState | None:
        """Return the ready job with the least position."""

    @abstractmethod
    def wake(self, path: str) -> int:
        """Make ready what is delayed and due by now; return how many."""

    @abstractmethod
    def over(self, path: str) -> list[JobState]:
        """Return the leased jobs whose leases are over."""

    @abstractmethod
    def far(self, path: str) -> list[JobState]:
        """Return the delayed and leased jobs that are due later than their span from now."""

    @abstractmethod
    def leased(self, path: str) -> list[JobState]:
        """Return the leased jobs."""

    @abstractmethod
    def held(self, path: str, token: int) -> JobState | None:
        """Return the leased job of a token."""

    @abstractmethod
    def write(self, job: JobState) -> None:
        """Write a job, over what there is of it."""

    @abstractmethod
    def erase(self, path: str, position: int) -> None:
        """Delete a job."""

    # The rules

    def put(self, job: JobState) -> None:
        """Add a job."""
        self._count(job, 1)
        self.write(job)

    def restore(self, job: JobState) -> None:
        """Add a job that was elsewhere; nobody holds it here."""
        if job.state == LEASED:
            job = job._replace(state=READY, due=0)
        if job.name is not None and self.named(job.path, job.name) is not None:
            job = job._replace(name=None)
        self.put(job._replace(token=0, is_last=False))

    def drop(self, path: str, position: int) -> None:
        """Delete a job whose item goes."""
        job = self.get(path, position)
        if job is not None:
            self._count(job, -1)
            self.erase(path, position)

    def settle(self, path: str) -> None:
        """Write what has become of jobs by time alone."""
        now = self._now
        if now < self.look(path).seen:
            for job in self.far(path):
                self.write(job._replace(due=now + job.span))
            self.state(path).seen = now
        if woken := self.wake(path):
            self.state(path).delayed -= woken
        for job in self.over(path):
            state = DEAD if job.is_last else READY
            self._become(job, job._replace(state=state, due=0, error=RAN_OUT))

    def take(self, path: str, token: int, lease: int, attempts: int) -> JobState | None:
        """Lease the first job that is ready."""
        self.settle(path)
        job = self.first_ready(path)
        if job is None:
            return None
        attempt = job.attempt + 1
        taken = job._replace(
            state=LEASED,
            due=self._now + lease,
            span=lease,
            attempt=attempt,
            token=token,
            is_last=attempt >= attempts,
        )
        self._become(job, taken)
        self._see(path, lease)
        return taken

    def retry(self, job: JobState, delay: int, error: str | None) -> None:
        """Have a leased job tried again, or give it up after its last attempt."""
        if delay and not job.is_last:
            due = self._now + delay
            self._become(job, job._replace(state=DELAYED, due=due, span=delay, error=error))
            self._see(job.path, delay)
        else:
            state = DEAD if job.is_last else READY
            self._become(job, job._replace(state=state, due=0, error=error))

    def give_back(self, path: str, token: int) -> None:
        """Make the job of a token ready, as if it had not been taken."""
        job = self.held(path, token)
        if job is not None:
            self._give_back(job)

    def release(self, path: str) -> None:
        """Do so with all jobs of a queue that are leased."""
        for job in self.leased(path):
            self._give_back(job)

    def _give_back(self, job: JobState) -> None:
        attempt = job.attempt - 1
        self._become(job, job._replace(state=READY, due=0, attempt=attempt, token=0))

    def extend(self, job: JobState, lease: int) -> None:
        """Let a lease last so long from now."""
        self.write(job._replace(due=self._now + lease, span=lease))
        self._see(job.path, lease)

    def revive(self, path: str, positions: list[int]) -> int:
        """Make dead jobs ready, with new attempts; return how many."""
        self.settle(path)
        number = 0
        for position in positions:
            job = self.get(path, position)
            if job is None or job.state != DEAD:
                continue
            if job.name is not None and self.named(path, job.name) is not None:
                continue
            self._become(job, job._replace(state=READY, attempt=0, token=0, error=None))
            number += 1
        return number

    def _see(self, path: str, span: int) -> None:
        state = self.state(path)
        state.seen = seen_at(state.seen, self._now, span)

    def _become(self, job: JobState, new: JobState) -> None:
        self._count(job, -1)
        self._count(new, 1)
        self.write(new)

    def _count(self, job: JobState, number: int) -> None:
        state = self.state(job.path)
        if job.state == DELAYED:
            state.delayed += number
        elif job.state == LEASED:
            state.leased += number
        elif job.state == DEAD:
            state.dead += number
