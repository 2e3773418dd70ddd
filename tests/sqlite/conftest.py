"""What tests of the engine share."""

from __future__ import annotations

import pytest

from kvstore.sqlite import engine


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing go to a thread because it took long: a slow machine changes nothing then."""
    monkeypatch.setattr(engine.pace, "SLOW_S", 60.0)
    monkeypatch.setattr(engine.pace, "TURN_S", 60.0)
