"""litellm: its functions, and its `Router`.

litellm makes and caches its HTTP clients as calls come, for some providers on httpx, for some on a bridge from httpx to
aiohttp, and every router uses the same. So what is governed is not a client, but whatever is sent while one of the
governed functions runs.
"""

from __future__ import annotations

import functools
import inspect
import os
import weakref
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penstock.integrations import process
from penstock.integrations.gate import Gatekeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The functions of litellm, and the methods of its `Router`, that call a provider.
_CALLS = (
    *("completion", "text_completion", "responses", "embedding", "image_generation", "moderation"),
    *("transcription", "speech", "rerank"),
)
_NAMES = (*_CALLS, *(f"a{name}" for name in _CALLS), "anthropic_messages")
#: Where a call, or a deployment of a router, says where it goes.
_ADDRESSES = ("api_base", "base_url")
#: And where the environment does.
_VARIABLES = ("_API_BASE", "_BASE_URL", "_ENDPOINT")

_BEFORE = "_penstock_litellm"


class _Running:
    """A governed function that runs here: by whom it is governed, and which addresses it may call."""

    __slots__ = ("hosts", "who")

    def __init__(self, who: Inside, addresses: list[str]) -> None:
        self.who = who
        self.hosts = process.Hosts(addresses)


_running: ContextVar[_Running | None] = ContextVar("penstock_litellm", default=None)


class Inside:
    """Which requests are governed: those to providers that are sent while one of its functions runs."""

    def __call__(self, host: str, port: int | None) -> bool:
        """Whether a request to a host is one of them; what callbacks send to their own hosts is not."""
        running = _running.get()
        return running is not None and running.who is self and running.hosts(host, port)


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern litellm itself, or one of its routers; False for anything else."""
    if not _is_known(obj):
        return False
    ungovern(obj)
    inside = Inside()
    keeper = Gatekeeper(gatekeeper.limiter, gatekeeper.retry, gatekeeper.stream_usage, inside)
    before: list[tuple[Any, str, Any]] = []
    for place in _places(obj):
        for name in _NAMES:
            function = getattr(place, name, None)
            if callable(function):
                before.append((place, name, place.__dict__.get(name)))
                setattr(place, name, _within(inside, obj, function))
    process.add(keeper)
    obj.__dict__[_BEFORE] = (before, keeper)
    if not isinstance(obj, ModuleType):
        weakref.finalize(obj, process.remove, keeper).atexit = False
    return True


def ungovern(obj: Any) -> bool:
    """Undo `govern`."""
    if not _is_known(obj):
        return False
    before, keeper = obj.__dict__.pop(_BEFORE, ((), None))
    for place, name, function in before:
        if function is None:
            delattr(place, name)
        else:
            setattr(place, name, function)
    if keeper is not None:
        process.remove(keeper)
    return True


def _is_known(obj: Any) -> bool:
    if isinstance(obj, ModuleType):
        return obj.__name__ == "litellm"
    return any(kind.__name__ == "Router" for kind in type(obj).__mro__)


def _places(obj: Any) -> list[Any]:
    """Where the functions are looked up: those of the module stand in two."""
    main = getattr(obj, "main", None) if isinstance(obj, ModuleType) else None
    return [obj] if main is None else [obj, main]


def _within(inside: Inside, obj: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, what it sends governed."""
    owner = weakref.ref(obj)  # a router is not kept alive by its own methods

    def begin(kwargs: dict[str, Any]) -> Any:
        return _running.set(_Running(inside, list(_addresses(owner(), kwargs))))

    @functools.wraps(function)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        token = begin(kwargs)
        try:
            return await function(*args, **kwargs)
        finally:
            _running.reset(token)

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        token = begin(kwargs)
        try:
            return function(*args, **kwargs)
        finally:
            _running.reset(token)

    return coroutine if inspect.iscoroutinefunction(function) else plain


def _addresses(obj: Any, kwargs: dict[str, Any]) -> Iterator[str]:
    """The addresses that are named for a call, besides those of known providers."""
    named = [kwargs, {"api_base": getattr(obj, "api_base", None)}]
    deployments = getattr(obj, "get_model_list", None)
    if callable(deployments):
        named += [deployment.get("litellm_params") or {} for deployment in deployments() or ()]
    values = [where.get(name) for where in named for name in _ADDRESSES]
    values += [value for name, value in os.environ.items() if name.endswith(_VARIABLES)]
    for value in values:
        if isinstance(value, str) and value.startswith(("http://", "https://")) and not set(value) & set(" \t\n"):
            yield value
