"""The fake provider's Responses API and images, as the real OpenAI SDK reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from penstock.testing.provider import FakeProvider

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TEXT = "x" * 400  # 100 tokens


def client(provider: FakeProvider) -> openai.OpenAI:
    return openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0)


def create(sdk: openai.OpenAI, **options: Any) -> Any:
    return sdk.responses.create(**{"model": "m", "input": TEXT, **options})


def test_a_response() -> None:
    with FakeProvider(tokens=1000, latency=0) as provider, client(provider) as sdk:
        response = create(sdk, max_output_tokens=300)
        assert (response.status, len(response.output_text)) == ("completed", 1200)
        assert (response.usage.input_tokens, response.usage.output_tokens) == (100, 300)
        items: Any = [{"role": "user", "content": [{"type": "input_text", "text": "y" * 40}]}]
        again = create(sdk, input=items, instructions="z" * 40, extra_headers={"x-fake-answer-tokens": "5"})
        assert (again.usage.input_tokens, again.usage.output_tokens) == (20, 5)
        cut = create(sdk, max_output_tokens=2, extra_headers={"x-fake-answer": "It is very thin"})
        assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert [arrival.tokens for arrival in provider.log] == [300, 20, 100]
        assert provider.log[0].endpoint == "/v1/responses"
        with pytest.raises(openai.RateLimitError, match=r"on tokens per min \(TPM\): Limit 1000"):
            create(sdk, max_output_tokens=1000)


@pytest.mark.parametrize("chunks", [1, 5])
def test_a_stream(chunks: int) -> None:
    with FakeProvider(latency=0.01, stream_chunks=chunks) as provider, client(provider) as sdk:
        with sdk.responses.stream(model="m", input=TEXT, max_output_tokens=20) as stream:
            events = list(stream)
            final = stream.get_final_response()
        plain = create(sdk, max_output_tokens=20)
        arrival = provider.log[0]
    assert final.output_text == plain.output_text
    assert final.usage == plain.usage
    assert sum(event.type == "response.output_text.delta" for event in events) == chunks
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (arrival.stream, arrival.tokens_in, arrival.tokens_out) == (True, 100, 20)


@pytest.mark.parametrize("stream", [False, True])
def test_tools(stream: bool) -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:

        def ask(given: Any, **options: Any) -> Any:
            if not stream:
                return create(sdk, input=given, tools=[WEATHER], **options)
            with sdk.responses.stream(model="m", input=given, tools=[WEATHER], **options) as events:
                return events.get_final_response()

        (call,) = ask(TEXT).output
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "sea"})
        done: Any = [
            {"role": "user", "content": TEXT},
            {"type": "function_call", "call_id": call.call_id, "name": "weather", "arguments": call.arguments},
            {"type": "function_call_output", "call_id": call.call_id, "output": "cold"},
        ]
        assert ask(done).output[0].type == "message"
        assert ask(done, tool_choice="required").output[0].type == "function_call"
        assert ask(TEXT, tool_choice={"type": "function", "name": "weather"}).output[0].name == "weather"
        assert ask(TEXT, tool_choice="none").output[0].type == "message"


class Ice(BaseModel):
    thick: bool
    centimetres: int


def test_structured_output() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        assert sdk.responses.parse(model="m", input=TEXT, text_format=Ice).output_parsed == Ice(
            thick=True, centimetres=1
        )


def test_overload_in_a_stream() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        fault = {"x-fake-fault": "overloaded_event"}
        events: Any = list(create(sdk, stream=True, extra_headers=fault))
        assert (events[-1].type, events[-1].response.error.code) == ("response.failed", "server_is_overloaded")
        assert sum(event.type == "response.output_text.delta" for event in events) == 8


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m"}, "input"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "input": [5]}, "input"),
        ({"model": "m", "input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"model": "m", "input": "x", "stream": 1}, "stream"),
        ({"input": "x"}, None),
    ],
)
def test_bad_requests(body: Any, param: Any) -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.post("/responses", body=body, cast_to=object)
        assert caught.value.param == param


def test_images_count_as_requests() -> None:
    with FakeProvider(requests=3, tokens=10, latency=0) as provider, client(provider) as sdk:
        images: Any = sdk.images.generate(model="gpt-image-1", prompt="the sea", n=3)
        assert len(images.data) == 3
        assert base64.b64decode(images.data[0].b64_json).startswith(b"\x89PNG")
        with pytest.raises(openai.RateLimitError):
            sdk.images.generate(model="gpt-image-1", prompt="the sea")
        assert (provider.log[0].requests, provider.log[0].tokens) == (3, 0)
