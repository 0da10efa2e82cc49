"""The fake provider as the SDKs of Groq, Mistral and Cohere read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.testing.provider import FakeProvider

USER: Any = [{"role": "user", "content": "x" * 400}]  # 100 tokens
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How it is",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def test_groq() -> None:
    groq = pytest.importorskip("groq")
    with (
        FakeProvider(requests=3, latency=0) as provider,
        groq.Groq(base_url=provider.origin, api_key="k", max_retries=0) as sdk,
    ):
        answer = sdk.chat.completions.create(model="llama", messages=USER, max_tokens=9)
        assert answer.usage.total_tokens == 109
        chunks = list(sdk.chat.completions.create(model="llama", messages=USER, max_tokens=9, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content
        assert sdk.chat.completions.create(model="llama", messages=USER, tools=[WEATHER]).choices[0].message.tool_calls
        with pytest.raises(groq.RateLimitError):
            sdk.chat.completions.create(model="llama", messages=USER)
        assert provider.log[0].endpoint == "/openai/v1/chat/completions"


def test_mistral() -> None:
    mistralai = pytest.importorskip("mistralai.client")
    errors = pytest.importorskip("mistralai.client.errors")
    with FakeProvider(requests=4, latency=0) as provider:
        with mistralai.Mistral(api_key="k", server_url=provider.origin) as sdk:
            answer = sdk.chat.complete(model="mistral-small", messages=USER, max_tokens=9)
            assert answer.usage.total_tokens == 109
            with sdk.chat.stream(model="mistral-small", messages=USER, max_tokens=9) as events:
                text = "".join(event.data.choices[0].delta.content or "" for event in events if event.data.choices)
            assert text == answer.choices[0].message.content
            calls = (
                sdk.chat.complete(model="mistral-small", messages=USER, tools=[WEATHER]).choices[0].message.tool_calls
            )
            assert calls[0].function.name == "weather"
            assert len(sdk.embeddings.create(model="mistral-embed", inputs=["a", "b"]).data) == 2
            with pytest.raises(errors.SDKError, match="429"):
                for _ in range(5):
                    sdk.chat.complete(model="mistral-small", messages=USER)


def test_cohere() -> None:
    cohere = pytest.importorskip("cohere")
    options: Any = {"max_retries": 0}
    with (
        FakeProvider(dialect="cohere", requests=4, latency=0) as provider,
        cohere.ClientV2(api_key="k", base_url=provider.base_url) as sdk,
    ):
        answer = sdk.chat(model="command-a", messages=USER, max_tokens=9, request_options=options)
        assert answer.usage.tokens.input_tokens == 100
        assert answer.finish_reason == "COMPLETE"
        stream = sdk.chat_stream(model="command-a", messages=USER, max_tokens=9, request_options=options)
        text = "".join(event.delta.message.content.text for event in stream if event.type == "content-delta")
        assert text == answer.message.content[0].text
        called = sdk.chat(model="command-a", messages=USER, tools=[WEATHER], request_options=options)
        assert json.loads(called.message.tool_calls[0].function.arguments) == {"city": "sea"}
        vectors = sdk.embed(
            model="embed-v4",
            texts=["a", "b"],
            input_type="search_query",
            embedding_types=["float"],
            request_options=options,
        )
        assert len(vectors.embeddings.float_) == 2
        with pytest.raises(cohere.TooManyRequestsError) as caught:
            for _ in range(3):
                sdk.chat(model="command-a", messages=USER, request_options=options)
        assert "limited to 4 API calls / minute" in str(caught.value.body)
        for fault, error in (
            ("overloaded", cohere.ServiceUnavailableError),
            ("daily", cohere.TooManyRequestsError),
            ("oversize", cohere.BadRequestError),
            ("error", cohere.InternalServerError),
        ):
            with provider.failing(fault), pytest.raises(error):
                sdk.chat(model="command-a", messages=USER, request_options=options)
        assert {arrival.dialect for arrival in provider.log} == {"cohere"}
