"""A cluster of Citus for tests: a coordinator and two workers, on this machine.

`KVSTORE_TEST_CITUS` is the folder of programs of a PostgreSQL that has the extensions citus and
vector, or the address of a coordinator on which tests may make and drop schemas.
`KVSTORE_TEST_CITUS_WORKERS` is how many workers it has; with 0, all is on the coordinator.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .server import Database, Server

__all__ = ["ENVIRONMENT", "Cluster", "cluster"]

ENVIRONMENT = "KVSTORE_TEST_CITUS"
WORKERS = int(os.environ.get(f"{ENVIRONMENT}_WORKERS", "2"))
SHARDS = 4  # of each table; a test makes many tables
SETTINGS = {
    "shared_preload_libraries": "citus",
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "max_prepared_transactions": "100",
    "shared_buffers": "128MB",
    "citus.shard_count": str(SHARDS),
    "citus.enable_statistics_collection": "off",
}


@dataclass
class Cluster:
    """Some servers that are one database.

    Attributes:
        url: of the coordinator.
        coordinator: `None`: it is not of these tests, and so it is not theirs to stop.
        workers: likewise; none then.
    """

    url: str
    coordinator: Server | None = None
    workers: list[Server] = field(default_factory=list)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start one, or give the one that there is."""
    where = os.environ[ENVIRONMENT]
    if where.startswith("postgres"):
        yield Cluster(where)
        return
    with ExitStack() as stack:
        ports = [_free_port() for _ in range(1 + WORKERS)]
        servers = [
            stack.enter_context(Server({**SETTINGS, "port": str(port)}, programs=Path(where)))
            for port in ports
        ]
        urls = [f"{server.url}&port={port}" for server, port in zip(servers, ports, strict=True)]
        for url in reversed(urls):
            with closing(Database(url, extension=False)) as node:
                node.execute("CREATE EXTENSION citus")
                if url == urls[0]:
                    if WORKERS:
                        node.execute(f"SELECT citus_set_coordinator_host('127.0.0.1', {ports[0]})")
                    for port in ports[1:]:
                        node.execute(f"SELECT citus_add_node('127.0.0.1', {port})")
                    node.execute("CREATE EXTENSION vector SCHEMA public")
        yield Cluster(urls[0], servers[0], servers[1:])
