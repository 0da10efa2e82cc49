"""What the exceptions of SDKs and HTTP libraries mean, understood by their shape: nothing is imported.

Understood are the exceptions of openai, anthropic, groq, together, fireworks, google-genai, mistralai, cohere, litellm,
botocore, httpx, httpx2, aiohttp and requests, and those of frameworks that keep one of these as ``__cause__`` or its
response as ``.response``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from penstock import _core
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock._core import Verdict

#: How long a chain of causes is followed.
_DEPTH = 8
#: Modules whose connection and timeout errors mean that no answer came.
_TRANSPORTS = frozenset(
    {"aiohttp", "anthropic", "botocore", "cohere", "fireworks", "google", "groq", "httpcore", "httpcore2", "httpx"}
    | {"httpx2", "litellm", "mistralai", "openai", "requests", "together", "urllib3"}
)
#: Parts of the names of their classes that say so.
_UNANSWERED = ("Connect", "Timeout", "Network", "Disconnected", "RemoteProtocol", "ReadError", "WriteError", "SSL")
#: Whose answer it is, by the top module of the exception.
_PROVIDERS = {"anthropic": "anthropic", "botocore": "bedrock", "cohere": "cohere", "fireworks": "fireworks"}
_PROVIDERS |= {"google": "gemini", "groq": "groq", "mistralai": "mistral", "together": "together"}


def verdict_of(error: BaseException) -> Verdict | None:
    """What ``error`` means, or None when it is no failure of a provider that is recognised."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < _DEPTH:
        if isinstance(current, PenstockError):
            return None
        verdict = _read(current)
        if verdict is not None:
            return verdict
        seen.add(id(current))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return None


def _read(error: BaseException) -> Verdict | None:
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    provider = next((name for module, name in _PROVIDERS.items() if module in modules), None)
    response = _get(error, "response")
    if isinstance(response, dict):  # botocore
        return _read_botocore(response)
    for answer in (error, response, _get(error, "raw_response")):
        status = _status(answer)
        if status is not None:
            headers = _first(_get(response, "headers"), _get(error, "headers"), _get(answer, "headers"))
            return _core.read_answer(status, _usable(headers), _body(error, response), provider)
    unanswered = any(mark in kind.__name__ for kind in type(error).__mro__ for mark in _UNANSWERED)
    if isinstance(error, ConnectionError) or (modules & _TRANSPORTS and unanswered):
        return _core.read_answer(0, None, None, provider)
    return None


def _read_botocore(response: dict[str, Any]) -> Verdict | None:
    about = response.get("ResponseMetadata")
    error = response.get("Error")
    if not isinstance(about, dict) or not isinstance(error, dict):
        return None
    status = _integer(about.get("HTTPStatusCode"))
    if status is None:
        return None
    headers = dict(about.get("HTTPHeaders") or {})
    headers.setdefault("x-amzn-errortype", str(error.get("Code", "")))
    return _core.read_answer(status, headers, {"message": str(error.get("Message", ""))}, "bedrock")


def _status(thing: object) -> int | None:
    for name in ("status_code", "status", "code", "http_status"):
        status = _integer(_get(thing, name))
        if status is not None and 100 <= status <= 599:
            return status
    return None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _body(error: BaseException, response: object) -> Any:
    for thing, names in ((response, ("content", "text")), (error, ("body", "details", "response_body", "message"))):
        for name in names:
            body = _get(thing, name)
            if isinstance(body, (bytes, str, dict, list)) and body:
                # The SDKs of OpenAI's kind hand out what is inside "error"; the reader knows both.
                return body
    return str(error)


def _usable(headers: object) -> Any:
    return headers if callable(getattr(headers, "items", None)) else None


def _first(*values: object) -> object:
    return next((value for value in values if value is not None), None)


def _get(thing: object, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  httpx raises when a streamed body was not read; others may raise anything
        return None


def annotate(error: BaseException, note: str) -> None:
    """Add a note to an exception, where Python has notes."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
