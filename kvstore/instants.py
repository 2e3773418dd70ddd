"""Time: microseconds since the epoch inside, aware UTC datetimes and seconds outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from kvstore.errors import InvalidArgumentError, InvalidTTLError

__all__ = [
    "EARLIEST",
    "EPOCH",
    "FOREVER",
    "LATEST",
    "Forever",
    "duration",
    "lifetime",
    "micros_of",
    "to_datetime",
    "to_micros",
]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = -719_162 * 86_400_000_000  # the first instant that a datetime can tell ...
LATEST = 2_932_897 * 86_400_000_000 - 1  # ... and the last
_MICROS = 1_000_000
_EXACT_AS_FLOAT = 2**52  # the year 2112: below, seconds as a float tell microseconds apart
_MAX_TTL_S = 100 * 366 * 86_400  # a century; keeps every expiry within datetime's years


def to_micros(seconds: float) -> int:
    """Convert seconds since the epoch, as a clock gives them, to whole microseconds.

    Raises:
        InvalidArgumentError: no datetime can tell that instant. A clock in milliseconds is told
            so; by its time every lifetime would be over.
    """
    try:
        micros = int(seconds * _MICROS)
    except (TypeError, ValueError, OverflowError):  # no number; NaN; infinity
        micros = LATEST + 1
    if EARLIEST <= micros <= LATEST:
        return micros
    raise InvalidArgumentError(
        f"the clock gives seconds since the epoch, as time.time() does, not {seconds!r:.40}"
    )


def micros_of(instant: datetime) -> int:
    """Convert an aware datetime to microseconds since the epoch, exactly.

    It may be of any year, also of one that UTC has not.
    """
    offset = instant.utcoffset()
    if offset is None:
        raise TypeError("the datetime has no time zone")
    return (instant.replace(tzinfo=UTC) - EPOCH - offset) // timedelta(microseconds=1)


def to_datetime(micros: int) -> datetime:
    """Convert microseconds since the epoch to an aware UTC datetime, exactly.

    What a damaged or foreign file may hold beyond the years 1 to 9999 becomes the nearest instant.
    """
    if 0 <= micros < _EXACT_AS_FLOAT:
        return datetime.fromtimestamp(micros / _MICROS, UTC)  # twice as fast
    return EPOCH + timedelta(microseconds=max(EARLIEST, min(micros, LATEST)))


class Forever(Enum):
    """The lifetime of what does not expire, whatever a store's default."""

    FOREVER = "forever"

    def __repr__(self) -> str:
        return "kvstore.FOREVER"


FOREVER: Final = Forever.FOREVER


def lifetime(ttl: float | timedelta | Forever) -> int | None:
    """Convert a time to live to microseconds; `FOREVER` is `None`. The errors are `duration`'s."""
    return None if isinstance(ttl, Forever) else duration(ttl)


def duration(ttl: float | timedelta) -> int:
    """Convert a finite time to live to microseconds.

    Raises:
        InvalidTTLError: not a number of seconds or a `timedelta`, not positive, not finite, or
            more than a century.
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidTTLError(
            f"a ttl is a number of seconds or a timedelta, not {type(ttl).__name__}"
        )
    # compared before anything is computed: a huge int is no float, and NaN compares false
    if not 0 < seconds <= _MAX_TTL_S:
        raise InvalidTTLError(
            f"a ttl is more than 0 seconds and at most a century, not {seconds}; "
            "leave it out for the store's default; kvstore.FOREVER is without end"
        )
    return max(1, round(seconds * _MICROS))
