"""Many calls at once through a governed SDK, against each way of enforcing a quota, in real time.

By default a short run with short periods, of which a busy machine's delays are a large share: it is judged by counts.
``PENSTOCK_SOAK=1`` makes the whole of it: 2,000 calls and periods of a minute, no refusal, within 1.05 of the optimum.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest
from loops import IDLE, standing
from openai import AsyncOpenAI

import penstock
from penstock import Limiter
from penstock.cli.run import optimum, warm_up
from penstock.cli.server import Server
from penstock.cli.workload import calls

SOAK = os.environ.get("PENSTOCK_SOAK") == "1"

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.timeout(900 if SOAK else 60)]


@pytest.mark.parametrize("enforcement", ["token_bucket", "fixed_window", "rolling_window", "sub_window"])
def test_many_calls_through_a_governed_client(enforcement: Any) -> None:
    per, count = (60.0, 2_000) if SOAK else (3.0, 90)
    server = Server(
        requests=1_200 if SOAK else 45,
        tokens=600_000 if SOAK else 30_000,
        per=per,
        enforcement=enforcement,
        burst=1.5,
        sub_window=per / 6,
        latency=0.3,
        network_jitter=0.0,
        seed=0,
    )
    usual, largest = (300, 8_000) if SOAK else (200, 700)
    work = calls(count, usual=usual, largest=largest, streamed=0.3, seed=0)
    requests, tokens = server.told()
    gate = Limiter(requests=requests, tokens=tokens, concurrency=64, network_jitter=server.jitter)

    async def run() -> float:
        await warm_up(work[0])
        async with AsyncOpenAI(base_url=provider.base_url, api_key="k") as client:
            penstock.govern(client, gate)
            began = time.monotonic()
            answers = await asyncio.gather(*(call.send(client) for call in work))
            assert all(answers)
            return time.monotonic() - began

    with server.start() as provider:
        seconds = asyncio.run(run())
        summary = provider.summary()
    assert (summary.admitted, summary.failed, summary.in_flight) == (count, 0, 0)
    assert gate.stats().granted == summary.sent
    assert standing(gate) == IDLE
    if SOAK:
        assert summary.refused == 0
        assert seconds <= 1.05 * optimum(server, work)
    else:
        assert summary.refused <= count // 10
