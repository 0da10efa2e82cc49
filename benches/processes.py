"""How many calls several processes get through one limiter that has room, beside peers that share one.

`python benches/processes.py [SECONDS [ROUNDS]]`: four processes, one store after the other, round after round in one
run; what counts is the median of each. Peers: pyrate-limiter over its multiprocess bucket and over SQLite with a file
lock, limits over Redis and over memcached (servers of its own, on Unix sockets; both must be installed, as by
`apt-get install redis-server memcached`). Each is given one dimension, and Penstock three. At the end, what a permit
and its release take one process alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import statistics
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


def limits_memcached(home: str) -> Callable[[], Any]:
    """One rate in memcached: a fixed window, the only one of its strategies there that is no slower."""
    from limits import RateLimitItemPerMinute, storage, strategies

    limiter = strategies.FixedWindowRateLimiter(storage.storage_from_string(f"memcached://{home}/memcached.sock"))
    rate = RateLimitItemPerMinute(10**9)
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
def server(home: str, name: str, *arguments: str) -> Iterator[None]:
    """Run a server that listens on a socket of its name in ``home``."""
    program = shutil.which(name)
    if program is None:
        raise SystemExit(f"{name} is missing here: apt-get install {name}")
    socket = Path(home, f"{name.removesuffix('-server')}.sock")
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, cwd=home)
    try:
        until = time.monotonic() + 20
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} does not start")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


def alone(call: Callable[[], Any]) -> float:
    """Give the nanoseconds of a call in one process alone: the best of many short stretches."""
    best = float("inf")
    for _ in range(100):
        began = time.perf_counter_ns()
        for _ in range(2_000):
            call()
        best = min(best, (time.perf_counter_ns() - began) / 2_000)
    return best


def main() -> None:
    """Measure all, round after round, and print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    rates: dict[str, list[float]] = {}

    def note(name: str, target: Callable[..., None], *arguments: Any) -> None:
        rates.setdefault(name, []).append(measure(target, *arguments, seconds=seconds))

    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        redis = ["--port", "0", "--unixsocket", f"{home}/redis.sock", "--save", "", "--appendonly", "no"]
        stack.enter_context(server(home, "redis-server", *redis))
        memcached = ["-s", f"{home}/memcached.sock", "-m", "64"]
        if os.geteuid() == 0:
            memcached += ["-u", "root"]
        stack.enter_context(server(home, "memcached", *memcached))
        shared = Path(f"/dev/shm/penstock-{os.geteuid()}-bench-{Path(home).name.replace('_', '')}")
        stack.callback(shared.unlink, missing_ok=True)
        from pyrate_limiter import MultiprocessBucket, Rate

        for _ in range(rounds):
            note("penstock, shm://, 3 dimensions", _work, penstock, home)
            note("limits, memcached, fixed window", _work, limits_memcached, home)
            note("limits, Redis, fixed window", _work, limits_redis, home)
            note("limits, Redis, moving window", _work, limits_redis_moving, home)
            bucket = MultiprocessBucket.init([Rate(ROOM, 60_000)])
            note("pyrate-limiter, MultiprocessBucket", _with_bucket, bucket)
            note("pyrate-limiter, SQLiteBucket", _work, pyrate_sqlite, home)
        nanoseconds = alone(penstock(home))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    ours, *peers = medians.values()
    for name, median in medians.items():
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:36} {median:12,.0f} calls/s  ({low:,.0f} to {high:,.0f})  {ours / median:8,.0f} x")
    each = [a / max(others) for a, *others in zip(*rates.values(), strict=True)]
    print(f"Penstock: {ours / max(peers):.0f} x the best peer; by rounds {', '.join(f'{one:.0f}' for one in each)}")
    print(f"Penstock, one process alone: {nanoseconds:.0f} ns for a permit and its release")


if __name__ == "__main__":
    main()
