"""What the asynchronous tests share: event loops that fail on whatever they report, and how a limiter stands."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

import penstock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


T = TypeVar("T")

UVLOOP = importlib.util.find_spec("uvloop") is not None

#: The event loops that waiting must work on.
LOOPS = ["asyncio", pytest.param("uvloop", marks=pytest.mark.skipif(not UVLOOP, reason="uvloop is not installed"))]


def new_loop(kind: str = "asyncio") -> asyncio.AbstractEventLoop:
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def run(main: Coroutine[Any, Any, T], kind: str = "asyncio") -> T:
    """`asyncio.run` that fails when the loop reports anything, or when a task is left over."""
    reports: list[dict[str, Any]] = []
    event_loop = new_loop(kind)
    event_loop.set_exception_handler(lambda _, context: reports.append(context))
    try:
        result = event_loop.run_until_complete(main)
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
        left = asyncio.all_tasks(event_loop)
        for task in left:
            task.cancel()
        if left:
            event_loop.run_until_complete(asyncio.wait(left))
        gc.collect()  # exceptions that nobody retrieved are reported when their task is dropped
    finally:
        event_loop.close()
    assert not reports
    assert not left
    return result


async def turns(count: int = 5) -> None:
    """Let whatever is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that is bound to come, however busy the machine is."""
    event_loop = asyncio.get_running_loop()
    limit = event_loop.time() + seconds
    while not condition():
        assert event_loop.time() < limit, "it did not come"
        await asyncio.sleep(0.001)


def lasting(amount: int, burst: int | None = None) -> penstock.Rate:
    """A rate that gives nothing back while a test runs, so that what was charged can be counted."""
    return penstock.Rate(amount, 366 * 86_400, burst=amount if burst is None else burst)


def spent(limiter: penstock.Limiter, dimension: str = "requests") -> int:
    """What is charged to the first rate of a dimension."""
    level = next(level for level in limiter.stats().levels if level.dimension == dimension)
    return level.rate.amount - level.window


def standing(limiter: penstock.Limiter) -> tuple[int, int]:
    """How many permits are out, and how many calls wait."""
    stats = limiter.stats()
    return stats.in_flight, stats.waiting


IDLE = (0, 0)
