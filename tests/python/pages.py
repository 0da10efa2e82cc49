"""The Python blocks of a page of documentation, run one after another as one program, as in ``python -m asyncio``."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def page(name: str) -> Path:
    """A page, by the name of its file."""
    return next(path for path in PAGES if path.name == name)


def sources(path: Path, language: str = "python") -> list[tuple[int, str]]:
    """The blocks of a page in one language, each with the number of lines before it."""
    text = path.read_text(encoding="utf-8")
    return [(text[: block.start(2)].count("\n"), block[2]) for block in BLOCK.finditer(text) if block[1] == language]


def compiled(path: Path, language: str = "python", replaced: dict[str, str] | None = None) -> list[CodeType]:
    """The blocks of a page, compiled with the page's line numbers; ``replaced`` is what must be another's here."""
    blocks = []
    for line, source in sources(path, language):
        here = "\n" * line + source
        for text, by in (replaced or {}).items():
            here = here.replace(text, by)
        # As a user's file is, not as this one, which imports from __future__.
        blocks.append(compile(here, str(path), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True))
    return blocks


async def run(blocks: list[CodeType], names: dict[str, Any]) -> dict[str, Any]:
    """Run blocks as one program that begins with these names; gives the names that it ends with."""
    names.setdefault("__name__", "page")
    for block in blocks:
        made = eval(block, names)
        if inspect.isawaitable(made):
            await made
    return names
