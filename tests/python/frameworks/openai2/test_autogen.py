"""AutoGen under `govern`: clients, agents and teams pass the gate, and survive what AutoGen does to components."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_core import CancellationToken
from autogen_core.models import ChatCompletionClient, CreateResult, ModelFamily, RequestUsage, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.models.replay import ReplayChatCompletionClient
from counting import at_gate, at_server, equal, gate, settled
from pydantic import BaseModel

import penstock
from penstock import Limiter, Retry, identity
from penstock.integrations.autogen import Governed
from penstock.testing.provider import FakeProvider
from penstock.testing.provider.fault import Fault

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


# What a governed client is.


def test_it_is_what_it_was(provider: FakeProvider) -> None:
    limiter = gate()
    client = client_at(provider)
    before = client.dump_component()
    assert penstock.govern(client, limiter) is client
    penstock.govern(client, limiter)
    assert type(client) is OpenAIChatCompletionClient
    assert client.model_info == client_at(provider).model_info
    penstock.ungovern(client)
    assert client.dump_component() == before
    asyncio.run(client.create(MESSAGES))
    assert (at_server(provider).calls, at_gate(limiter).calls) == (1, 0)


@pytest.mark.parametrize("wrapped", [False, True], ids=["govern", "Governed"])
def test_a_component_finds_its_limiter_again(provider: FakeProvider, wrapped: bool) -> None:
    limiter = Limiter(requests=1_000, concurrency=2, name=f"autogen-{wrapped}")
    client: Any = client_at(provider)
    retry = Retry(attempts=2, jitter=None)
    client = Governed(client, limiter, retry=retry) if wrapped else penstock.govern(client, limiter, retry=retry)
    dumped = json.loads(client.dump_component().model_dump_json())
    dumped["config"]["client"]["config"]["api_key"] = "any"  # AutoGen masks it
    loaded: Any = ChatCompletionClient.load_component(dumped)
    assert type(loaded) is type(client)
    asyncio.run(loaded.create(MESSAGES))
    assert limiter.stats().granted == at_server(provider).calls == 1
    again = json.loads(loaded.dump_component().model_dump_json())
    again["config"]["client"]["config"]["api_key"] = "any"
    assert again == dumped
    # Where there is no limiter of that name, one is made.
    given = limiter.given
    del client, loaded, limiter
    gc.collect()
    elsewhere: Any = ChatCompletionClient.load_component(dumped)
    made = identity.read(Limiter, dumped["config"]["limiter"])
    assert made.given == given
    asyncio.run(elsewhere.create(MESSAGES))
    assert made.stats().granted == 1


def test_an_agent_and_a_team_are_dumped_and_loaded_governed(provider: FakeProvider) -> None:
    limiter = Limiter(requests=1_000, name="autogen-team")
    client = penstock.govern(client_at(provider), limiter)
    team = RoundRobinGroupChat(
        [agent(client, "writer"), agent(client, "critic")], termination_condition=MaxMessageTermination(3)
    )
    text = team.dump_component().model_dump_json().replace("**********", "any")
    loaded = RoundRobinGroupChat.load_component(json.loads(text))
    asyncio.run(loaded.run(task="Write a line about a river."))
    assert limiter.stats().granted == at_server(provider).calls == 2


def test_copies_and_pickles_are_governed(provider: FakeProvider) -> None:
    limiter = gate()
    client = penstock.govern(client_at(provider), limiter)
    for again in (lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy):
        asyncio.run(again(client).create(MESSAGES))
    assert equal(provider, limiter).calls == 3
    twin = pickle.loads(pickle.dumps(client))
    assert twin.dump_component() == client.dump_component()
    penstock.ungovern(twin)
    asyncio.run(twin.create(MESSAGES))
    assert (at_server(provider).calls, at_gate(limiter).calls) == (4, 3)


def test_agents_and_teams_can_be_handed_over(provider: FakeProvider) -> None:
    limiter = gate()
    team = RoundRobinGroupChat(
        [agent(client_at(provider), "writer"), agent(client_at(provider), "critic")],
        termination_condition=MaxMessageTermination(3),
    )
    assert penstock.govern(team, limiter) is team
    asyncio.run(team.run(task="Write a line about a river."))
    assert equal(provider, limiter).calls == 2
    with pytest.raises(TypeError, match="govern"):
        penstock.govern(MaxMessageTermination(3), limiter)


# Failures.


def test_calls_are_tried_again_below_the_team() -> None:
    faults = [Fault("throttled", arrivals=[1, 3], retry_after=0.05), Fault("error", arrivals=[5])]
    with FakeProvider(latency=0.0, faults=faults) as provider:
        limiter = gate()
        client = penstock.govern(client_at(provider), limiter, retry=Retry(attempts=3, initial=0.01))
        team = RoundRobinGroupChat(
            [agent(client, "writer"), agent(client, "critic")], termination_condition=MaxMessageTermination(4)
        )
        result = asyncio.run(team.run(task="Write a line about a river."))
        assert len(result.messages) == 4
        assert [arrival.status for arrival in provider.log] == [429, 200, 429, 200, 500, 200]
        settled(limiter)


def test_a_failing_provider_is_asked_no_more_than_attempts_times() -> None:
    with FakeProvider(latency=0.0, faults=[Fault("error")]) as provider:
        client = penstock.govern(client_at(provider), gate(), retry=Retry(attempts=2, initial=0.01))
        with pytest.raises(Exception, match="(?i)error"):
            asyncio.run(agent(client).run(task="one"))
        assert len(provider.log) == 2


def test_a_token_ends_the_wait(provider: FakeProvider) -> None:
    limiter = Limiter(concurrency=1)

    async def main(client: Any) -> None:
        held = await limiter.aacquire()
        token = CancellationToken()
        waiting = asyncio.ensure_future(client.create(MESSAGES, cancellation_token=token))
        while limiter.stats().waiting == 0:
            await asyncio.sleep(0.001)
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        settled_at = limiter.stats()
        assert (settled_at.waiting, settled_at.in_flight) == (0, 1)
        held.release()

    asyncio.run(main(penstock.govern(client_at(provider), limiter)))
    asyncio.run(main(Governed(Scripted(), limiter)))
    asyncio.run(main(Governed(client_at(provider), limiter)))
    assert at_server(provider).calls == 0
    settled(limiter)


def test_a_budget_ends_a_group_chat(provider: FakeProvider) -> None:
    limiter = gate()
    client = penstock.govern(client_at(provider), limiter)
    team = RoundRobinGroupChat([agent(client, "writer"), agent(client, "critic")])  # no end

    async def alone() -> None:
        with penstock.budget(calls=4):
            while True:
                await agent(client).run(task="Go on.")

    with pytest.raises(penstock.BudgetExceeded) as caught:
        asyncio.run(alone())
    assert (caught.value.dimension, caught.value.spent) == ("calls", 4)
    # A team makes a RuntimeError of whatever its agents raise; what comes out of the block is the error itself.
    with pytest.raises(penstock.BudgetExceeded) as caught, penstock.budget(calls=6) as spent:
        asyncio.run(team.run(task="Go on and on."))
    assert (caught.value.dimension, caught.value.spent, caught.value.limit) == ("calls", 6, 6)
    assert spent.calls == 6
    assert equal(provider, limiter).calls == 4 + 6


# Clients without an HTTP client.


class Scripted(ReplayChatCompletionClient):
    """A client that fails at first."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__([f"answer {number}" for number in range(50)])
        self.failures = failures
        self.calls = 0

    def _fail(self) -> None:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the line is down")

    async def create(self, messages: Any, **more: Any) -> Any:
        self._fail()
        return await super().create(messages, **more)

    async def create_stream(self, messages: Any, **more: Any) -> Any:
        self._fail()
        async for item in super().create_stream(messages, **more):
            yield item


@pytest.mark.parametrize("wrapped", [False, True], ids=["govern", "Governed"])
def test_a_client_without_http_waits_settles_and_tries_again(wrapped: bool) -> None:
    limiter = gate()
    inner = Scripted(failures=2)
    retry = Retry(attempts=3, initial=0.01)
    client: Any = Governed(inner, limiter, retry=retry) if wrapped else penstock.govern(inner, limiter, retry=retry)

    async def main() -> int:
        used = (await client.create(MESSAGES)).usage
        items = [item async for item in client.create_stream(MESSAGES)]
        usages = [used, items[-1].usage]
        result = await agent(client).run(task="Hello")
        usages += [message.models_usage for message in result.messages if message.models_usage]
        return sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)

    tokens = asyncio.run(main())
    # Of a line that is down nobody knows what the provider counted: failed attempts stay charged with their estimate.
    assert at_gate(limiter).calls == inner.calls == 5
    assert at_gate(limiter).tokens >= tokens
    settled(limiter)
    if not wrapped:
        penstock.ungovern(client)
        asyncio.run(client.create(MESSAGES))
        assert at_gate(limiter).calls == 5


def test_a_wrapped_client_answers_for_the_one_inside(provider: FakeProvider) -> None:
    inner = client_at(provider)
    client = Governed(inner, gate())
    asyncio.run(client.create(MESSAGES))
    assert client.model_info == inner.model_info
    assert client.total_usage() == inner.total_usage() != RequestUsage(0, 0)
    assert client.actual_usage() == inner.actual_usage()
    asyncio.run(client.close())
