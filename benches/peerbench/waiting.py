"""Many tasks that wait for one limiter.

`paced`: all are let through at the configured rate; what that costs, how late each was, in which order, and whether the
limit was kept. `parked`: nobody is let through; what a waiter weighs.

Both enqueue in chunks and let the loop run in between, since a loop that creates 100,000 tasks in one go admits nobody
in that second, whatever limiter it has. A waiter's lateness counts from the time at which its place in the queue was
due; it is taken from those who became due after the last had been enqueued, because until then the loop is busy with
our own work. Quota that a limiter lost until then makes all of them late, as it would in use. The bare tasks of the
floor are treated alike, so what remains above the floor is the limiter's. How late each was by the limits, after what
had left before it, is told beside it: that is what a limiter can do something about.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from peerbench.adapters import PEERS
from peerbench.figures import due_times, fullest_window, lags, overtaken, quantile, rate_reached, violations

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from peerbench.peer import Waits

CHUNK = 256
"""Tasks created between two rounds of the loop: about 2 ms of work."""

JITTER = 0.01
"""The share by which a window may look fuller than it is, because tasks run later than they are admitted."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def _resident() -> int:
    """Bytes of memory that the process occupies (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _settle_down() -> None:
    """Hide from the collector what is imported so far: a heavy library must not make each collection slower."""
    warnings.simplefilter("ignore")
    gc.collect()
    gc.freeze()


async def _paced(waits: Waits, count: int, limit: float) -> dict[str, object]:
    order: list[int] = []
    times: list[float] = []
    entered = [0.0] * count
    finished = asyncio.get_running_loop().create_future()
    clock = time.perf_counter
    acquire = waits.acquire

    async def waiter(number: int) -> None:
        await acquire()
        order.append(number)
        times.append(clock())
        if len(order) == count:
            finished.set_result(None)

    _settle_down()
    waits.start()
    cpu = time.process_time()
    start = clock()
    tasks: list[asyncio.Task[None]] = []
    for number in range(count):
        tasks.append(asyncio.create_task(waiter(number)))
        entered[number] = clock() - start
        if number % CHUNK == CHUNK - 1:
            await asyncio.sleep(0)
            if clock() - start > limit:  # those who poll may keep the loop from ever enqueuing the rest
                break
    await asyncio.sleep(0)
    enqueued = clock() - start
    waiting = len(tasks) - len(order)
    cpu_enqueue = time.process_time() - cpu
    gave_up = False
    try:
        await asyncio.wait_for(finished, max(0.1, limit - enqueued))
    except asyncio.TimeoutError:
        gave_up = True
    cpu_total = time.process_time() - cpu
    elapsed = clock() - start

    failed = [task.exception() for task in tasks if task.done() and task.exception() is not None]
    times = [at - start for at in times]
    in_order = sorted(times)
    shape = waits.shape
    due = due_times(shape, count)
    # Everyone behind the last of those let through at once; in a short run that may be nobody.
    late = sorted(
        max(0.0, at - max(due[number], entered[number]))
        for number, at in zip(order, times, strict=True)
        if due[number] > enqueued
    )
    # The same by the limits: what was lost while the loop was busy may not be made up for, and makes nobody late.
    after = sorted(lag for at, lag in zip(in_order, lags(shape, in_order), strict=True) if at > enqueued)
    # A bucket may let its burst out on top. The times are taken when a task runs, not when it was admitted, so a little
    # more than that is our own jitter.
    allowed = (shape.amount if shape.window is not None else shape.amount + shape.burst) * (1 + JITTER)
    width = shape.per
    return {
        "count": count,
        "rate": shape.rate,
        "burst": shape.burst,
        "admitted": len(order),
        "gave_up_after": limit if gave_up else None,
        "error": f"{len(failed)} waiters failed, the first with {failed[0]!r}" if failed else None,
        "waiting_at_once": waiting,
        "enqueue_s": enqueued,
        "elapsed_s": elapsed,
        "cpu_enqueue_us": cpu_enqueue / count * 1e6,
        "cpu_us": cpu_total / count * 1e6,
        "late_ms": {
            "p50": statistics.median(late) * 1e3,
            "p99": quantile(late, 0.99) * 1e3,
            "max": late[-1] * 1e3,
        }
        if late
        else None,
        "lag_ms": {"p99": quantile(after, 0.99) * 1e3, "max": after[-1] * 1e3} if after else None,
        "overtaken": overtaken(order),
        # Windows longer than the run say nothing, so the run has to be longer than one period.
        "fullest_window": fullest_window(in_order, width) / shape.amount
        if in_order and in_order[-1] >= width
        else None,
        "violations": violations(in_order, width, allowed),
        "rate_reached": rate_reached(shape, in_order[-1], len(in_order)) if in_order else None,
    }


async def _parked(waits: Waits, count: int) -> dict[str, object]:
    admitted = 0
    acquire = waits.acquire

    async def waiter() -> None:
        nonlocal admitted
        await acquire()
        admitted += 1

    _settle_down()
    waits.start()
    before = _resident()
    cpu = time.process_time()
    tasks: list[asyncio.Task[None]] = []
    # Few rounds of the loop, since each is one for all who poll; but not one, or the loop's handles are weighed too.
    chunk = max(CHUNK, count // 25)
    for number in range(count):
        tasks.append(asyncio.create_task(waiter()))
        if number % chunk == chunk - 1:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    cpu_enqueue = time.process_time() - cpu
    return {
        "count": len(tasks),
        "admitted": admitted,
        "bytes": (_resident() - before) / count,
        "cpu_enqueue_us": cpu_enqueue / count * 1e6,
    }


def _run(main: Coroutine[object, object, dict[str, object]]) -> dict[str, object]:
    """Run on a loop that is left open: to cancel a million tasks is no part of the measurement."""
    return asyncio.new_event_loop().run_until_complete(main)


def paced(peer: str, variant: str, count: int, amount: int, per: float, burst: int, limit: float) -> dict[str, object]:
    """Let `count` tasks wait for `amount` per `per` seconds; give up after `limit` seconds."""

    async def main() -> dict[str, object]:
        return await _paced(PEERS[peer].waits()[variant](amount, per, burst), count, limit)

    return _run(main())


def parked(peer: str, variant: str, count: int) -> dict[str, object]:
    """Let `count` tasks wait for one admission per hour, and weigh them."""

    async def main() -> dict[str, object]:
        return await _parked(PEERS[peer].waits()[variant](1, 3600.0, 1), count)

    return _run(main())
