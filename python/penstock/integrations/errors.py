"""What a governed call raises inside of an SDK: our errors, which are that SDK's own, too.

An SDK takes whatever else its HTTP client raises for a broken connection: it tries again, and wraps it in the end.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.errors import PenstockError

#: The base errors of SDKs. Those of openai and anthropic let them pass; others wrap them all the same.
_BASES = {
    "openai": "OpenAIError",
    "anthropic": "AnthropicError",
    "groq": "GroqError",
    "together": "TogetherError",
    "fireworks": "FireworksError",
}

#: Errors of HTTP libraries that mean that nothing was sent, by the names of their classes.
_NOT_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"}
    | {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"}
)


def within_sdks(error: PenstockError) -> PenstockError:
    """The same error, which is also a base error of each SDK that is loaded."""
    kind: Any = type(error)
    bases = _loaded()
    if not bases or isinstance(error, bases):
        return error
    both = _combined(kind, bases)
    again = both(*arguments(error))
    again.__cause__, again.__context__, again.__suppress_context__ = (
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
    )
    return again


def _loaded() -> tuple[type[Exception], ...]:
    found = (getattr(sys.modules.get(module), name, None) for module, name in _BASES.items())
    return tuple(kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception))


@lru_cache(maxsize=64)
def _combined(kind: Any, bases: tuple[type[Exception], ...]) -> Callable[..., PenstockError]:
    # It is pickled as ours: where it arrives, other SDKs may be loaded, or none.
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}

    def reduce(error: PenstockError) -> tuple[Any, ...]:
        return _again, (kind, arguments(error))

    try:
        both: Any = type(kind.__name__, (kind, *bases), {**names, "__reduce__": reduce, "_arguments": None})
    except TypeError:  # an SDK whose base error cannot be combined with ours
        both = kind
    return cast("Callable[..., PenstockError]", both)


def _again(kind: type[PenstockError], arguments: tuple[object, ...]) -> PenstockError:
    return within_sdks(kind(*arguments))


def arguments(error: PenstockError) -> tuple[object, ...]:
    """What ``error`` can be made of again: our errors say so when they are pickled."""
    for kind in type(error).__mro__:
        # The class that is combined with SDKs' reduces itself to more than that.
        if kind.__module__ == "penstock.errors" and "__reduce__" in vars(kind) and "_arguments" not in vars(kind):
            reduced: Any = vars(kind)["__reduce__"](error)[1]
            return tuple(reduced)
    return error.args


def was_sent(error: BaseException) -> bool:
    """Whether the provider may have seen the request that ended with ``error``."""
    return not any(kind.__name__ in _NOT_SENT for kind in type(error).__mro__)


def timed_out(error: BaseException) -> bool:
    """Whether ``error`` is a timeout of an HTTP library."""
    return any("Timeout" in kind.__name__ for kind in type(error).__mro__)


def unanswered(error: Exception, agent: str, request: object) -> Exception:
    """What to raise when no answer came, and no other attempt is made.

    OpenAI's SDK retries errors of its HTTP client, but lets its own errors pass, so it gets what it would have made of
    them. Anthropic's retries its own, too: it gets the original, and when it comes back, what is remembered.

    Args:
        error: what the HTTP client raised.
        agent: the ``user-agent`` of the request, which names the SDK.
        request: the request, which the SDK's errors carry.
    """
    if "openai/python" in agent.lower():
        openai = sys.modules.get("openai")
        if openai is not None and _passes_its_own(openai):
            kind = openai.APITimeoutError if timed_out(error) else openai.APIConnectionError
            own: Exception = kind(request=request)
            own.__cause__ = error
            return own
    return error


@lru_cache(maxsize=4)
def _passes_its_own(openai: Any) -> bool:
    """Whether this release of the SDK has the clause that lets its own errors pass."""
    try:
        return "OpenAIError" in openai._base_client.SyncAPIClient.request.__code__.co_names  # noqa: SLF001
    except AttributeError:
        return False
