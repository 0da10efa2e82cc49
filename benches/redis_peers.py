"""How many calls one asyncio process gets through a limiter in Redis that has room, beside peers and bare PINGs.

`python benches/redis_peers.py [SECONDS]`: one redis-server on loopback, started here; 256 tasks, each of which asks
again as soon as it is answered. One after the other, each in a process of its own, three times in turn; what counts is
the best of each. Peers use redis-py with hiredis, and two connections for each task (fewer would make them wait, and by
default it refuses more than 100); one rate, by their cheapest strategy and by a stricter one. limits and throttled-py
say yes or no; pyrate-limiter and Penstock let callers wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Call = Callable[[], Awaitable[Any]]

IN_FLIGHT = 256
ROUNDS = 3
PER_MINUTE = 60_000_000
"""More than any of them gets through, with a burst as large."""


def _with_connections(url: str) -> str:
    return f"{url}?max_connections={2 * IN_FLIGHT}"


def _penstock(url: str, sizes: Iterator[int], **limits: Any) -> Call:
    from penstock import Limiter, Rate

    rates = {dimension: Rate(amount, 60, burst=amount) for dimension, amount in limits.items()}
    # Closed: what is counted was asked for, every time.
    name = "bench-" + "-".join(limits)
    limiter = Limiter(name=name, store=url, concurrency=1_000, on_store_failure="closed", **rates)

    async def call() -> None:
        (await limiter.aacquire(next(sizes))).release()

    return call


async def penstock(url: str) -> Call:
    """Requests, tokens, input tokens and a concurrency: a permit, and its release."""
    return _penstock(url, itertools.repeat(10), requests=PER_MINUTE, tokens=10**10, input_tokens=10**10)


async def penstock_sizes(url: str) -> Call:
    """The same for calls of a thousand sizes, as prompts have them: hardly two of one message are alike."""
    sizes = itertools.cycle(random.Random(7).sample(range(1, 1_001), 1_000))
    return _penstock(url, sizes, requests=PER_MINUTE, tokens=10**10, input_tokens=10**10)


async def penstock_one(url: str) -> Call:
    """Requests alone and a concurrency."""
    return _penstock(url, itertools.repeat(10), requests=PER_MINUTE)


async def _limits(url: str, strategy: str) -> Call:
    from limits import RateLimitItemPerMinute
    from limits.aio import storage, strategies

    limiter = getattr(strategies, strategy)(
        storage.RedisStorage(f"async+{_with_connections(url)}", implementation="redispy")
    )
    rate = RateLimitItemPerMinute(PER_MINUTE)
    return lambda: limiter.hit(rate, strategy)


async def limits_fixed(url: str) -> Call:
    """Its cheapest: a counter that starts anew each minute."""
    return await _limits(url, "FixedWindowRateLimiter")


async def limits_moving(url: str) -> Call:
    """The one that never lets more than the amount leave in any window."""
    return await _limits(url, "MovingWindowRateLimiter")


async def _bucket(url: str) -> Any:
    from pyrate_limiter import Rate, RedisBucket
    from redis.asyncio import Redis

    return await RedisBucket.init([Rate(PER_MINUTE, 60_000)], Redis.from_url(_with_connections(url)), "bench-pyrate")


async def pyrate(url: str) -> Call:
    """One limiter for all tasks, which it lets ask one after the other."""
    from pyrate_limiter import Limiter

    limiter = Limiter(await _bucket(url))
    return lambda: limiter.try_acquire_async("key")


async def pyrate_each(url: str) -> Call:
    """A limiter for each task over one bucket, so that they ask side by side."""
    from pyrate_limiter import Limiter

    bucket = await _bucket(url)
    limiters: dict[Any, Any] = {}

    async def call() -> None:
        task = asyncio.current_task()
        if task not in limiters:
            limiters[task] = Limiter(bucket)
        await limiters[task].try_acquire_async("key")

    return call


async def _throttled(url: str, using: str) -> Call:
    from throttled.asyncio import Throttled, rate_limiter, store

    quota = rate_limiter.per_min(PER_MINUTE, burst=PER_MINUTE)
    shared = store.RedisStore(server=_with_connections(url), options={"REUSE_CONNECTION": True})
    limiter = Throttled(key="bench", using=using, quota=quota, store=shared)
    return limiter.limit


async def throttled_fixed(url: str) -> Call:
    """Its cheapest: a counter that starts anew each minute."""
    return await _throttled(url, "fixed_window")


async def throttled_gcra(url: str) -> Call:
    """Paced, as a bucket."""
    return await _throttled(url, "gcra")


async def floor(url: str) -> Call:
    """A PING of redis-py for each call: what one trip of one task costs there."""
    from redis.asyncio import Redis

    return Redis.from_url(_with_connections(url)).ping


CANDIDATES: dict[str, Callable[[str], Awaitable[Call]]] = {
    "penstock, 3 rates and concurrency": penstock,
    "penstock, calls of all sizes": penstock_sizes,
    "penstock, 1 rate and concurrency": penstock_one,
    "limits, fixed window": limits_fixed,
    "limits, moving window": limits_moving,
    "pyrate-limiter, one limiter": pyrate,
    "pyrate-limiter, one for each task": pyrate_each,
    "throttled-py, fixed window": throttled_fixed,
    "throttled-py, gcra": throttled_gcra,
    "redis-py, PING": floor,
}


async def _count(make: Callable[[str], Awaitable[Call]], url: str, seconds: float) -> float:
    call = await make(url)
    # One warms it up, and the others their connections; what is counted is in the middle.
    await call()
    counts = [0] * IN_FLIGHT
    ending = False

    async def work(place: int) -> None:
        while not ending:
            await call()
            counts[place] += 1

    tasks = [asyncio.ensure_future(work(place)) for place in range(IN_FLIGHT)]
    await asyncio.sleep(0.5)
    before, began = sum(counts), time.perf_counter()
    await asyncio.sleep(seconds)
    after, took = sum(counts), time.perf_counter() - began
    ending = True
    await asyncio.gather(*tasks)
    return (after - before) / took


def _work(name: str, url: str, seconds: float, results: Any) -> None:
    results.put(asyncio.run(_count(CANDIDATES[name], url, seconds)))


def measure(name: str, url: str, seconds: float) -> float:
    """Give the calls per second of one of them, in a process that has done nothing else."""
    context: Any = multiprocessing.get_context("spawn")
    results = context.Queue()
    worker = context.Process(target=_work, args=(name, url, seconds, results))
    worker.start()
    worker.join(seconds + 60)
    return float(results.get(timeout=1))


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run a redis-server on a free port of loopback."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("no redis-server here")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=home)
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Measure all, three times in turn, and print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    rates: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    with server() as url:
        for _ in range(ROUNDS):
            for name, of in rates.items():
                of.append(measure(name, url, seconds))
    peers = [max(of) for name, of in rates.items() if not name.startswith(("penstock", "redis-py"))]
    print(f"{IN_FLIGHT} in flight, {seconds:g} s each, the best of {ROUNDS} rounds, and all of them")
    for name, of in rates.items():
        each = ", ".join(f"{rate:,.0f}" for rate in of)
        print(f"{name:36} {max(of):10,.0f} calls/s {max(of) / max(peers):6.1f} x the best peer   ({each})")


if __name__ == "__main__":
    main()
