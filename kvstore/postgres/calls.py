"""The one statement that writes what a transaction has come to under a root.

It is a call of `kvstore_write`; before it goes `kvstore_keep_past`, where the past is kept, and
after it `kvstore_write_sequences`, where logs or queues have changed. Each says whether the next
may be done: the first that locks the root finds out whether somebody has written meanwhile.
"""

from __future__ import annotations

from functools import cache

from kvstore.postgres.past_statements import KEPT_COLUMNS
from kvstore.postgres.sequence_statements import CHANGED_COLUMNS
from kvstore.postgres.statements import CALL_WRITE, PRESENT, WRITE, WRITTEN_COLUMNS

__all__ = ["one_call"]

_SHARED = 3  # of the arguments of kvstore_keep_past with those of kvstore_write


@cache
def one_call(*, keeps_past: bool, has_sequences: bool) -> str:
    """Return the statement: its arguments are those of `kvstore_write`, then those of the others.

    Args:
        keeps_past: with those of `kvstore_keep_past`, but for the root, its turn and the instant.
        has_sequences: with those of `kvstore_write_sequences`, but for the root.
    """
    if not (keeps_past or has_sequences):
        return WRITE
    begin = WRITTEN_COLUMNS + 1
    past = KEPT_COLUMNS - _SHARED if keeps_past else 0
    call = CALL_WRITE
    if keeps_past:
        columns = _places(begin, past)
        call = (
            f"CASE WHEN kvstore_keep_past($1, $2, ${PRESENT}, {columns}) THEN {call} ELSE FALSE END"
        )
    if has_sequences:
        columns = _places(begin + past, CHANGED_COLUMNS)
        call = f"CASE WHEN {call} THEN kvstore_write_sequences($1, {columns}) ELSE FALSE END"
    return f"SELECT {call}"


def _places(begin: int, number: int) -> str:
    return ", ".join(f"${place}" for place in range(begin, begin + number))
