"""Anthropic's messages."""

# ruff: noqa: D102 - the methods are documented in Call

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..answer import MOST_TOKENS, pieces
from ..dialect import Call, encode, event, json_object, text_of, tools_characters
from ..prompt import Prompt, Tool
from ..tokens import estimate
from .errors import problem

if TYPE_CHECKING:
    from ..answer import Answer
    from ..dialect import Dialect, Incoming, Problem
    from ..prompt import JSONObject

__all__ = ["CACHED_HEADER", "Message", "characters", "read_message"]

CACHED_HEADER = "x-fake-cached-tokens"
"""A request header: how many tokens of the prompt are read from the cache."""


class Message(Call):
    """A message of the model's."""

    def __init__(self, prompt: Prompt, answer: Answer, tokens_in: int, cached: int) -> None:
        self.model = prompt.model
        self._answer = answer
        self._cached = min(cached, tokens_in - 1)
        self._fresh = tokens_in - self._cached
        self.tokens_in = self._fresh
        self.tokens_out = answer.tokens
        self.stream = prompt.body.get("stream") or False
        self.cost = {"requests": 1, "tokens": self._fresh, "input_tokens": self._fresh}

    @property
    def _stop_reason(self) -> str:
        if self._answer.tool_calls:
            return "tool_use"
        return "max_tokens" if self._answer.cut else "end_turn"

    def _usage(self, output: int) -> dict[str, Any]:
        return {
            "input_tokens": self._fresh,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self._cached,
            "output_tokens": output,
            "service_tier": "standard",
        }

    def _message(self, number: int, content: list[dict[str, Any]], reason: str | None, output: int) -> dict[str, Any]:
        return {
            "id": f"msg_{number:024d}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": self._usage(output),
        }

    def _blocks(self, number: int) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        if self._answer.text:
            blocks.append({"type": "text", "text": self._answer.text})
        for index, call in enumerate(self._answer.tool_calls):
            name = f"toolu_{number:016d}{index:08d}"
            blocks.append({"type": "tool_use", "id": name, "name": call.name, "input": dict(call.arguments)})
        return blocks

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002 - messages do not say when
        return encode(self._message(number, self._blocks(number), self._stop_reason, self.tokens_out))

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:  # noqa: ARG002
        opening = event({"type": "message_start", "message": self._message(number, [], None, 1)}, "message_start")
        events: list[bytes] = []
        for index, block in enumerate(self._blocks(number)):
            events += self._block_events(index, block, chunks)
        if not events:
            events = [event({"type": "ping"}, "ping")]
        events[0] = opening + events[0]
        ending = {
            "type": "message_delta",
            "delta": {"stop_reason": self._stop_reason, "stop_sequence": None},
            "usage": self._usage(self.tokens_out),
        }
        events[-1] += event(ending, "message_delta") + event({"type": "message_stop"}, "message_stop")
        return events

    def _block_events(self, index: int, block: dict[str, Any], chunks: int) -> list[bytes]:
        if block["type"] == "text":
            empty: dict[str, Any] = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"], chunks)]
        else:
            empty = {**block, "input": {}}
            call = encode(block["input"]).decode()
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(call, chunks)]
        start = {"type": "content_block_start", "index": index, "content_block": empty}
        events = [
            event({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
            for delta in deltas
        ]
        beginning = event(start, "content_block_start")
        if index == 0:
            beginning += event({"type": "ping"}, "ping")
        events[0] = beginning + events[0]
        events[-1] += event({"type": "content_block_stop", "index": index}, "content_block_stop")
        return events


def read_message(dialect: Dialect, request: Incoming) -> Message:
    """Check a message's body as Anthropic does, and count it."""
    body = json_object(request.body)
    if body is None:
        raise problem(400, "invalid_request_error", "The request body is not valid JSON")
    return message_of(dialect, request, body, model=_text(body, "model"))


def message_of(dialect: Dialect, request: Incoming, body: JSONObject, *, model: str) -> Message:
    """Check and count a message to this model; Bedrock has the same without the model's name in it."""
    models = dialect.settings.models
    if models is not None and model not in models:
        raise problem(404, "not_found_error", f"model: {model}", counts=False, model=model)
    limit = body.get("max_tokens")
    if limit is None:
        raise _invalid("max_tokens: Field required", model)
    if type(limit) is not int or not 1 <= limit <= MOST_TOKENS:
        raise _invalid(f"max_tokens: {limit!r} is not a whole number from 1 to {MOST_TOKENS}", model)
    if body.get("stream") is not None and not isinstance(body["stream"], bool):
        raise _invalid("stream: Input should be a valid boolean", model)
    messages = _messages(body, model)
    prompt = Prompt(
        dialect=dialect.name,
        endpoint=request.path,
        model=model,
        body=body,
        headers=request.headers,
        text=text_of(messages[-1].get("content")),
        tools=_tools(body),
        tool_choice=_choice(body.get("tool_choice")),
        called=_called(messages),
        schema=_schema(body),
        max_tokens=limit,
    )
    cached = request.headers.get(CACHED_HEADER, "0")
    if not (cached.isascii() and cached.isdigit() and len(cached) < 8):
        raise dialect.bad_wish(f"The header {CACHED_HEADER} must be a number of tokens, not {cached}.", model)
    return Message(prompt, dialect.decide(prompt), estimate(characters(body)), int(cached))


def _messages(body: JSONObject, model: str) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _invalid("messages: Input should be a valid list of objects", model)
    if not messages:
        raise _invalid("messages: at least one message is required", model)
    for index, message in enumerate(messages):
        if message.get("role") not in ("user", "assistant"):
            raise _invalid(f"messages.{index}.role: Input should be 'user' or 'assistant'", model)
        if not isinstance(message.get("content"), (str, list)):
            raise _invalid(f"messages.{index}.content: Input should be a valid string or list", model)
    return messages


def _text(body: JSONObject, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise problem(400, "invalid_request_error", f"{name}: Field required")
    return value


def _invalid(message: str, model: str) -> Problem:
    return problem(400, "invalid_request_error", message, model=model)


def _tools(body: JSONObject) -> tuple[Tool, ...]:
    given = body.get("tools")
    found = [tool for tool in given if isinstance(tool, dict)] if isinstance(given, list) else []
    return tuple(
        Tool(tool["name"], schema)
        for tool in found
        if isinstance(tool.get("name"), str) and isinstance(schema := tool.get("input_schema", {}), Mapping)
    )


def _choice(choice: Any) -> str:
    if not isinstance(choice, dict):
        return "auto"
    kind, name = choice.get("type"), choice.get("name")
    if kind == "tool" and isinstance(name, str):
        return name
    return {"any": "required", "none": "none"}.get(str(kind), "auto")


def _schema(body: JSONObject) -> JSONObject | None:
    config = body.get("output_config")
    form = config.get("format") if isinstance(config, dict) else body.get("output_format")
    schema = form.get("schema") if isinstance(form, dict) else None
    return schema if isinstance(schema, dict) else None


def _parts(content: Any) -> list[dict[str, Any]]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _called(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    """Tools that were called since the user last spoke; a message with nothing but results is not the user's."""
    called: list[str] = []
    for message in messages:
        parts = _parts(message.get("content"))
        if message.get("role") == "user" and not any(part.get("type") == "tool_result" for part in parts):
            called.clear()
        called += [str(part.get("name")) for part in parts if part.get("type") == "tool_use"]
    return tuple(called)


def characters(body: JSONObject) -> int:
    """Characters of a prompt: system, texts of the messages, calls and results of tools, and ``tools`` as JSON."""
    total = len(text_of(body.get("system"))) + tools_characters(body.get("tools"))
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        total += len(text_of(content))
        for part in _parts(content):
            if part.get("type") == "tool_use":
                total += len(str(part.get("name"))) + len(encode(part.get("input")))
            elif part.get("type") == "tool_result":
                total += len(text_of(part.get("content")))
    return total
