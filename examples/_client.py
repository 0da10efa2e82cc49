"""What the examples talk to: OpenAI if OPENAI_API_KEY is set, else a strict provider on this machine."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI, OpenAI

from penstock.testing.provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
#: What the provider on this machine allows; yours is on your account's limits page.
REQUESTS, TOKENS = 600, 200_000


@contextlib.contextmanager
def provider() -> Iterator[FakeProvider | None]:
    """Run the provider on this machine, unless there is a real key; its bucket holds 1.5 seconds of quota."""
    if os.environ.get("OPENAI_API_KEY"):
        yield None
        return
    burst = {"requests": REQUESTS // 40, "tokens": TOKENS // 40}
    with FakeProvider(requests=REQUESTS, tokens=TOKENS, burst=burst, latency=0.2) as running:
        yield running
        print(f"The provider saw: {running.summary()}")


def _where(running: FakeProvider | None) -> dict[str, Any]:
    """Say where the SDK finds its provider: nothing, where it knows by itself."""
    return {} if running is None else {"base_url": running.base_url, "api_key": "any"}


@contextlib.asynccontextmanager
async def async_client() -> AsyncIterator[AsyncOpenAI]:
    """Give an `AsyncOpenAI`."""
    with provider() as running:
        async with AsyncOpenAI(**_where(running)) as client:
            await client.models.list()  # an SDK's first call takes half a second to begin: let it be this one
            yield client


@contextlib.contextmanager
def client() -> Iterator[OpenAI]:
    """Give an `OpenAI`."""
    with provider() as running, OpenAI(**_where(running)) as result:
        result.models.list()
        yield result
