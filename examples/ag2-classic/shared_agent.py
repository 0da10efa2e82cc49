"""AG2 0.x and AutoGen 0.2, one shared agent: twelve users, and the article's repair of a semaphore and tenacity.

The semaphore bounds how many chats run, not how many requests are made in a minute, and tenacity runs a whole chat once
more for each refusal in it. With one line neither is needed.
"""

import asyncio

from _agents import config, quiet, user
from _provider import REQUESTS, TOKENS, failed, provider
from autogen import AssistantAgent
from tenacity import AsyncRetrying, stop_after_attempt, wait_exponential

import penstock
from penstock import Limiter


async def chat(number: int, agent: AssistantAgent) -> None:
    """Have one user talk to the agent."""
    await user(f"user_{number}").a_initiate_chat(agent, message="Why is the sea salt?", max_turns=2, silent=True)


async def with_semaphore(number: int, agent: AssistantAgent, semaphore: asyncio.Semaphore) -> None:
    """Have it as the article does: three chats at a time, each tried again as a whole."""
    async with semaphore:
        async for attempt in AsyncRetrying(stop=stop_after_attempt(3), wait=wait_exponential(0.2), reraise=True):
            with attempt:
                await chat(number, agent)


async def chat_all(llm_config: dict[str, object], *, repaired: bool) -> list[object]:
    """Have all talk to one agent."""
    agent = AssistantAgent("agent", llm_config=llm_config)
    semaphore = asyncio.Semaphore(3)
    chats = (with_semaphore(number, agent, semaphore) if repaired else chat(number, agent) for number in range(12))
    with quiet():
        return await asyncio.gather(*chats, return_exceptions=True)


def as_it_was() -> None:
    """Chat behind the article's repair, at a provider that takes 120 requests per minute."""
    with provider(refusals=True, requests=120) as where:
        results = asyncio.run(chat_all(config(where, max_retries=0), repaired=True))
    print(f"as it was: {failed(results)} of {len(results)} chats failed")


def with_one_line() -> None:
    """Chat through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        llm_config = penstock.govern(config(where), gate)  # the one line
        results = asyncio.run(chat_all(llm_config, repaired=False))
    print(f"governed: {failed(results)} of {len(results)} chats failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
