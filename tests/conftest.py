"""What all tests share: how hard Hypothesis tries, a PostgreSQL, and who else opens the files.

`KVSTORE_HYPOTHESIS=thorough` tries twenty times as many examples, other ones in each run, and
makes what fails as short as it can. That takes longer than the tests' timeout allows: give
`-o faulthandler_timeout=0` with it.

`KVSTORE_TEST_DRIVER=sqlite3` runs everything, child processes too, on the stock `sqlite3`, as where
pysqlite3 has no wheel. What needs an extension of SQLite is skipped where that cannot load one.

`KVSTORE_TEST_COMPANY=1` has others at the files of all tests: this process opens a store's file at
random by the sync facade and by the stock `sqlite3`, and another process looks into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres.server import ENVIRONMENT, Database, Server, reason_to_skip
from tests.surroundings import block_pysqlite3, doors, onlooker, skipped_for_want_of_extensions

_IS_STOCK = os.environ.get("KVSTORE_TEST_DRIVER") == "sqlite3"
_HAS_COMPANY = bool(os.environ.get("KVSTORE_TEST_COMPANY"))

if _IS_STOCK:  # before the library is imported
    block_pysqlite3()

for _suite in ("", "_history", "_search", "_sequences"):
    pytest.register_assert_rewrite(f"kvstore.testing{_suite}")

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
    """The address of a schema with the tables of a store, and no items in them."""
    with postgres.tables() as url:
        yield url


@pytest.fixture
def empty_schema(postgres: Database) -> Iterator[str]:
    """The address of a schema in which there is nothing yet: a store makes its tables there."""
    with postgres.schema() as url:
        yield url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    with skipped_for_want_of_extensions() if _IS_STOCK else nullcontext():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with skipped_for_want_of_extensions() if _IS_STOCK else nullcontext():
        yield


@pytest.fixture(scope="session", autouse=True)
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Who else opens the files of the tests, if somebody is to."""
    with ExitStack() as stack:
        if _HAS_COMPANY:
            stack.enter_context(doors())
            stack.enter_context(onlooker(tmp_path_factory.getbasetemp()))
        yield
