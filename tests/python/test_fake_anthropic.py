"""The fake provider in Anthropic's words, as the real SDK reads them."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import pytest
from pydantic import BaseModel

from penstock.testing.provider import FakeProvider, ToolCall

anthropic = pytest.importorskip("anthropic")

USER: Any = [{"role": "user", "content": "x" * 400}]  # 100 tokens
WEATHER: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def client(provider: FakeProvider, **options: Any) -> Any:
    return anthropic.Anthropic(**{"base_url": provider.origin, "api_key": "k", "max_retries": 0, **options})


def create(sdk: Any, **options: Any) -> Any:
    return sdk.messages.create(**{"model": "claude", "messages": USER, "max_tokens": 8, **options})


def test_a_message() -> None:
    with (
        FakeProvider(
            dialect="anthropic", requests=1000, input_tokens=80_000, output_tokens=16_000, latency=0
        ) as provider,
        client(provider) as sdk,
    ):
        raw = sdk.messages.with_raw_response.create(model="claude", messages=USER, max_tokens=8)
        message = raw.parse()
        (arrival,) = provider.log
        assert provider.base_url == provider.origin
    assert (message.content[0].text, message.stop_reason) == ("the sea was low and the old men ", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (100, 8)
    headers = {name: value for name, value in raw.headers.items() if name.startswith("anthropic-ratelimit")}
    resets = [headers.pop(name) for name in list(headers) if name.endswith("-reset")]
    assert headers == {
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-remaining": "999",
        "anthropic-ratelimit-input-tokens-limit": "80000",
        "anthropic-ratelimit-input-tokens-remaining": "80000",  # to the nearest thousand
        "anthropic-ratelimit-output-tokens-limit": "16000",
        "anthropic-ratelimit-output-tokens-remaining": "16000",
        "anthropic-ratelimit-tokens-limit": "96000",
        "anthropic-ratelimit-tokens-remaining": "96000",
    }
    assert len(resets) == 4
    for reset in resets:
        at = datetime.strptime(reset, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        assert abs((at - datetime.now(timezone.utc)).total_seconds()) < 60
    assert raw.headers["request-id"].startswith("req_")
    assert (arrival.dialect, arrival.endpoint, arrival.key) == ("anthropic", "/v1/messages", "k")
    assert (arrival.tokens, arrival.tokens_in, arrival.tokens_out) == (100, 100, 8)


def test_one_provider_speaks_to_all() -> None:
    """By path; an OpenAI client and an Anthropic one share nothing but the address."""
    import openai

    with FakeProvider(requests=1, latency=0) as provider, client(provider) as sdk:
        assert create(sdk).usage.output_tokens == 8
        with openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as other:
            assert other.chat.completions.create(model="gpt", messages=USER).choices
        assert [arrival.dialect for arrival in provider.log] == ["anthropic", "openai"]


@pytest.mark.parametrize("chunks", [1, 4, 100])
def test_a_stream(chunks: int) -> None:
    with FakeProvider(dialect="anthropic", latency=0.01, stream_chunks=chunks) as provider, client(provider) as sdk:
        with sdk.messages.stream(model="claude", messages=USER, max_tokens=40) as stream:
            texts = list(stream.text_stream)
            final = stream.get_final_message()
        assert "".join(texts) == create(sdk, max_tokens=40).content[0].text
        assert len(texts) == min(chunks, 40)
        assert (final.usage.input_tokens, final.usage.output_tokens, final.stop_reason) == (100, 40, "end_turn")
        kinds = [event.type for event in create(sdk, stream=True)]
        assert kinds[:4] == ["message_start", "content_block_start", "ping", "content_block_delta"][: len(kinds)] or (
            "ping" not in kinds
        )
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_tools(stream: bool) -> None:
    with FakeProvider(dialect="anthropic", latency=0) as provider, client(provider) as sdk:

        def ask(messages: Any, **options: Any) -> Any:
            given = {"model": "claude", "messages": messages, "max_tokens": 50, "tools": [WEATHER], **options}
            if not stream:
                return sdk.messages.create(**given)
            with sdk.messages.stream(**given) as events:
                return events.get_final_message()

        first = ask(USER)
        (block,) = first.content
        assert (first.stop_reason, block.type, block.name, block.input) == (
            "tool_use",
            "tool_use",
            "weather",
            {"city": "sea"},
        )
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "cold"}]}
        done: Any = [*USER, {"role": "assistant", "content": first.content}, result]
        assert ask(done).stop_reason == "end_turn"
        assert ask(done, tool_choice={"type": "any"}).content[0].name == "weather"
        assert ask(USER, tool_choice={"type": "tool", "name": "weather"}).content[0].name == "weather"
        assert ask(USER, tool_choice={"type": "none"}).stop_reason == "end_turn"


class Ice(BaseModel):
    thick: bool
    centimetres: int


def test_structured_output_and_scripts() -> None:
    with FakeProvider(dialect="anthropic", latency=0) as provider, client(provider) as sdk:
        parsed = sdk.messages.parse(model="claude", messages=USER, max_tokens=50, output_format=Ice)
        assert parsed.parsed_output == Ice(thick=True, centimetres=1)
        told = create(sdk, extra_headers={"x-fake-answer": "It is thin"}, max_tokens=50)
        assert told.content[0].text == "It is thin"
        assert create(sdk, extra_headers={"x-fake-answer": "It is thin"}, max_tokens=2).stop_reason == "max_tokens"
    with (
        FakeProvider(latency=0, answer=lambda prompt: ToolCall("look", {"at": 1})) as provider,
        client(provider) as sdk,
    ):
        assert create(sdk).content[0].input == {"at": 1}


def test_a_refusal_of_each_dimension() -> None:
    for quota, options, what in (
        ({"requests": 1}, {}, "1 requests"),
        ({"input_tokens": 150}, {}, "150 input tokens"),
        ({"output_tokens": 6}, {}, "6 output tokens"),
    ):
        with FakeProvider(dialect="anthropic", latency=0, **quota) as provider, client(provider) as sdk:
            create(sdk)
            with pytest.raises(anthropic.RateLimitError) as caught:
                create(sdk, **options)
            error = caught.value.body["error"]
            assert error["type"] == "rate_limit_error"
            assert f"would exceed your organization's rate limit of {what} per minute (org: " in error["message"]
            assert re.fullmatch(r"\d+", caught.value.response.headers["retry-after"])
            assert provider.log[1].refused_by == next(iter(quota))


def test_output_counts_as_it_is_made_and_max_tokens_does_not() -> None:
    with FakeProvider(dialect="anthropic", output_tokens=100, latency=0) as provider, client(provider) as sdk:
        for _ in range(11):  # 99 tokens
            create(sdk, max_tokens=20_000, extra_headers={"x-fake-answer-tokens": "9"})
        create(sdk, extra_headers={"x-fake-answer-tokens": "50"}, max_tokens=50)  # and into debt
        with pytest.raises(anthropic.RateLimitError, match="output tokens"):
            create(sdk)
        assert provider.summary().tokens_out == 149


def test_cached_tokens_do_not_count() -> None:
    with FakeProvider(dialect="anthropic", input_tokens=250, latency=0) as provider, client(provider) as sdk:
        for _ in range(5):
            message = create(sdk, extra_headers={"x-fake-cached-tokens": "60"})
            assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (40, 60)
        assert provider.summary().utilisation["input_tokens"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("fault", "error", "status", "kind"),
    [
        ("overloaded", "OverloadedError", 529, "overloaded_error"),
        ("error", "InternalServerError", 500, "api_error"),
        ("insufficient_quota", "BadRequestError", 400, "invalid_request_error"),
        ("oversize", "RequestTooLargeError", 413, "request_too_large"),
        ("daily", "RateLimitError", 429, "rate_limit_error"),
        ("throttled", "RateLimitError", 429, "rate_limit_error"),
    ],
)
def test_faults(fault: Any, error: Any, status: Any, kind: Any) -> None:
    with FakeProvider(dialect="anthropic", latency=0) as provider, client(provider) as sdk:
        with pytest.raises(getattr(anthropic, error, anthropic.APIStatusError)) as caught:
            create(sdk, extra_headers={"x-fake-fault": fault})
        assert (caught.value.status_code, caught.value.body["error"]["type"]) == (status, kind)
        assert ("retry-after" in caught.value.response.headers) == (fault == "throttled")


def test_overload_in_a_stream() -> None:
    with FakeProvider(dialect="anthropic", latency=0) as provider, client(provider) as sdk:
        texts = []
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            for event in create(
                sdk, stream=True, max_tokens=50, extra_headers={"x-fake-fault": "overloaded_event; after=3"}
            ):
                texts += [event.delta.text] if event.type == "content_block_delta" else []
        assert len(texts) == 3


def test_what_costs_nothing() -> None:
    with FakeProvider(dialect="anthropic", requests=1, latency=0) as provider, client(provider) as sdk:
        assert {model.id for model in sdk.models.list()} >= {"claude-haiku-4-5"}
        assert sdk.messages.count_tokens(model="claude", messages=USER).input_tokens == 100
        batch = sdk.messages.batches.create(
            requests=[{"custom_id": "1", "params": {"model": "claude", "messages": USER, "max_tokens": 5}}]
        )
        assert batch.processing_status == "in_progress"
        assert sdk.messages.batches.retrieve(batch.id).processing_status == "ended"
        assert list(sdk.messages.batches.list()) == []
        assert (provider.summary().free, provider.summary().admitted) == (5, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: 0 is not"),
        ({"messages": []}, "messages: at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"model": ""}, "model: Field required"),
        ({"stream": "yes"}, "stream: Input should be"),
    ],
)
def test_bad_requests(change: Any, message: Any) -> None:
    with FakeProvider(dialect="anthropic", latency=0) as provider, client(provider) as sdk:
        body = {"model": "claude", "messages": USER, "max_tokens": 8, **change}
        with pytest.raises(anthropic.BadRequestError) as caught:
            sdk.post("/v1/messages", body=body, cast_to=object)
        assert message in caught.value.body["error"]["message"]
        assert provider.summary().failed == 1


def test_who_may_not() -> None:
    with FakeProvider(dialect="anthropic", latency=0, keys=["good"], models=["claude"]) as provider:
        with client(provider) as sdk, pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"):
            create(sdk)
        with client(provider, api_key="good") as sdk:
            create(sdk)
            with pytest.raises(anthropic.NotFoundError, match="model: gpt"):
                create(sdk, model="gpt")
            with pytest.raises(anthropic.NotFoundError, match="Not found"):
                sdk.post("/v1/messages/nothing", body={}, cast_to=object)
