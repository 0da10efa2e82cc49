"""How far a fan-out is, on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from penstock.limiter import Limiter

_EVERY = 0.1  # seconds between two pictures: a fan-out may finish a thousand calls in one


class Progress:
    """One line on stderr that is written over. Nothing at all where stderr is no terminal."""

    def __init__(self, limiter: Limiter, total: int | None, *, shown: bool) -> None:
        self._limiter = limiter
        self._total = total
        self._shown = shown and sys.stderr is not None and sys.stderr.isatty()
        self._done = 0
        self._began = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._draw()
        return self

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._shown and time.monotonic() - self._drawn >= _EVERY:
            self._draw()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._draw()
        if self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()

    def _draw(self) -> None:
        if not self._shown:
            return
        self._drawn = time.monotonic()
        of = "" if self._total is None else f"/{self._total}"
        seconds = int(self._drawn - self._began)
        stats = self._limiter.stats()
        line = f"\r{self._done}{of} done, {stats.in_flight} in flight, {stats.waiting} waiting, {seconds} s\x1b[K"
        sys.stderr.write(line)
        sys.stderr.flush()
