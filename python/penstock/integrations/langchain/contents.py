"""What a runnable, an agent or a graph contains: its models, and the layers that would retry their calls."""

from __future__ import annotations

import contextlib
import functools
from types import CodeType, FunctionType, MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable

from penstock.integrations import walking

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Whose functions are looked into for what they close over, but not for the globals of their modules.
_FRAMEWORKS = frozenset({"functools", "langchain", "langchain_core", "langgraph", "penstock", "pydantic"})
#: Packages whose plain objects (nodes, middleware, tools, stores) are looked into.
_INSIDE = ("langchain", "langgraph", "deepagents")
#: More objects than any graph holds: whoever has more of them is not searched to the end.
_MOST = 100_000


class Contents(NamedTuple):
    """What was found, each object once.

    Attributes:
        models: chat models, LLMs and embeddings.
        retries: runnables and middleware that retry a model's calls.
    """

    models: list[Any]
    retries: list[Any]


def contents(obj: object) -> Contents:
    """Search ``obj``: fields of runnables, nodes of graphs, what node functions close over and the globals they use."""
    found = Contents([], [])
    seen: dict[int, object] = {}  # the objects too, so that no id is used twice
    todo: list[object] = [obj]
    while todo and len(seen) < _MOST:
        current = todo.pop()
        if id(current) in seen or not _interesting(current, whole=current is obj):
            continue
        seen[id(current)] = current
        if isinstance(current, (BaseLanguageModel, Embeddings)):
            found.models.append(current)
            continue
        if _retries_a_model(current):
            found.retries.append(current)
        todo.extend(_inside(current))
    return found


def _retries_a_model(current: object) -> bool:
    """Whether this is ``with_retry`` around a model (and not a chain, whose parsers it may be for), or the like."""
    name = type(current).__name__
    if name == "RunnableRetry":
        bound: Any = current
        while (inner := getattr(bound, "bound", None)) is not None:
            bound = inner
        return isinstance(bound, BaseLanguageModel)
    return name == "ModelRetryMiddleware"


def _interesting(current: object, *, whole: bool) -> bool:
    """Whether models may be in there. What a method belongs to is searched whole, whatever it is."""
    if isinstance(current, (BaseLanguageModel, Embeddings, Runnable, FunctionType, MethodType, functools.partial)):
        return True
    if isinstance(current, (dict, list, tuple, set, frozenset, _Whole)):
        return True
    return whole or any(kind.__module__.startswith(_INSIDE) for kind in type(current).__mro__)


class _Whole:
    """An object of a user's own class: its attributes are searched, whatever its class."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes


def _inside(current: object) -> Iterator[object]:
    if isinstance(current, _Whole):
        yield from current.attributes.values()
    elif isinstance(current, dict):
        yield from current.values()
    elif isinstance(current, (list, tuple, set, frozenset)):
        yield from current
    elif isinstance(current, functools.partial):
        yield current.func
        yield from current.args
        yield from current.keywords.values()
    elif isinstance(current, MethodType):
        yield current.__func__
        yield current.__self__
        yield _Whole(walking.attributes(current.__self__))
    elif isinstance(current, FunctionType):
        yield from _used_by(current)
    else:
        yield from walking.attributes(current).values()


def _used_by(function: FunctionType) -> Iterator[object]:
    """What a function closes over, its defaults, and of the globals of its module those that its code names."""
    used: list[object] = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a name that is bound later, or never
            used.append(cell.cell_contents)
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield wrapped
    module = function.__module__ or ""
    if module.partition(".")[0] in _FRAMEWORKS:
        yield from used
        return
    names = set(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        # Of the module's functions those that it wrote itself; other objects only if models may be in there.
        if not isinstance(value, FunctionType) or value.__module__ == module:
            used.append(value)
    yield from used
    # What is looked up in objects and modules, such as `service.llm` and `models.llm`.
    for value in used:
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, (dict, MappingProxyType)) and not isinstance(value, FunctionType):
            yield from (attributes[name] for name in names if name in attributes)


def _names(code: CodeType) -> Iterator[str]:
    """The names that code and the functions inside it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
