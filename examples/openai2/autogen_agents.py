"""AutoGen, many agents at once on one model client: thirty agents, one question each."""

import asyncio

from _autogen import client
from _provider import REQUESTS, TOKENS, failed, provider
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient

import penstock
from penstock import Limiter


async def ask_all(model: OpenAIChatCompletionClient) -> list[object]:
    """Ask all agents at once."""
    agents = [AssistantAgent(f"agent_{number}", model_client=model) for number in range(30)]
    runs = (agent.run(task=f"Question {number}: why is the sea salt?") for number, agent in enumerate(agents))
    results = await asyncio.gather(*runs, return_exceptions=True)
    await model.close()
    return results


def as_it_was() -> None:
    """Ask with nothing in front of the provider."""
    with provider(refusals=True) as where:
        results = asyncio.run(ask_all(client(where)))
    print(f"as it was: {failed(results)} of {len(results)} agents failed")


def with_one_line() -> None:
    """Ask through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        model = penstock.govern(client(where), gate)  # the one line
        results = asyncio.run(ask_all(model))
    print(f"governed: {failed(results)} of {len(results)} agents failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
