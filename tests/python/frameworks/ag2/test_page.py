"""What the page on AG2 shows of 1.x is run, block by block, as one program."""

from __future__ import annotations

import asyncio

import pages
import pytest
from counting import equal

from penstock.testing.provider import FakeProvider


def test_the_page_runs(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    blocks = pages.compiled(pages.page("ag2.md"))[1:]  # the first is the one line alone
    names = asyncio.run(pages.run(blocks, {}))
    assert equal(provider, names["gate"]).calls == 2
