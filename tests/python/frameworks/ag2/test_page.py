"""What the page on AG2 shows of 1.x is run, block by block, as one program."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from counting import equal

from penstock.testing.provider import FakeProvider

PAGE = Path(__file__).parents[4] / "docs" / "ag2.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_runs(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    names: dict[str, Any] = {"__name__": "page"}

    async def main() -> None:
        for block in BLOCK.findall(PAGE.read_text(encoding="utf-8"))[1:]:  # the first is the one line alone
            made = eval(compile(block, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.iscoroutine(made):
                await made

    asyncio.run(main())
    assert equal(provider, names["gate"]).calls == 2
