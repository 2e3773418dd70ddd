"""Finds the connections over which no answer will come any more, and breaks them.

A network that is silently gone, a firewall that has forgotten a connection, or a server that has
stopped leave a statement waiting for ever: its caller cannot tell that from a statement that takes
long. So what has waited for some seconds is looked up, over a new connection, in the server's own
list of sessions. If the server cannot be asked, or says that the session is gone or has long been
idle, the connection is broken here: unless something got on meanwhile, were it a part of a large
value over a slow network, or this process itself is what takes long, and waits for no answer.
Whoever waits gets a lost connection's error then, and does with it what is right: a read is tried
again, a write finds out what has become of it.

Costs nothing on the way of a statement but to note when it began.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from kvstore.errors import StoreBusyError, StoreError
from kvstore.postgres.connection import Connection, DriverError, Target, connect
from kvstore.report import Counters

__all__ = ["Watched", "Watchman"]

_LOG = logging.getLogger("kvstore")

PATIENCE_S = 2.0  # that something has been on its way, before somebody looks
_ASK_S = (1.0, 5.0)  # for the look, least and most
_LATE_S = 0.25  # after that time is up: this process was stopped, and says nothing of the server
_GRACE_S = 5.0  # for the server to end what has taken too long

# What a session is doing, and who keeps it from that. Another server, to which the address leads by
# now, may have a session of the same number.
_LOOK = """
SELECT sessions.pid,
    CASE
        WHEN sessions.state = 'active' THEN
            $3::float8 > 0 AND sessions.query_start < now() - make_interval(secs => $3::float8)
        ELSE sessions.state_change < now() - make_interval(secs => $4::float8)
    END AS is_lost,
    sessions.wait_event_type = 'Lock' AS is_waiting,
    (
        SELECT string_agg(
            format('%s (%s, %s since %s s)', blocking.pid, blocking.application_name,
                blocking.state, round(extract(epoch FROM now() - blocking.state_change))), ', '
        )
        FROM pg_stat_activity AS blocking
        WHERE blocking.pid = ANY (pg_blocking_pids(sessions.pid))
    ) AS blockers
FROM unnest($1::int[], $2::timestamptz[]) AS asked (pid, started)
JOIN pg_stat_activity AS sessions
    ON sessions.pid = asked.pid AND sessions.backend_start = asked.started
"""


@dataclass(slots=True, eq=False)
class Watched:
    """A connection, and since when something has been on its way over it.

    Attributes:
        raw: `None`: there is none yet.
        since: by the loop's clock; 0: nothing is.
    """

    raw: Connection | None = None
    since: float = 0.0


_State = tuple[float, Connection, tuple[int, ...]]


class Watchman:
    """Looks after the connections of a store.

    Args:
        target: where they lead to.
        counters: of locks that were waited for.
    """

    def __init__(self, target: Target, counters: Counters) -> None:
        self._target = target
        self._counters = counters
        self._patience = max(0.25, min(PATIENCE_S, target.busy_timeout / 2))
        self._loop = asyncio.get_running_loop()
        self._busy: dict[Watched, None] = {}
        self._seen: dict[Watched, _State | None] = {}  # at the last tick
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def begin(self, link: Watched) -> None:
        """Take note that something is on its way."""
        link.since = self._loop.time()
        self._busy[link] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience / 2, self._tick)

    def end(self, link: Watched) -> None:
        """Take note that its answer has come."""
        self._busy.pop(link, None)

    def _tick(self) -> None:
        self._timer = None
        if not self._busy:
            self._seen.clear()
            return
        self._timer = self._loop.call_later(self._patience / 2, self._tick)
        before, self._seen = self._seen, {link: _state(link) for link in self._busy}
        late = self._loop.time() - self._patience
        waiting = {
            link: state
            for link, state in self._seen.items()
            if link.since <= late and state is not None and before.get(link) == state
        }
        if waiting and self._looking is None:
            self._looking = self._loop.create_task(self._look(waiting))

    async def _look(self, waiting: dict[Watched, _State]) -> None:
        """Break those connections that are lost, if nothing got on over them meanwhile."""
        try:
            for link in await self._find_lost(list(waiting)):
                if link in self._busy and link.raw is not None and _state(link) == waiting[link]:
                    _LOG.warning("a connection to %s does not answer: broken", self._target.name)
                    link.raw.terminate()
        finally:
            self._looking = None

    async def _find_lost(self, links: list[Watched]) -> list[Watched]:
        timeout = max(_ASK_S[0], min(_ASK_S[1], self._target.busy_timeout))
        deadline = self._loop.time() + timeout
        connection: Any = None
        try:
            async with asyncio.timeout_at(deadline):
                connection = await connect(self._target, patience=timeout)
                if self._target.is_pooler:  # it stands between, and has answered
                    return []
                rows = await self._ask(connection, links)
        except StoreBusyError:  # it takes no more connections, and so it is there
            return []
        except (StoreError, TimeoutError, *DriverError) as exc:
            if self._loop.time() > deadline + _LATE_S:
                return []
            _LOG.warning("%s cannot be asked what it is doing: %s", self._target.name, exc)
            return links
        finally:
            if connection is not None:
                connection.terminate()
        lost = []
        for link in links:
            if link.raw is None or link.raw.pid is None:
                continue
            row = rows.get(link.raw.pid)
            if row is None or row["is_lost"]:
                lost.append(link)
            elif row["is_waiting"]:
                self._counters.lock_waits += 1
                _LOG.warning("waits for a lock; kept by session %s", row["blockers"] or "unknown")
            else:
                _LOG.info("a statement has been at work for over %.1f s", self._patience)
        return lost

    async def _ask(self, connection: Connection, links: list[Watched]) -> dict[int, Any]:
        limit = self._target.statement_timeout
        known = [link.raw for link in links if link.raw is not None and link.raw.pid is not None]
        rows = await connection.fetch(
            _LOOK,
            [session.pid for session in known],
            [session.started for session in known],
            0.0 if limit is None else limit + _GRACE_S,
            self._patience / 2,
        )
        return {row["pid"]: row for row in rows}

    async def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)


def _state(link: Watched) -> _State | None:
    """Return what is another as soon as something gets on; `None`: nothing is waited for."""
    raw = link.raw
    if raw is None or raw.is_closed() or raw.rests:
        return None
    return link.since, raw, raw.progress
