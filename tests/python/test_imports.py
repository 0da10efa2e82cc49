"""Imports run one way, downwards, as CONTRIBUTING.md says: in the core, in the bindings and in the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: The core's modules: each imports only what stands below it.
CORE = """
python
gate
store
discovery keys
queue ledger
bucket window limits
pace
learner
provider retry
estimate stats
cost rate
words
clock
"""
#: The package's modules: each imports only what stands below it, when it is imported.
PACKAGE = """
cli
providers installing
governing
limiter
identity fanout decorate
retry scoping budgets
streams calls
_parking failures
errors arguments journal progress usage stats rates wrapping forgotten _bells _watching _blocking
_core
"""
#: Who imports frameworks' modules, and only inside functions: nothing of a framework is imported until it is used.
HOSTS = {"governing", "installing"}


def below(layers: str, module: str, other: str) -> bool:
    """Whether ``module`` may import ``other``, in layers from the top down."""
    where = {name: place for place, line in enumerate(layers.split("\n")) for name in line.split()}
    return other == module or other not in where or where[module] < where[other]


def rust_modules() -> Iterator[tuple[str, str, str]]:
    """Each file of the core: its module, its path, and its code without tests and comments."""
    for path in sorted((ROOT / "src").rglob("*.rs")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        code = re.sub(r"//.*", "", path.read_text(encoding="utf-8")).partition("#[cfg(test)]\nmod ")[0]
        if parts != ("lib",):
            yield parts[0], "/".join(parts), code


def test_the_core_imports_downwards() -> None:
    assert {module for module, _, _ in rust_modules()} == set(CORE.split())
    upwards = []
    for module, path, code in rust_modules():
        imported: set[str] = set()
        for braces, single in re.findall(r"\bcrate::(?:\{([^;]*?)\};|(\w+))", code):
            imported |= {single} if single else set(re.findall(r"(?:^|,)\s*(\w+)", braces))
        upwards += [f"src/{path}.rs imports {other}" for other in imported if not below(CORE, module, other)]
    assert upwards == []


def test_only_the_bindings_know_python() -> None:
    for module, path, code in rust_modules():
        assert module == "python" or "pyo3" not in code, path


def imports(tree: ast.AST, *, later: bool = False) -> Iterator[tuple[str, bool]]:
    """The modules of the package that a module imports, and whether only in a function. Types' alone do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        inside = later or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.ImportFrom) and node.module == "penstock":
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("penstock."):
            yield (node.module or "").split(".")[1], inside
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from ((name[1], inside) for name in names if name[0] == "penstock" and len(name) > 1)
        yield from imports(node, later=inside)


def python_modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "python/penstock").rglob("*.py")):
        parts = path.relative_to(ROOT / "python/penstock").with_suffix("").parts
        yield ".".join(parts), ast.parse(path.read_text(encoding="utf-8"))


def test_the_package_imports_downwards() -> None:
    # The faces of the package, and what is there for frameworks and tests, may import all of it.
    free = {"__init__", "__main__", "integrations", "testing"}
    modules = {path: (path.split(".")[0], set(imports(tree))) for path, tree in python_modules()}
    assert {module for module, _ in modules.values()} | {"_core"} == set(PACKAGE.split()) | free
    upwards = []
    for path, (module, imported) in modules.items():
        for other, later in imported if module not in free else ():
            allowed = later or below(PACKAGE, module, other)
            if other in free:
                allowed = (later and module in HOSTS) if other == "integrations" else module == "cli"
            upwards += [] if allowed else [f"{path} imports {other}"]
    assert upwards == []
