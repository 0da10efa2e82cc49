"""What the pages of documentation show is run, block by block, as one program."""

import asyncio
import sys

import pages
import pytest
from counting import at_gate, settled

import penstock


@pytest.mark.parametrize("page", ["langchain.md", "langgraph.md", "litellm.md", "llamaindex.md", "autogen.md"])
def test_a_page_runs(provider, monkeypatch, page) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_BASE", provider.base_url)
    installed = []
    install = penstock.install

    def installing(limiter, *args, **kwargs):
        installed.append(install(limiter, *args, **kwargs))

    monkeypatch.setattr(penstock, "install", installing)
    # All blocks but the first, which shows the one line on things that are made below it.
    names = asyncio.run(pages.run(pages.compiled(pages.page(page))[1:], {}))
    for one in installed:
        one.uninstall()
    if "litellm" in sys.modules:
        penstock.ungovern(sys.modules["litellm"])
    settled(names["gate"])
    assert at_gate(names["gate"]).calls == len(provider.log) > 1
