"""OpenAI's dialect: chat completions, streamed or not, and embeddings.

What a request costs at admission is ``max(max_tokens, estimate)``, as OpenAI documents it ("the maximum of
``max_tokens`` and the estimated number of tokens based on the character count"); the estimate is a quarter of the
prompt's characters, rounded up, and at least 1. Prompts given as token arrays count exactly.
"""

# ruff: noqa: D102 - the methods are documented in Call and Dialect

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import headers as wire
from .dialect import Call, Dialect, Problem
from .replies import Reply, Tool, choose, instance
from .tokens import CHARACTERS_PER_TOKEN, estimate, filler

if TYPE_CHECKING:
    from .quota import Level, Refusal

__all__ = ["ANSWER_TOKENS_HEADER", "MOST_TOKENS", "OpenAI", "request_cost"]

ANSWER_TOKENS_HEADER = "x-fake-answer-tokens"
"""A request header with which a client asks for an answer of so many tokens."""

DEFAULT_ANSWER_TOKENS = 16
MOST_TOKENS = 1_000_000  # in an answer: bounds what one request can make the provider write
DEFAULT_DIMENSIONS = 1536  # of text-embedding-3-small
ORGANIZATION = "org-penstocktesting000000000"

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"

JSONObject = Mapping[str, Any]


def request_cost(body: JSONObject) -> int:
    """Count the tokens that a request with this JSON body is charged at admission.

    Chat completions: the larger of ``max_completion_tokens`` (or ``max_tokens``) and the estimate from the characters
    of the messages' texts, tool calls and ``tools``. Embeddings: the sum of the inputs. Raises ``ValueError`` for a
    body that the provider would answer with 400.

    >>> request_cost({"model": "m", "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 50})
    100
    """
    try:
        call = _embeddings(body) if "input" in body else _chat(body, None)
    except Problem as problem:
        raise ValueError(f"the provider would refuse this body: {problem}") from None
    return call.cost["tokens"]


class OpenAI(Dialect):
    """The dialect, for callers with any of ``keys`` (None: any key at all) and any of ``models`` (None: any name)."""

    base_path = "/v1"

    def __init__(
        self,
        *,
        keys: Collection[str] | None = None,
        models: Collection[str] | None = None,
        answer_tokens: int | None = None,
    ) -> None:
        self._keys = keys
        self._models = models
        self._answer_tokens = answer_tokens

    def key(self, headers: Mapping[str, str]) -> str | None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None

    def read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call:
        if path not in (CHAT, EMBEDDINGS):
            raise _problem(404, f"Invalid URL ({method} {path})", counts=False)
        if method != "POST":
            raise _problem(405, f"Not allowed to {method} on {path} (HINT: perhaps you meant to POST)", counts=False)
        self._authenticate(self.key(headers))
        request = _json_object(body)
        self._check_model(request)
        if path == EMBEDDINGS:
            return _embeddings(request)
        return _chat(request, self._wish(headers, request))

    def _authenticate(self, key: str | None) -> None:
        if key is None:
            raise _problem(401, "You didn't provide an API key.", counts=False)
        if self._keys is not None and key not in self._keys:
            raise _problem(401, f"Incorrect API key provided: {key}.", code="invalid_api_key", counts=False)

    def _check_model(self, request: JSONObject) -> None:
        model = request.get("model")
        if isinstance(model, str) and self._models is not None and model not in self._models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise _problem(404, message, code="model_not_found", counts=False, request=request)

    def _wish(self, headers: Mapping[str, str], request: JSONObject) -> int | None:
        """How long an answer was asked for by other means than the body."""
        text = headers.get(ANSWER_TOKENS_HEADER)
        if text is None:
            return self._answer_tokens
        if not (text.isascii() and text.isdigit() and len(text) < 8 and 0 < int(text) <= MOST_TOKENS):
            message = (
                f"The header {ANSWER_TOKENS_HEADER} must be a number of tokens from 1 to {MOST_TOKENS}, not {text}."
            )
            raise _problem(400, message, request=request)
        return int(text)

    def headers(self, number: int, milliseconds: int) -> dict[str, str]:
        return {
            "openai-organization": ORGANIZATION,
            "openai-processing-ms": str(milliseconds),
            "openai-version": "2020-10-01",
            "x-request-id": f"req_{number:032x}",
        }

    def quota_headers(self, levels: Mapping[str, Level]) -> dict[str, str]:
        return wire.quota_headers(levels)

    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        message = wire.refusal_message(call.model, ORGANIZATION, refusal)
        body = _error(message, kind=refusal.dimension, code="rate_limit_exceeded")
        headers = {} if refusal.wait is None else wire.retry_headers(refusal.wait)
        return Problem(429, body, headers, model=call.model)


class _Chat(Call):
    """A chat completion."""

    def __init__(
        self,
        request: JSONObject,
        *,
        tokens_in: int,
        answer_tokens: int,
        finish_reason: str,
        cost: int,
        reply: Reply | None = None,
    ) -> None:
        self.model = request["model"]
        self.cost = {"requests": 1, "tokens": cost}
        self.tokens_in = tokens_in
        self.stream = request.get("stream") or False
        self._choices: int = request.get("n") or 1
        self._answer_tokens = answer_tokens
        self.tokens_out = answer_tokens * self._choices
        self._finish_reason = finish_reason
        self._reply = reply
        self._include_usage = (request.get("stream_options") or {}).get("include_usage") is True

    def _usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.tokens_in,
            "completion_tokens": self.tokens_out,
            "total_tokens": self.tokens_in + self.tokens_out,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def _frame(self, number: int, created: int, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{number:029d}",
            "object": kind,
            "created": created,
            "model": self.model,
            "system_fingerprint": "fp_penstock",
        }

    def answer(self, number: int, created: int) -> bytes:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": filler(0, self._answer_tokens),
            "refusal": None,
            "annotations": [],
        }
        if self._reply is not None:
            message["content"] = None if self._reply.tool else self._reply.text
        if self._reply is not None and self._reply.tool:
            message["tool_calls"] = [_tool_call(number, self._reply.tool, self._reply.text)]
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
            for index in range(self._choices)
        ]
        frame = self._frame(number, created, "chat.completion")
        return _encode({**frame, "choices": choices, "usage": self._usage()})

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:
        frame = self._frame(number, created, "chat.completion.chunk")
        if self._include_usage:
            frame["usage"] = None  # on every chunk but the last, as OpenAI has it

        def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
            choices = (
                {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
                for index in range(self._choices)
            )
            return b"".join(_event({**frame, "choices": [choice]}) for choice in choices)

        total = self._answer_tokens
        count = min(chunks, total)
        bounds = [total * index // count for index in range(count + 1)]
        reply = self._reply
        text = filler(0, total) if reply is None else reply.text
        pieces = [_piece(text, start, stop) for start, stop in itertools.pairwise(bounds)]
        if reply is not None and reply.tool:
            begin: dict[str, Any] = {"content": None, "tool_calls": [_streamed(_tool_call(number, reply.tool, ""))]}
            events = [chunk({"tool_calls": [_streamed({"function": {"arguments": piece}})]}) for piece in pieces]
        else:
            begin = {"content": ""}
            events = [chunk({"content": piece}) for piece in pieces]
        events[0] = chunk({"role": "assistant", **begin}) + events[0]
        events[-1] += chunk({}, self._finish_reason)
        if self._include_usage:
            events[-1] += _event({**frame, "choices": [], "usage": self._usage()})
        events[-1] += b"data: [DONE]\n\n"
        return events


class _Embeddings(Call):
    """Vectors for one or more inputs."""

    def __init__(
        self, request: JSONObject, *, inputs: Sequence[bytes], tokens: int, dimensions: int, as_base64: bool
    ) -> None:
        self.model = request["model"]
        self.cost = {"requests": 1, "tokens": tokens}
        self.tokens_in = tokens
        self.tokens_out = 0
        self.stream = False
        self._inputs = inputs
        self._dimensions = dimensions
        self._base64 = as_base64

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002 - embeddings carry neither
        data = [
            {"object": "embedding", "index": index, "embedding": self._vector(text)}
            for index, text in enumerate(self._inputs)
        ]
        usage = {"prompt_tokens": self.tokens_in, "total_tokens": self.tokens_in}
        return _encode({"object": "list", "data": data, "model": self.model, "usage": usage})

    def _vector(self, text: bytes) -> str | list[float]:
        raw = _unit_vector(text, self._dimensions)
        if self._base64:
            return base64.b64encode(raw).decode()
        return list(struct.unpack(f"<{self._dimensions}f", raw))

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:  # noqa: ARG002
        return [self.answer(number, created)]


def _chat(request: JSONObject, wish: int | None) -> _Chat:
    """Check a chat completion's body as OpenAI does, and count it."""
    _text(request, "model", "you must provide a model parameter")
    messages = request.get("messages")
    if messages is None:
        raise _missing(request, "messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _invalid(request, "messages", "expected an array of objects", "invalid_type")
    if not messages:
        raise _invalid(
            request,
            "messages",
            "empty array. Expected an array with minimum length 1, but got an empty array instead",
            "empty_array",
        )
    _boolean(request, "stream")
    _integer(request, "n", maximum=128)
    options = request.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise _invalid(request, "stream_options", "expected an object", "invalid_type")
    if options is not None and not request.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise _problem(400, message, param="stream_options", request=request)
    limit = _integer(request, "max_completion_tokens")
    older_limit = _integer(request, "max_tokens")
    if limit is not None and older_limit is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise _problem(400, message, code="invalid_parameter_combination", param="max_tokens", request=request)
    limit = limit if limit is not None else older_limit

    tokens_in = estimate(_characters(request, messages))
    reply = _reply(request, messages)
    if reply is not None:
        return _Chat(
            request,
            tokens_in=tokens_in,
            answer_tokens=estimate(len(reply.text)),
            finish_reason="tool_calls" if reply.tool else "stop",
            cost=max(limit or 0, tokens_in),
            reply=reply,
        )
    wish = wish or limit or DEFAULT_ANSWER_TOKENS
    return _Chat(
        request,
        tokens_in=tokens_in,
        answer_tokens=wish if limit is None else min(wish, limit),
        finish_reason="stop" if limit is None or wish <= limit else "length",
        cost=max(limit or 0, tokens_in),
    )


def _reply(request: JSONObject, messages: list[dict[str, Any]]) -> Reply | None:
    """What the answer must be, if a tool or a schema says so."""
    offered = request.get("tools")
    functions = (
        [tool.get("function") for tool in offered if isinstance(tool, dict)] if isinstance(offered, list) else []
    )
    tools = [
        Tool(function["name"], function.get("parameters"))
        for function in functions
        if isinstance(function, dict) and isinstance(function.get("name"), str)
    ]
    choice = request.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        function = choice.get("function")
        choice = function.get("name") if isinstance(function, dict) else "required"
    called: list[str] = []
    for message in messages:
        if message.get("role") == "user":
            called.clear()
        calls = _objects([call.get("function") for call in _objects(message.get("tool_calls"))])
        called.extend(function["name"] for function in calls if isinstance(function.get("name"), str))
    reply = choose(tools, called, choice if isinstance(choice, str) else "auto")
    wanted = request.get("response_format")
    if reply is None and isinstance(wanted, dict):
        if wanted.get("type") == "json_schema" and isinstance(wanted.get("json_schema"), dict):
            return Reply(json.dumps(instance(wanted["json_schema"].get("schema")), separators=(",", ":")))
        if wanted.get("type") == "json_object":
            return Reply("{}")
    return reply


def _objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list; of anything else, none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _tool_call(number: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{number:024d}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _streamed(call: dict[str, Any]) -> dict[str, Any]:
    """A tool's call, or a part of it, as chunks have it."""
    return {"index": 0, **call}


def _piece(text: str, start: int, stop: int) -> str:
    """Tokens ``start`` to ``stop`` of a text."""
    return text[start * CHARACTERS_PER_TOKEN : stop * CHARACTERS_PER_TOKEN]


def _characters(request: JSONObject, messages: list[dict[str, Any]]) -> int:
    """Characters of a prompt: texts of the messages, names and arguments of their tool calls, and ``tools`` as JSON."""
    total = 0
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, str):
            total += len(content)
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            total += sum(len(text) for text in texts if isinstance(text, str))
        elif content is not None:
            raise _invalid(request, f"messages[{index}].content", "expected a string or an array", "invalid_type")
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                total += sum(
                    len(text) for text in (function.get("name"), function.get("arguments")) if isinstance(text, str)
                )
    if request.get("tools"):
        total += len(json.dumps(request["tools"], ensure_ascii=False, separators=(",", ":")))
    return total


def _embeddings(request: JSONObject) -> _Embeddings:
    """Check an embeddings request's body as OpenAI does, and count it."""
    _text(request, "model", "you must provide a model parameter")
    given = request.get("input")
    if given is None:
        raise _missing(request, "input")
    inputs = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not inputs:
        raise _invalid(request, "input", "input cannot be an empty array", "invalid_type")
    if not all(item and (isinstance(item, str) or _is_tokens(item)) for item in inputs):
        wanted = "expected a string or an array of tokens, or an array of those, none of them empty"
        raise _invalid(request, "input", wanted, "invalid_type")
    encoding = request.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise _invalid(request, "encoding_format", "expected 'float' or 'base64'", "invalid_value")
    return _Embeddings(
        request,
        inputs=[json.dumps(item).encode() for item in inputs],
        tokens=sum(estimate(len(item)) if isinstance(item, str) else len(item) for item in inputs),
        dimensions=_integer(request, "dimensions", maximum=4096) or DEFAULT_DIMENSIONS,
        as_base64=encoding == "base64",
    )


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def _unit_vector(text: bytes, dimensions: int) -> bytes:
    """Make a vector of length 1 that depends on the text alone, as little-endian floats.

    Each bit of a hash gives a component its sign, so that making one costs microseconds and unlike texts are nearly
    orthogonal.
    """
    digest = hashlib.shake_128(text).digest(-(-dimensions // 8))
    return b"".join(map(_components(dimensions).__getitem__, digest))[: 4 * dimensions]


@functools.lru_cache(maxsize=16)
def _components(dimensions: int) -> list[bytes]:
    """For each byte of a hash, the eight components it stands for."""
    size = dimensions**-0.5
    return [struct.pack("<8f", *(size if byte >> bit & 1 else -size for bit in range(8))) for byte in range(256)]


def _json_object(body: bytes) -> JSONObject:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        message = (
            "We could not parse the JSON body of your request. "
            "(HINT: This likely means you aren't using your HTTP library correctly. "
            "The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
        )
        raise _problem(400, message)
    return request


def _text(request: JSONObject, name: str, message: str) -> None:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise _problem(400, message, request=request)


def _boolean(request: JSONObject, name: str) -> None:
    value = request.get(name)
    if value is not None and not isinstance(value, bool):
        raise _invalid(request, name, "expected a boolean", "invalid_type")


def _integer(request: JSONObject, name: str, maximum: int = MOST_TOKENS) -> int | None:
    """Read a whole number from 1 to ``maximum``, or None where it is absent or null."""
    value = request.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise _invalid(request, name, "expected an integer", "invalid_type")
    if value < 1:
        detail = f"integer below minimum value. Expected a value >= 1, but got {value} instead"
        raise _invalid(request, name, detail, "integer_below_min_value")
    if value > maximum:
        detail = f"integer above maximum value. Expected a value <= {maximum}, but got {value} instead"
        raise _invalid(request, name, detail, "integer_above_max_value")
    return value


def _missing(request: JSONObject, name: str) -> Problem:
    message = f"Missing required parameter: '{name}'."
    return _problem(400, message, code="missing_required_parameter", param=name, request=request)


def _invalid(request: JSONObject, name: str, detail: str, code: str) -> Problem:
    return _problem(400, f"Invalid '{name}': {detail}.", code=code, param=name, request=request)


def _problem(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    counts: bool = True,
    request: JSONObject | None = None,
) -> Problem:
    body = _error(message, kind="invalid_request_error", code=code, param=param)
    model = None if request is None else request.get("model")
    return Problem(status, body, counts=counts, model=model if isinstance(model, str) else None)


def _error(message: str, *, kind: str, code: str | None, param: str | None = None) -> bytes:
    return _encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(value: object) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"
