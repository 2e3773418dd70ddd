"""What a saver remembers of checkpoints, so that little of what is stored is read again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from kvstore.integrations.langgraph_drafts import Known, Place
from kvstore.integrations.langgraph_parts import Typed
from kvstore.lifecycle import remember

__all__ = ["Memory"]

_REMEMBERED: Final = 256  # checkpoints whose pieces are known without reading
_REMEMBERED_BYTES: Final = 16 * 2**20  # of what these are told apart by
_DUMPED: Final = 64  # messages of writes, which the next checkpoint is likely to hold ...
_DUMPED_BYTES: Final = 64 * 2**10  # ... and how long one may be


class Memory:
    """The checkpoints that were written or read last, so that little of them is read again.

    Attributes:
        dumped: what the serializer made of messages in writes lately, by their states.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Place, str], tuple[Known, int]] = OrderedDict()
        self._bytes = 0
        self._sure: OrderedDict[bytes, None] = OrderedDict()
        self._sure_bytes = 0
        self.dumped: OrderedDict[bytes, Typed] = OrderedDict()
        remember(self)

    def cross_fork(self) -> None:
        """Let no lock be held, in a forked child, by a thread of the parent."""
        self._lock = threading.Lock()

    def get(self, place: Place, id: str) -> Known | None:
        """Return one, if it is remembered."""
        with self._lock:
            found = self._known.get((place, id))
        return None if found is None else found[0]

    def put(self, place: Place, known: Known, *, instead_of: str | None = None) -> None:
        """Remember one, in place of another."""
        size = sum(sum(map(len, states)) for states in known.states.values())
        size += sum(len(data) for _, data in known.written.values())
        with self._lock:
            for id in (instead_of, known.saved.id):
                if (there := self._known.pop((place, id or ""), None)) is not None:
                    self._bytes -= there[1]
            self._known[place, known.saved.id] = known, size
            self._bytes += size
            while len(self._known) > _REMEMBERED or self._bytes > _REMEMBERED_BYTES:
                _, (_, gone) = self._known.popitem(last=False)
                self._bytes -= gone

    def add_dumped(self, state: bytes, typed: Typed) -> None:
        """Remember what the serializer made of a message."""
        if len(typed[1]) <= _DUMPED_BYTES:
            with self._lock:
                self.dumped[state] = typed
                if len(self.dumped) > _DUMPED:
                    self.dumped.popitem(last=False)

    def is_sure(self, state: bytes) -> bool:
        """Whether a piece can be made from its state."""
        return state in self._sure

    def add_sure(self, states: Iterable[bytes]) -> None:
        """Remember that pieces can be made from their states."""
        with self._lock:
            for state in states:
                if state not in self._sure:
                    self._sure[state] = None
                    self._sure_bytes += len(state)
            while self._sure_bytes > _REMEMBERED_BYTES:
                gone, _ = self._sure.popitem(last=False)
                self._sure_bytes -= len(gone)
