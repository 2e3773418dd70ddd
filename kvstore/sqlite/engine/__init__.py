"""Turns synchronous SQLite into asyncio at next to no cost: who runs what on which thread, when.

A hop to a thread and back costs ten times what SQLite itself takes for a small read or write, so
work is either shared out over a hop or does not hop at all:

- `Writer` commits whatever is waiting in one transaction (group commit), and each caller gets its
  own result or its own error. A few small writes commit on the loop's own thread, which under
  `synchronous=NORMAL` touches no disk; many, long or contended ones go to the worker thread. A
  plain put by itself, the most frequent of all, has a way of its own (`Writer.put_now`), and so
  have a change of one item (`Writer.change_now`) and a few new items (`Series.add_alone`).
  Checkpoints, which do touch the disk, always go there.
- `Reader` runs reads on a thread with its own read-only connection; reads of one tick share a hop.
- `InlineReader` runs point reads of small, warm rows on the loop's own thread; those of many
  tasks share statements, a few in each turn of the loop. It also scans small namespaces.
- `Pace` decides which work runs on the loop's thread, and lists the cases (`Pace.allows`): little
  work, in turns that have time left, and none for a while after a slow one.

Each is in a file of its own; what counts as little is in `light`, with the numbers in `limits`.
"""

from kvstore.sqlite.engine.inline import InlineReader, NoInlineReader
from kvstore.sqlite.engine.light import Weigh, light_listing, light_look, light_page
from kvstore.sqlite.engine.limits import INLINE_BYTES
from kvstore.sqlite.engine.pace import Pace
from kvstore.sqlite.engine.reader import Reader
from kvstore.sqlite.engine.writer import Writer, without_checkpoints

__all__ = [
    "INLINE_BYTES",
    "InlineReader",
    "NoInlineReader",
    "Pace",
    "Reader",
    "Weigh",
    "Writer",
    "light_listing",
    "light_look",
    "light_page",
    "without_checkpoints",
]
