"""What the tests of shared memory run in several processes: workers that log what left when, and the judges of it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock import AcquireTimeout, Limiter, Rate

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The full length of the proofs that CI runs for a moment only.
SOAK = bool(os.environ.get("PENSTOCK_SOAK"))

Log = list[tuple[float, int]]


def path_of(name: str) -> Path:
    """Where the shared memory of that name is."""
    shared = Path("/dev/shm")
    directory = shared if shared.is_dir() else Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp"))
    return directory / f"penstock-{os.geteuid()}-{name}"


@contextlib.contextmanager
def fresh_store() -> Iterator[str]:
    """A name of shared memory that nobody uses, as a URL; its file goes at the end."""
    name = f"test-{os.getpid()}-{random.randrange(1 << 40):x}"
    try:
        yield f"shm://{name}"
    finally:
        path_of(name).unlink(missing_ok=True)


def limiter(store: str, rate: tuple[int, float] | None, **limits: Any) -> Limiter:
    """A limiter of that rate over that store."""
    if rate is not None:
        limits["requests"] = Rate(*rate)
    return Limiter(store=store, **limits)


def draw(seed: int, most: int) -> Iterator[int]:
    """Costs from 1 to ``most``, without end."""
    chance = random.Random(seed)
    while True:
        yield chance.randint(1, most)


def in_threads(gate: Limiter, until: float, most: int, seed: int, threads: int = 4) -> Log:
    """Calls of several threads, each of which always has one waiting."""
    log: Log = []

    def work(number: int) -> None:
        for cost in draw(seed * 100 + number, most):
            try:
                permit = gate.acquire(requests=cost, timeout=max(until - time.monotonic(), 0))
            except AcquireTimeout:
                return
            log.append((time.monotonic(), cost))
            permit.release()
            if time.monotonic() > until:
                return

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return log


def in_tasks(gate: Limiter, until: float, most: int, seed: int, tasks: int = 50) -> Log:
    """Calls of several tasks, each of which always has one waiting."""
    log: Log = []

    async def work(number: int) -> None:
        for cost in draw(seed * 100 + number, most):
            try:
                permit = await gate.aacquire(requests=cost, timeout=max(until - time.monotonic(), 0))
            except AcquireTimeout:
                return
            log.append((time.monotonic(), cost))
            permit.release()
            if time.monotonic() > until:
                return

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(tasks)))

    asyncio.run(main())
    return log


def _worker(
    store: str,
    rate: tuple[int, float],
    limits: dict[str, Any],
    seconds: float,
    most: int,
    number: int,
    barrier: Any,
    results: Any,
) -> None:
    gate = limiter(store, rate, **limits)
    barrier.wait()
    until = time.monotonic() + seconds
    work = in_tasks if number % 2 else in_threads
    log = work(gate, until, most, number)
    results.put((number, log))


def saturate(
    store: str,
    rate: tuple[int, float],
    seconds: float,
    processes: int = 8,
    most: int = 1,
    method: str = "fork",
    **limits: Any,
) -> list[Log]:
    """Processes that all have more to send than may leave; half of them in tasks, half in threads. Gives their logs."""
    context: Any = multiprocessing.get_context(method)
    barrier, results = context.Barrier(processes), context.Queue()
    arguments = [(store, rate, limits, seconds, most, number, barrier, results) for number in range(processes)]
    workers = [context.Process(target=_worker, args=one) for one in arguments]
    for worker in workers:
        worker.start()
    logs = dict(results.get(timeout=seconds + 60) for _ in workers)
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    return [logs[number] for number in range(processes)]


def most_in_any(log: Log, window: float) -> int:
    """The most that left in any window of so many seconds."""
    log = sorted(log)
    begin = left = most = 0
    for time_, cost in log:
        left += cost
        while log[begin][0] <= time_ - window:
            left -= log[begin][1]
            begin += 1
        most = max(most, left)
    return most
