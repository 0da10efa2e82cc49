"""Priorities: a person in front of a screen goes before the nightly batch."""

import asyncio
import time

from _client import MODEL, REQUESTS, TOKENS, async_client
from openai import AsyncOpenAI

from penstock import Limiter

gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)


async def ask(client: AsyncOpenAI, text: str, priority: int) -> float:
    """One call; gives the seconds that it waited for its permit."""
    async with gate.permit(tokens=100, priority=priority) as permit:
        messages = [{"role": "user", "content": text}]
        await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=100)
        return permit.waited


async def main() -> None:
    """Start a batch of forty, and a second later someone asks something."""
    async with async_client() as client:
        began = time.monotonic()
        batch = asyncio.gather(*(ask(client, f"Batch, number {number}", priority=0) for number in range(40)))
        await asyncio.sleep(1)
        waited = await ask(client, "Someone in front of a screen", priority=10)
        print(f"the person waited {waited:.2f} s")
        longest = max(await batch)
        print(f"the batch was done after {time.monotonic() - began:.1f} s; its last call waited {longest:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
