"""AG2 0.14 and AutoGen 0.2 under `install` and `govern`: every call of agents passes the gate, hidden agents' too.

One is a fork of the other, and both are `import autogen`: the environment of AutoGen 0.2 has a link to this file.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest
from autogen import AssistantAgent, GroupChat, GroupChatManager, UserProxyAgent
from counting import at_gate, at_server, equal, gate, settled

import penstock
from penstock import Retry
from penstock.integrations.ag2 import Executor
from penstock.testing.provider import FakeProvider
from penstock.testing.provider.fault import Fault


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    # AutoGen 0.2 counts the tokens of streams with a tokenizer, which it would download.
    monkeypatch.setattr("autogen.oai.client.count_token", lambda *_, **__: 1, raising=False)


def config_at(provider: FakeProvider, **more: Any) -> dict[str, Any]:
    entry = {"model": "gpt-4o-mini", "base_url": provider.base_url, "api_key": "any", "price": [0, 0], **more}
    return {"config_list": [entry], "cache_seed": None}


def user(**more: Any) -> UserProxyAgent:
    return UserProxyAgent("user", human_input_mode="NEVER", code_execution_config=False, **more)


# Ways to a model.


def chat(config: Any) -> None:
    user(max_consecutive_auto_reply=2).initiate_chat(
        AssistantAgent("writer", llm_config=config), message="Hi", silent=True
    )


async def achat(config: Any) -> None:
    writer = AssistantAgent("writer", llm_config=config)
    await user().a_initiate_chat(writer, message="Hi", max_turns=2, silent=True)


async def many(config: Any) -> None:
    await asyncio.gather(*(achat(config) for _ in range(8)))


def group(config: Any) -> None:
    # The manager asks a model who speaks next, through agents of its own that nobody sees.
    agents = [
        AssistantAgent(name, llm_config=config, description=f"A {name}.") for name in ("writer", "critic", "editor")
    ]
    team = GroupChat(agents=agents, messages=[], max_round=5, speaker_selection_method="auto")
    manager = GroupChatManager(groupchat=team, llm_config=config)
    user().initiate_chat(manager, message="Write a line about a river.", max_turns=1, silent=True)


def nested(config: Any) -> None:
    critic = AssistantAgent("critic", llm_config=config)
    writer = AssistantAgent("writer", llm_config=config)
    chats = [{"recipient": critic, "message": "Criticize.", "max_turns": 1, "summary_method": "last_msg"}]
    writer.register_nested_chats(chats, trigger=lambda sender: sender.name == "user")
    user().initiate_chat(writer, message="Write.", max_turns=2, silent=True)


def tools(config: Any) -> None:
    writer = AssistantAgent("writer", llm_config=config)
    asker = user()

    @asker.register_for_execution()
    @writer.register_for_llm(description="Multiply two numbers.")
    def multiply(a: int, b: int) -> int:
        return a * b

    asker.initiate_chat(writer, message="What is 6 times 7?", max_turns=3, silent=True)


def summarize(config: Any) -> None:
    writer = AssistantAgent("writer", llm_config=config)
    user().initiate_chat(writer, message="Hi", max_turns=1, summary_method="reflection_with_llm", silent=True)


def stream(config: Any) -> None:
    streaming = {**config, "config_list": [{**entry, "stream": True} for entry in config["config_list"]]}
    chat(streaming)


WAYS = [chat, achat, many, group, nested, tools, summarize, stream]


@pytest.mark.parametrize("how", ["install", "govern"])
def test_every_way_to_a_model_passes_the_gate_once(provider: FakeProvider, how: str) -> None:
    limiter = gate()
    config = config_at(provider)
    with penstock.install(gate(requests=1) if how == "govern" else limiter, hosts=[provider.base_url]):
        if how == "govern":
            penstock.govern(config, limiter)
        counted = 0
        for way in WAYS:
            result = way(config)
            if asyncio.iscoroutine(result):
                asyncio.run(result)
            before, counted = counted, equal(provider, limiter).calls
            assert counted > before, way.__name__
    assert all(arrival.status == 200 for arrival in provider.log)


def test_it_is_what_it_was(provider: FakeProvider) -> None:
    limiter = gate()
    config, twin = config_at(provider), config_at(provider)
    assert penstock.govern(config, limiter) is config
    penstock.govern(config, limiter)
    for again in (config, copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        chat(again)
    calls = equal(provider, limiter).calls
    penstock.ungovern(config)
    assert config == twin
    chat(config)
    assert at_gate(limiter).calls == calls < at_server(provider).calls
    assert penstock.govern(twin["config_list"], limiter) is twin["config_list"]
    chat(twin)
    assert at_gate(limiter).calls > calls


def test_an_agent_can_be_handed_over(provider: FakeProvider) -> None:
    limiter = gate()
    writer = penstock.govern(AssistantAgent("writer", llm_config=config_at(provider)), limiter)
    user().initiate_chat(writer, message="Hi", max_turns=2, silent=True)
    assert equal(provider, limiter).calls == 2
    penstock.ungovern(writer)
    user().initiate_chat(writer, message="Hi", max_turns=1, silent=True)
    assert (at_server(provider).calls, at_gate(limiter).calls) == (3, 2)


def test_a_failing_provider_is_asked_no_more_than_attempts_times() -> None:
    with FakeProvider(latency=0.0, faults=[Fault("error")]) as provider:
        limiter = gate()
        config = penstock.govern(config_at(provider), limiter, retry=Retry(attempts=2, initial=0.01))
        with pytest.raises(Exception, match="(?i)error"):
            chat(config)
        assert len(provider.log) == 2
        settled(limiter)


@pytest.mark.parametrize("how", ["install", "govern"])
def test_a_budget_ends_a_group_chat(provider: FakeProvider, how: str) -> None:
    limiter = gate()
    config = config_at(provider)
    if how == "govern":
        penstock.govern(config, limiter)

    def endless() -> None:
        agents = [AssistantAgent(name, llm_config=config) for name in ("writer", "critic")]
        team = GroupChat(agents=agents, messages=[], max_round=1_000, speaker_selection_method="round_robin")
        manager = GroupChatManager(groupchat=team, llm_config=config, is_termination_msg=lambda _: False)
        user().initiate_chat(manager, message="Go on and on.", silent=True)

    with penstock.install(limiter, hosts=[provider.base_url]):
        with pytest.raises(penstock.BudgetExceeded) as caught, penstock.budget(calls=6) as spent:
            endless()
    assert (caught.value.dimension, caught.value.spent, spent.calls) == ("calls", 6, 6)
    assert equal(provider, limiter).calls == 6


def test_a_budget_reaches_async_chats_in_threads_that_take_the_context_along(provider: FakeProvider) -> None:
    limiter = gate()
    config = penstock.govern(config_at(provider), limiter)

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(Executor(32))
        with penstock.budget(calls=9):
            await asyncio.gather(*(achat(config) for _ in range(8)))

    with pytest.raises(penstock.BudgetExceeded) as caught:
        asyncio.run(main())
    assert caught.value.spent == 9
    assert equal(provider, limiter).calls == 9
