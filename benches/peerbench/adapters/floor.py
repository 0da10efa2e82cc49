"""No limiter at all: the cost that no limiter can go below."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, ClassVar

from peerbench.adapters.empty import empty_coroutine, empty_function
from peerbench.adapters.pacer import Pacer
from peerbench.figures import Shape
from peerbench.peer import Call, Peer, Waits, WaitsFactory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class _EmptyBlock:
    """A context manager that does nothing, both ways."""

    def __enter__(self) -> None:
        """Enter."""

    def __exit__(self, *error: object) -> None:
        """Leave."""

    async def __aenter__(self) -> None:
        """Enter."""

    async def __aexit__(self, *error: object) -> None:
        """Leave."""


class _Bench:
    """Where bare futures wait for the pacer."""

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[None]] = deque()
        self._credit = 0

    def park(self) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        if self._credit:
            self._credit -= 1
            future.set_result(None)
        else:
            self._futures.append(future)
        return future

    def release(self) -> None:
        if self._futures:
            self._futures.popleft().set_result(None)
        else:
            self._credit += 1


class Floor(Peer):
    """An empty coroutine; a task that waits for a bare future."""

    name = "floor"
    use = (
        "Empty coroutine, function and context manager; waiting: a task and a bare future each, set by one timer on "
        "the configured schedule."
    )
    keeps_a_limit = False
    cannot: ClassVar[Mapping[str, str]] = {"threads": "nothing to share"}

    def calls(self) -> Sequence[Call]:
        """Offer an empty one of each kind."""

        def block() -> dict[str, object]:
            return {"block": _EmptyBlock()}

        return (
            Call("await", "await call()", lambda: {"call": empty_coroutine}, 0, "empty coroutine"),
            Call("async with", "async with block: pass", block, 0, "empty methods"),
            Call("decorated coroutine", "await call()", lambda: {"call": empty_coroutine}, 0, "undecorated"),
            Call("call", "call()", lambda: {"call": empty_function}, 0, "empty function"),
            Call("with", "with block: pass", block, 0, "empty methods"),
            Call("decorated function", "call()", lambda: {"call": empty_function}, 0, "undecorated"),
        )

    def retries(self) -> Sequence[Call]:
        """Offer both without a decorator."""
        return (
            Call("decorated coroutine", "await call()", lambda: {"call": empty_coroutine}, 0),
            Call("decorated function", "call()", lambda: {"call": empty_function}, 0),
        )

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Park on bare futures."""

        def make(amount: int, per: float, burst: int) -> Waits:
            shape = Shape(amount, per, burst)
            bench = _Bench()
            return Waits(bench.park, shape, Pacer(shape, bench.release).start)

        return {"": make}
