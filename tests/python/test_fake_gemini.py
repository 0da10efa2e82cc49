"""The fake provider in Gemini's words, as the real SDK reads them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from penstock import Limiter
from penstock.testing.provider import FakeProvider, ToolCall

genai = pytest.importorskip("google.genai")
errors = pytest.importorskip("google.genai.errors")
types = pytest.importorskip("google.genai.types")

TEXT = "x" * 400  # 100 tokens
WEATHER: Any = {
    "name": "weather",
    "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
}


def client(provider: FakeProvider) -> Any:
    return genai.Client(api_key="k", http_options={"base_url": provider.origin})


def generate(sdk: Any, contents: Any = TEXT, *, stream: bool = False, headers: Any = None, **config: Any) -> Any:
    config["http_options"] = {"headers": headers or {}}
    ask = sdk.models.generate_content_stream if stream else sdk.models.generate_content
    return ask(model="gemini-2.5-flash", contents=contents, config=config)


def test_content() -> None:
    with FakeProvider(dialect="gemini", requests=10, tokens=1000, latency=0) as provider:
        sdk = client(provider)
        answer = generate(sdk, max_output_tokens=30)
        (arrival,) = provider.log
        assert provider.base_url == provider.origin
    assert len(answer.text) == 120
    assert answer.candidates[0].finish_reason.name == "STOP"
    usage = answer.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (100, 30, 130)
    assert (arrival.dialect, arrival.model, arrival.key) == ("gemini", "gemini-2.5-flash", "k")
    assert (arrival.tokens, arrival.tokens_in, arrival.tokens_out) == (100, 100, 30)  # input alone counts


@pytest.mark.parametrize("chunks", [1, 7])
def test_a_stream(chunks: int) -> None:
    with FakeProvider(dialect="gemini", latency=0.01, stream_chunks=chunks) as provider:
        sdk = client(provider)
        parts = list(generate(sdk, stream=True, max_output_tokens=30))
        assert "".join(part.text for part in parts) == generate(sdk, max_output_tokens=30).text
        assert len(parts) == chunks
        assert parts[-1].usage_metadata.total_token_count == 130
        assert provider.log[0].stream


def test_a_stream_without_events_is_an_array() -> None:
    import httpx

    with FakeProvider(dialect="gemini", latency=0, stream_chunks=3) as provider:
        url = f"{provider.origin}/v1beta/models/m:streamGenerateContent?key=k"
        answer = httpx.post(url, json={"contents": [{"parts": [{"text": "x"}]}]})
        parts = json.loads(answer.text)
    assert answer.headers["content-type"] == "application/json"
    assert len(parts) == 3
    assert parts[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("stream", [False, True])
def test_tools(stream: bool) -> None:
    with FakeProvider(dialect="gemini", latency=0) as provider:
        sdk = client(provider)
        tools = [types.Tool(function_declarations=[WEATHER])]

        def ask(contents: Any, mode: str = "AUTO") -> Any:
            config = {"function_calling_config": {"mode": mode}}
            answer = generate(sdk, contents, stream=stream, tools=tools, tool_config=config)
            return list(answer)[-1] if stream else answer

        first = ask(TEXT)
        (call,) = first.function_calls
        assert (call.name, call.args) == ("weather", {"city": "sea"})
        result = types.Part.from_function_response(name="weather", response={"result": "cold"})
        done = [
            types.Content(role="user", parts=[types.Part(text=TEXT)]),
            first.candidates[0].content,
            types.Content(role="user", parts=[result]),
        ]
        assert ask(done).function_calls is None
        assert ask(done, "ANY").function_calls
        assert ask(TEXT, "NONE").function_calls is None


class Ice(BaseModel):
    thick: bool
    centimetres: int


def test_structured_output_and_scripts() -> None:
    with FakeProvider(dialect="gemini", latency=0, answer=lambda prompt: None) as provider:
        sdk = client(provider)
        answer = generate(sdk, response_mime_type="application/json", response_schema=Ice)
        assert answer.parsed == Ice(thick=True, centimetres=1)
        told = generate(sdk, headers={"x-fake-answer": "It is thin"}, max_output_tokens=2)
        assert (told.text, told.candidates[0].finish_reason.name) == ("It is th", "MAX_TOKENS")
    with FakeProvider(latency=0, answer=lambda prompt: ToolCall("look", {"at": 1})) as provider:
        sdk = client(provider)
        assert generate(sdk).function_calls[0].args == {"at": 1}


def test_embeddings() -> None:
    with FakeProvider(dialect="gemini", latency=0) as provider:
        sdk = client(provider)  # one that is dropped is closed
        vectors = sdk.models.embed_content(
            model="gemini-embedding-001", contents=["a" * 40, "b"], config={"output_dimensionality": 8}
        )
        assert [len(vector.values) for vector in vectors.embeddings] == [8, 8]
        assert (provider.log[0].requests, provider.log[0].tokens) == (2, 11)


@pytest.mark.parametrize(
    ("quota", "pattern", "dimension", "kind"),
    [
        ({"requests": 1}, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "requests", "throttled"),
        ({"tokens": 150}, "GenerateContentInputTokensPerModelPerMinute-FreeTier", "input_tokens", "throttled"),
        (
            {"daily": {"requests": 1}},
            "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            "requests",
            "quota_exhausted",
        ),
    ],
)
def test_refusals(quota: Any, pattern: Any, dimension: Any, kind: Any) -> None:
    with FakeProvider(dialect="gemini", latency=0, **quota) as provider:
        sdk = client(provider)
        generate(sdk)
        with pytest.raises(errors.ClientError) as caught:
            generate(sdk)
        refused = provider.log[1]
    error = caught.value.details["error"]
    details = {detail["@type"].rpartition(".")[2]: detail for detail in error["details"]}
    assert (caught.value.code, error["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert details["QuotaFailure"]["violations"][0]["quotaId"] == pattern
    delay = float(details["RetryInfo"]["retryDelay"].removesuffix("s"))
    if kind == "throttled":
        assert delay == pytest.approx(refused.wait)
    else:
        assert (delay, refused.wait) == (1.0, pytest.approx(86_400, rel=0.01))  # it lies
    read = Limiter(requests=1, tokens=100).observe(429, {}, json.dumps(caught.value.details))
    assert (read.kind, read.dimension) == (kind, dimension)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("throttled", 429, "Resource exhausted"),
        ("throttled; retry_after=40", 429, "Please retry in 40s"),
        ("daily", 429, "PerDay"),
        ("insufficient_quota", 429, "prepayment credits are depleted"),
        ("oversize", 400, "exceeds the maximum number of tokens"),
        ("overloaded", 503, "The model is overloaded"),
        ("error", 500, "internal error"),
    ],
)
def test_faults(fault: Any, code: Any, words: Any) -> None:
    with FakeProvider(dialect="gemini", latency=0) as provider:
        sdk = client(provider)
        with pytest.raises(errors.APIError) as caught:
            generate(sdk, headers={"x-fake-fault": fault})
        assert caught.value.code == code
        assert re.search(words, json.dumps(caught.value.details))


def test_what_costs_nothing_and_who_may_not() -> None:
    with FakeProvider(dialect="gemini", latency=0, models=["gemini-2.5-flash"]) as provider:
        sdk = client(provider)
        assert sdk.models.count_tokens(model="gemini-2.5-flash", contents=TEXT).total_tokens == 100
        assert [model.name for model in sdk.models.list()] == ["models/gemini-2.5-flash"]
        assert sdk.models.get(model="gemini-2.5-flash").name == "models/gemini-2.5-flash"
        assert (provider.summary().free, provider.summary().admitted) == (3, 0)
        with pytest.raises(errors.ClientError, match="is not found for API version"):
            sdk.models.generate_content(model="gpt", contents=TEXT)
        with pytest.raises(errors.ClientError, match="maxOutputTokens"):
            generate(sdk, max_output_tokens=0)
    with FakeProvider(dialect="gemini", latency=0, keys=["good"]) as provider:
        sdk = client(provider)
        with pytest.raises(errors.ClientError, match="API key not valid"):
            generate(sdk)
