"""The Python blocks of README.md and docs/: what they name of Penstock is there, and they run."""

from __future__ import annotations

import ast
import asyncio
import importlib
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest

import penstock

#: Pages whose blocks run here, and what a program has to begin with that such a page does not say again.
HERE = {
    "govern.md": "import penstock",
    "migrating.md": "async def call(prompt): ...\nprompt = 'Hello'",
    "providers.md": "",
    "redis.md": "from penstock import Limiter",
    "shared-memory.md": "from penstock import Limiter",
}
#: Pages whose blocks need a framework: they run in its environment, in `frameworks/*/test_page*.py`.
THERE = {"ag2.md", "autogen.md", "langchain.md", "langgraph.md", "litellm.md", "llamaindex.md"}
#: Where docstrings are: those of the compiled module are in its stub.
PACKAGE = pages.ROOT / "python" / "penstock"
SOURCES = [
    file
    for file in sorted(PACKAGE.rglob("*.py*"))
    if file.suffix in (".py", ".pyi") and "::\n" in file.read_text(encoding="utf-8")
]


def unknown(block: str) -> list[str]:
    """What a block names of Penstock that is not there. Raises SyntaxError for what is no Python."""
    tree = compile(block, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "penstock":
            try:
                module = importlib.import_module(node.module or "")
                missing += [f"{node.module}.{alias.name}" for alias in node.names if not hasattr(module, alias.name)]
            except ModuleNotFoundError as error:
                # A framework that is not installed here; its own environment runs the page.
                if (error.name or "").partition(".")[0] == "penstock":
                    missing.append(node.module or "")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "penstock":
            missing += [] if hasattr(penstock, node.attr) else [f"penstock.{node.attr}"]
    return missing


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_blocks_name_what_exists(page: Path) -> None:
    for _, block in pages.sources(page) + pages.sources(page, "py"):
        assert unknown(block) == [], block


def in_docstrings(source: str) -> Iterator[str]:
    """The blocks behind ``::`` in the docstrings of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            for block in re.findall(r"::\n\n((?: +.*\n|\n)+)", (ast.get_docstring(node) or "") + "\n"):
                yield textwrap.dedent(block)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_docstrings_name_what_exists(file: Path) -> None:
    for block in in_docstrings(file.read_text(encoding="utf-8")):
        assert unknown(block) == [], block


def test_blocks_of_docstrings_are_found() -> None:
    assert list(in_docstrings('def a():\n    """One::\n\n        x = 1\n\n        y\n\n    Two.\n    """')) == [
        "x = 1\n\ny\n\n"
    ]
    found = [block for file in SOURCES for block in in_docstrings(file.read_text(encoding="utf-8"))]
    assert len(found) >= 10


def test_what_is_missing_is_found() -> None:
    assert unknown("from penstock import Limiter\nasync with Limiter() as permit: await penstock.Limiter()") == []
    assert unknown("from penstock import Limiter, Limitor\npenstock.governn(1)") == [
        "penstock.Limitor",
        "penstock.governn",
    ]
    with pytest.raises(SyntaxError):
        unknown("from penstock import")


def test_every_page_with_blocks_is_run_somewhere() -> None:
    assert {page.name for page in pages.PAGES if pages.sources(page)} == {"README.md", *HERE, *THERE}


@pytest.mark.parametrize("name", HERE)
def test_a_page_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "shared-memory.md" and sys.platform == "win32":
        pytest.skip("there is no shared memory on Windows")
    pytest.importorskip("openai", reason="what the pages govern")
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    memory = f"page-{os.getpid()}"  # another process's may be there under the page's name
    blocks = pages.compiled(pages.page(name), replaced={"shm://openai": f"shm://{memory}"})
    assert blocks
    names: dict[str, object] = {}
    exec(HERE[name], names)
    try:
        asyncio.run(pages.run(blocks, names))
    finally:
        for file in Path("/dev/shm").glob(f"penstock-*-{memory}"):
            file.unlink()


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_what_is_linked_is_there(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings], link
