"""One run of the demo: a pattern, against a fresh provider, judged by the provider's own log."""

from __future__ import annotations

import asyncio
import collections
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openai import AsyncOpenAI

from penstock.cli.patterns import PATTERNS
from penstock.testing.provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.cli.server import Server
    from penstock.cli.workload import Call
    from penstock.limiter import Limiter
    from penstock.testing.provider import Summary

#: Seconds between two pictures of a run under way.
_EVERY = 0.2


@dataclass(frozen=True)
class Run:
    """What came of a run."""

    name: str
    calls: int
    answered: int
    errors: dict[str, int]
    """How many calls failed, by the name of the exception that they ended with."""
    sent: int
    """Requests that reached the provider, retries and all."""
    refused: int
    """Requests that it answered with 429."""
    seconds: float
    """From the first call to the end of the last."""
    optimum: float
    """The least seconds in which a client that knew everything could have been done."""
    dimension: str
    """The dimension that was the scarcest."""
    used: float
    """The share of its quota, from the first request to the last, that went into answers."""

    @property
    def failed(self) -> int:
        """Calls without an answer."""
        return self.calls - self.answered

    @property
    def ratio(self) -> float:
        """The time against the optimum; below 1 where calls were given up."""
        return self.seconds / self.optimum

    @property
    def clean(self) -> bool:
        """Whether no request was refused and no call failed."""
        return not self.failed and not self.refused


def optimum(server: Server, calls: Sequence[Call]) -> float:
    """Compute the seconds until the provider can have admitted the calls, in their order, and answered the last one.

    Raises:
        ValueError: if one is larger than the provider ever admits.
    """
    return server.start().optimum(call.tokens for call in calls) + server.latency


async def warm_up(call: Call) -> None:
    """Make a call to a provider that nobody judges: the SDK's first takes 0.2 s, to find out what machine it is on."""
    with FakeProvider(latency=0) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="demo") as client:
            await call.send(client)


async def run(
    name: str, server: Server, calls: Sequence[Call], gate: Limiter, watch: Callable[[float, Summary], None]
) -> Run:
    """Make the calls by the pattern of that name.

    Args:
        name: one of `PATTERNS`.
        server: what the provider is to be like.
        calls: what to send it.
        gate: what Penstock's pattern runs behind.
        watch: told now and then how many seconds have passed and what the provider has seen.
    """
    _, pattern = PATTERNS[name]
    # In a thread of its own the provider judges a client whose loop is busy, as one far away would.
    with server.start() as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="demo") as client:
            began = time.monotonic()
            watching = asyncio.create_task(_watch(provider, began, watch))
            try:
                outcomes = await pattern(client, calls, gate)
            finally:
                watching.cancel()
            seconds = time.monotonic() - began
        summary = provider.summary()
        watch(seconds, summary)
    errors = [type(outcome).__name__ for outcome in outcomes if not isinstance(outcome, str)]
    dimension = max(summary.utilisation, key=lambda dimension: summary.utilisation[dimension])
    return Run(
        name=name,
        calls=len(calls),
        answered=len(calls) - len(errors),
        errors=dict(collections.Counter(errors)),
        sent=summary.sent,
        refused=summary.refused,
        seconds=seconds,
        optimum=optimum(server, calls),
        dimension=dimension,
        used=summary.utilisation[dimension],
    )


async def _watch(provider: FakeProvider, began: float, watch: Callable[[float, Summary], None]) -> None:
    while True:
        watch(time.monotonic() - began, provider.summary())
        await asyncio.sleep(_EVERY)
