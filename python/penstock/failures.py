"""What the exceptions of SDKs and HTTP libraries mean, understood by their shape: nothing is imported.

Understood are the exceptions of openai, anthropic, groq, together, fireworks, google-genai, mistralai, cohere, litellm,
botocore, httpx, httpx2, aiohttp and requests, and those of frameworks that keep one of these as ``__cause__`` or its
response as ``.response``.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from penstock import _core
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock._core import Verdict

#: How long a chain of causes is followed.
_DEPTH = 8
#: Modules whose connection and timeout errors mean that no answer came.
_TRANSPORTS = frozenset(
    {"aiohttp", "anthropic", "botocore", "cohere", "fireworks", "google", "groq", "httpcore", "httpcore2", "httpx"}
    | {"httpx2", "litellm", "mistralai", "openai", "requests", "together", "urllib3"}
)
#: Parts of the names of their classes that say so.
_UNANSWERED = (
    *("Connect", "Timeout", "Network", "Disconnected", "RemoteProtocol", "ReadError", "WriteError", "SSL"),
    *("ChunkedEncoding", "IncompleteRead", "ClientPayload"),
)
#: Whose answer it is, by the top module of the exception.
_PROVIDERS = {"anthropic": "anthropic", "botocore": "bedrock", "cohere": "cohere", "fireworks": "fireworks"}
_PROVIDERS |= {"google": "gemini", "groq": "groq", "mistralai": "mistral", "together": "together"}


if sys.version_info >= (3, 11):
    being_handled = sys.exception
else:

    def being_handled() -> BaseException | None:
        """The exception that is being handled."""
        return sys.exc_info()[1]


def verdict_of(error: BaseException, handled: int = 0) -> Verdict | None:
    """What ``error`` means, or None when it is no failure of a provider that is recognised.

    ``handled`` is the identity of an exception that was being handled before the call began: it is the context of what
    the call raises (in a fallback, say), but no part of it.
    """
    for current in chain(error, handled):
        if issubclass(type(current), PenstockError):  # by type: isinstance() asks the exception itself
            return None
        verdict = _read(current)
        # An exception after a good answer is one about what the answer says.
        if verdict is not None and verdict.kind != "ok":
            return verdict
    return None


def chain(error: BaseException, handled: int = 0) -> Iterator[BaseException]:
    """An exception and those behind it, up to the one that was being handled before."""
    seen = {handled}
    current: Any = error
    while isinstance(current, BaseException) and id(current) not in seen and len(seen) <= _DEPTH:
        yield current
        seen.add(id(current))
        behind = get(current, "__cause__")
        if behind is None and not get(current, "__suppress_context__"):
            behind = get(current, "__context__")
        current = behind


def _read(error: BaseException) -> Verdict | None:
    modules = {str(kind.__module__).partition(".")[0] for kind in type(error).__mro__}
    provider = next((name for module, name in _PROVIDERS.items() if module in modules), None)
    response = get(error, "response")
    if isinstance(response, dict) and (verdict := _read_botocore(response)) is not None:
        return verdict
    for answer in (error, response, get(error, "raw_response")):
        status = _status(answer)
        if status is not None:
            headers = _first(get(response, "headers"), get(error, "headers"), get(answer, "headers"))
            return _answer(status, headers, _body(error, response), provider)
    if modules & _TRANSPORTS and isinstance(body := get(error, "body"), dict):
        # An error inside a stream that began well: OpenAI's SDK keeps what it says, and nothing of the answer.
        verdict = _answer(200, None, body if "error" in body else {"error": body}, provider)
        if verdict.kind != "ok":
            return verdict
    unanswered = any(mark in kind.__name__ for kind in type(error).__mro__ for mark in _UNANSWERED)
    if issubclass(type(error), ConnectionError) or (modules & _TRANSPORTS and unanswered):
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
    given = about.get("HTTPHeaders")
    headers = dict(given) if isinstance(given, dict) else {}
    headers.setdefault("x-amzn-errortype", str(error.get("Code", "")))
    return _answer(status, headers, {"message": str(error.get("Message", ""))}, "bedrock")


def _answer(status: int, headers: object, body: object, provider: str | None) -> Verdict:
    """Read an answer, as much of it as can be read."""
    headers = headers if callable(get(headers, "items")) else None
    try:
        return _core.read_answer(status, headers, body, provider)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  headers or a body that only look like it; whatever reading them raises
        return _core.read_answer(status, None, None, provider)


def _status(thing: object) -> int | None:
    for name in ("status_code", "status", "code", "http_status"):
        status = _integer(get(thing, name))
        if status is not None and 100 <= status <= 599:
            return status
    return None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _body(error: BaseException, response: object) -> Any:
    for thing, names in ((response, ("content", "text")), (error, ("body", "details", "response_body", "message"))):
        for name in names:
            body = get(thing, name)
            if isinstance(body, (bytes, str, dict, list)) and body:
                # The SDKs of OpenAI's kind hand out what is inside "error"; the reader knows both.
                return body
    try:
        return str(error)
    except Exception:  # noqa: BLE001  it is somebody else's code
        return None


def _first(*values: object) -> object:
    return next((value for value in values if value is not None), None)


def get(thing: object, name: str) -> Any:
    """An attribute of somebody else's object, or None."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  httpx raises when a streamed body was not read; others may raise anything
        return None


def raise_from(refusal: PenstockError, failure: BaseException | None) -> NoReturn:
    """Raise ``refusal``, for want of a permit for the next attempt: the last one's failure, if any, is its cause."""
    if failure is None:
        raise refusal
    raise refusal from failure


def annotate(error: BaseException, note: str) -> None:
    """Add a note to an exception, where Python has notes."""
    if sys.version_info >= (3, 11):
        # An exception may have made its notes something else; they are not worth another exception.
        with contextlib.suppress(Exception):
            error.add_note(note)
