"""What the pages of documentation show is run, block by block, as one program."""

import ast
import asyncio
import inspect
import re
import sys
from pathlib import Path

import pytest
from counting import at_gate, settled

import penstock

DOCS = Path(__file__).parents[4] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


async def run(page: str) -> dict:
    """Run all blocks but the first, which shows the one line on things that are made below it."""
    names = {"__name__": "page"}
    for block in BLOCK.findall((DOCS / page).read_text())[1:]:
        code = compile(block, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        made = eval(code, names)
        if inspect.iscoroutine(made):
            await made
    return names


@pytest.mark.parametrize("page", ["langchain.md", "langgraph.md", "litellm.md", "llamaindex.md", "autogen.md"])
def test_a_page_runs(provider, monkeypatch, page) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_BASE", provider.base_url)
    installed = []
    install = penstock.install

    def installing(limiter, *args, **kwargs):
        installed.append(install(limiter, *args, **kwargs))

    monkeypatch.setattr(penstock, "install", installing)
    names = asyncio.run(run(page))
    for one in installed:
        one.uninstall()
    if "litellm" in sys.modules:
        penstock.ungovern(sys.modules["litellm"])
    settled(names["gate"])
    assert at_gate(names["gate"]).calls == len(provider.log) > 1
