"""OpenAI's Responses API."""

# ruff: noqa: D102 - the methods are documented in Call

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..answer import pieces
from ..dialect import Call, encode, event, text_of, tools_characters
from ..prompt import Prompt
from ..tokens import estimate
from .body import boolean, integer, invalid, missing, name_of_choice, schema_of, text, tools_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..answer import Answer
    from ..prompt import JSONObject

__all__ = ["Response", "read_response"]


class Response(Call):
    """A response."""

    def __init__(self, prompt: Prompt, answer: Answer, tokens_in: int, cost: int) -> None:
        self.model = prompt.model
        self._request = prompt.body
        self._answer = answer
        self.tokens_in = tokens_in
        self.tokens_out = answer.tokens
        self.cost = {"requests": 1, "tokens": cost, "input_tokens": tokens_in}
        self.stream = prompt.body.get("stream") or False

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.tokens_in,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.tokens_in + self.tokens_out,
        }

    def _items(self, number: int) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        if self._answer.text or not self._answer.tool_calls:
            part = {"type": "output_text", "text": self._answer.text, "annotations": [], "logprobs": []}
            items.append(
                {
                    "id": f"msg_{number:032d}",
                    "type": "message",
                    "status": "incomplete" if self._answer.cut else "completed",
                    "role": "assistant",
                    "content": [part],
                }
            )
        for index, call in enumerate(self._answer.tool_calls):
            name = f"{number:024d}{index:08d}"
            items.append(
                {
                    "id": f"fc_{name}",
                    "type": "function_call",
                    "status": "completed",
                    "call_id": f"call_{name}",
                    "name": call.name,
                    "arguments": call.json,
                }
            )
        return items

    def _response(self, number: int, created: int, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        done = status != "in_progress"
        return {
            "id": f"resp_{number:032d}",
            "object": "response",
            "created_at": created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": self._request.get("instructions"),
            "max_output_tokens": self._request.get("max_output_tokens"),
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": self._request.get("previous_response_id"),
            "temperature": 1.0,
            "top_p": 1.0,
            "tool_choice": self._request.get("tool_choice") or "auto",
            "tools": self._request.get("tools") or [],
            "text": self._request.get("text") or {"format": {"type": "text"}},
            "truncation": "disabled",
            "usage": self._usage() if done else None,
            "metadata": self._request.get("metadata") or {},
        }

    @property
    def _status(self) -> str:
        return "incomplete" if self._answer.cut else "completed"

    def answer(self, number: int, created: int) -> bytes:
        return encode(self._response(number, created, self._status, self._items(number)))

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:
        items = self._items(number)
        moments: list[list[dict[str, Any]]] = []
        for index, item in enumerate(items):
            moments += _item_events(index, item, chunks)
        begun = self._response(number, created, "in_progress", [])
        moments[0] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
            *moments[0],
        ]
        moments[-1].append(
            {"type": f"response.{self._status}", "response": self._response(number, created, self._status, items)}
        )
        written, sequence = [], 0
        for moment in moments:
            piece = b""
            for happening in moment:
                piece += event({**happening, "sequence_number": sequence}, happening["type"])
                sequence += 1
            written.append(piece)
        return written


def _item_events(index: int, item: dict[str, Any], chunks: int) -> list[list[dict[str, Any]]]:
    """What is told of one item of the output, moment by moment."""
    where = {"item_id": item["id"], "output_index": index}
    if item["type"] == "function_call":
        empty: dict[str, Any] = {**item, "status": "in_progress", "arguments": ""}
        kind, whole = "response.function_call_arguments", {"arguments": item["arguments"], "name": item["name"]}
        moments: list[list[dict[str, Any]]] = [
            [{"type": f"{kind}.delta", **where, "delta": piece}] for piece in pieces(item["arguments"], chunks)
        ]
        opening: list[dict[str, Any]] = []
        closing: list[dict[str, Any]] = [{"type": f"{kind}.done", **where, **whole}]
    else:
        empty = {**item, "status": "in_progress", "content": []}
        (part,) = item["content"]
        where = {**where, "content_index": 0}
        kind = "response.output_text"
        moments = [
            [{"type": f"{kind}.delta", **where, "delta": piece, "logprobs": []}]
            for piece in pieces(part["text"], chunks)
        ]
        opening = [{"type": "response.content_part.added", **where, "part": {**part, "text": ""}}]
        closing = [
            {"type": f"{kind}.done", **where, "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", **where, "part": part},
        ]
    moments[0] = [{"type": "response.output_item.added", "output_index": index, "item": empty}, *opening, *moments[0]]
    moments[-1] += [*closing, {"type": "response.output_item.done", "output_index": index, "item": item}]
    return moments


def read_response(request: JSONObject, endpoint: str, headers: Mapping[str, str], dialect: str) -> tuple[Prompt, int]:
    """Check a response's body as OpenAI does: what it asks for, and the tokens of its text."""
    model = text(request, "model", "Missing required parameter: 'model'.")
    given = request.get("input")
    if given is None:
        raise missing(request, "input")
    if not isinstance(given, (str, list)):
        raise invalid(request, "input", "expected a string or an array", "invalid_type")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not all(isinstance(item, dict) for item in items):
        raise invalid(request, "input", "expected an array of objects", "invalid_type")
    boolean(request, "stream")
    limit = integer(request, "max_output_tokens")
    characters = sum(_characters(item) for item in items) + tools_characters(request.get("tools"))
    instructions = request.get("instructions")
    if isinstance(instructions, str):
        characters += len(instructions)
    form = request.get("text")
    schema, is_json = schema_of(form.get("format") if isinstance(form, dict) else None)
    prompt = Prompt(
        dialect=dialect,
        endpoint=endpoint,
        model=model,
        body=request,
        headers=headers,
        text=text_of(items[-1].get("content")) if items else "",
        tools=tools_of(request),
        tool_choice=name_of_choice(request.get("tool_choice")),
        called=_called(items),
        schema=schema,
        json=is_json,
        max_tokens=limit,
    )
    return prompt, estimate(characters)


def _called(items: list[dict[str, Any]]) -> tuple[str, ...]:
    called: list[str] = []
    for item in items:
        if item.get("role") == "user":
            called.clear()
        elif item.get("type") == "function_call":
            called.append(str(item.get("name")))
    return tuple(called)


def _characters(item: dict[str, Any]) -> int:
    if item.get("type") == "function_call":
        return len(str(item.get("name"))) + len(str(item.get("arguments")))
    if item.get("type") == "function_call_output":
        output = item.get("output")
        return len(output) if isinstance(output, str) else len(json.dumps(output))
    return len(text_of(item.get("content")))
