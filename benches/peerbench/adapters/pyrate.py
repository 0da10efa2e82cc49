"""pyrate-limiter: algorithms over buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from peerbench.adapters.empty import empty_coroutine, empty_function
from peerbench.figures import Shape
from peerbench.peer import ROOM, Call, Peer, Threads, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PyrateLimiter(Peer):
    """pyrate_limiter.Limiter with the default bucket and with the token bucket."""

    name = "pyrate-limiter"
    distribution = "pyrate-limiter"
    module = "pyrate_limiter"
    use = (
        "Limiter with create_token_bucket_limiter (constant memory); with room also with its default bucket, the "
        "sliding window log. Waiting also with buffer_ms=0, since the default adds 50 ms to every sleep. The bucket "
        "is used without BucketAsyncWrapper, which is slower and which try_acquire_async no longer needs. One "
        "dimension (several Rates count the same weight)."
    )
    cannot: ClassVar[Mapping[str, str]] = {
        "async with": "its context manager closes the limiter, it admits nothing",
        "with": "its context manager closes the limiter, it admits nothing",
    }

    def calls(self) -> Sequence[Call]:
        """Offer `try_acquire`, its async twin and the decorator."""
        from pyrate_limiter import Duration, Limiter, Rate, limiter_factory

        def bucket() -> dict[str, object]:
            # An emission takes a whole microsecond at least, so the room is in the burst.
            limiter = limiter_factory.create_token_bucket_limiter(1_000_000, Duration.SECOND, burst=10**12)
            decorate = limiter.as_decorator()
            return {"limiter": limiter, "coroutine": decorate(empty_coroutine), "function": decorate(empty_function)}

        def log() -> dict[str, object]:
            return {"limiter": Limiter(Rate(ROOM, Duration.SECOND))}

        return (
            Call("await", "await limiter.try_acquire_async()", bucket, variant="token bucket"),
            Call("await", "await limiter.try_acquire_async()", log, variant="sliding window log"),
            Call("decorated coroutine", "await coroutine()", bucket, variant="token bucket"),
            Call("call", "limiter.try_acquire()", bucket, variant="token bucket"),
            Call("call", "limiter.try_acquire()", log, variant="sliding window log"),
            Call("decorated function", "function()", bucket, variant="token bucket"),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Wait for the token bucket, with the default buffer and with none."""

        def with_buffer(buffer_ms: int) -> WaitsFactory:
            def make(amount: int, per: float, burst: int) -> Waits:
                from pyrate_limiter import limiter_factory

                limiter = limiter_factory.create_token_bucket_limiter(amount, int(per * 1000), burst, buffer_ms)
                return Waits(limiter.try_acquire_async, Shape(amount, per, burst))

            return make

        return {"": with_buffer(50), "buffer_ms=0": with_buffer(0)}

    def threads(self, amount: int) -> Threads:
        """Share an hour's amount, available at once."""
        from pyrate_limiter import Duration, limiter_factory

        limiter = limiter_factory.create_token_bucket_limiter(amount, Duration.HOUR)
        return Threads(lambda: limiter.try_acquire(blocking=False), Shape(amount, 3600.0, amount))
