"""The schedule that lets the floors' waiters go: what a limiter must do at least."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from peerbench.figures import Shape


class Pacer:
    """Calls `release` whenever an admission is due, with one timer, as many times as are due when the timer rings."""

    def __init__(self, shape: Shape, release: Callable[[], None]) -> None:
        self._shape = shape
        self._release = release
        self._released = 0
        self._start = 0.0

    def start(self) -> None:
        """Start the clock; the burst is let go when the loop runs next, so that it takes no time from the schedule."""
        loop = asyncio.get_running_loop()
        self._start = loop.time()
        loop.call_soon(self._ring)

    def _due(self) -> float:
        return self._start + max(0, self._released + 1 - self._shape.burst) / self._shape.rate

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while (due := self._due()) <= now:
            self._release()
            self._released += 1
        loop.call_at(due, self._ring)
