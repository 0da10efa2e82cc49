"""AutoGen under `govern`: clients, agents and teams pass the gate, and survive what AutoGen does to components."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_core.models import ChatCompletionClient, CreateResult, ModelFamily, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from counting import equal, gate
from pydantic import BaseModel

import penstock
from penstock.integrations.autogen import Governed
from penstock.testing.provider import FakeProvider

pytestmark = pytest.mark.filterwarnings("ignore:Resolved model mismatch")  # the fake provider names no dates

MESSAGES = [UserMessage(content="What is a penstock?", source="user")]
INFO = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "family": ModelFamily.GPT_4O,
    "structured_output": True,
    "multiple_system_messages": True,
}


class Answer(BaseModel):
    """An answer."""

    text: str


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def client_at(provider: FakeProvider, **more: Any) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(
        model="gpt-4o-mini", base_url=provider.base_url, api_key="any", model_info=INFO, **more
    )


def agent(client: ChatCompletionClient, name: str = "writer", **more: Any) -> AssistantAgent:
    return AssistantAgent(name, model_client=client, **more)


# Ways to a model.


async def create(client: Any) -> None:
    result = await client.create(MESSAGES)
    assert result.usage.prompt_tokens > 0


async def create_json(client: Any) -> None:
    assert Answer.model_validate_json((await client.create(MESSAGES, json_output=Answer)).content)


async def create_stream(client: Any) -> None:
    items = [item async for item in client.create_stream(MESSAGES)]
    assert isinstance(items[-1], CreateResult)


async def tools_and_reflection(client: Any) -> None:
    await agent(client, tools=[multiply], reflect_on_tool_use=True).run(task="What is 6 times 7?")


async def streaming_agent(client: Any) -> None:
    async for _ in agent(client, model_client_stream=True).run_stream(task="Tell a story."):
        pass


async def round_robin(client: Any) -> None:
    team = RoundRobinGroupChat(
        [agent(client, "writer"), agent(client, "critic")], termination_condition=MaxMessageTermination(5)
    )
    await team.run(task="Write a line about a river.")


async def selector(client: Any) -> None:
    team = SelectorGroupChat(
        [agent(client, "writer", description="Writes."), agent(client, "critic", description="Criticizes.")],
        model_client=client,
        termination_condition=MaxMessageTermination(4),
        selector_func=None,
    )
    await team.run(task="Write a line about a river.")


WAYS = [create, create_json, create_stream, tools_and_reflection, streaming_agent, round_robin, selector]


@pytest.mark.parametrize("wrapped", [False, True], ids=["govern", "Governed"])
def test_every_way_to_a_model_passes_the_gate_once(provider: FakeProvider, wrapped: bool) -> None:
    limiter = gate()
    client: Any = client_at(provider)
    client = Governed(client, limiter) if wrapped else penstock.govern(client, limiter)
    counted = 0
    for way in WAYS:
        asyncio.run(way(client))
        before, counted = counted, equal(provider, limiter).calls
        assert counted > before, way.__name__
    assert all(arrival.status == 200 for arrival in provider.log)
