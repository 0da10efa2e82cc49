"""langchain-core: the limiter that LangChain's models take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from peerbench.figures import Shape
from peerbench.peer import ROOM, Call, Peer, Threads, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class LangChain(Peer):
    """langchain_core.rate_limiters.InMemoryRateLimiter."""

    name = "langchain-core"
    distribution = "langchain-core"
    module = "langchain_core"
    use = (
        "InMemoryRateLimiter with its default of one look every 0.1 s; waiting also with one every 0.01 s. Its bucket "
        "starts empty. One dimension."
    )
    cannot: ClassVar[Mapping[str, str]] = {
        "async with": "it has no context manager",
        "decorated coroutine": "it has no decorator, models take it as `rate_limiter=`",
        "with": "it has no context manager",
        "decorated function": "it has no decorator, models take it as `rate_limiter=`",
    }

    def calls(self) -> Sequence[Call]:
        """Offer `acquire` and `aacquire`, as the models call them."""
        from langchain_core.rate_limiters import InMemoryRateLimiter

        def names() -> dict[str, object]:
            return {"limiter": InMemoryRateLimiter(requests_per_second=ROOM, max_bucket_size=ROOM)}

        return (
            Call("await", "await limiter.aacquire()", names),
            Call("call", "limiter.acquire()", names),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Poll at the default interval, and ten times as often."""

        def every(seconds: float) -> WaitsFactory:
            def make(amount: int, per: float, burst: int) -> Waits:
                from langchain_core.rate_limiters import InMemoryRateLimiter

                limiter = InMemoryRateLimiter(
                    requests_per_second=amount / per, check_every_n_seconds=seconds, max_bucket_size=burst
                )
                return Waits(limiter.aacquire, Shape(amount, per, burst, at_once=0))

            return make

        return {"": every(0.1), "every 0.01 s": every(0.01)}

    def threads(self, amount: int) -> Threads:
        """Fill the bucket with a second's amount by waiting for it."""
        from langchain_core.rate_limiters import InMemoryRateLimiter

        limiter = InMemoryRateLimiter(requests_per_second=amount, max_bucket_size=amount)

        def fill() -> None:
            limiter.acquire(blocking=False)  # its clock starts with the first call, and that call finds it empty
            time.sleep(1.05)

        return Threads(lambda: limiter.acquire(blocking=False), Shape(amount, 1.0, amount), fill)
