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
    """A limiter of that rate over that store; of what it is given besides, burst and window are the rate's."""
    shape = {name: limits.pop(name) for name in ("burst", "window") if name in limits}
    if rate is not None:
        limits["requests"] = Rate(*rate, **shape)
    return Limiter(store=store, **limits)


def draw(seed: int, costs: tuple[int, int]) -> Iterator[int]:
    """Costs from the least to the most, without end."""
    chance = random.Random(seed)
    while True:
        yield chance.randint(*costs)


def in_threads(gate: Limiter, until: float, costs: tuple[int, int], seed: int, threads: int = 4) -> Log:
    """Calls of several threads, each of which always has one waiting."""
    log: Log = []

    def work(number: int) -> None:
        for cost in draw(seed * 100 + number, costs):
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


def in_tasks(gate: Limiter, until: float, costs: tuple[int, int], seed: int, tasks: int = 50) -> Log:
    """Calls of several tasks, each of which always has one waiting."""
    log: Log = []

    async def work(number: int) -> None:
        for cost in draw(seed * 100 + number, costs):
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


class Pulse:
    """A thread that tells for how many seconds its process stood still: stopped, or without a processor."""

    #: A beat, and how late one may be before that counts, in seconds.
    BEAT, LATE = 0.02, 0.05

    def __init__(self) -> None:
        self.stood = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self.BEAT):
            now = time.monotonic()
            late = now - before - self.BEAT
            self.stood += late if late > self.LATE else 0
            before = now

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()


def _worker(
    store: str,
    rate: tuple[int, float],
    limits: dict[str, Any],
    seconds: float,
    costs: tuple[int, int],
    number: int,
    barrier: Any,
    results: Any,
) -> None:
    gate = limiter(store, rate, **limits)
    barrier.wait()
    until = time.monotonic() + seconds
    work = in_tasks if number % 2 else in_threads
    before = time.process_time()
    pulse = Pulse()
    with pulse.beating():
        log = work(gate, until, costs, number)
    results.put((number, log, time.process_time() - before, pulse.stood))


def saturate(
    store: str,
    rate: tuple[int, float],
    seconds: float,
    processes: int = 8,
    costs: tuple[int, int] = (1, 1),
    method: str = "fork",
    **limits: Any,
) -> tuple[list[Log], float]:
    """Processes that all have more to send than may leave; half of them in tasks, half in threads.

    Gives their logs, and for how many seconds one or another of them stood still: others had its share meanwhile, and
    it may make up for that, or nobody had it. So much judges the machine, not the limiter.
    """
    context: Any = multiprocessing.get_context(method)
    barrier, results = context.Barrier(processes), context.Queue()
    arguments = [(store, rate, limits, seconds, costs, number, barrier, results) for number in range(processes)]
    workers = [context.Process(target=_worker, args=one) for one in arguments]
    for worker in workers:
        worker.start()
    logs, used, stood = {}, 0.0, 0.0
    for _ in workers:
        number, log, time_, still = results.get(timeout=seconds + 60)
        logs[number], used, stood = log, used + time_, stood + still
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    counts = [sum(cost for _, cost in logs[number]) for number in range(processes)]
    calls = sum(len(log) for log in logs.values())
    spent = f"{used:.1f} s of processor time, {stood:.2f} s still"
    print(f"{rate[0]} in {rate[1]} s: {calls} calls in {seconds} s, {spent}, parts {counts}")
    return [logs[number] for number in range(processes)], stood


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
