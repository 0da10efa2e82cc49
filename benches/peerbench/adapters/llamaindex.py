"""llama-index-core: the limiter that LlamaIndex's models take."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar

from peerbench.figures import Shape
from peerbench.peer import ROOM, Call, Peer, Threads, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class LlamaIndex(Peer):
    """llama_index.core.rate_limiter.TokenBucketRateLimiter."""

    name = "llama-index-core"
    distribution = "llama-index-core"
    module = "llama_index"
    use = (
        "TokenBucketRateLimiter, in requests and tokens with room. A minute's amount is its burst and cannot be "
        "chosen; where calls wait it is used up beforehand, which one call can do if they are counted as tokens. It "
        "can only block, so what threads get is counted over three seconds."
    )
    cannot: ClassVar[Mapping[str, str]] = {
        "async with": "it has no context manager",
        "decorated coroutine": "it has no decorator, models take it as `rate_limiter=`",
        "with": "it has no context manager",
        "decorated function": "it has no decorator, models take it as `rate_limiter=`",
    }

    def calls(self) -> Sequence[Call]:
        """Offer `acquire` and `async_acquire`, with tokens."""
        from llama_index.core.rate_limiter import TokenBucketRateLimiter

        def names() -> dict[str, object]:
            return {"limiter": TokenBucketRateLimiter(requests_per_minute=ROOM * 60, tokens_per_minute=ROOM * 600)}

        return (
            Call("await", "await limiter.async_acquire(10)", names, 2),
            Call("call", "limiter.acquire(10)", names, 2),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Empty the bucket, then wait for it."""

        def make(amount: int, per: float, burst: int) -> Waits:
            from llama_index.core.rate_limiter import TokenBucketRateLimiter

            per_minute = amount / per * 60
            limiter = TokenBucketRateLimiter(tokens_per_minute=per_minute)

            shape = Shape(amount, per, int(per_minute), at_once=0)

            def use_up() -> None:
                limiter.acquire(int(per_minute))

            return Waits(functools.partial(limiter.async_acquire, 1), shape, use_up)

        return {"": make}

    def threads(self, amount: int) -> Threads:
        """Block on a minute's amount."""
        from llama_index.core.rate_limiter import TokenBucketRateLimiter

        limiter = TokenBucketRateLimiter(requests_per_minute=amount)

        def admit() -> bool:
            limiter.acquire()
            return True

        return Threads(admit, Shape(amount, 60.0, amount))
