"""Penstock itself."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from peerbench.adapters.empty import empty_coroutine, empty_function
from peerbench.figures import Shape
from peerbench.peer import BARE, Call, Peer, Threads, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from penstock import Limiter

_MOST = 10**10
"""The largest amount a rate takes, per minute."""
_PLACES = 1_000_000
"""A concurrency that no run here reaches."""


class Penstock(Peer):
    """penstock.Limiter with the memory store."""

    name = "penstock"
    distribution = "penstock"
    module = "penstock"
    use = (
        "Limiter with requests, tokens and concurrency unless another number of dimensions is given. A permit that is "
        "dropped gives itself back, so a bare `await limiter.aacquire()` is a whole call."
    )

    def missing(self) -> str | None:
        """Tell a package that is not built from one that is not there."""
        absent = super().missing()
        if absent is not None:
            return "penstock is not installed in this environment: install its wheel beside the peers"
        try:
            module = importlib.import_module("penstock")
        except ImportError as error:
            return f"the penstock found here cannot be imported: {error}"
        return None if hasattr(module, "Limiter") else "the penstock found here has no Limiter"

    def calls(self) -> Sequence[Call]:
        """Offer each with three dimensions, the plain calls also with one."""
        from penstock import Limiter, Rate

        def three() -> dict[str, object]:
            limiter = Limiter(requests=Rate(_MOST, 60), tokens=Rate(_MOST, 60), concurrency=_PLACES)
            decorate = limiter.limit(tokens=10)
            return {"limiter": limiter, "coroutine": decorate(empty_coroutine), "function": decorate(empty_function)}

        def one() -> dict[str, object]:
            return {"limiter": Limiter(requests=Rate(_MOST, 60))}

        return (
            Call("await", "await limiter.aacquire()", three, 3, "no tokens named"),
            Call("await", "await limiter.aacquire(10)", three, 3, "tokens by position"),
            Call("await", "await limiter.aacquire(tokens=10)", three, 3, "tokens by name"),
            Call("await", "(await limiter.aacquire(tokens=10)).release()", three, 3, "released by hand"),
            Call("await", "await limiter.aacquire()", one, 1),
            Call("async with", "async with limiter: pass", three, 3),
            Call("async with", "async with limiter.permit(tokens=10): pass", three, 3, "permit(tokens=10)"),
            Call("decorated coroutine", "await coroutine()", three, 3),
            Call("call", "limiter.acquire(tokens=10)", three, 3),
            Call("call", "limiter.try_acquire(tokens=10)", three, 3, "try_acquire"),
            Call("call", "limiter.acquire()", one, 1),
            Call("with", "with limiter: pass", three, 3),
            Call("with", "with limiter.permit(tokens=10): pass", three, 3, "permit(tokens=10)"),
            Call("decorated function", "function()", three, 3),
        )

    def retries(self) -> Sequence[Call]:
        """Offer the gate alone, the gate with retries, and retries alone."""
        from penstock import Limiter, Rate, Retry

        def both(decorate: Callable[[Callable[[], object]], object]) -> dict[str, object]:
            return {"coroutine": decorate(empty_coroutine), "function": decorate(empty_function)}

        def limiter() -> Limiter:
            return Limiter(requests=Rate(_MOST, 60), tokens=Rate(_MOST, 60), concurrency=_PLACES)

        ways: tuple[tuple[str, int, Callable[[], dict[str, object]]], ...] = (
            (BARE, 3, lambda: both(limiter().limit(tokens=10))),
            ("@limiter.limit(tokens=10, retry=Retry())", 3, lambda: both(limiter().limit(tokens=10, retry=Retry()))),
            ("@Retry()", 0, lambda: both(Retry())),
        )
        return tuple(
            Call(case, statement, names, dimensions, variant=decorator)
            for case, statement in (("decorated coroutine", "await coroutine()"), ("decorated function", "function()"))
            for decorator, dimensions, names in ways
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Wait as it comes, with three dimensions, and for the bare bucket, which is what the peers have."""

        def plain(amount: int, per: float, burst: int) -> Waits:
            from penstock import Limiter, Rate

            limiter = Limiter(requests=Rate(amount, per, burst=burst))
            return Waits(limiter.aacquire, Shape(amount, per, burst, window=per + min(0.01 * per, 0.5)))

        def three(amount: int, per: float, burst: int) -> Waits:
            from penstock import Limiter, Rate

            limiter = Limiter(requests=Rate(amount, per, burst=burst), tokens=Rate(_MOST, 60), concurrency=_PLACES)
            shape = Shape(amount, per, burst, window=per + min(0.01 * per, 0.5))
            return Waits(functools.partial(limiter.aacquire, 10), shape)

        def bucket(amount: int, per: float, burst: int) -> Waits:
            from penstock import Limiter, Rate

            limiter = Limiter(requests=Rate(amount, per, burst=burst, window=False))
            return Waits(limiter.aacquire, Shape(amount, per, burst))

        return {"": plain, "3 dimensions": three, "window=False": bucket}

    def threads(self, amount: int) -> Threads:
        """Share an hour's amount, available at once."""
        from penstock import Limiter, Rate

        limiter = Limiter(requests=Rate(amount, 3600, burst=amount), tokens=Rate(_MOST, 60), concurrency=_PLACES)

        def admit() -> bool:
            return limiter.try_acquire(tokens=10) is not None

        return Threads(admit, Shape(amount, 3600.0, amount))
