"""Many agents of AG2 1.x at once, in real time against a quota that the limiter was told."""

from __future__ import annotations

import asyncio

import pytest
from ag2 import Agent
from ag2.config import OpenAIConfig
from quota import against, many

import penstock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_agents() -> None:
    with against(300, "AG2 1.x, 40 agents at once") as (provider, limiter):
        config = penstock.govern(OpenAIConfig("gpt-4o-mini", base_url=provider.base_url, api_key="any"), limiter)

        async def main() -> None:
            agents = [Agent(f"agent_{number}", config=config) for number in range(many(40))]
            replies = await asyncio.gather(*(agent.ask("What is a penstock?") for agent in agents))
            assert all(reply.body for reply in replies)

        asyncio.run(main())
