"""What work may take: on the event loop's own thread, in one turn of it, in one transaction."""

from __future__ import annotations

from typing import Final

INLINE_BYTES: Final = 64 * 1024  # the longest value read or overwritten on the loop's thread
INLINE_COMPARISONS: Final = 16  # of a filter that runs on the loop's thread, for each item
INLINE_PUTS: Final = 128  # what one inline transaction may hold, of plain puts; else `INLINE_OPS`
GROUP_READS: Final = 20  # point reads that share a statement ...
GROUP_BYTES: Final = INLINE_BYTES // 8  # ... and the longest value that is read with others
CACHED_AT_ONCE: Final = 16  # answers from the cache that are counted together
CACHED_READS: Final = 200  # that are answered from the cache at once, ...
CACHED_S: Final = 0.000002  # ... and what each counts for of a turn
LONG_PATH: Final = 2_000  # characters of a namespace and keys that are read through in a thread

TURN_S: Final = 0.0005  # what inline work may take of one turn of the loop ...
SHARE_S: Final = 0.00005  # ... and after how much of it those who wait for a turn wait for the next
TURN_TASKS: Final = 32  # of those that wait for another turn, how many go on in it
SLOW_S: Final = 0.001  # an inline call that took this long, and so much more for each ...
SLOW_OP_S: Final = 0.00002  # ... of its operations, met a cold disk,
REST_S: Final = (
    0.001,
    0.05,
)  # the next ones go to a thread, each time twice as long

BATCH_OPS: Final = 2_000  # what one group commit may hold, so that it never holds the lock long
BATCH_BYTES: Final = 16 * 2**20
CHECKPOINT_PAGES: Final = 2_000  # 8 MiB of WAL, and ...
SYNC_CHECKPOINT_PAGES: Final = 1_000  # ... of a store without a loop, as SQLite itself has it
PAGE_BYTES: Final = 4096
POLITE_S: Final = 1.0  # how long after a wait for the lock others are believed to want it
POLITE_PAUSE_S: Final = 0.001  # what they then get between two of our transactions
READ_DELIVERY_S: Final = 0.001  # results of a running hop are delivered at least this often
