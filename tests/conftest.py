"""What all tests share: how hard Hypothesis tries.

`KVSTORE_HYPOTHESIS=thorough` tries twenty times as many examples, other ones in each run, and
makes what fails as short as it can. That takes longer than the tests' timeout allows: give
`-o faulthandler_timeout=0` with it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

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
