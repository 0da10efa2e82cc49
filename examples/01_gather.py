"""Forty calls at once: `asyncio.gather` as tutorials have it, and the same behind a gate.

The first fails for most of its calls, after three requests each; the second makes forty requests.
"""

import asyncio

from _client import MODEL, REQUESTS, TOKENS, async_client
from openai import AsyncOpenAI, RateLimitError

from penstock import Limiter

TEXTS = [f"Text number {number}: the sea was low." for number in range(40)]


async def summarize(client: AsyncOpenAI, text: str) -> str:
    """One call; 100 tokens at the most."""
    messages = [{"role": "user", "content": f"Summarize: {text}"}]
    response = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=100)
    return response.choices[0].message.content


async def broken() -> None:
    """Make all calls at once."""
    async with async_client() as client:
        results = await asyncio.gather(*(summarize(client, text) for text in TEXTS), return_exceptions=True)
    refused = sum(isinstance(result, RateLimitError) for result in results)
    print(f"asyncio.gather: {refused} of {len(TEXTS)} calls failed\n")


async def fixed() -> None:
    """Make them as they are admitted."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    async with async_client() as client:
        calls = (summarize(client, text) for text in TEXTS)
        results = await gate.gather(*calls, tokens=100, progress=True)
    print(f"gate.gather: {len(results)} of {len(TEXTS)} calls answered")
    print(gate.stats())


if __name__ == "__main__":
    asyncio.run(broken())
    asyncio.run(fixed())
