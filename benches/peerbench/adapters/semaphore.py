"""asyncio.Semaphore, what most code uses today. It limits how many run at once, not how many run per minute."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ClassVar

from peerbench.adapters.pacer import Pacer
from peerbench.figures import Shape
from peerbench.peer import ROOM, Call, Peer, Threads, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Semaphore(Peer):
    """asyncio.Semaphore, and threading.Semaphore for synchronous calls."""

    name = "semaphore"
    use = (
        "asyncio.Semaphore, threading.Semaphore where synchronous. A limit on concurrency only; waiting: released by "
        "one timer on the configured schedule, so it is compared as a queue, not as a rate limiter."
    )
    keeps_a_limit = False
    cannot: ClassVar[Mapping[str, str]] = {
        "decorated coroutine": "semaphores have no decorator",
        "decorated function": "semaphores have no decorator",
    }

    def calls(self) -> Sequence[Call]:
        """Offer acquire without release, which a count this high allows, and whole blocks."""

        def tasks() -> dict[str, object]:
            return {"semaphore": asyncio.Semaphore(ROOM)}

        def threads() -> dict[str, object]:
            return {"semaphore": threading.Semaphore(ROOM)}

        return (
            Call("await", "await semaphore.acquire()", tasks),
            Call("async with", "async with semaphore: pass", tasks),
            Call("call", "semaphore.acquire()", threads),
            Call("with", "with semaphore: pass", threads),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Wait for a closed semaphore that is released on schedule."""

        def make(amount: int, per: float, burst: int) -> Waits:
            shape = Shape(amount, per, burst)
            semaphore = asyncio.Semaphore(0)
            return Waits(semaphore.acquire, shape, Pacer(shape, semaphore.release).start)

        return {"": make}

    def threads(self, amount: int) -> Threads:
        """Share a count that is never given back."""
        semaphore = threading.Semaphore(amount)
        return Threads(lambda: semaphore.acquire(blocking=False), Shape(amount, float("inf"), amount))
