"""How many requests a second the fake provider serves on one core: ``python benches/fake_provider.py``.

The provider runs in a process of its own, the clients (aiohttp, on loopback) in two others; what counts is the
provider's CPU time per request, so that a busy machine does not blur the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time

import aiohttp

from penstock.testing.provider import FakeProvider

BODIES = {
    "chat": ("chat/completions", {"messages": [{"role": "user", "content": "x" * 2000}], "max_tokens": 200}),
    "stream": (
        "chat/completions",
        {"messages": [{"role": "user", "content": "x" * 2000}], "max_tokens": 200, "stream": True},
    ),
    "refused": ("chat/completions", {"messages": [{"role": "user", "content": "x" * 2000}], "max_tokens": 10**6}),
    "embeddings": ("embeddings", {"input": "x" * 2000, "encoding_format": "base64"}),
}


async def load(base_url: str, kind: str, requests: int, concurrency: int) -> None:
    path, body = BODIES[kind]
    left = iter(range(requests))

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post(f"{base_url}/{path}", json={"model": "m", **body}) as response:
                await response.read()

    headers = {"authorization": "Bearer bench"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(concurrency)))


def run_load(*arguments: object) -> None:
    asyncio.run(load(*arguments))  # type: ignore[arg-type]


async def measure(kind: str, requests: int, concurrency: int) -> None:
    context = multiprocessing.get_context("spawn")
    async with FakeProvider(requests=10**9, tokens=10**5 if kind == "refused" else 10**12, latency=0.02) as provider:
        share = (provider.base_url, kind, requests // 2, concurrency // 2)
        clients = [context.Process(target=run_load, args=share) for _ in range(2)]
        for client in clients:
            client.start()
        while not provider.log:
            await asyncio.sleep(0.01)
        wall, cpu = time.perf_counter(), time.process_time()
        for client in clients:
            await asyncio.to_thread(client.join)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        summary = provider.summary()
        if summary.sent != requests // 2 * 2 or summary.failed:
            raise SystemExit(f"not what was sent: {summary}")
        rate = f"{summary.sent / cpu:7,.0f}/s of CPU, {summary.sent / wall:7,.0f}/s of wall clock"
        print(f"{kind:10} {rate}, {cpu / summary.sent * 1e6:5.0f} us each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--concurrency", type=int, default=100)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for kind in BODIES:
        asyncio.run(measure(kind, options.requests, options.concurrency))


if __name__ == "__main__":
    main()
