"""Where a store's database is, and how long to wait there: read from a URL and options."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from kvstore.errors import InvalidArgumentError

__all__ = ["STATEMENT_TIMEOUT_S", "Target"]

STATEMENT_TIMEOUT_S: Final = 60.0
_DRIVERS: Final = frozenset({  # settings of a URL that are not the server's
    "database", "dbname", "gsslib", "host", "krbsrvname", "passfile", "password", "port", "service",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey",
    "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "target_session_attrs", "user",
})  # fmt: skip
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a store's database is.

    Attributes:
        url: for the driver.
        name: for messages: without the password.
        is_pooler: whether a pooler stands before it that gives a session's server to others
            between two transactions.
        is_distributed: whether the store's tables are spread over machines, or are to be.
        is_read_only: whether the server is asked to refuse all writes.
        search_path: that the URL asks for; `None`: nothing, or by `options`.
        application: the name under which the server lists the sessions.
        busy_timeout: how long to wait for others, and for a server that is away, in seconds.
        statement_timeout: how long the server may work on one statement, in seconds; `None`: it
            has no end.
        schema: that holds the store's tables; `None`: it is still to be found out.
    """

    url: str = field(repr=False)
    name: str
    is_pooler: bool
    is_distributed: bool = field(default=False, compare=False)
    is_read_only: bool = False
    search_path: str | None = None
    application: str = field(default="kvstore", compare=False)
    busy_timeout: float = field(default=5.0, compare=False)
    statement_timeout: float | None = field(default=STATEMENT_TIMEOUT_S, compare=False)
    schema: str | None = field(default=None, compare=False)

    @property
    def plans_once(self) -> bool:
        """Whether the sessions that write plan each of their statements once.

        A pooler's sessions are others' as well; and where tables are spread over machines, a plan
        says to which of them a statement goes.
        """
        return not (self.is_pooler or self.is_distributed)

    @property
    def server_settings(self) -> list[str]:
        """The names of the settings in the URL that go to the server."""
        return [name for name, _ in parse_qsl(urlsplit(self.url).query) if name not in _DRIVERS]

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        is_pooler: bool = False,
        is_distributed: bool = False,
        busy_timeout: float = 5.0,
        statement_timeout: float | None = STATEMENT_TIMEOUT_S,
    ) -> Target:
        """Read a URL.

        Raises:
            InvalidArgumentError: it is no URL of a PostgreSQL database.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit(":")
        hosts = parts.netloc.rpartition("@")[2].split(",")
        if (
            parts.scheme not in ("postgresql", "postgres")
            or not url.partition(":")[2].startswith("//")
            or not all(map(_HOST.fullmatch, hosts))
            or "@" in parts.path
            or parts.fragment
        ):  # what is left may be parts of a password: it is not shown
            raise InvalidArgumentError(
                "a PostgreSQL URL is written postgresql://user:password@host:5432/database, with "
                "%-escapes for what is special in it, such as %2F for / and %40 for @"
            )
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if any("@" in name for name in query):
            raise InvalidArgumentError("a ? in the password of a PostgreSQL URL is written %3F")
        given = len(query)
        is_pooler = _flag(query, "pooler", is_pooler)
        is_distributed = _flag(query, "distributed", is_distributed)
        # A pooler refuses a session that begins with one: it is set later.
        search_path = query.pop("search_path", None)
        application = query.pop("application_name", None) or os.environ.get("PGAPPNAME")
        if len(query) < given:
            text = "&".join(f"{quote(name)}={quote(value)}" for name, value in query.items())
            url = parts._replace(query=text).geturl()
        host = parts.netloc.rpartition("@")[2] or query.get("host", "")
        if "port" in query:
            host = f"{host}:{query['port']}"
        user = unquote(parts.username or "") or query.get("user", "")
        database = unquote(parts.path[1:]) or query.get("database") or query.get("dbname", "")
        name = f"{user}@{host}" if user else host
        return cls(
            url,
            f"the PostgreSQL database {name}/{database}",
            is_pooler,
            is_distributed,
            search_path=search_path,
            application=application or "kvstore",
            busy_timeout=busy_timeout,
            statement_timeout=statement_timeout,
        )


def _flag(query: dict[str, str], name: str, default: bool) -> bool:
    """Take a part of our own out of a URL's query.

    Raises:
        InvalidArgumentError: it says neither yes nor no.
    """
    said = query.pop(name, None)
    if said is None:
        return default
    if said not in ("true", "false"):
        raise InvalidArgumentError(f"{name} of a PostgreSQL URL is 'true' or 'false'")
    return said == "true"
