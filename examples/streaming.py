"""Streams: each holds its permit until it is exhausted, closed or dropped. No more than two are under way here."""

import asyncio
from collections.abc import AsyncIterator

from _client import MODEL, REQUESTS, TOKENS, async_client
from openai import AsyncOpenAI

from penstock import Limiter

gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=2)


@gate.limit(tokens=200, usage=lambda _chunk: None)  # the charge stands: see decorate.py
async def tell(client: AsyncOpenAI, prompt: str) -> AsyncIterator[str]:
    """Tell a story, word by word."""
    messages = [{"role": "user", "content": prompt}]
    stream = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=200, stream=True)
    async with stream:
        async for chunk in stream:
            for choice in chunk.choices:
                yield choice.delta.content or ""


async def listen(client: AsyncOpenAI, number: int) -> None:
    """Hear a story to its end."""
    words = 0
    async for text in tell(client, f"Tell story number {number}."):
        words += len(text.split())
    in_flight = gate.stats().in_flight
    print(f"story {number}: {words} words; {in_flight} under way, {gate.stats().waiting} waiting")


async def main() -> None:
    """Ask for six stories at once, and for one that is left early."""
    async with async_client() as client:
        await asyncio.gather(*(listen(client, number) for number in range(6)))
        story = tell(client, "Tell a story that nobody hears to its end.")
        async for _ in story:
            break
        await story.aclose()
    print(f"afterwards {gate.stats().in_flight} under way")


if __name__ == "__main__":
    asyncio.run(main())
