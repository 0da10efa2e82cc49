"""What the page on AG2 shows of AG2 0.x and AutoGen 0.2 is run, with the chat that it takes as given.

The environment of AutoGen 0.2 has a link to this file.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pages
import pytest
from autogen import AssistantAgent, GroupChat, GroupChatManager
from counting import equal, gate
from test_classic import user

import penstock
from penstock.testing.provider import FakeProvider


def test_the_page_runs(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    govern, *others = pages.compiled(pages.page("ag2.md"), "py")
    names: dict[str, Any] = {"penstock": penstock, "asyncio": asyncio, "gate": gate()}

    async def main() -> None:
        await pages.run([govern], names)
        config = {**names["llm_config"], "cache_seed": None}
        agents = [AssistantAgent(name, llm_config=config) for name in ("writer", "critic")]
        team = GroupChat(agents=agents, messages=[], max_round=4, speaker_selection_method="round_robin")
        names.update(user=user(), manager=GroupChatManager(groupchat=team, llm_config=config))
        await pages.run(others, names)

    installed = []
    install = penstock.install
    monkeypatch.setattr(penstock, "install", lambda limiter: installed.append(install(limiter)))
    asyncio.run(main())
    for one in installed:
        one.uninstall()
    assert equal(provider, names["gate"]).calls == names["spent"].calls > 0
