"""`govern` and `ungovern`: a limiter in front of what exists already, in place."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.integrations.gate import Gatekeeper
    from penstock.limiter import Limiter

T = TypeVar("T")

#: Which integration knows the objects of a package, by the top-level module of their classes.
INTEGRATIONS = {
    **dict.fromkeys(("openai", "anthropic", "groq", "mistralai", "cohere", "together", "fireworks", "google"), "sdk"),
    **dict.fromkeys(("httpx", "httpx2"), "http"),
    "botocore": "bedrock",
    **dict.fromkeys(("langchain_core", "langchain"), "langchain"),
    "llama_index": "llamaindex",
    **dict.fromkeys(("autogen_core", "autogen_ext", "autogen_agentchat"), "autogen"),
    **dict.fromkeys(("ag2", "autogen"), "ag2"),
    "litellm": "litellm",
}

#: What govern, install and the transports retry with unless told otherwise.
THREE_ATTEMPTS = Retry(attempts=3)


def govern(
    obj: T,
    limiter: Limiter | Mapping[str, Limiter],
    *,
    retry: Retry | None = THREE_ATTEMPTS,
    stream_usage: bool = True,
) -> T:
    """Put a limiter in front of every call that ``obj`` makes, and give ``obj`` back.

    ``obj`` is governed in place: its type, its settings and what others hold of it stay as they were. Each HTTP request
    waits for a permit outside of the client's timeouts, is charged as its provider counts, settled by the usage that
    the provider reports, and tried again when what the provider said allows it; streams hold their permit to their end.
    Retries of the SDK do nothing meanwhile, whatever its ``max_retries``. To govern again changes the limiter.

    Args:
        obj: a client of openai, anthropic, groq, mistralai, cohere, together, fireworks, google-genai or boto3's
            Bedrock, of httpx or httpx2, or a model of LangChain, LlamaIndex, AutoGen or AG2.
        limiter: a limiter; or a mapping from model names or globs to limiters, since quotas are per model. A model that
            no name fits goes to ``"*"``, or passes ungoverned, with a warning, once.
        retry: how failed requests are tried again; None makes one attempt.
        stream_usage: whether streams of OpenAI's kind are asked to report their usage (``stream_options``). The
            additional chunk is not shown to a caller who did not ask for it. False estimates from what was streamed.

    Raises:
        TypeError: for an object in which there is nothing to govern, and for arguments that cannot be.
    """
    from penstock.integrations.gate import Gatekeeper

    gatekeeper = Gatekeeper(limiter, retry, stream_usage)
    if not _ask(obj, "govern", gatekeeper):
        raise TypeError(
            f"govern() knows clients of openai, anthropic, groq, mistralai, cohere, together, fireworks, google-genai "
            f"and botocore, of httpx and httpx2, and models of LangChain, LlamaIndex, AutoGen and AG2, not {obj!r}"
        )
    return obj


def ungovern(obj: T) -> T:
    """Undo `govern`: ``obj`` calls as it did before. Harmless on what is not governed.

    Calls under way finish as they began.
    """
    _ask(obj, "ungovern")
    return obj


def _ask(obj: object, what: str, *args: Gatekeeper) -> bool:
    for name in _integrations(obj):
        integration: Any = importlib.import_module(f"penstock.integrations.{name}")
        if getattr(integration, what)(obj, *args):
            return True
    return False


def _integrations(obj: object) -> Iterator[str]:
    """Who may know ``obj``: by the packages of its classes, the most derived first, each once."""
    seen = set()
    # AG2 is configured with plain dicts.
    kinds = type(obj).__mro__ if not isinstance(obj, (dict, list)) else ()
    for kind in kinds:
        name = INTEGRATIONS.get(kind.__module__.partition(".")[0])
        if name is not None and name not in seen:
            seen.add(name)
            yield name
    if isinstance(obj, (dict, list)):
        yield "ag2"
    if isinstance(obj, ModuleType) and obj.__name__ in INTEGRATIONS:
        yield INTEGRATIONS[obj.__name__]


def transport(
    limiter: Limiter | Mapping[str, Limiter],
    *,
    retry: Retry | None = THREE_ATTEMPTS,
    stream_usage: bool = True,
    transport: Any = None,
) -> Any:
    """A governed transport, for ``httpx.Client(transport=...)`` and ``httpx2.Client(transport=...)`` alike.

    A client with a ``transport`` of its own knows neither the proxies of the environment nor an SDK's timeouts;
    `govern` keeps both.

    Args:
        limiter: a limiter, or a mapping from model names or globs to limiters, as in `govern`.
        retry: how failed requests are tried again; None makes one attempt.
        stream_usage: as in `govern`.
        transport: what sends the requests; by default an ``HTTPTransport`` of the library that they are of.
    """
    from penstock.integrations import http

    return http.transport(limiter, retry, stream_usage, transport)


def atransport(
    limiter: Limiter | Mapping[str, Limiter],
    *,
    retry: Retry | None = THREE_ATTEMPTS,
    stream_usage: bool = True,
    transport: Any = None,
) -> Any:
    """The twin of `transport` for ``AsyncClient``. It keeps a pool of connections for each event loop."""
    from penstock.integrations import http

    return http.atransport(limiter, retry, stream_usage, transport)
