"""AG2 1.x under `govern` and with the middleware: calls pass the gate once, and configurations stay what they were."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from typing import Any

import pytest
from ag2 import Agent
from ag2.config import OpenAIConfig, OpenAIResponsesConfig
from counting import at_gate, at_server, equal, gate, settled
from pydantic import BaseModel

import penstock
from penstock import Limiter, Retry
from penstock.integrations.ag2 import Middleware
from penstock.testing.provider import FakeProvider
from penstock.testing.provider.fault import Fault


class Answer(BaseModel):
    """An answer."""

    text: str


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def config_at(provider: FakeProvider, **more: Any) -> OpenAIConfig:
    return OpenAIConfig("gpt-4o-mini", base_url=provider.base_url, api_key="any", **more)


# Ways to a model.


async def ask(config: Any, **more: Any) -> None:
    reply = await Agent("writer", config=config, **more).ask("What is a penstock?")
    assert reply.body


async def converse(config: Any, **more: Any) -> None:
    reply = await Agent("writer", config=config, **more).ask("What is a penstock?")
    await reply.ask("And a turbine?")


async def use_tools(config: Any, **more: Any) -> None:
    await Agent("writer", config=config, tools=[multiply], **more).ask("What is 6 times 7?")


async def structured(config: Any, **more: Any) -> None:
    reply = await Agent("writer", config=config, response_schema=Answer, **more).ask("What is a penstock?")
    assert isinstance(await reply.content(), Answer)


async def stream(config: Any, **more: Any) -> None:
    streaming = config.copy(streaming=True)
    assert (await Agent("writer", config=streaming, **more).ask("Tell a story.")).body


async def delegate(config: Any, **more: Any) -> None:
    inner = Agent("inner", config=config, **more)
    await Agent("outer", config=config, tools=[inner.as_tool(description="Asks inner.")], **more).ask("Ask inner.")


async def many(config: Any, **more: Any) -> None:
    await asyncio.gather(*(ask(config, **more) for _ in range(12)))


WAYS = [ask, converse, use_tools, structured, stream, delegate, many]


def test_every_way_to_a_model_passes_the_gate_once(provider: FakeProvider) -> None:
    limiter = gate()
    config = penstock.govern(config_at(provider), limiter)
    counted = 0
    for way in WAYS:
        asyncio.run(way(config))
        before, counted = counted, equal(provider, limiter).calls
        assert counted > before, way.__name__
    assert all(arrival.status == 200 for arrival in provider.log)


@pytest.mark.parametrize("governed", [False, True], ids=["alone", "with govern"])
def test_the_middleware_counts_once(provider: FakeProvider, governed: bool) -> None:
    limiter = gate()
    config = config_at(provider)
    if governed:
        penstock.govern(config, limiter)
    counted = 0
    for way in WAYS:
        asyncio.run(way(config, middleware=[Middleware(limiter)]))
        before, counted = counted, equal(provider, limiter).calls
        assert counted > before, way.__name__


def test_the_responses_api(provider: FakeProvider) -> None:
    limiter = gate()
    config = OpenAIResponsesConfig("gpt-4o-mini", base_url=provider.base_url, api_key="any")
    asyncio.run(ask(penstock.govern(config, limiter)))
    assert equal(provider, limiter).calls == 1


def test_it_is_what_it_was(provider: FakeProvider) -> None:
    limiter = gate()
    config, twin = config_at(provider), config_at(provider)
    assert penstock.govern(config, limiter) is config
    penstock.govern(config, limiter)
    assert type(config) is OpenAIConfig
    assert dataclasses.replace(config, http_client=None) == twin
    for again in (config.copy(temperature=0.5), copy.copy(config), copy.deepcopy(config)):
        asyncio.run(ask(again))
    assert equal(provider, limiter).calls == 3
    penstock.ungovern(config)
    assert config == twin
    asyncio.run(ask(config))
    assert (at_server(provider).calls, at_gate(limiter).calls) == (4, 3)


def test_a_client_of_ones_own_is_governed_where_it_is(provider: FakeProvider) -> None:
    import httpx2

    async def main() -> None:
        async with httpx2.AsyncClient(timeout=30) as own:
            config = penstock.govern(config_at(provider, http_client=own), limiter)
            await ask(config)
            assert config.http_client is own
            penstock.ungovern(config)
            assert config.http_client is own
            await ask(config)

    limiter = gate()
    asyncio.run(main())
    assert (at_server(provider).calls, at_gate(limiter).calls) == (2, 1)


def test_an_agent_can_be_handed_over(provider: FakeProvider) -> None:
    limiter = gate()
    agent = penstock.govern(Agent("writer", config=config_at(provider)), limiter)
    asyncio.run(agent.ask("What is a penstock?"))
    assert equal(provider, limiter).calls == 1
    with pytest.raises(TypeError, match="govern"):
        penstock.govern(Agent("nobody"), limiter)


@pytest.mark.parametrize("native", [False, True], ids=["govern", "Middleware"])
def test_failures_are_tried_again_and_no_more_than_attempts_times(native: bool) -> None:
    faults = [Fault("throttled", arrivals=[1], retry_after=0.05), Fault("error", between=(0.0, 600.0), model="broken")]
    with FakeProvider(latency=0.0, faults=faults) as provider:
        limiter, retry = gate(), Retry(attempts=3, initial=0.01)
        middleware: list[Any] = [Middleware(limiter, retry=retry)] if native else []
        for model, sent in (("gpt-4o-mini", 2), ("broken", 3)):
            config = config_at(provider, max_retries=0 if native else 2)
            config.model = model
            if not native:
                penstock.govern(config, limiter, retry=retry)
            before = len(provider.log)
            if model == "broken":
                with pytest.raises(Exception, match="(?i)error"):
                    asyncio.run(ask(config, middleware=middleware))
            else:
                asyncio.run(ask(config, middleware=middleware))
            assert len(provider.log) - before == sent
        settled(limiter)


@pytest.mark.parametrize("native", [False, True], ids=["govern", "Middleware"])
def test_a_budget_ends_an_agents_loop(provider: FakeProvider, native: bool) -> None:
    limiter = gate()
    config = config_at(provider)
    middleware: list[Any] = [Middleware(limiter)] if native else []
    if not native:
        penstock.govern(config, limiter)

    async def loop() -> None:
        reply = await Agent("writer", config=config, tools=[multiply], middleware=middleware).ask("What is 6 times 7?")
        while True:
            reply = await reply.ask("Once more.")

    with pytest.raises(penstock.BudgetExceeded) as caught, penstock.budget(calls=7) as spent:
        asyncio.run(loop())
    assert (caught.value.dimension, caught.value.spent, spent.calls) == ("calls", 7, 7)
    assert equal(provider, limiter).calls == 7


def test_a_model_is_governed_by_its_own_limiter(provider: FakeProvider) -> None:
    one, rest = gate(), gate()
    for model in ("gpt-4o-mini", "gpt-4o", "other"):
        config = config_at(provider)
        config.model = model
        asyncio.run(ask(penstock.govern(config, {"gpt-4o*": one, "*": rest})))
    assert (at_gate(one).calls, at_gate(rest).calls) == (2, 1)


def test_a_turn_that_is_cancelled_holds_nothing(provider: FakeProvider) -> None:
    limiter = Limiter(concurrency=1)
    config = penstock.govern(config_at(provider), limiter)

    async def main() -> None:
        held = await limiter.aacquire()
        turn = asyncio.ensure_future(ask(config))
        while limiter.stats().waiting == 0:
            await asyncio.sleep(0.001)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        held.release()

    asyncio.run(main())
    settled(limiter)
    assert at_server(provider).calls == 0
