"""What a tool may know of the run that calls it, and how it gets there.

A host that runs tools says `with use(ToolRuntime(store=...)):` around a call, and whatever the call
leads to finds it as `current()`: no function in between has to pass the store on. The runtime lives
in a context variable, so concurrent tasks and threads each have their own; a task, and
`asyncio.to_thread`, inherit it from where they were started.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["RuntimeAwareTool", "ToolRuntime", "current", "use"]


@dataclass(frozen=True, slots=True)
class ToolRuntime:
    """What a tool may know of the run that calls it.

    Attributes:
        store: the key-value store of the run, a `Store`, `AsyncKeyValueStore` or `KeyValueStore`;
            `None` if it has none.
        state: the state of the graph, or whatever the host keeps.
        config: the settings of the run, such as `{"configurable": {"session_id": "s1"}}`.
        tool_call_id: the model's id of this call.
        stream_writer: called with what the tool wants to show before it is done.
    """

    store: Any = None
    state: Any = None
    config: Mapping[str, Any] | None = None
    tool_call_id: str | None = None
    stream_writer: Callable[[Any], None] | None = None


_NONE = ToolRuntime()
_current: ContextVar[ToolRuntime] = ContextVar("kvstore_runtime", default=_NONE)


def current() -> ToolRuntime:
    """Return the innermost runtime in use; where there is none, an empty one (`store is None`)."""
    return _current.get()


@contextmanager
def use(runtime: ToolRuntime) -> Iterator[ToolRuntime]:
    """Make a runtime the current one for a block of code, and for what it starts.

    Args:
        runtime: whose `store`, `state`, ... the tools called inside are to see.

    Raises:
        TypeError: it is not a `ToolRuntime`.
    """
    if not isinstance(runtime, ToolRuntime):
        raise TypeError(f"use takes a ToolRuntime, not {type(runtime).__name__}")
    token = _current.set(runtime)
    try:
        yield runtime
    finally:
        _current.reset(token)


class RuntimeAwareTool(ABC):
    """A tool that is given the runtime of the run that calls it.

    A tool sets `name`, `description` and `parameters`, and implements `call_with_runtime`:

        class Remember(RuntimeAwareTool):
            name = "remember"
            description = "Remember a fact about the user."
            parameters = {"type": "object", "properties": {"fact": {"type": "string"}}}

            async def call_with_runtime(self, args, runtime):
                await runtime.store.append(("facts",), "user", args["fact"])
                return "noted"

    Attributes:
        name: what the model calls it.
        description: what the model reads to decide when to call it.
        parameters: JSON schema of `args`, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    @abstractmethod
    async def call_with_runtime(self, args: Mapping[str, Any], runtime: ToolRuntime) -> Any:
        """Do what the tool does.

        Args:
            args: what the model wants, as `parameters` describes it.
            runtime: of the run that calls; its `store` may be `None`.

        Returns:
            What the model is told: text, or JSON.
        """

    async def __call__(self, args: Mapping[str, Any]) -> Any:
        """Call the tool with the current runtime."""
        return await self.call_with_runtime(args, current())
