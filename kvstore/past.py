"""What may be asked of the past: a moment of a store, and when it is too old."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kvstore.arguments import check_count
from kvstore.errors import HistoryExpiredError, InvalidArgumentError
from kvstore.instants import LATEST, micros_of, to_datetime
from kvstore.types import Recalled

__all__ = ["Kept", "Moment", "RecallPast", "check_moment", "check_root"]

When = int | datetime


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a store: after all changes up to a version, at an instant in microseconds.

    What was over at the instant is not there.
    """

    version: int
    instant: int


RecallPast = Callable[[Moment, Sequence[str], str], Recalled]  # of a namespace and a key


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of the past a store keeps.

    Attributes:
        span: for how long, in microseconds; 0: nothing is kept.
        begin: the version from which on, and at which instant that was.
        version: the store's, and `last`, the instant of the last change.
    """

    span: int
    begin: Moment
    version: int
    last: int

    def require(self, moment: Moment, following: int | None, now: int) -> int:
        """Return until when a moment is kept, or raise if it is not.

        Args:
            moment: which one.
            following: the instant of the first change after it; `None`: there is none.
            now: the present instant.

        Raises:
            HistoryExpiredError: something that was there is not kept any more.
        """
        until = LATEST if following is None else following + self.span
        if not self.span or moment.version < self.begin.version or now >= until:
            raise HistoryExpiredError(self._why())
        return until

    def require_version(self, version: int) -> None:
        """Raise unless a version has been, and is kept."""
        if version > self.version:
            raise InvalidArgumentError(
                f"version {version} is in the future: the store is at version {self.version}"
            )
        if not self.span or version < self.begin.version:
            raise HistoryExpiredError(self._why())

    def require_instant(self, instant: int, now: int) -> None:
        """Raise unless an instant has been, and is kept."""
        if instant > max(now, self.last):
            raise InvalidArgumentError(
                f"{to_datetime(instant)} is in the future, by the store's clock"
            )
        self.require_begun(instant)

    def require_begun(self, instant: int) -> None:
        """Raise unless what is kept begins no later than an instant."""
        if not self.span or instant < self.begin.instant:
            raise HistoryExpiredError(self._why())

    def _why(self) -> str:
        if not self.span:
            return "this store keeps no history: open it with history=, such as history=7 * 86400"
        return (
            f"that moment is older than what is kept: {self.span / 1e6:g} seconds, from version "
            f"{self.begin.version} on; a longer history= keeps more"
        )


def check_root(root: str | None) -> None:
    """Raise `InvalidArgumentError` unless it is a label, or none."""
    if root is not None and (not isinstance(root, str) or not root):
        raise InvalidArgumentError(f"root is the first label of a namespace, not {root!r}")


def check_moment(when: When) -> tuple[int | None, int | None]:
    """Return a version or an instant in microseconds, whichever is asked for.

    Raises:
        InvalidArgumentError: it is neither a version nor an aware datetime.
    """
    if isinstance(when, datetime):
        if when.utcoffset() is None:
            raise InvalidArgumentError(
                "a moment is an aware datetime, such as datetime.now(UTC) - timedelta(hours=1); "
                "this one has no time zone"
            )
        return None, micros_of(when)
    if isinstance(when, bool) or not isinstance(when, int):
        raise InvalidArgumentError(
            f"a moment is a version or an aware datetime, not {type(when).__name__}"
        )
    return check_count(when, "version"), None
