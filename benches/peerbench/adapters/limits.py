"""limits: strategies over storages. It says yes or no; waiting is left to its user."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from peerbench.figures import Shape
from peerbench.peer import ROOM, Call, Peer, Threads, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Limits(Peer):
    """limits with its memory storages."""

    name = "limits"
    distribution = "limits"
    module = "limits"
    use = (
        "With room: FixedWindowRateLimiter, its cheapest strategy. Waiting: MovingWindowRateLimiter, its exact one, "
        "in a loop that sleeps until get_window_stats().reset_time, as its documentation shows. A limit counts in "
        "whole seconds and has no burst, so one second's amount leaves at once. One dimension (several are several "
        "hits, not atomic)."
    )
    cannot: ClassVar[Mapping[str, str]] = {
        "async with": "it has no context manager",
        "decorated coroutine": "it has no decorator",
        "with": "it has no context manager",
        "decorated function": "it has no decorator",
    }

    def calls(self) -> Sequence[Call]:
        """Offer `hit`, which does not wait."""
        import limits

        def tasks() -> dict[str, object]:
            limiter = limits.aio.strategies.FixedWindowRateLimiter(limits.aio.storage.MemoryStorage())
            return {"limiter": limiter, "item": limits.RateLimitItemPerMinute(ROOM)}

        def threads() -> dict[str, object]:
            limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
            return {"limiter": limiter, "item": limits.RateLimitItemPerMinute(ROOM)}

        return (
            Call("await", "await limiter.hit(item)", tasks, variant="yes or no only"),
            Call("call", "limiter.hit(item)", threads, variant="yes or no only"),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Hit, and if refused sleep until the window has room."""

        def make(amount: int, per: float, burst: int) -> Waits:
            import limits

            limiter = limits.aio.strategies.MovingWindowRateLimiter(limits.aio.storage.MemoryStorage())
            item = limits.RateLimitItemPerSecond(amount, int(per))

            async def acquire() -> None:
                while not await limiter.hit(item):
                    window = await limiter.get_window_stats(item)
                    await asyncio.sleep(max(0.0, window.reset_time - time.time()))

            return Waits(acquire, Shape(amount, int(per), amount, window=float(int(per))))

        return {"": make}

    def threads(self, amount: int) -> Threads:
        """Share an hour's amount through `hit`."""
        import limits

        limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
        item = limits.RateLimitItemPerHour(amount)
        return Threads(lambda: limiter.hit(item), Shape(amount, float("inf"), amount))
