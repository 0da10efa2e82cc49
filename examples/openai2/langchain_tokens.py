"""LangChain, long prompts: the quota is in tokens, and LangChain's own rate limiter counts requests.

Twenty-four prompts of about 2,000 tokens against 200,000 tokens per minute: `InMemoryRateLimiter` at ten requests per
second is far within the request quota, and is refused all the same. With one line in its place both are kept.
"""

import asyncio

from _provider import MODEL, REQUESTS, TOKENS, failed, provider
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_openai import ChatOpenAI

import penstock
from penstock import Limiter

PROMPTS = [f"Summarize report {number}: " + "the sea was low and dry. " * 330 for number in range(24)]


async def summarize_all(llm: ChatOpenAI) -> list[object]:
    """Make all calls at once."""
    return await asyncio.gather(*(llm.ainvoke(prompt) for prompt in PROMPTS), return_exceptions=True)


def as_it_was() -> None:
    """Bound the requests per second."""
    with provider(refusals=True) as where:
        limiter = InMemoryRateLimiter(requests_per_second=10, check_every_n_seconds=0.05, max_bucket_size=5)
        llm = ChatOpenAI(model=MODEL, rate_limiter=limiter, max_tokens=100, **where)
        results = asyncio.run(summarize_all(llm))
    print(f"as it was: {failed(results)} of {len(results)} calls failed")


def with_one_line() -> None:
    """Bound requests and tokens at once."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        llm = ChatOpenAI(model=MODEL, max_tokens=100, **where)
        penstock.govern(llm, gate)  # the one line
        results = asyncio.run(summarize_all(llm))
    print(f"governed: {failed(results)} of {len(results)} calls failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
