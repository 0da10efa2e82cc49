"""throttled-py: algorithms over stores."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from peerbench.adapters.empty import empty_coroutine, empty_function
from peerbench.figures import Shape
from peerbench.peer import ROOM, Call, Peer, Threads, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PATIENCE = 1e6
"""Seconds of timeout, without which it refuses instead of waiting."""


class ThrottledPy(Peer):
    """throttled.Throttled and throttled.asyncio.Throttled over a MemoryStore of their own."""

    name = "throttled-py"
    distribution = "throttled-py"
    module = "throttled"
    use = (
        "Throttled(using=GCRA, timeout=...), as its documentation does for wait and retry; its default token bucket "
        "counts in whole seconds. One dimension."
    )

    def calls(self) -> Sequence[Call]:
        """Offer `limit`, the blocks and the decorators."""
        import throttled
        import throttled.asyncio

        def tasks() -> dict[str, object]:
            limiter = throttled.asyncio.Throttled(
                key="bench",
                using="gcra",
                quota=throttled.per_sec(ROOM, ROOM),
                timeout=_PATIENCE,
                store=throttled.asyncio.MemoryStore(),
            )
            return {"limiter": limiter, "coroutine": limiter(empty_coroutine)}

        def threads() -> dict[str, object]:
            limiter = throttled.Throttled(
                key="bench",
                using="gcra",
                quota=throttled.per_sec(ROOM, ROOM),
                timeout=_PATIENCE,
                store=throttled.MemoryStore(),
            )
            return {"limiter": limiter, "function": limiter(empty_function)}

        return (
            Call("await", "await limiter.limit()", tasks),
            Call("async with", "async with limiter: pass", tasks),
            Call("decorated coroutine", "await coroutine()", tasks),
            Call("call", "limiter.limit()", threads),
            Call("with", "with limiter: pass", threads),
            Call("decorated function", "function()", threads),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Wait in `limit`, with a timeout."""

        def make(amount: int, per: float, burst: int) -> Waits:
            import throttled
            import throttled.asyncio

            limiter = throttled.asyncio.Throttled(
                key="bench",
                using="gcra",
                quota=throttled.per_duration(timedelta(seconds=per), amount, burst),
                timeout=_PATIENCE,
                store=throttled.asyncio.MemoryStore(),
            )
            return Waits(limiter.limit, Shape(amount, per, burst))

        return {"": make}

    def threads(self, amount: int) -> Threads:
        """Share an hour's amount, available at once."""
        import throttled

        limiter = throttled.Throttled(
            key="bench", using="gcra", quota=throttled.per_hour(amount, amount), store=throttled.MemoryStore()
        )
        return Threads(lambda: not limiter.limit().limited, Shape(amount, 3600.0, amount))
