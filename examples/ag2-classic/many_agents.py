"""AG2 0.x and AutoGen 0.2, many agents at once: the article's twenty chats of two turns, an agent each.

Every agent has a client of its own, and none knows of the others; retries of the SDK make the burst last. One line, for
the whole process, puts all of them behind one gate.
"""

import asyncio

from _agents import config, quiet, user
from _provider import REQUESTS, TOKENS, failed, provider
from autogen import AssistantAgent

import penstock
from penstock import Limiter


async def chat(number: int, llm_config: dict[str, object]) -> None:
    """Have one user and one agent exchange two messages."""
    agent = AssistantAgent(f"agent_{number}", llm_config=llm_config)
    await user().a_initiate_chat(agent, message=f"Question {number}: why is the sea salt?", max_turns=2, silent=True)


async def chat_all(llm_config: dict[str, object]) -> list[object]:
    """Have all chat at once."""
    with quiet():
        return await asyncio.gather(*(chat(number, llm_config) for number in range(20)), return_exceptions=True)


def as_it_was() -> None:
    """Chat with nothing in front of the provider, which takes 120 requests per minute."""
    with provider(refusals=True, requests=120) as where:
        results = asyncio.run(chat_all(config(where, max_retries=1)))
    print(f"as it was: {failed(results)} of {len(results)} chats failed")


def with_one_line() -> None:
    """Chat through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        hosts = list(where.values())[:1]  # not needed for a known provider
        penstock.install(gate, hosts=hosts)  # the one line
        results = asyncio.run(chat_all(config(where)))
    print(f"governed: {failed(results)} of {len(results)} chats failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
