"""Several threads on one limiter: how fast, and whether the sum is exact."""

from __future__ import annotations

import threading
import time
import warnings
from typing import TYPE_CHECKING

from peerbench.adapters import PEERS

if TYPE_CHECKING:
    from peerbench.peer import Threads

_TRIES = 3
"""Runs of each speed, of which the best counts: the first finds cold caches."""
_QUIET = 0.5
"""Seconds without an admission after which a limiter that blocks is taken to be exhausted."""
_LONGEST = 3.0
"""Seconds after which the sum is taken, for a limiter that blocks and goes on admitting what flows back."""


def _speed(limiter: Threads, threads: int, calls: int) -> float:
    """Admissions per second, by threads that make `calls` calls each, all of which find room."""
    barrier = threading.Barrier(threads + 1)
    admit, clock = limiter.admit, time.perf_counter

    def work() -> None:
        barrier.wait()
        for _ in range(calls):
            admit()

    limiter.start()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = clock()
    for worker in workers:
        worker.join()
    return threads * calls / (clock() - start)


def _sum(limiter: Threads, threads: int) -> tuple[int, float]:
    """Admissions, and the seconds they took, of threads that each go on until they are refused."""
    counts = [0] * threads
    barrier = threading.Barrier(threads + 1)
    admit, clock = limiter.admit, time.perf_counter

    def work(index: int) -> None:
        barrier.wait()
        while admit():
            counts[index] += 1  # told at once: a thread in a limiter that blocks never comes back

    # Daemons, for the same reason.
    limiter.start()
    workers = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = changed = clock()
    admitted = 0
    while any(worker.is_alive() for worker in workers) and clock() - changed < _QUIET and clock() - start < _LONGEST:
        time.sleep(0.01)
        if (now := sum(counts)) != admitted:
            admitted, changed = now, clock()
    admitted = sum(counts)
    return admitted, clock() - start


def run(peer: str, threads: int, calls: int) -> dict[str, object]:
    """Measure the speed of one thread and of several with room, then their sum with room for `calls`."""
    warnings.simplefilter("ignore")

    def limiter(amount: int) -> Threads:
        made = PEERS[peer].threads(amount)
        assert made is not None
        return made

    one = max(_speed(limiter(calls * 10), 1, calls) for _ in range(_TRIES))
    many = max(_speed(limiter(calls * 10), threads, calls // threads) for _ in range(_TRIES))
    exact = limiter(calls)
    admitted, elapsed = _sum(exact, threads)
    return {
        "threads": threads,
        "one_per_s": one,
        "many_per_s": many,
        "admitted": admitted,
        # What flowed back while the threads ran is allowed too.
        "allowed": [exact.shape.burst, exact.shape.burst + int(exact.shape.rate * elapsed) + 1],
    }
