"""How many calls several processes get through one limiter that has room, beside peers that share one.

`python benches/processes.py [SECONDS]`: four processes, one store after the other, and the same again, all in one run;
what counts is the better of each. Peers: pyrate-limiter over its multiprocess bucket and over SQLite with a file lock,
limits over Redis (a redis-server of its own, on a Unix socket). Each is given one dimension, and Penstock three.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROCESSES = 4
ROOM = 10**12


def penstock(home: str) -> Callable[[], Any]:
    """Three dimensions in shared memory: a permit, and its release."""
    from penstock import Limiter, Rate

    name = Path(home).name.replace("_", "")
    limits = {dimension: Rate(ROOM, 60) for dimension in ("requests", "tokens", "input_tokens")}
    limiter = Limiter(store=f"shm://bench-{name}", **limits)
    return lambda: limiter.try_acquire(1_000, input_tokens=800)


def pyrate_sqlite(home: str) -> Callable[[], Any]:
    """One rate in a SQLite file with a file lock."""
    from pyrate_limiter import Limiter, Rate, SQLiteBucket

    bucket = SQLiteBucket.init_from_file([Rate(ROOM, 60_000)], db_path=f"{home}/pyrate.sqlite", use_file_lock=True)
    limiter = Limiter(bucket)
    return lambda: limiter.try_acquire("key")


def limits_redis(home: str) -> Callable[[], Any]:
    """One rate in Redis: a fixed window, its cheapest strategy."""
    from limits import RateLimitItemPerMinute, storage, strategies

    limiter = strategies.FixedWindowRateLimiter(storage.storage_from_string(f"redis+unix://{home}/redis.sock"))
    rate = RateLimitItemPerMinute(ROOM)
    return lambda: limiter.hit(rate)


def limits_redis_moving(home: str) -> Callable[[], Any]:
    """One rate in Redis: a moving window, the strategy that never lets more than the amount leave in any window."""
    from limits import RateLimitItemPerMinute, storage, strategies

    limiter = strategies.MovingWindowRateLimiter(storage.storage_from_string(f"redis+unix://{home}/redis.sock"))
    rate = RateLimitItemPerMinute(10**6)
    return lambda: limiter.hit(rate)


def _count(call: Callable[[], Any], seconds: float, barrier: Any, results: Any) -> None:
    call()
    barrier.wait()
    until, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        for _ in range(10):
            call()
        count += 10
    results.put(count)


def _work(make: Callable[[str], Callable[[], Any]], home: str, seconds: float, barrier: Any, results: Any) -> None:
    _count(make(home), seconds, barrier, results)


def _with_bucket(bucket: Any, seconds: float, barrier: Any, results: Any) -> None:
    from pyrate_limiter import Limiter

    limiter = Limiter(bucket)
    _count(lambda: limiter.try_acquire("key"), seconds, barrier, results)


def measure(target: Callable[..., None], *arguments: Any, seconds: float) -> float:
    """Give the calls per second of all processes together."""
    context: Any = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(PROCESSES), context.Queue()
    workers = [context.Process(target=target, args=(*arguments, seconds, barrier, results)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    total = sum(results.get(timeout=seconds + 60) for _ in workers)
    for worker in workers:
        worker.join()
    return float(total / seconds)


@contextlib.contextmanager
def redis(home: str) -> Iterator[bool]:
    """Run a redis-server, if there is one."""
    program = shutil.which("redis-server")
    if program is None:
        yield False
        return
    command = [program, "--port", "0", "--unixsocket", f"{home}/redis.sock", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=home)
    while not Path(home, "redis.sock").exists():
        time.sleep(0.01)
    try:
        yield True
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure all, twice, and print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    best: dict[str, float] = {}

    def note(name: str, rate: float) -> None:
        best[name] = max(best.get(name, 0), rate)

    with tempfile.TemporaryDirectory() as home, redis(home) as has_redis:
        from pyrate_limiter import MultiprocessBucket, Rate

        for _ in range(2):
            note("penstock, shm://, 3 dimensions", measure(_work, penstock, home, seconds=seconds))
            bucket = MultiprocessBucket.init([Rate(ROOM, 60_000)])
            note("pyrate-limiter, MultiprocessBucket", measure(_with_bucket, bucket, seconds=seconds))
            note("pyrate-limiter, SQLiteBucket", measure(_work, pyrate_sqlite, home, seconds=seconds))
            if has_redis:
                note("limits, Redis, fixed window", measure(_work, limits_redis, home, seconds=seconds))
                note("limits, Redis, moving window", measure(_work, limits_redis_moving, home, seconds=seconds))
        shared = f"/dev/shm/penstock-{os.geteuid()}-bench-{Path(home).name.replace('_', '')}"
        Path(shared).unlink(missing_ok=True)
    peer = max(rate for name, rate in best.items() if not name.startswith("penstock"))
    for name, rate in best.items():
        print(f"{name:40} {rate:12,.0f} calls/s  {rate / peer:8.1f} x the best peer")


if __name__ == "__main__":
    main()
