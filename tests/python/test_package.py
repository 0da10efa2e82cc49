"""The package as a whole: what importing it costs, its version, and that its stub, its help and its names agree."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import Limiter, _core

ROOT = Path(__file__).parents[2]
STUB = ast.parse((ROOT / "python/penstock/_core.pyi").read_text(encoding="utf-8"))

#: Slow to import, or none of the business of one who only makes a limiter.
NOT_IMPORTED = [
    "aiohttp",
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "http",
    "httpx",
    "importlib.metadata",
    "inspect",
    "json",
    "logging",
    "openai",
    "socket",
    "ssl",
    "subprocess",
    "trio",
    "urllib",
]


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_importing_it_imports_nothing_heavy() -> None:
    # What a bare interpreter has already, through .pth files of the environment, is not ours.
    imported = modules_after("import penstock") - modules_after("pass")
    assert "penstock.limiter" in imported
    assert imported.isdisjoint(NOT_IMPORTED), sorted(imported & set(NOT_IMPORTED))


def test_one_version() -> None:
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{penstock.__version__}"\n' in manifest
    assert importlib.metadata.version("penstock") == penstock.__version__


def test_public_names_exist_and_are_documented() -> None:
    assert penstock.__all__ == sorted(set(penstock.__all__), key=penstock.__all__.index)
    for name in penstock.__all__:
        thing = getattr(penstock, name)
        if not name.startswith("__"):
            assert inspect.getdoc(thing), name


def test_every_module_says_what_it_is() -> None:
    package = Path(penstock.__file__).parent
    modules = [module.name for module in pkgutil.walk_packages([str(package)])]
    assert "limiter" in modules
    for source in package.rglob("*.py"):
        assert ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))), source


def documented() -> list[tuple[str, str]]:
    """Name and first line of every docstring of the stub."""
    found = []
    for top in STUB.body:
        if isinstance(top, ast.FunctionDef):
            found.append((top.name, ast.get_docstring(top)))
        elif isinstance(top, ast.ClassDef) and not top.name.startswith("_"):
            found.append((top.name, ast.get_docstring(top)))
            members = [member for member in top.body if isinstance(member, ast.FunctionDef)]
            found += [(f"{top.name}.{member.name}", ast.get_docstring(member)) for member in members]
    return [(name, text.splitlines()[0]) for name, text in found if text]


@pytest.mark.parametrize(("name", "line"), documented())
def test_help_says_what_the_stub_says(name: str, line: str) -> None:
    thing: object = _core
    for part in name.split("."):
        thing = inspect.getattr_static(thing, part) if isinstance(thing, type) else getattr(thing, part)
    text = inspect.getdoc(thing)
    assert text is not None, name
    assert text.splitlines()[0] == line


@pytest.mark.parametrize("name", [name for name in vars(_core) if not name.startswith("__")])
def test_everything_compiled_is_documented(name: str) -> None:
    thing = getattr(_core, name)
    assert inspect.getdoc(thing), name
    if isinstance(thing, type):
        for member, value in vars(thing).items():
            if not member.startswith("__"):
                assert inspect.getdoc(value), f"{name}.{member}"


def test_signatures_are_those_of_the_contract() -> None:
    assert str(inspect.signature(Limiter)) == (
        "(*, requests=None, tokens=None, input_tokens=None, output_tokens=None, concurrency=None, per_key=None, "
        "name=None, store='memory://', network_jitter=None, max_waiting=None, on_store_failure='share', "
        "on_conflict='error', provider=None)"
    )
    costs = "(self, /, tokens=0, *, requests=1, input_tokens=0, output_tokens=0, key=None, priority=0"
    for name in ("permit", "aacquire"):
        assert str(inspect.signature(getattr(Limiter, name))) == f"{costs}, timeout=None)"
    acquire = inspect.signature(Limiter.acquire)
    plain = [parameter.replace(annotation=parameter.empty) for parameter in acquire.parameters.values()]
    plain[0] = plain[0].replace(kind=inspect.Parameter.POSITIONAL_ONLY)
    bare = acquire.replace(parameters=plain, return_annotation=acquire.empty)
    assert str(bare) == f"{costs}, timeout=None)"
    assert str(inspect.signature(Limiter.try_acquire)) == f"{costs})"
    assert str(inspect.signature(penstock.Rate)) == "(amount, per, *, burst=None, window=True)"
    settle = inspect.signature(penstock.Permit.settle)
    assert str(settle) == "(self, /, tokens=None, input_tokens=None, output_tokens=None)"


@pytest.mark.parametrize(
    ("public", "names"),
    [
        (Limiter.limit, "tokens requests input_tokens output_tokens key priority timeout retry usage"),
        (Limiter.gather, "awaitables return_exceptions tokens progress"),
        (Limiter.map, "function items tokens key retry return_exceptions progress journal"),
        (Limiter.amap, "function items tokens key retry return_exceptions progress journal"),
        (Limiter.astream, "function items tokens key retry return_exceptions progress journal"),
        (Limiter.observe, "status headers body"),
        (Limiter.cooldown, "seconds"),
        (Limiter.update, "requests tokens input_tokens output_tokens concurrency"),
        (penstock.Retry, "attempts initial factor max_delay jitter deadline on budget"),
        (penstock.RetryBudget, "ratio minimum per_minute"),
        (penstock.budget, "calls tokens seconds"),
        (penstock.govern, "obj limiter retry stream_usage"),
        (penstock.install, "limiter hosts retry stream_usage"),
        (penstock.scope, "key priority timeout label"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_arguments_are_those_of_the_contract(public: Any, names: str) -> None:
    assert [name for name in inspect.signature(public).parameters if name != "self"] == names.split()


def test_shown_defaults_are_the_real_ones() -> None:
    limiter = Limiter(requests=100, tokens=100)
    for permit in (limiter.acquire(), limiter.acquire(0, requests=1, input_tokens=0, output_tokens=0, priority=0)):
        assert (permit.cost.requests, permit.cost.tokens) == (1, 0)
    budget = _core.RetryBudget()
    assert repr(budget).startswith("<RetryBudget(ratio=0.2, minimum=3)")
