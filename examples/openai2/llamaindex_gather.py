"""LlamaIndex, `asyncio.gather` over `achat`: forty questions at once.

LlamaIndex retries around the SDK's own retries, so as it was, one question makes up to twelve requests. With one line
added each makes one.
"""

import asyncio

from _llamaindex import llm
from _provider import REQUESTS, TOKENS, failed, provider
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI

import penstock
from penstock import Limiter

QUESTIONS = [f"Question {number}: why is the sea salt?" for number in range(40)]


async def ask_all(model: OpenAI) -> list[object]:
    """Ask all questions at once."""
    calls = (model.achat([ChatMessage(role="user", content=question)]) for question in QUESTIONS)
    return await asyncio.gather(*calls, return_exceptions=True)


def as_it_was() -> None:
    """Ask with nothing in front of the provider; one retry less than by default, or it takes a minute."""
    with provider(refusals=True) as where:
        results = asyncio.run(ask_all(llm(where, max_retries=1)))
    print(f"as it was: {failed(results)} of {len(results)} questions failed")


def with_one_line() -> None:
    """Ask through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        results = asyncio.run(ask_all(penstock.govern(llm(where), gate)))  # the one line
    print(f"governed: {failed(results)} of {len(results)} questions failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
