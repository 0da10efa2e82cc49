"""AG2: configurations of 1.x, and ``llm_config`` of 0.x and of AutoGen 0.2, which it grew out of.

Agents make their clients from a configuration, for each run (1.x) or each agent (0.x), also agents that nobody sees:
the one that selects the next speaker. So the configuration is governed: it gets an ``http_client`` that is, and that
may be copied, since AG2 0.x deep-copies its configuration for every agent.
"""

from __future__ import annotations

import contextvars
import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from penstock import governing
from penstock.integrations import clients, texts, walking
from penstock.integrations.gate import Gatekeeper
from penstock.scoping import inherited

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from penstock.limiter import Limiter
    from penstock.retry import Retry

#: Where configurations of 1.x take an HTTP client.
_FIELDS = ("http_client", "async_client")
#: The ``api_type`` of entries whose client is OpenAI's SDK: others of 0.x take no ``http_client``.
_OPENAI = frozenset({None, "", "openai", "azure", "deepseek", "responses", "openai_v2", "openai_responses"})


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern every configuration in ``obj``, and the clients of agents that have made theirs."""
    return any([_govern(one, gatekeeper) for one in _found(obj)])  # noqa: C419  all of them


def ungovern(obj: Any) -> bool:
    """Undo `govern`."""
    found = _found(obj)
    for one in found:
        _ungovern(one)
    return bool(found)


def _found(obj: Any) -> list[Any]:
    if isinstance(obj, list):
        if not all(isinstance(entry, dict) for entry in obj):
            return []
        obj = {"config_list": obj}
    if isinstance(obj, dict) and "config_list" not in obj and "model" in obj:
        return [obj]
    return list(walking.find(obj, ("ag2", "autogen"), _is_configuration))


def _is_configuration(thing: Any) -> bool:
    if isinstance(thing, dict):
        return isinstance(thing.get("config_list"), list)
    if type(thing).__name__ in ("LLMConfig", "OpenAIWrapper"):
        return True
    return hasattr(thing, "create") and any(hasattr(thing, field) for field in _FIELDS) and hasattr(thing, "model")


def _govern(one: Any, gatekeeper: Gatekeeper) -> bool:
    if type(one).__name__ == "OpenAIWrapper":
        return any([walking.govern(client, gatekeeper) for client in _made(one)])  # noqa: C419
    entries = _entries(one)
    if entries is not None:
        return any([_govern_entry(entry, gatekeeper) for entry in entries])  # noqa: C419
    for field in _FIELDS:
        if not hasattr(one, field):
            continue
        existing = getattr(one, field)
        if existing is None or clients.is_ours(existing):
            library, kind = _wanted(type(one), field)
            setattr(one, field, clients.client(library, kind, gatekeeper))
        else:
            walking.govern(existing, gatekeeper)
        return True
    return False


def _ungovern(one: Any) -> None:
    if type(one).__name__ == "OpenAIWrapper":
        for client in _made(one):
            walking.ungovern(client)
        return
    for entry in _entries(one) or [one]:
        for field in _FIELDS:
            existing = entry.get(field) if isinstance(entry, dict) else getattr(entry, field, None)
            if clients.is_ours(existing):
                if isinstance(entry, dict):
                    del entry[field]
                else:
                    setattr(entry, field, None)
            elif existing is not None:
                walking.ungovern(existing)


def _entries(one: Any) -> list[Any] | None:
    """The models of an ``llm_config`` of 0.x; None for a configuration of 1.x."""
    entries = one.get("config_list") if isinstance(one, dict) else getattr(one, "config_list", None)
    if isinstance(entries, list):
        return entries
    return [one] if isinstance(one, dict) else None


def _govern_entry(entry: Any, gatekeeper: Gatekeeper) -> bool:
    plain = isinstance(entry, dict)
    kind = entry.get("api_type") if plain else getattr(entry, "api_type", None)
    if kind not in _OPENAI or (entry.get("model_client_cls") if plain else getattr(entry, "model_client_cls", None)):
        return False
    existing = entry.get("http_client") if plain else getattr(entry, "http_client", None)
    if existing is not None and not clients.is_ours(existing):
        return walking.govern(existing, gatekeeper)
    # Entries that are objects take clients of httpx alone.
    made = clients.client("httpx" if not plain else _library(), "Client", gatekeeper)
    if plain:
        entry["http_client"] = made
    else:
        entry.http_client = made
    return True


@lru_cache(maxsize=1)
def _library() -> str:
    """The HTTP library that OpenAI's SDK is built on."""
    from importlib.metadata import version

    legacy = int(version("openai").partition(".")[0]) < 3
    return "httpx" if legacy and importlib.util.find_spec("httpx") is not None else "httpx2"


def _wanted(kind: type, field: str) -> tuple[str, str]:
    """The library and the kind of client that a configuration's field says it takes."""
    import inspect

    said = next((str(known[field]) for base in kind.__mro__ if field in (known := inspect.get_annotations(base))), "")
    return ("httpx2" if "httpx2" in said else "httpx"), ("AsyncClient" if "AsyncClient" in said else "Client")


def _made(wrapper: Any) -> list[Any]:
    """The SDK clients of an `OpenAIWrapper`."""
    return [client for one in wrapper._clients for client in walking.clients(one)]  # noqa: SLF001


class Executor(ThreadPoolExecutor):
    """Threads for the async methods of AG2 0.x and AutoGen 0.2, which run its synchronous client in threads.

    The loop's own are few, and AG2 0.14 does not take the context along: `penstock.scope` and `penstock.budget` around
    ``a_initiate_chat`` do not reach its calls. In these they do::

        asyncio.get_running_loop().set_default_executor(Executor(64))
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread, and in a copy of the context from here."""
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)


class Middleware:
    """A middleware for agents of AG2 1.x, also for providers without httpx: calls of the model wait for their permits.

    They are settled by the usage that the model reports, and tried again when their errors allow it. A configuration
    that is governed, too, does not count twice. Where it is not, give it ``max_retries=0``: the SDK's own retries pass
    unseen::

        agent = Agent("writer", config=OpenAIConfig("gpt-4o-mini", max_retries=0), middleware=[Middleware(limiter)])

    Args:
        limiter: a limiter, or a mapping from model names or globs to limiters, as in `penstock.govern`.
        retry: how failed calls are tried again; None makes one attempt.
    """

    def __init__(
        self, limiter: Limiter | Mapping[str, Limiter], *, retry: Retry | None = governing.THREE_ATTEMPTS
    ) -> None:
        self._gatekeeper = Gatekeeper(limiter, retry, True)

    def __call__(self, event: Any, context: Any) -> Any:
        """Make the middleware of one turn, as AG2 asks for it."""
        return _middleware()(event, context, self._gatekeeper)

    def describe(self) -> Any:
        """What it is, as AG2 shows it."""
        from ag2.middleware.describe import MiddlewareDescription

        limiter: Any = self._gatekeeper.limiter
        return MiddlewareDescription(kind="Middleware", config={"limiter": repr(limiter)}, complete=False)

    def __repr__(self) -> str:
        return f"Middleware({self._gatekeeper.limiter!r})"


@lru_cache(maxsize=1)
def _middleware() -> Any:
    base: Any = sys.modules["ag2.middleware.base"].BaseMiddleware

    class Limited(base):  # type: ignore[misc]
        """One turn of an agent, whose calls of the model wait for their permits."""

        def __init__(self, event: Any, context: Any, gatekeeper: Gatekeeper) -> None:
            super().__init__(event, context)
            self._gatekeeper = gatekeeper

        async def on_llm_call(self, call_next: Any, events: Any, context: Any) -> Any:
            # AG2 does not say here which model is called, so a mapping answers for all of them.
            limiter = self._gatekeeper.pick(None)
            if limiter is None:
                return await call_next(events, context)
            scope = inherited()
            call = limiter.limit(
                texts.tokens_of(list(events), getattr(context, "prompt", None)),
                key=scope.key,
                priority=scope.priority or 0,
                timeout=scope.timeout,
                retry=self._gatekeeper.retry,
            )

            async def once() -> Any:
                return await call_next(events, context)

            return await call(once)()

    return Limited
