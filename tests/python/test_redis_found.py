"""Limits that nobody gave, found out by several processes over one real `redis-server`."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis_servers import Server, fresh_name, limiter_at
from waiting import until

from penstock import CostExceedsLimit, per_minute, providers
from penstock.testing import FakeProvider

pytestmark = [pytest.mark.slow, pytest.mark.once]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


def rates(limiter):
    """What a limiter goes by: dimension, amount and origin of each rate."""
    limiter.try_acquire(requests=0)  # it looks
    return {level.dimension: (level.rate.amount, level.origin) for level in limiter.stats().levels}


OTHER = """
import json, sys
from penstock import providers
limiter = providers.openai(name=sys.argv[2], store=sys.argv[1])
limiter.acquire(requests=0, timeout=20).release()
print("there", flush=True)
for line in sys.stdin:
    limiter.observe(*json.loads(line))
    limiter.acquire(requests=0, timeout=20).release()
    print("told", flush=True)
"""


class Other:
    """Another process with the same limiter, which hears what the provider answers."""

    def __init__(self, server, name):
        command = [sys.executable, "-c", OTHER, server.url, name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE)
        assert self.process.stdout.readline() == "there\n"

    def hear(self, **limits):
        named = {f"x-ratelimit-{what}-{kind}": str(n) for kind, n in limits.items() for what in ("limit", "remaining")}
        print(json.dumps([200, named]), file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "told\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.process:
            self.process.stdin.close()
            assert self.process.wait(30) == 0


def test_what_one_process_finds_out_is_everyones_and_stays_when_another_starts(server):
    name = fresh_name()
    limiter = providers.openai(name=name, store=server.url)
    assert rates(limiter) == {"requests": (20, "tried")}
    with Other(server, name) as other:
        other.hear(requests=600, tokens=40_000)
        found = {"requests": (600, "told"), "tokens": (40_000, "told")}
        until(lambda: rates(limiter) == found)
        with pytest.raises(CostExceedsLimit, match="limit of 40000"):
            limiter.acquire(40_001)
        # One that starts now begins with them, and leaves them as they are.
        with Other(server, name):
            newcomer = providers.openai(name=name, store=server.url)
            until(lambda: rates(newcomer) == found)
            assert rates(limiter) == found
            permits = [newcomer.acquire(10, timeout=5) for _ in range(8)]  # of 20 a minute there would be two
            assert len(permits) == 8
        other.hear(tokens=30_000)
        until(lambda: rates(limiter)["tokens"] == (30_000, "told"))
    # The state is lost: whoever knows them tells them again.
    server.command("FLUSHALL")
    until(lambda: rates(limiter)["tokens"] == (30_000, "told"))
    late = providers.openai(name=name, store=server.url)
    until(lambda: rates(late) == {"requests": (600, "told"), "tokens": (30_000, "told")})


def test_limits_that_are_given_are_no_longer_found_out(server):
    name = fresh_name()
    limiter = providers.openai(name=name, store=server.url)
    assert rates(limiter)["requests"] == (20, "tried")
    with Other(server, name) as other:
        limiter.update(requests=per_minute(90, burst=9))
        # The other one knows when it has asked.
        other.hear(tokens=10_000)
        other.hear(requests=500, tokens=10_000)
        until(lambda: "tokens" in rates(limiter))
        assert rates(limiter) == {"requests": (90, "configured"), "tokens": (10_000, "told")}


def test_what_one_process_changes_every_other_knows(server):
    name = fresh_name()
    one, two = (limiter_at(server.url, name, tokens=per_minute(1_000), concurrency=3) for _ in range(2))
    for limiter in (one, two):
        limiter.acquire(timeout=10).release()
    with pytest.raises(CostExceedsLimit):
        two.acquire(5_000, timeout=5)
    one.update(tokens=per_minute(10_000, burst=10_000), concurrency=2)
    until(lambda: rates(two)["tokens"][0] == 10_000)
    assert two.stats().concurrency == 2
    two.acquire(5_000, timeout=5).release()


WORK = """
import asyncio, sys, time
import httpx, penstock
from penstock import providers
url, name, origin = sys.argv[1:]
body = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
async def main():
    limits = httpx.Limits(max_connections=None)
    keys = {"authorization": "Bearer test"}
    async with httpx.AsyncClient(base_url=origin, limits=limits, timeout=60, headers=keys) as client:
        penstock.govern(client, providers.openai(name=name, store=url))
        (await client.post("/v1/chat/completions", json=body)).raise_for_status()  # the first call takes long to begin
        print("ready", flush=True)
        until = float(sys.stdin.readline())
        async def work():
            while (left := until - time.time()) > 0:
                with penstock.scope(timeout=left):
                    try:
                        (await client.post("/v1/chat/completions", json=body)).raise_for_status()
                    except penstock.AcquireTimeout:
                        return
        await asyncio.gather(*(work() for _ in range(12)))
asyncio.run(main())
"""


def test_processes_without_any_numbers_use_one_quota_together(server):
    """Three processes that were told nothing, over real HTTP: nothing is refused, and the quota is used."""
    requests, seconds, counted_from = 1_200, 7.0, 3.0

    async def main():
        async with FakeProvider(requests=requests, tokens=10_000_000, latency=0.1) as provider:
            command, pipe = [sys.executable, "-c", WORK, server.url, fresh_name(), provider.origin], subprocess.PIPE
            workers = [
                await asyncio.create_subprocess_exec(*command, cwd=HERE, stdin=pipe, stdout=pipe) for _ in range(3)
            ]
            for worker in workers:
                assert await worker.stdout.readline() == b"ready\n"
            for worker in workers:
                worker.stdin.write(f"{time.time() + seconds}\n".encode())
            assert [await worker.wait() for worker in workers] == [0, 0, 0]
            return list(provider.log)

    log = asyncio.run(main())
    first = log[3].time  # each had made one call
    refused = [arrival.refused_by for arrival in log if arrival.refused_by]
    end = max(arrival.time for arrival in log) - 0.5
    counted = [arrival for arrival in log if first + counted_from <= arrival.time < end]
    used = len(counted) / (max(end - first - counted_from, 1) * requests / 60)
    print(f"{len(refused)} of {len(log)} refused; {used:.3f} of the quota used from {counted_from:g} s on")
    assert not refused, json.dumps(refused)
    assert used > 0.6  # each for itself would come to a third
