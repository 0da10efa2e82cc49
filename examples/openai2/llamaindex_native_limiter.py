"""LlamaIndex, its own rate limiter with a bound on tokens: no call of LlamaIndex ever tells it how many tokens it has.

So `TokenBucketRateLimiter(tokens_per_minute=...)` never waits for tokens, and long prompts are refused. Penstock's
`RateLimiter` goes into the same field and does what that one says; it also survives the pickling that sends a model
into the workers of an `IngestionPipeline`.
"""

import asyncio

from _llamaindex import llm
from _provider import REQUESTS, TOKENS, failed, provider
from llama_index.core.rate_limiter import TokenBucketRateLimiter
from llama_index.llms.openai import OpenAI

from penstock import Limiter
from penstock.integrations.llamaindex import RateLimiter

PROMPTS = [f"Summarize report {number}: " + "the sea was low and dry. " * 330 for number in range(10)]


async def summarize_all(model: OpenAI) -> list[object]:
    """Make all calls at once."""
    return await asyncio.gather(*map(model.acomplete, PROMPTS), return_exceptions=True)


def as_it_was() -> None:
    """Use LlamaIndex's limiter, told the provider's quotas."""
    with provider(refusals=True) as where:
        model = llm(where, max_retries=0, max_tokens=100)
        model.rate_limiter = TokenBucketRateLimiter(requests_per_minute=REQUESTS, tokens_per_minute=TOKENS)
        results = asyncio.run(summarize_all(model))
    print(f"as it was: {failed(results)} of {len(results)} calls failed")


def with_one_line() -> None:
    """Use Penstock's in its place."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        model = llm(where, max_tokens=100)
        model.rate_limiter = RateLimiter(gate)  # the one line
        results = asyncio.run(summarize_all(model))
    print(f"governed: {failed(results)} of {len(results)} calls failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
