"""Whether what is kept of logs and queues is true of their items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvstore.jobs import DEAD, DELAYED, no_job
from kvstore.namespace import decode_namespace, show
from kvstore.sequences import SequenceState, key_of, position_of
from kvstore.sqlite import driver
from kvstore.sqlite import sequence_statements as sql
from kvstore.sqlite.sequences import count_state

__all__ = ["find_problems", "measure"]


def find_problems(connection: driver.Connection) -> Iterator[str]:
    """Yield what is wrong with logs and queues, by the items that there are."""
    for path, kind, *numbers in connection.execute(sql.CHECK_SEQUENCES).fetchall():
        where = f"{kind}: {_named(path)}"
        if kind not in ("log", "queue") or not all(_is_count(each) for each in numbers):
            yield f"{where}: its numbers are none"
            continue
        state = SequenceState(path, kind, *numbers)
        counted = count_state(connection.execute, path)
        if counted.size != state.size:
            yield f"{where}: {counted.size:,} are there, and its size is {state.size:,}"
        if counted.last > state.last or state.trimmed > state.last:
            yield f"{where}: it is ahead of the last position that was given, {state.last}"
        if kind == "queue":
            yield from _jobs_problems(connection, state, where)
    for (path,) in connection.execute(sql.JOBS_OF_NO_QUEUE).fetchall():
        yield f"queue: {_named(path)}: it has jobs, and is none"


def _jobs_problems(
    connection: driver.Connection, state: SequenceState, where: str
) -> Iterator[str]:
    numbers = dict(connection.execute(sql.COUNT_STATES, (state.path,)).fetchall())
    for name, kind, kept in (("delayed", DELAYED, state.delayed), ("dead", DEAD, state.dead)):
        if numbers.get(kind, 0) != kept:
            yield f"{where}: {numbers.get(kind, 0):,} jobs are {name}, and {kept:,} are counted"
    for (position,) in connection.execute(sql.JOBS_WITHOUT_ITEM, (state.path,)).fetchall():
        yield f"{where}: the job {position} has no item"
    for (key,) in connection.execute(sql.ITEMS_NO_JOBS, (state.path,)).fetchall():
        yield no_job(state.path, key)
    known = state.path, key_of(state.noted)
    for (key,) in connection.execute(sql.ITEMS_WITHOUT_JOB, known).fetchall():
        yield f"{where}: nothing is known of the job {position_of(key)}, which nobody will take"


def _named(path: Any) -> str:
    try:
        return show(decode_namespace(path))
    except (ValueError, IndexError, TypeError, AttributeError):
        return "a namespace that is none"


def _is_count(number: object) -> bool:
    return type(number) is int and number >= 0


def measure(connection: driver.Connection) -> tuple[int, int, int]:
    """Return how many logs and queues there are, and how many dead jobs."""
    logs, queues, dead = connection.execute(sql.MEASURE_SEQUENCES).fetchone()
    return logs, queues, dead
