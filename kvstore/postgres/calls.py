"""The one statement that writes what a transaction has come to under a root.

It is a call of `kvstore_write`. Where the past is kept, or logs or queues have changed, it is one
of `kvstore_apply`, which does that as well: each part says whether the next may be done, and the
first that locks the root finds out whether somebody has written meanwhile.

The statement is nothing but a call, so that where roots are spread over machines it goes to the
root's own, and is a transaction of that machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count

from kvstore.postgres.statements import WRITE, WRITTEN_COLUMNS

__all__ = ["one_call"]

_APPLY = "SELECT * FROM kvstore_apply({})"
_KEPT = 13  # columns of what is kept of the past
_SEQUENCES = 22  # of what has changed of logs and queues


@cache
def one_call(*, keeps_past: bool, has_sequences: bool, patience: int | None) -> str:
    """Return the statement: its arguments are those of `kvstore_write`, then those of the others.

    Args:
        keeps_past: with those of `kvstore_keep_past`, but for the root, its turn and the instant.
        has_sequences: with those of `kvstore_write_sequences`, but for the root.
        patience: how long to wait for others, in milliseconds, where the session does not know.
    """
    if patience is None and not (keeps_past or has_sequences):
        return WRITE
    numbers = count(2)
    columns = [
        "$1",
        "NULL" if patience is None else str(patience),
        *_places(numbers, WRITTEN_COLUMNS - 1),
        *_places(numbers if keeps_past else None, _KEPT),
        *_places(numbers if has_sequences else None, _SEQUENCES),
    ]
    return _APPLY.format(", ".join(columns))


def _places(numbers: Iterator[int] | None, size: int) -> list[str]:
    """Return the places of so many arguments, or of so many that are not given."""
    return ["NULL" if numbers is None else f"${next(numbers)}" for _ in range(size)]
