"""AG2 1.x under `govern` and with the middleware: calls pass the gate once, and configurations stay what they were."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ag2 import Agent
from ag2.config import OpenAIConfig
from counting import equal, gate
from pydantic import BaseModel

import penstock
from penstock.integrations.ag2 import Middleware
from penstock.testing.provider import FakeProvider


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
