"""Decorate a call: its cost is computed from its arguments, and settled by what its answer says that it used."""

import asyncio

from _client import MODEL, REQUESTS, TOKENS, async_client
from openai import AsyncOpenAI

from penstock import Limiter, estimate_tokens

gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)  # at import time: no event loop is needed


def cost(_client: AsyncOpenAI, text: str, limit: int) -> int:
    """OpenAI counts the larger of what the answer may take and an estimate of the prompt."""
    return max(limit, estimate_tokens(text))


# That is what it counts whatever the answer takes, so the charge stands: `usage` gives nothing to settle it by.
@gate.limit(tokens=cost, usage=lambda _answer: None, timeout=30)
async def ask(client: AsyncOpenAI, text: str, limit: int) -> str:
    """One call."""
    messages = [{"role": "user", "content": text}]
    response = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=limit)
    return response.choices[0].message.content


async def main() -> None:
    """Ask three things at once; the third waits until the tokens of the first two have come back."""
    async with async_client() as client:
        answers = await asyncio.gather(
            ask(client, "What is a penstock?", 100),
            ask(client, "And a turbine?", 3_000),
            ask(client, "Tell a long story.", 2_000),
        )
    for answer in answers:
        print(answer[:60])
    print(gate.stats())


if __name__ == "__main__":
    asyncio.run(main())
