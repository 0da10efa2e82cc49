"""Zero configuration, end to end: governed clients, a strict provider, and limiters that were told nothing.

Real HTTP, and virtual time: a machine that stands still would be refused for it. Judged by the provider's log: nothing
is refused after the first seconds, and the quota that is short is used.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock import providers
from penstock.testing import FakeProvider, virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock import Limiter

httpx = pytest.importorskip("httpx")

pytestmark = [pytest.mark.slow, pytest.mark.once]

#: How long each run takes, and how much of that counts: before it, limits are still being found.
SECONDS, COUNTED_FROM = 24.0, 10.0


def chat(tokens: int) -> dict[str, Any]:
    return {"model": "m", "max_tokens": tokens, "messages": [{"role": "user", "content": "Hello " * 20}]}


def content(_: int) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": "Hello " * 20}]}]}


async def load(provider: FakeProvider, path: str, body: dict[str, Any], limiter: Limiter) -> None:
    """Always more to do than the provider takes."""
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    limits = httpx.Limits(max_connections=None)
    keys = {"authorization": "Bearer test", "x-api-key": "test", "api-key": "test", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=provider.origin, limits=limits, timeout=60, headers=keys) as client:
        penstock.govern(client, limiter)

        async def work() -> None:
            while loop.time() < end:
                with penstock.scope(timeout=max(0.0, end - loop.time())):
                    try:
                        (await client.post(path, json=body)).raise_for_status()
                    except penstock.AcquireTimeout:
                        return

        await asyncio.gather(*(work() for _ in range(40)))


SERVERS: dict[str, tuple[Callable[[], Limiter], str, dict[str, Any], dict[str, Any]]] = {
    "openai": (providers.openai, "/v1/chat/completions", chat(60), {"requests": 600, "tokens": 1_000_000}),
    "openai, tokens": (providers.openai, "/v1/chat/completions", chat(600), {"requests": 6_000, "tokens": 240_000}),
    "azure_openai": (
        providers.azure_openai,
        "/openai/deployments/m/chat/completions?api-version=2024-10-21",
        chat(60),
        {"requests": 600, "tokens": 1_000_000, "dialect": "azure"},
    ),
    "anthropic": (
        providers.anthropic,
        "/v1/messages",
        chat(60),
        {"requests": 600, "input_tokens": 1_000_000, "output_tokens": 500_000, "dialect": "anthropic"},
    ),
}


def test_nothing_is_refused_after_the_first_seconds_and_the_quota_is_used() -> None:
    async def main() -> dict[str, FakeProvider]:
        used: dict[str, FakeProvider] = {}

        async def one(name: str) -> None:
            make, path, body, quota = SERVERS[name]
            async with FakeProvider(**quota, latency=0.3) as provider:
                used[name] = provider
                await load(provider, path, body, make())

        await asyncio.gather(*(one(name) for name in SERVERS))
        return used

    with virtual_time():
        used = asyncio.run(main())
    for name, provider in used.items():
        quota = SERVERS[name][3]
        arrivals = [arrival for arrival in provider.log if COUNTED_FROM <= arrival.time < SECONDS - 1]
        refused = [arrival for arrival in arrivals if arrival.refused_by]
        seconds = SECONDS - 1 - COUNTED_FROM
        shares = {
            "requests": len(arrivals) / (quota["requests"] * seconds / 60),
            "tokens": sum(arrival.tokens for arrival in arrivals) / (quota.get("tokens", 10**9) * seconds / 60),
        }
        early = sum(1 for arrival in provider.log if arrival.refused_by) - len(refused)
        print(f"{name}: {early} refused early, {len(refused)} of {len(arrivals)} after; used {shares}")
        assert not refused, (name, json.dumps([arrival.refused_by for arrival in refused]))
        assert max(shares.values()) > 0.85, (name, shares)
