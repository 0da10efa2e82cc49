"""Twenty chats at once, as articles have them, in real time against a quota that the limiter was told.

The environment of AutoGen 0.2 has a link to this file.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen import AssistantAgent, UserProxyAgent
from quota import FULL, against

import penstock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CHATS = 20 if FULL else 12


def config_at(base_url: str) -> dict[str, Any]:
    entry = {"model": "gpt-4o-mini", "base_url": base_url, "api_key": "any", "price": [0, 0]}
    return {"config_list": [entry], "cache_seed": None}


def user() -> UserProxyAgent:
    return UserProxyAgent("user", human_input_mode="NEVER", code_execution_config=False)


@pytest.mark.parametrize("shared", [False, True], ids=["an agent each", "one shared agent"])
def test_chats(shared: bool) -> None:
    with against(300, f"20 chats of two turns, {'one shared agent' if shared else 'an agent each'}") as (
        provider,
        limiter,
    ):
        with penstock.install(limiter, hosts=[provider.base_url]):
            config = config_at(provider.base_url)
            one = AssistantAgent("writer", llm_config=config)

            async def chat() -> None:
                writer = one if shared else AssistantAgent("writer", llm_config=config)
                await user().a_initiate_chat(writer, message="Hi", max_turns=2, silent=True)

            async def main() -> None:
                await asyncio.gather(*(chat() for _ in range(CHATS)))

            asyncio.run(main())
