"""Cohere's dialect: chat and embeddings of its second API, streamed or not; requests are all that it counts."""

# ruff: noqa: D102 - the methods are documented in Call and Dialect

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .answer import MOST_TOKENS, pieces
from .dialect import Call, Dialect, Free, Problem, encode, event, json_object, text_of, tools_characters
from .openai.body import tools_of
from .openai.embeddings import vector
from .policy import DAY
from .prompt import Prompt
from .tokens import estimate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .answer import Answer
    from .dialect import Incoming
    from .fault import Fault
    from .prompt import JSONObject
    from .quota import Level, Refusal

__all__ = ["Cohere"]

ID = "00000000-0000-4000-8000-000000000000"
DIMENSIONS = 1024
OVERLOADED = "The service is currently overloaded. Please try again later."


class Chat(Call):
    """A chat turn."""

    def __init__(self, prompt: Prompt, answer: Answer, tokens_in: int) -> None:
        self.model = prompt.model
        self.cost = {"requests": 1, "tokens": tokens_in, "input_tokens": tokens_in}
        self.tokens_in, self.tokens_out = tokens_in, answer.tokens
        self.stream = prompt.body.get("stream") is True
        self._answer = answer

    @property
    def _end(self) -> dict[str, Any]:
        reason = "MAX_TOKENS" if self._answer.cut else "COMPLETE"
        counts = {"input_tokens": self.tokens_in, "output_tokens": self.tokens_out}
        return {
            "finish_reason": "TOOL_CALL" if self._answer.tool_calls else reason,
            "usage": {"billed_units": counts, "tokens": counts},
        }

    def _calls(self) -> list[dict[str, Any]]:
        return [
            {
                "id": f"{call.name}_{index:08d}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.json},
            }
            for index, call in enumerate(self._answer.tool_calls)
        ]

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002
        message: dict[str, Any] = {"role": "assistant"}
        if self._answer.text or not self._answer.tool_calls:
            message["content"] = [{"type": "text", "text": self._answer.text}]
        if self._answer.tool_calls:
            message["tool_calls"] = self._calls()
        return encode({"id": ID, "message": message, **self._end})

    def events(self, number: int, created: int, chunks: int) -> list[bytes]:  # noqa: ARG002
        moments = []
        for piece in pieces(self._answer.text, chunks) if self._answer.text else ():
            delta = {"message": {"content": {"text": piece}}}
            moments.append(event({"type": "content-delta", "index": 0, "delta": delta}, "content-delta"))
        if moments:
            begun = {"message": {"content": {"type": "text", "text": ""}}}
            moments[0] = event({"type": "content-start", "index": 0, "delta": begun}, "content-start") + moments[0]
            moments[-1] += event({"type": "content-end", "index": 0}, "content-end")
        for index, call in enumerate(self._calls()):
            start = {"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": call}}}
            moments.append(event(start, "tool-call-start") + event({"type": "tool-call-end", "index": index}))
        moments = moments or [b""]
        start = {"type": "message-start", "id": ID, "delta": {"message": {"role": "assistant"}}}
        moments[0] = event(start, "message-start") + moments[0]
        moments[-1] += event({"type": "message-end", "id": ID, "delta": self._end}, "message-end")
        return moments


class Embeddings(Call):
    """Vectors of some texts."""

    def __init__(self, model: str, texts: list[str]) -> None:
        self.model = model
        self.tokens_in = sum(estimate(len(text)) for text in texts)
        self.cost = {"requests": 1, "tokens": self.tokens_in, "input_tokens": self.tokens_in}
        self._texts = texts

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002
        vectors = [vector(text.encode(), DIMENSIONS) for text in self._texts]
        meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": self.tokens_in}}
        return encode({"id": ID, "texts": self._texts, "embeddings": {"float": vectors}, "meta": meta})


class Cohere(Dialect):
    """The dialect, for callers with any of the accepted keys (None: any key at all)."""

    name = "cohere"

    def claims(self, path: str, headers: Mapping[str, str]) -> bool:
        return path.startswith("/v2/") or (path.startswith("/v1/") and headers.get("x-fern-sdk-name") == "cohere")

    def key(self, request: Incoming) -> str | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None

    def read(self, request: Incoming) -> Call:
        keys, key = self.settings.keys, self.key(request)
        if key is None or (keys is not None and key not in keys):
            raise _problem(401, "invalid api token", counts=False)
        if request.path == "/v1/models" and request.method == "GET":
            return Free({"models": [{"name": name} for name in sorted(self.settings.models or ("command-a",))]})
        if request.path not in ("/v2/chat", "/v2/embed") or request.method != "POST":
            raise _problem(404, "not found", counts=False)
        body = json_object(request.body)
        model = None if body is None else body.get("model")
        if body is None or not isinstance(model, str):
            raise _problem(400, "invalid request: model is required")
        if self.settings.models is not None and model not in self.settings.models:
            raise _problem(404, f"model '{model}' not found", counts=False, model=model)
        if request.path == "/v2/embed":
            texts = body.get("texts")
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
                raise _problem(400, "invalid request: texts must not be empty", model=model)
            return Embeddings(model, texts)
        return self._chat(request, body, model)

    def _chat(self, request: Incoming, body: JSONObject, model: str) -> Chat:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
            raise _problem(400, "invalid request: messages must not be empty", model=model)
        limit = body.get("max_tokens")
        if limit is not None and (type(limit) is not int or not 1 <= limit <= MOST_TOKENS):
            raise _problem(400, "invalid request: max_tokens must be at least 1", model=model)
        form = body.get("response_format")
        schema = form.get("json_schema") or form.get("schema") if isinstance(form, dict) else None
        called: list[str] = []
        for item in messages:
            if item.get("role") == "user":
                called.clear()
            calls = item.get("tool_calls")
            called += [str(call) for call in calls] if isinstance(calls, list) else []
        prompt = Prompt(
            dialect=self.name,
            endpoint=request.path,
            model=model,
            body=body,
            headers=request.headers,
            text=text_of(messages[-1].get("content")),
            tools=tools_of(body),
            tool_choice={"REQUIRED": "required", "NONE": "none"}.get(str(body.get("tool_choice")), "auto"),
            called=tuple(called),
            schema=schema if isinstance(schema, dict) else None,
            json=isinstance(form, dict) and form.get("type") == "json_object",
            max_tokens=limit,
        )
        characters = sum(len(text_of(item.get("content"))) for item in messages) + tools_characters(body.get("tools"))
        return Chat(prompt, self.decide(prompt), estimate(characters))

    def headers(self, number: int, milliseconds: int) -> dict[str, str]:  # noqa: ARG002
        return {"x-debug-trace-id": f"{number:032x}", "x-endpoint-monthly-call-limit": "1000"}

    def quota_headers(self, levels: Mapping[str, Level], now: float) -> dict[str, str]:  # noqa: ARG002
        level = levels.get("requests")
        if level is None:
            return {}
        return {
            "x-trial-endpoint-call-limit": str(level.limit),
            "x-trial-endpoint-call-remaining": str(level.remaining),
        }

    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        period = "month" if refusal.per == DAY else "minute"
        return _problem(429, _limited(refusal.limit, period), model=call.model)

    def fault(self, fault: Fault, model: str) -> Problem:
        made = _fault(fault)
        headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
        return Problem(fault.status or made.status, made.body, {**headers, **fault.headers}, counts=False, model=model)

    def overloaded_event(self, call: Call) -> bytes:  # noqa: ARG002
        end = {"type": "message-end", "id": ID, "delta": {"error": OVERLOADED, "finish_reason": "ERROR"}}
        return event(end, "message-end")

    def bad_wish(self, message: str, model: str) -> Problem:
        return _problem(400, message, model=model)


def _limited(amount: int, period: str) -> str:
    return (
        f"You are using a Trial key, which is limited to {amount} API calls / {period}. You can continue to use the "
        "Trial key for free or upgrade to a Production key with higher rate limits."
    )


def _problem(status: int, message: str, *, counts: bool = True, model: str | None = None) -> Problem:
    return Problem(status, encode({"id": ID, "message": message}), counts=counts, model=model)


def _fault(fault: Fault) -> Problem:
    if fault.kind == "throttled":
        return _problem(429, _limited(10_000, "minute"))
    if fault.kind in ("daily", "insufficient_quota"):
        return _problem(429, _limited(1000, "month"))
    if fault.kind == "overloaded":
        return _problem(503, OVERLOADED)
    if fault.kind == "oversize":
        return _problem(400, "too many tokens: the total number of tokens in the prompt cannot exceed 128000")
    if fault.kind == "status":
        return Problem(500, fault.body if isinstance(fault.body, bytes) else fault.body.encode())
    return _problem(500, "internal server error")
