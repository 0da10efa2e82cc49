"""asynciolimiter: evenly spaced calls, or a leaky bucket, for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from peerbench.adapters.empty import empty_coroutine
from peerbench.figures import Shape
from peerbench.peer import ROOM, Call, Peer, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class AsyncioLimiter(Peer):
    """asynciolimiter.Limiter where calls wait, asynciolimiter.LeakyBucketLimiter where there is room."""

    name = "asynciolimiter"
    distribution = "asynciolimiter"
    module = "asynciolimiter"
    use = (
        "Limiter, the one its documentation recommends, where calls wait, with max_burst (what it may make up for "
        "after a late wake) set to the burst of the run. It closes after each call, so with room it is "
        "LeakyBucketLimiter. Its nearest thing to a decorator is wrap(), which takes a coroutine object. One "
        "dimension."
    )
    cannot: ClassVar[Mapping[str, str]] = {
        "async with": "it has no context manager",
        "call": "asyncio only",
        "with": "asyncio only",
        "decorated function": "asyncio only",
        "threads": "asyncio only, one loop",
    }

    def calls(self) -> Sequence[Call]:
        """Offer `wait` and `wrap`."""
        from asynciolimiter import LeakyBucketLimiter

        def names() -> dict[str, object]:
            return {"limiter": LeakyBucketLimiter(1, capacity=ROOM), "call": empty_coroutine}

        return (
            Call("await", "await limiter.wait()", names),
            Call("decorated coroutine", "await limiter.wrap(call())", names, variant="wrap()"),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Wait in even spaces; the first leaves at once."""

        def make(amount: int, per: float, burst: int) -> Waits:
            from asynciolimiter import Limiter

            return Waits(Limiter(amount / per, max_burst=burst).wait, Shape(amount, per, burst, at_once=1))

        return {"": make}
