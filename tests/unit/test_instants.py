"""Instants are exact, and a lifetime is a sensible one."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from kvstore import InvalidTTLError
from kvstore.instants import EARLIEST, LATEST, lifetime, to_datetime, to_micros
from kvstore.testing import BAD_TTLS


def test_instants_come_back_exactly() -> None:
    for micros in (0, 1, 1_750_000_000_123_457, -1, 253_402_300_799_999_999):
        when = to_datetime(micros)
        assert when.tzinfo is UTC
        assert (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == micros


def test_the_first_and_the_last_instant_are_those_of_datetime() -> None:
    assert to_datetime(EARLIEST) == datetime.min.replace(tzinfo=UTC)
    assert to_datetime(LATEST) == datetime.max.replace(tzinfo=UTC)


def test_seconds_become_micros() -> None:
    assert to_micros(1_750_000_000.5) == 1_750_000_000_500_000
    assert to_micros(0) == 0


@pytest.mark.parametrize(
    ("ttl", "micros"),
    [
        (1, 1_000_000),
        (0.5, 500_000),
        (1e-9, 1),
        (timedelta(minutes=1, microseconds=1), 60_000_001),
        (100 * 365 * 86_400, 100 * 365 * 86_400_000_000),
    ],
)
def test_lifetimes(ttl: float | timedelta, micros: int) -> None:
    assert lifetime(ttl) == micros


@pytest.mark.parametrize(
    "ttl",
    [*BAD_TTLS, None, [], Fraction(1, 2), 101 * 366 * 86_400, -math.inf],
    ids="{!r:.20}".format,
)
def test_what_is_no_lifetime_is_refused(ttl: Any) -> None:
    with pytest.raises(InvalidTTLError):
        lifetime(ttl)
