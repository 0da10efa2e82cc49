"""Chat completions."""

# ruff: noqa: D102 - the methods are documented in Call

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..answer import pieces
from ..dialect import Call, encode, event, text_of, tools_characters
from ..prompt import Prompt
from ..tokens import estimate
from .body import boolean, integer, invalid, missing, name_of_choice, problem, schema_of, text, tools_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..answer import Answer
    from ..prompt import JSONObject

__all__ = ["Chat", "read_chat"]


class Chat(Call):
    """A chat completion."""

    def __init__(self, prompt: Prompt, answer: Answer, tokens_in: int, cost: int) -> None:
        request = prompt.body
        self.model = prompt.model
        self._choices: int = request.get("n") or 1
        self._answer = answer
        self.tokens_in = tokens_in
        self.tokens_out = answer.tokens * self._choices
        self.cost = {"requests": 1, "tokens": cost, "input_tokens": tokens_in}
        self.stream = request.get("stream") or False
        self._include_usage = (request.get("stream_options") or {}).get("include_usage") is True
        self._older = "functions" in request and "tools" not in request

    @property
    def _finish_reason(self) -> str:
        if self._answer.tool_calls:
            return "function_call" if self._older else "tool_calls"
        return "length" if self._answer.cut else "stop"

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

    def _calls(self, number: int) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{number:016d}{index:08d}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.json},
            }
            for index, call in enumerate(self._answer.tool_calls)
        ]

    def answer(self, number: int, created: int) -> bytes:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self._answer.text or None if self._answer.tool_calls else self._answer.text,
            "refusal": None,
            "annotations": [],
        }
        if self._answer.tool_calls and self._older:
            message["function_call"] = self._calls(number)[0]["function"]
        elif self._answer.tool_calls:
            message["tool_calls"] = self._calls(number)
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
            for index in range(self._choices)
        ]
        frame = self._frame(number, created, "chat.completion")
        return encode({**frame, "choices": choices, "usage": self._usage()})

    def _deltas(self, number: int, chunks: int) -> list[dict[str, Any]]:
        """What to send, piece by piece, without the role in front and the reason at the end."""
        deltas: list[dict[str, Any]] = []
        if self._answer.text or not self._answer.tool_calls:
            deltas += [{"content": piece} for piece in pieces(self._answer.text, chunks)]
        for index, call in enumerate(self._calls(number)):
            function = call["function"]
            if self._older:
                deltas.append({"function_call": {"name": function["name"], "arguments": ""}})
            else:
                opening = {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
                deltas.append({"tool_calls": [opening]})
            for piece in pieces(function["arguments"], chunks):
                part = {"arguments": piece}
                deltas.append(
                    {"function_call": part} if self._older else {"tool_calls": [{"index": index, "function": part}]}
                )
        return deltas

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:
        frame = self._frame(number, created, "chat.completion.chunk")
        if self._include_usage:
            frame["usage"] = None  # on every chunk but the last, as OpenAI has it

        def chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
            choices = (
                {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
                for index in range(self._choices)
            )
            return b"".join(event({**frame, "choices": [choice]}) for choice in choices)

        events = [chunk(delta) for delta in self._deltas(number, chunks)]
        first = None if self._answer.tool_calls else ""
        events[0] = chunk({"role": "assistant", "content": first}) + events[0]
        events[-1] += chunk({}, self._finish_reason)
        if self._include_usage:
            events[-1] += event({**frame, "choices": [], "usage": self._usage()})
        events[-1] += b"data: [DONE]\n\n"
        return events


def read_chat(request: JSONObject, endpoint: str, headers: Mapping[str, str], dialect: str) -> tuple[Prompt, int]:
    """Check a chat completion's body as OpenAI does: what it asks for, and the tokens of its text."""
    model = text(request, "model", "you must provide a model parameter")
    messages = request.get("messages")
    if messages is None:
        raise missing(request, "messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise invalid(request, "messages", "expected an array of objects", "invalid_type")
    if not messages:
        raise invalid(
            request,
            "messages",
            "empty array. Expected an array with minimum length 1, but got an empty array instead",
            "empty_array",
        )
    boolean(request, "stream")
    integer(request, "n", maximum=128)
    options = request.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise invalid(request, "stream_options", "expected an object", "invalid_type")
    if options is not None and not request.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise problem(400, message, param="stream_options", request=request)
    limit = integer(request, "max_completion_tokens")
    older_limit = integer(request, "max_tokens")
    if limit is not None and older_limit is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise problem(400, message, code="invalid_parameter_combination", param="max_tokens", request=request)
    tokens_in = estimate(_characters(request, messages))
    schema, json = schema_of(request.get("response_format"))
    prompt = Prompt(
        dialect=dialect,
        endpoint=endpoint,
        model=model,
        body=request,
        headers=headers,
        text=text_of(messages[-1].get("content")),
        tools=tools_of(request),
        tool_choice=name_of_choice(request.get("tool_choice", request.get("function_call"))),
        called=_called(messages),
        schema=schema,
        json=json,
        max_tokens=limit if limit is not None else older_limit,
    )
    return prompt, tokens_in


def _called(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    called: list[str] = []
    for message in messages:
        if message.get("role") == "user":
            called.clear()
        called += [name for name, _ in _calls(message)]
    return tuple(called)


def _calls(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and arguments of a message's tool calls."""
    given = message.get("tool_calls")
    functions = [call.get("function") for call in given if isinstance(call, dict)] if isinstance(given, list) else []
    functions.append(message.get("function_call"))
    return [
        (_string(function.get("name")), _string(function.get("arguments")))
        for function in functions
        if isinstance(function, dict)
    ]


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _characters(request: JSONObject, messages: list[dict[str, Any]]) -> int:
    """Characters of a prompt: texts of the messages, names and arguments of their tool calls, and ``tools`` as JSON."""
    total = 0
    for index, message in enumerate(messages):
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list)):
            raise invalid(request, f"messages[{index}].content", "expected a string or an array", "invalid_type")
        total += len(text_of(content))
        total += sum(len(name) + len(arguments) for name, arguments in _calls(message))
    return total + tools_characters(request.get("tools"))
