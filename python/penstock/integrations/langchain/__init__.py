"""LangChain and LangGraph: chat models, LLMs, embeddings, and all runnables, agents and graphs that contain them.

Models that speak through an SDK or an HTTP client of their own are governed there, where every call passes: batches,
streams, tools, structured output, agents. Others (a model on `requests`, gRPC, or a program on this machine) are
governed in the methods that every model implements. Which of both it is, makes no difference to the caller.

For providers and worker processes where neither can be, there are a `RateLimiter` for the field ``rate_limiter`` of
chat models, and a `Middleware` for agents. Together with `govern` they do not count twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.integrations.gate import Gatekeeper
    from penstock.integrations.langchain.middleware import Middleware
    from penstock.integrations.langchain.rate_limiter import RateLimiter

__all__ = ["Middleware", "RateLimiter", "govern", "ungovern"]


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern every model in ``obj``; False if there is none."""
    from penstock.integrations.langchain import clients, methods, retries
    from penstock.integrations.langchain.contents import contents

    found = contents(obj)
    for model in found.models:
        if not clients.govern(model, gatekeeper):
            methods.govern(model, gatekeeper)
    for layer in found.retries:
        retries.turn_off(layer)
    return bool(found.models)


def ungovern(obj: Any) -> bool:
    """Undo `govern` on every model in ``obj``."""
    from penstock.integrations.langchain import clients, methods, retries
    from penstock.integrations.langchain.contents import contents

    found = contents(obj)
    for layer in found.retries:
        retries.restore(layer)
    for model in found.models:
        if not clients.ungovern(model):
            methods.ungovern(model)
    return bool(found.models)


def __getattr__(name: str) -> Any:
    # `langchain` itself is not always there where `langchain_core` is, and only the middleware needs it.
    if name == "RateLimiter":
        from penstock.integrations.langchain.rate_limiter import RateLimiter

        return RateLimiter
    if name == "Middleware":
        from penstock.integrations.langchain.middleware import Middleware

        return Middleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
