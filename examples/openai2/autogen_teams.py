"""AutoGen, group chats: a team makes a `RuntimeError` with the text of a refusal, so nothing above it can try again.

The gate is below the team, where calls wait and are tried again. A budget ends a chat that finds no end.
"""

import asyncio

from _autogen import client
from _provider import REQUESTS, TOKENS, failed, provider
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.openai import OpenAIChatCompletionClient

import penstock
from penstock import BudgetExceeded, Limiter


def team(model: OpenAIChatCompletionClient, messages: int | None) -> RoundRobinGroupChat:
    """Make a team of a writer and a critic, who stop after so many messages, or never."""
    agents = [AssistantAgent(name, model_client=model) for name in ("writer", "critic")]
    end = None if messages is None else MaxMessageTermination(messages)
    return RoundRobinGroupChat(agents, termination_condition=end)


async def chat_all(model: OpenAIChatCompletionClient) -> list[object]:
    """Have twelve teams chat at once."""
    runs = (team(model, 5).run(task="Write a line about the sea.") for _ in range(12))
    return await asyncio.gather(*runs, return_exceptions=True)


async def chat_without_end(model: OpenAIChatCompletionClient) -> None:
    """Let a team go on for as long as the budget lasts."""
    with penstock.budget(calls=12, tokens=20_000) as spent:
        try:
            await team(model, None).run(task="Write a line about the sea.")
        except Exception as error:
            print(f"governed: inside the block it is a {type(error).__name__}")
            raise
        finally:
            print(f"governed: the endless chat used {spent.calls} calls and {spent.tokens} tokens")


def as_it_was() -> None:
    """Chat with nothing in front of the provider."""
    with provider(refusals=True) as where:
        model = client(where)
        results = asyncio.run(chat_all(model))
    kinds = {type(result).__name__ for result in results if isinstance(result, Exception)}
    print(f"as it was: {failed(results)} of {len(results)} teams failed, with {', '.join(sorted(kinds))}")


def with_one_line() -> None:
    """Chat through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        model = penstock.govern(client(where), gate)  # the one line
        results = asyncio.run(chat_all(model))
        print(f"governed: {failed(results)} of {len(results)} teams failed")
        try:
            asyncio.run(chat_without_end(model))
        except BudgetExceeded as error:
            print(f"governed: and outside of it BudgetExceeded: {error}")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
