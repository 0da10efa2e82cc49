"""Gemini's ``generateContent`` and ``streamGenerateContent``."""

# ruff: noqa: D102 - the methods are documented in Call

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..answer import MOST_TOKENS, pieces
from ..dialect import JSON, Call, encode, json_object
from ..prompt import Prompt, Tool
from ..tokens import estimate
from .errors import problem

if TYPE_CHECKING:
    from ..answer import Answer
    from ..dialect import Dialect, Incoming
    from ..prompt import JSONObject

__all__ = ["Content", "characters", "read_content"]


class Content(Call):
    """A candidate."""

    def __init__(self, prompt: Prompt, answer: Answer, tokens_in: int, *, stream: bool, events: bool) -> None:
        self.model = prompt.model
        self._answer = answer
        self.tokens_in = tokens_in
        self.tokens_out = answer.tokens
        self.cost = {"requests": 1, "tokens": tokens_in, "input_tokens": tokens_in}
        self.stream = stream
        self._events = events
        if not events:
            self.stream_type = JSON

    def _part(self, number: int, parts: list[dict[str, Any]], *, last: bool, output: int) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if last:
            candidate["finishReason"] = "MAX_TOKENS" if self._answer.cut else "STOP"
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": self.tokens_in,
                "candidatesTokenCount": output,
                "totalTokenCount": self.tokens_in + output,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": self.tokens_in}],
            },
            "modelVersion": self.model,
            "responseId": f"response{number:014d}",
        }

    def _calls(self) -> list[dict[str, Any]]:
        return [{"functionCall": {"name": call.name, "args": dict(call.arguments)}} for call in self._answer.tool_calls]

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002 - it does not say when
        texts: list[dict[str, Any]] = (
            [] if self._answer.tool_calls and not self._answer.text else [{"text": self._answer.text}]
        )
        return encode(self._part(number, texts + self._calls(), last=True, output=self.tokens_out))

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:  # noqa: ARG002
        moments: list[list[dict[str, Any]]] = []
        if self._answer.text or not self._answer.tool_calls:
            moments = [[{"text": piece}] for piece in pieces(self._answer.text, chunks)]
        moments += [[call] for call in self._calls()]
        count = len(moments)
        parts = [
            encode(self._part(number, moment, last=index + 1 == count, output=self.tokens_out * (index + 1) // count))
            for index, moment in enumerate(moments)
        ]
        if self._events:
            return [b"data: " + part + b"\r\n\r\n" for part in parts]
        # Without alt=sse a stream is one JSON array, element by element.
        parts = [(b"[" if index == 0 else b",\r\n") + part for index, part in enumerate(parts)]
        parts[-1] += b"]"
        return parts


def read_content(dialect: Dialect, request: Incoming, model: str, action: str) -> Content:
    """Check a body as Gemini does, and count it."""
    body = json_object(request.body)
    if body is None:
        raise problem(400, "INVALID_ARGUMENT", "Invalid JSON payload received.", model=model)
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents or not all(isinstance(item, dict) for item in contents):
        raise problem(
            400, "INVALID_ARGUMENT", "* GenerateContentRequest.contents: contents is not specified", model=model
        )
    config = _mapping(body.get("generationConfig"))
    limit = config.get("maxOutputTokens")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= MOST_TOKENS):
        message = f"Unable to submit request because it has a maxOutputTokens value of {limit!r}"
        raise problem(400, "INVALID_ARGUMENT", message, model=model)
    schema = config.get("responseJsonSchema", config.get("responseSchema"))
    prompt = Prompt(
        dialect=dialect.name,
        endpoint=request.path,
        model=model,
        body=body,
        headers=request.headers,
        text=_text(contents[-1]),
        tools=_tools(body),
        tool_choice=_choice(body),
        called=_called(contents),
        schema=schema if isinstance(schema, dict) else None,
        json=config.get("responseMimeType") == JSON,
        max_tokens=limit,
    )
    stream = action == "streamGenerateContent"
    events = request.query.get("alt") == "sse"
    return Content(prompt, dialect.decide(prompt), estimate(characters(body)), stream=stream, events=events)


def _mapping(value: Any) -> JSONObject:
    return value if isinstance(value, dict) else {}


def _parts(content: Any) -> list[dict[str, Any]]:
    parts = _mapping(content).get("parts")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _text(content: Any) -> str:
    texts = (part.get("text") for part in _parts(content))
    return "".join(text for text in texts if isinstance(text, str))


def _tools(body: JSONObject) -> tuple[Tool, ...]:
    given = body.get("tools")
    found = []
    for tool in given if isinstance(given, list) else ():
        functions = _mapping(tool).get("functionDeclarations")
        for function in functions if isinstance(functions, list) else ():
            name = _mapping(function).get("name")
            if isinstance(name, str):
                schema = function.get("parametersJsonSchema", function.get("parameters"))
                found.append(Tool(name, _mapping(schema)))
    return tuple(found)


def _choice(body: JSONObject) -> str:
    config = _mapping(_mapping(body.get("toolConfig")).get("functionCallingConfig"))
    mode = str(config.get("mode", "AUTO")).upper()
    allowed = config.get("allowedFunctionNames")
    if mode == "ANY" and isinstance(allowed, list) and len(allowed) == 1:
        return str(allowed[0])
    return {"ANY": "required", "NONE": "none"}.get(mode, "auto")


def _called(contents: list[Any]) -> tuple[str, ...]:
    """Tools that were called since the user last spoke; a turn of nothing but results is not the user's."""
    called: list[str] = []
    for content in contents:
        parts = _parts(content)
        if content.get("role") in ("user", None) and not any("functionResponse" in part for part in parts):
            called.clear()
        called += [str(_mapping(part["functionCall"]).get("name")) for part in parts if "functionCall" in part]
    return tuple(called)


def characters(body: JSONObject) -> int:
    """Characters of a prompt: system, texts, calls and results of tools, and ``tools`` as JSON."""
    tools = body.get("tools")
    total = len(_text(body.get("systemInstruction"))) + (len(encode(tools)) if tools else 0)
    contents = body.get("contents")
    for content in contents if isinstance(contents, list) else ():
        total += len(_text(content))
        for part in _parts(content):
            for name in ("functionCall", "functionResponse"):
                if name in part:
                    total += len(encode(part[name]))
    return total
