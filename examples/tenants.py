"""Keys share: a tenant with a hundred calls does not keep one with five waiting, and neither exceeds its own share."""

import asyncio
import time

from _client import MODEL, REQUESTS, TOKENS, async_client
from openai import AsyncOpenAI

from penstock import Limiter

gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16, per_key={"concurrency": 8})


@gate.limit(tokens=100, key=lambda _client, tenant, _number: tenant, usage=lambda _answer: None)
async def ask(client: AsyncOpenAI, tenant: str, number: int) -> str:
    """One call of a tenant; 100 tokens at the most."""
    messages = [{"role": "user", "content": f"{tenant}'s question number {number}"}]
    response = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=100)
    return response.choices[0].message.content


async def serve(client: AsyncOpenAI, tenant: str, count: int) -> float:
    """Make a tenant's calls at once; give the seconds until the last is answered."""
    began = time.monotonic()
    await asyncio.gather(*(ask(client, tenant, number) for number in range(count)))
    return time.monotonic() - began


async def main() -> None:
    """Serve two tenants: the small one comes last, and is done first."""
    async with async_client() as client:
        large, small = await asyncio.gather(serve(client, "large", 60), serve(client, "small", 5))
    print(f"large: 60 calls in {large:.1f} s")
    print(f"small: 5 calls in {small:.1f} s, though it came last")


if __name__ == "__main__":
    asyncio.run(main())
