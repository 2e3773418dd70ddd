"""Spans and metrics for OpenTelemetry, of a store's calls; extra `otel`.

    store = kvstore.open("agent.db", observer=OpenTelemetryObserver())

Names follow OpenTelemetry's semantic conventions for databases. No namespace, key or value is in a
span.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from kvstore.integrations.requirements import needing
from kvstore.report import Metrics
from kvstore.store import Store

with needing("OpenTelemetryObserver", "opentelemetry-api", "1.30", extra="otel"):
    from opentelemetry import metrics, trace

__all__ = ["OpenTelemetryObserver"]

_NAME = "kvstore"
_LEVELS = {
    "queued", "queued_bytes", "connections", "idle_connections", "waiting_reads", "largest_group"
}  # fmt: skip
_BOUNDS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)  # as the conventions advise


class OpenTelemetryObserver:
    """Makes a span and a measurement of each call that it is told of.

    Args:
        system: `db.system.name` of both, such as `sqlite` or `postgresql`.
        tracer_provider: where spans go; `None`: to the global one.
        meter_provider: where measurements go; `None`: to the global one.
    """

    def __init__(
        self,
        system: str = _NAME,
        *,
        tracer_provider: Any = None,
        meter_provider: Any = None,
    ) -> None:
        self._system = system
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        self._meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._durations = self._meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of calls of a kvstore store.",
            explicit_bucket_boundaries_advisory=_BOUNDS_S,
        )

    def __call__(self, name: str, seconds: float, error: BaseException | None) -> None:
        """Take note of a call that has just ended."""
        attributes = {"db.system.name": self._system, "db.operation.name": name}
        if error is not None:
            attributes["error.type"] = type(error).__qualname__
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{name} {self._system}",
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=end - int(seconds * 1e9),
        )
        if error is not None:
            span.set_status(trace.StatusCode.ERROR, type(error).__qualname__)
        span.end(end)
        self._durations.record(seconds, attributes)

    def collect(self, store: Store) -> None:
        """Have the numbers of `store.metrics()` read whenever metrics are collected.

        They are called `kvstore.commits` and so on; a store that is gone has none.
        """
        of = weakref.ref(store)
        for name in (field.name for field in fields(Metrics)):
            is_level = name in _LEVELS
            make = (
                self._meter.create_observable_gauge
                if is_level
                else self._meter.create_observable_counter
            )
            make(f"kvstore.{name}", callbacks=[_reader(of, name, self._system)])


def _reader(of: weakref.ref[Store], name: str, system: str) -> Any:
    def read(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        store = of()
        if store is not None:
            value = getattr(store.metrics(), name)
            yield metrics.Observation(value, {"db.system.name": system})

    return read
