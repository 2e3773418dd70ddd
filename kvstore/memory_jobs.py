"""The jobs of an `InMemoryBackend`."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

from kvstore.jobs import DEAD, DELAYED, LEASED, READY, Jobs, JobState
from kvstore.sequences import SequenceState

__all__ = ["MemoryJobs", "MemoryQueue"]


@dataclass(slots=True)
class MemoryQueue:
    """The jobs of one queue, and in what order they are due; what has changed is passed over."""

    jobs: dict[int, JobState] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)  # of those that are not dead
    ready: list[int] = field(default_factory=list)  # a heap of positions
    delayed: list[tuple[int, int]] = field(default_factory=list)  # a heap of instants and positions
    leased: dict[int, None] = field(default_factory=dict)
    ends: list[tuple[int, int]] = field(default_factory=list)  # of leases, as `delayed`


class MemoryJobs(Jobs):
    """The jobs of all queues, at one instant."""

    def __init__(
        self, now: int, states: dict[str, SequenceState], queues: dict[str, MemoryQueue]
    ) -> None:
        super().__init__(now)
        self._states = states
        self._queues = queues

    def look(self, path: str) -> SequenceState:
        return self._states[path]

    def state(self, path: str) -> SequenceState:
        return self._states[path]

    def _queue(self, path: str) -> MemoryQueue:
        queue = self._queues.get(path)
        if queue is None:
            queue = self._queues[path] = MemoryQueue()
        return queue

    def get(self, path: str, position: int) -> JobState | None:
        return self._queue(path).jobs.get(position)

    def named(self, path: str, name: str) -> JobState | None:
        queue = self._queue(path)
        return queue.jobs[queue.names[name]] if name in queue.names else None

    def first_ready(self, path: str) -> JobState | None:
        queue = self._queue(path)
        while queue.ready:
            job = queue.jobs.get(queue.ready[0])
            if job is not None and job.state == READY:
                return job
            heappop(queue.ready)
        return None

    def wake(self, path: str) -> int:
        queue, number = self._queue(path), 0
        while queue.delayed and queue.delayed[0][0] <= self._now:
            due, position = heappop(queue.delayed)
            job = queue.jobs.get(position)
            if job is not None and _is_due(job, DELAYED, due):
                number += 1
                self.write(job._replace(state=READY, due=0, span=0, is_last=False))
        return number

    def over(self, path: str) -> list[JobState]:
        queue = self._queue(path)
        ends, jobs = queue.ends, queue.jobs
        while ends and not _is_due(jobs.get(ends[0][1]), LEASED, ends[0][0]):
            heappop(ends)
        if not ends or ends[0][0] > self._now:
            return []
        return [job for job in self.leased(path) if job.due <= self._now]

    def far(self, path: str) -> list[JobState]:
        jobs = self._queue(path).jobs.values()
        waiting = (job for job in jobs if job.state in (DELAYED, LEASED))
        return [job for job in waiting if job.due > self._now + job.span]

    def leased(self, path: str) -> list[JobState]:
        queue = self._queue(path)
        return [queue.jobs[position] for position in queue.leased]

    def held(self, path: str, token: int) -> JobState | None:
        return next((job for job in self.leased(path) if job.token == token), None)

    def dead(self, path: str) -> list[JobState]:
        """Return the dead jobs."""
        return [job for job in self._queue(path).jobs.values() if job.state == DEAD]

    def count_due(self, path: str) -> int:
        """Count the delayed jobs that are due."""
        queue = self._queue(path)
        if not queue.delayed or queue.delayed[0][0] > self._now:
            return 0
        jobs = queue.jobs.values()
        return sum(job.state == DELAYED and job.due <= self._now for job in jobs)

    def write(self, job: JobState) -> None:
        queue, position = self._queue(job.path), job.position
        self._forget(queue, position)
        queue.jobs[position] = job
        if job.name is not None and job.state != DEAD:
            queue.names[job.name] = position
        if job.state == READY:
            heappush(queue.ready, position)
        elif job.state == DELAYED:
            heappush(queue.delayed, (job.due, position))
        elif job.state == LEASED:
            queue.leased[position] = None
            heappush(queue.ends, (job.due, position))

    def erase(self, path: str, position: int) -> None:
        queue = self._queue(path)
        self._forget(queue, position)
        del queue.jobs[position]

    def _forget(self, queue: MemoryQueue, position: int) -> None:
        queue.leased.pop(position, None)
        job = queue.jobs.get(position)
        if job is not None and job.name is not None and queue.names.get(job.name) == position:
            del queue.names[job.name]


def _is_due(job: JobState | None, state: int, due: int) -> bool:
    return job is not None and job.state == state and job.due == due
