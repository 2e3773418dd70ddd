"""What all tests share: how hard Hypothesis tries, and a PostgreSQL.

`KVSTORE_HYPOTHESIS=thorough` tries twenty times as many examples, other ones in each run, and
makes what fails as short as it can. That takes longer than the tests' timeout allows: give
`-o faulthandler_timeout=0` with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres.server import ENVIRONMENT, Database, Server, reason_to_skip

pytest.register_assert_rewrite("kvstore.testing")

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile(
    "ci",
    max_examples=100,
    stateful_step_count=40,
    derandomize=True,  # a red run is red again
    database=None,
    deadline=None,
    suppress_health_check=_SLOW_IS_FINE,
    print_blob=True,
)
settings.register_profile(
    "thorough",
    max_examples=2_000,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=_SLOW_IS_FINE,
    print_blob=True,
)
settings.load_profile(os.environ.get("KVSTORE_HYPOTHESIS", "ci"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Database]:
    """A PostgreSQL for all tests, which makes each a schema of its own."""
    reason = reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as stack:
        address = os.environ.get(ENVIRONMENT) or stack.enter_context(Server()).url
        with closing(Database(address)) as database:
            yield database


@pytest.fixture
def postgres_url(postgres: Database) -> Iterator[str]:
    """The address of an empty schema."""
    with postgres.schema() as url:
        yield url
