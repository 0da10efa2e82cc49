"""LangChain, `asyncio.gather` over `ainvoke`: sixty calls at once, each with the SDK's two retries.

As it was, most calls fail, after three requests each. With one line added, each makes one request and is answered.
"""

import asyncio

from _provider import MODEL, REQUESTS, TOKENS, failed, provider
from langchain_openai import ChatOpenAI

import penstock
from penstock import Limiter

TEXTS = [f"Text number {number}: the sea was low." for number in range(60)]


async def summarize_all(llm: ChatOpenAI) -> list[object]:
    """Make all calls at once."""
    calls = (llm.ainvoke(f"Summarize in five words: {text}") for text in TEXTS)
    return await asyncio.gather(*calls, return_exceptions=True)


def as_it_was() -> None:
    """Make them with nothing in front of the provider."""
    with provider(refusals=True) as where:
        llm = ChatOpenAI(model=MODEL, **where)
        results = asyncio.run(summarize_all(llm))
    print(f"as it was: {failed(results)} of {len(results)} calls failed")


def with_one_line() -> None:
    """Make them through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        llm = ChatOpenAI(model=MODEL, **where)
        penstock.govern(llm, gate)  # the one line
        results = asyncio.run(summarize_all(llm))
    print(f"governed: {failed(results)} of {len(results)} calls failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
