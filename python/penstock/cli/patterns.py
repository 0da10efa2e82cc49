"""Ways to make many calls at once: two that people use, and three of Penstock's.

Each gives, for every call, its answer or the exception that it ended with.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import tenacity

from penstock import governing, installing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openai import AsyncOpenAI

    from penstock.cli.workload import Call
    from penstock.limiter import Limiter


class Pattern(Protocol):
    """A way to make many calls at once."""

    async def __call__(self, client: AsyncOpenAI, calls: Sequence[Call], gate: Limiter, /) -> list[str | BaseException]:
        """Make the calls; a pattern without Penstock has no use for the limiter."""


async def gather(client: AsyncOpenAI, calls: Sequence[Call], _gate: Limiter) -> list[str | BaseException]:
    """Make all at once, as tutorials do; nobody throttles but the SDK, which tries each call three times."""
    return await asyncio.gather(*(call.send(client) for call in calls), return_exceptions=True)


async def semaphore(client: AsyncOpenAI, calls: Sequence[Call], _gate: Limiter) -> list[str | BaseException]:
    """Make five at a time, the usual repair, with tenacity's retries (those of OpenAI's cookbook) over the SDK's."""
    five = asyncio.Semaphore(5)

    @tenacity.retry(
        wait=tenacity.wait_random_exponential(min=1, max=60), stop=tenacity.stop_after_attempt(6), reraise=True
    )
    async def persistent(call: Call) -> str:
        async with five:
            return await call.send(client)

    return await asyncio.gather(*(persistent(call) for call in calls), return_exceptions=True)


async def penstock(client: AsyncOpenAI, calls: Sequence[Call], gate: Limiter) -> list[str | BaseException]:
    """Make all at once, behind a limiter."""

    # OpenAI counts a call when it arrives, with all that it may use at the most, and gives nothing back when the answer
    # is shorter. So what is charged stands, whatever the answer says that it used.
    @gate.limit(tokens=lambda call: call.tokens, usage=lambda _answer: None)
    async def limited(call: Call) -> str:
        return await call.send(client)

    return await gate.gather(*(limited(call) for call in calls), return_exceptions=True)


async def govern(client: AsyncOpenAI, calls: Sequence[Call], gate: Limiter) -> list[str | BaseException]:
    """Make all at once, as tutorials do, with a client that was handed to `penstock.govern`; nobody counts tokens."""
    governing.govern(client, gate)
    return await gather(client, calls, gate)


async def install(client: AsyncOpenAI, calls: Sequence[Call], gate: Limiter) -> list[str | BaseException]:
    """Make all at once, as tutorials do, in a process that is governed; nothing knows of the limiter."""
    with installing.install(gate, hosts=[client.base_url.host]):
        return await gather(client, calls, gate)


#: Those that have Penstock in them.
OURS = ("penstock", "govern", "install")
#: By the names that the command line has for them: what the table calls each, and what it does.
PATTERNS: dict[str, tuple[str, Pattern]] = {
    "gather": ("asyncio.gather", gather),
    "semaphore": ("semaphore(5)+tenacity", semaphore),
    "penstock": ("Penstock @limit", penstock),
    "govern": ("Penstock govern", govern),
    "install": ("Penstock install", install),
}
