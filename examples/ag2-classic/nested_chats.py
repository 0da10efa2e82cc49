"""AG2 0.x and AutoGen 0.2, nested loops: each answer of a writer is criticized in a chat of its own, in two turns.

Four chats at once, three turns each, make three calls a turn. A limit around a chat sees four; the provider sees 36.
"""

import asyncio

from _agents import config, quiet, user
from _provider import REQUESTS, TOKENS, failed, provider
from autogen import AssistantAgent

import penstock
from penstock import Limiter


def write(number: int, llm_config: dict[str, object]) -> None:
    """Have a writer answer three times, with a critic inside."""
    writer, critic = (AssistantAgent(name, llm_config=llm_config) for name in ("writer", "critic"))
    asker = user(f"user_{number}")
    inside = [{"recipient": critic, "message": "Criticize that.", "max_turns": 2, "summary_method": "last_msg"}]
    writer.register_nested_chats(inside, trigger=asker)
    asker.initiate_chat(writer, message="Write a line about the sea.", max_turns=3, silent=True)


async def write_all(llm_config: dict[str, object]) -> list[object]:
    """Have four of them at once, in threads."""
    with quiet():
        chats = (asyncio.to_thread(write, number, llm_config) for number in range(4))
        return await asyncio.gather(*chats, return_exceptions=True)


def as_it_was() -> None:
    """Write with nothing in front of the provider, which takes 60 requests per minute."""
    with provider(refusals=True, requests=60) as where:
        results = asyncio.run(write_all(config(where, max_retries=0)))
    print(f"as it was: {failed(results)} of {len(results)} chats failed")


def with_one_line() -> None:
    """Write through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        llm_config = penstock.govern(config(where), gate)  # the one line
        results = asyncio.run(write_all(llm_config))
    print(f"governed: {failed(results)} of {len(results)} chats failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
