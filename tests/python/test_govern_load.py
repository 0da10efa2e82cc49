"""Many calls at once through a governed SDK, against each way of enforcing a quota, in real time.

By default a short run with short periods. ``PENSTOCK_SOAK=1`` makes the whole of it: 2,000 calls and periods of a
minute, within 1.05 of the optimum, once with the provider's shape told and once with nothing but its amounts. Nothing
may be refused, unless the log shows that calls differed by more in how long they were on their way, from their permit
to being counted, than the limiter allows for: then this machine stood still.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from loops import IDLE, standing
from openai import AsyncOpenAI

import penstock
from penstock import Limiter
from penstock.cli.run import optimum, warm_up
from penstock.cli.server import Server
from penstock.cli.workload import calls
from penstock.integrations.http import AsyncWire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.testing.provider import Arrival

SOAK = os.environ.get("PENSTOCK_SOAK") == "1"

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.timeout(900 if SOAK else 60)]


#: What the limiter is told: the provider's shape; or its amounts alone, by the minute, as most users have it.
FORMS = ["told", "default"] if SOAK else ["told"]


def spread(log: Iterable[Arrival], left: dict[str, list[float]]) -> float:
    """By how many seconds calls differed in how long they were on their way; each has an API key of its own."""
    delays = [arrival.time - left[f"Bearer {arrival.key}"].pop(0) for arrival in log]
    return max(delays) - min(delays)


@pytest.mark.parametrize("enforcement", ["token_bucket", "fixed_window", "rolling_window", "sub_window"])
@pytest.mark.parametrize("form", FORMS)
def test_many_calls_through_a_governed_client(form: str, enforcement: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    per, count = (60.0, 2_000) if SOAK else (3.0, 60)
    server = Server(
        requests=1_200 if SOAK else 45,
        tokens=600_000 if SOAK else 30_000,
        per=per,
        enforcement=enforcement,
        burst=1.5,
        sub_window=per / 6 if SOAK else per,
        latency=0.3,
        network_jitter=0.0,
        seed=0,
    )
    usual, largest = (300, 8_000) if SOAK else (200, 700)
    work = calls(count, usual=usual, largest=largest, streamed=0.3, seed=0)
    # 0.3 s of spread: 1.2 seconds' worth may leave at once where the provider's bucket holds one and a half.
    careful = dataclasses.replace(server, network_jitter=0.1)
    requests, tokens = careful.told()
    gate = Limiter(requests=requests, tokens=tokens, concurrency=64, network_jitter=careful.jitter)
    allowed = careful.jitter
    if form == "default":
        gate, allowed = Limiter(requests=server.requests, tokens=server.tokens), 0.5
    left: dict[str, list[float]] = {}
    send = AsyncWire.send

    async def sending(self: AsyncWire, request: Any) -> Any:
        left.setdefault(request.headers["authorization"], []).append(time.monotonic())
        return await send(self, request)

    monkeypatch.setattr(AsyncWire, "send", sending)

    async def run() -> float:
        await warm_up(work[0])
        async with AsyncOpenAI(base_url=provider.base_url, api_key="k") as client:
            penstock.govern(client, gate)
            each = (call.send(client.with_options(api_key=f"k{place}")) for place, call in enumerate(work))
            assert all(await asyncio.gather(*each))
            # To begin 2,000 calls takes the SDK seconds, in one turn of the loop, before the first of them leaves.
            return time.monotonic() - min(first for first, *_ in left.values())

    with server.start() as provider:
        seconds = asyncio.run(run())
        summary = provider.summary()
        late = spread(provider.log, left)
    # Who does not know of windows lets calls leave evenly: at the rate, as a bucket of a second would have it.
    best = optimum(server if form == "told" else dataclasses.replace(server, enforcement="token_bucket"), work)
    print(
        f"\n{enforcement}, {form}: {summary.refused} refused, {seconds:.1f} s of {best:.1f}; "
        f"on their way within {late:.3f} s"
    )
    assert (summary.admitted, summary.failed, summary.in_flight) == (count, 0, 0)
    assert gate.stats().granted == summary.sent
    assert standing(gate) == IDLE
    assert summary.refused == 0 or late > allowed
    if SOAK:
        assert seconds <= 1.05 * best
