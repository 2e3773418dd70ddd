"""A cluster for the tests that want one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from .cluster import cluster
from .server import Database


@pytest.fixture(scope="session")
def citus() -> Iterator[Database]:
    """The database of a cluster, which `KVSTORE_TEST_CITUS` names."""
    with cluster() as servers, closing(Database(servers.url, extension=False)) as database:
        yield database
