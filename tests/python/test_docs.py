"""The Python blocks of README.md and docs/: they compile, and what they name of Penstock is there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import penstock

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:python|py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_name_what_exists(page: Path) -> None:
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert unknown(block) == [], block


def test_what_is_missing_is_found() -> None:
    assert unknown("from penstock import Limiter\nasync with Limiter() as permit: await penstock.Limiter()") == []
    assert unknown("from penstock import Limiter, Limitor\npenstock.governn(1)") == [
        "penstock.Limitor",
        "penstock.governn",
    ]
    with pytest.raises(SyntaxError):
        unknown("from penstock import")
