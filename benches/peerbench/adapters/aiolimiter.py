"""aiolimiter: a leaky bucket for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from peerbench.figures import Shape
from peerbench.peer import ROOM, Call, Peer, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class AioLimiter(Peer):
    """aiolimiter.AsyncLimiter."""

    name = "aiolimiter"
    distribution = "aiolimiter"
    module = "aiolimiter"
    use = (
        "AsyncLimiter(max_rate, time_period). Its burst is always max_rate, so a small burst is asked for as a small "
        "amount in a short period. One dimension."
    )
    cannot: ClassVar[Mapping[str, str]] = {
        "decorated coroutine": "it has no decorator",
        "call": "asyncio only",
        "with": "asyncio only",
        "decorated function": "asyncio only",
        "threads": "asyncio only, one loop",
    }

    def calls(self) -> Sequence[Call]:
        """Offer `acquire`, and the block that its documentation shows."""
        from aiolimiter import AsyncLimiter

        def names() -> dict[str, object]:
            return {"limiter": AsyncLimiter(ROOM, 1)}

        return (
            Call("await", "await limiter.acquire()", names),
            Call("async with", "async with limiter: pass", names),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Wait for the bucket."""

        def make(amount: int, per: float, burst: int) -> Waits:
            from aiolimiter import AsyncLimiter

            return Waits(AsyncLimiter(burst, burst * per / amount).acquire, Shape(amount, per, burst))

        return {"": make}
