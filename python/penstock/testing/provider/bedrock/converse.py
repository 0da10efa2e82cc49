"""Bedrock's ``Converse`` and ``ConverseStream``, and ``InvokeModel`` for Anthropic's models."""

# ruff: noqa: D102 - the methods are documented in Call

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ..answer import MOST_TOKENS, pieces
from ..anthropic.messages import message_of
from ..dialect import Call, Incoming, encode, json_object, text_of
from ..prompt import Prompt, Tool
from ..tokens import estimate
from .errors import problem
from .eventstream import message

if TYPE_CHECKING:
    from ..answer import Answer
    from ..dialect import Dialect
    from ..prompt import JSONObject

__all__ = ["Converse", "Invoke", "burndown", "read_converse", "read_invoke"]

EVENT_STREAM = "application/vnd.amazon.eventstream"
UNLIMITED = 64_000
"""Tokens that are reserved where a request does not limit its output: the model's most, 64 to 128 thousand."""


def burndown(model: str) -> int:
    """By how much a model's output counts when a call is settled, as documented: 5 for Claude, 1 for others."""
    return 5 if "claude" in model.lower() else 1


class Converse(Call):
    """One turn of a conversation."""

    stream_type = EVENT_STREAM

    def __init__(self, prompt: Prompt, answer: Answer, tokens_in: int, *, stream: bool) -> None:
        self.model = prompt.model
        self._answer = answer
        self.tokens_in = tokens_in
        self.tokens_out = answer.tokens
        reserved = UNLIMITED if prompt.max_tokens is None else prompt.max_tokens
        self.cost = {"requests": 1, "tokens": tokens_in + reserved, "input_tokens": tokens_in}
        self.stream = stream

    @property
    def used(self) -> int:
        return self.tokens_in + self.tokens_out * burndown(self.model)

    @property
    def _stop_reason(self) -> str:
        if self._answer.tool_calls:
            return "tool_use"
        return "max_tokens" if self._answer.cut else "end_turn"

    def _usage(self) -> dict[str, int]:
        return {
            "inputTokens": self.tokens_in,
            "outputTokens": self.tokens_out,
            "totalTokens": self.tokens_in + self.tokens_out,
        }

    def _blocks(self, number: int) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        if self._answer.text or not self._answer.tool_calls:
            blocks.append({"text": self._answer.text})
        for index, call in enumerate(self._answer.tool_calls):
            name = f"tooluse_{number:014d}{index:08d}"
            blocks.append({"toolUse": {"toolUseId": name, "name": call.name, "input": dict(call.arguments)}})
        return blocks

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002 - it does not say when
        return encode(
            {
                "output": {"message": {"role": "assistant", "content": self._blocks(number)}},
                "stopReason": self._stop_reason,
                "usage": self._usage(),
                "metrics": {"latencyMs": 1},
            }
        )

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:  # noqa: ARG002
        moments: list[bytes] = []
        for index, block in enumerate(self._blocks(number)):
            moments += _block_events(index, block, chunks)
        moments[0] = _event("messageStart", {"role": "assistant"}) + moments[0]
        moments[-1] += _event("messageStop", {"stopReason": self._stop_reason})
        moments[-1] += _event("metadata", {"usage": self._usage(), "metrics": {"latencyMs": 1}})
        return moments


class Invoke(Call):
    """A message of Anthropic's, wrapped."""

    stream_type = EVENT_STREAM

    def __init__(self, inner: Call, model: str, reserved: int, *, stream: bool) -> None:
        self._inner = inner
        self.model = model
        self.stream = stream
        self.tokens_in, self.tokens_out = inner.tokens_in, inner.tokens_out
        self.cost = {"requests": 1, "tokens": inner.tokens_in + reserved, "input_tokens": inner.tokens_in}

    @property
    def used(self) -> int:
        return self.tokens_in + self.tokens_out * burndown(self.model)

    def answer(self, number: int, created: int) -> bytes:
        return self._inner.answer(number, created)

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:
        return [_wrapped(moment) for moment in self._inner.events(number, created, chunks)]


def _wrapped(moment: bytes) -> bytes:
    """Each server-sent event of Anthropic's as a chunk of Amazon's."""
    lines = (line for line in moment.split(b"\n") if line.startswith(b"data: "))
    data = (line.removeprefix(b"data: ") for line in lines)
    return b"".join(_event("chunk", {"bytes": base64.b64encode(event).decode()}) for event in data)


def _event(kind: str, payload: object) -> bytes:
    return message(encode(payload), event_type=kind, content_type="application/json", message_type="event")


def _block_events(index: int, block: dict[str, Any], chunks: int) -> list[bytes]:
    where = {"contentBlockIndex": index}
    if "text" in block:
        deltas: list[dict[str, Any]] = [{"text": piece} for piece in pieces(block["text"], chunks)]
        opening = b""
    else:
        tool = block["toolUse"]
        start = {"toolUse": {"toolUseId": tool["toolUseId"], "name": tool["name"]}}
        opening = _event("contentBlockStart", {**where, "start": start})
        deltas = [{"toolUse": {"input": piece}} for piece in pieces(encode(tool["input"]).decode(), chunks)]
    moments = [_event("contentBlockDelta", {**where, "delta": delta}) for delta in deltas]
    moments[0] = opening + moments[0]
    moments[-1] += _event("contentBlockStop", where)
    return moments


def read_invoke(dialect: Dialect, request: Incoming, model: str, *, stream: bool) -> Invoke:
    """Check a body for one of Anthropic's models, and count it."""
    body = json_object(request.body)
    if body is None or "anthropic_version" not in body:
        text = "Malformed input request: #: required key [anthropic_version] not found, please reformat your input."
        raise problem(400, "ValidationException", text, model=model)
    inner = message_of(dialect, request, body, model=model)
    return Invoke(inner, model, body["max_tokens"], stream=stream)


def read_converse(dialect: Dialect, request: Incoming, model: str, *, stream: bool) -> Converse:
    """Check a conversation's body as Bedrock does, and count it."""
    body = json_object(request.body)
    messages = None if body is None else body.get("messages")
    if body is None or not isinstance(messages, list) or not messages:
        raise problem(400, "ValidationException", "The messages field is required.", model=model)
    if not all(isinstance(item, dict) and isinstance(item.get("content"), list) for item in messages):
        raise problem(400, "ValidationException", "The content of a message must be a list.", model=model)
    limit = _mapping(body.get("inferenceConfig")).get("maxTokens")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= MOST_TOKENS):
        raise problem(400, "ValidationException", f"maxTokens must be at least 1, not {limit!r}.", model=model)
    tools, choice = _tools(body)
    prompt = Prompt(
        dialect=dialect.name,
        endpoint=request.path,
        model=model,
        body=body,
        headers=request.headers,
        text=text_of(messages[-1]["content"]),
        tools=tools,
        tool_choice=choice,
        called=_called(messages),
        max_tokens=limit,
    )
    return Converse(prompt, dialect.decide(prompt), estimate(_characters(body, messages)), stream=stream)


def _mapping(value: Any) -> JSONObject:
    return value if isinstance(value, dict) else {}


def _tools(body: JSONObject) -> tuple[tuple[Tool, ...], str]:
    config = _mapping(body.get("toolConfig"))
    given = config.get("tools")
    specs = [_mapping(_mapping(tool).get("toolSpec")) for tool in given] if isinstance(given, list) else []
    tools = tuple(
        Tool(str(spec["name"]), _mapping(_mapping(spec.get("inputSchema")).get("json")))
        for spec in specs
        if "name" in spec
    )
    choice = _mapping(config.get("toolChoice"))
    if "tool" in choice:
        return tools, str(_mapping(choice["tool"]).get("name"))
    return tools, "required" if "any" in choice else "auto"


def _called(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    called: list[str] = []
    for item in messages:
        parts = [part for part in item["content"] if isinstance(part, dict)]
        if item.get("role") == "user" and not any("toolResult" in part for part in parts):
            called.clear()
        called += [str(_mapping(part["toolUse"]).get("name")) for part in parts if "toolUse" in part]
    return tuple(called)


def _characters(body: JSONObject, messages: list[dict[str, Any]]) -> int:
    total = len(text_of(body.get("system")))
    if body.get("toolConfig"):
        total += len(encode(body["toolConfig"]))
    for item in messages:
        total += len(text_of(item["content"]))
        for part in item["content"]:
            for name in ("toolUse", "toolResult"):
                if isinstance(part, dict) and name in part:
                    total += len(encode(part[name]))
    return total
