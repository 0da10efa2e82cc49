"""The fake provider in Azure OpenAI's words, as the real SDK reads them."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from penstock import Limiter
from penstock.testing.provider import FakeProvider

USER: Any = [{"role": "user", "content": "x" * 400}]  # 100 tokens


def client(provider: FakeProvider) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(
        azure_endpoint=provider.base_url, api_key="azure-key", api_version="2025-04-01-preview", max_retries=0
    )


def create(sdk: Any, **options: Any) -> Any:
    return sdk.chat.completions.create(**{"model": "my-deployment", "messages": USER, "max_tokens": 50, **options})


def limits(headers: Any) -> dict[str, str]:
    return {name.removeprefix("x-ratelimit-"): value for name, value in headers.items() if "ratelimit" in name}


def test_deployments_and_headers() -> None:
    with FakeProvider(dialect="azure", requests=600, tokens=60_000, latency=0) as provider, client(provider) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(model="my-deployment", messages=USER, max_tokens=50)
        embedded = sdk.embeddings.create(model="embedder", input="x" * 40)
        assert sdk.responses.create(model="my-deployment", input="x").output_text
        first, second, third = provider.log
    assert raw.parse().usage.total_tokens == 150
    assert limits(raw.headers) == {
        "limit-requests": "100",  # per 10 s
        "remaining-requests": "99",
        "renewalperiod-requests": "10",
        "reset-requests": "10",
        "limit-tokens": "60000",
        "remaining-tokens": "59850",
        "renewalperiod-tokens": "60",
        "reset-tokens": "60",
    }
    assert raw.headers["apim-request-id"]
    assert (first.dialect, first.model, first.key) == ("azure", "my-deployment", "azure-key")
    assert first.endpoint == "/openai/deployments/my-deployment/chat/completions"
    assert (first.tokens, second.model, embedded.usage.total_tokens) == (150, "embedder", 10)
    assert (third.endpoint, third.model) == ("/openai/responses", "my-deployment")


def test_what_was_reserved_is_settled_to_what_was_used() -> None:
    with FakeProvider(dialect="azure", tokens=1000, latency=0) as provider, client(provider) as sdk:
        create(sdk, max_tokens=800, extra_headers={"x-fake-answer-tokens": "5"})
        for _ in range(7):  # 150 reserved each time, 105 used
            create(sdk, extra_headers={"x-fake-answer-tokens": "5"})
        assert provider.summary().tokens_admitted == 8 * 105
        with pytest.raises(openai.RateLimitError):
            create(sdk, max_tokens=800)


def test_a_refusal_for_tokens_lies_and_one_for_requests_does_not() -> None:
    with (
        FakeProvider(dialect="azure", requests=6000, tokens=200, per=60, latency=0) as provider,
        client(provider) as sdk,
    ):
        create(sdk, max_tokens=60)
        with pytest.raises(openai.RateLimitError, match="exceeded the token rate limit") as caught:
            create(sdk, max_tokens=60)
        said = caught.value.response.headers
        assert (said["retry-after"], said["retry-after-ms"], said["x-ratelimit-reset-tokens"]) == ("1", "0", "0")
        assert (said["x-ratelimit-remaining-tokens"], said["x-ratelimit-type"]) == ("0", "Tokens")
        assert said["x-ratelimit-renewalperiod-tokens"] == "60"
        wait = provider.log[1].wait
        assert wait is not None
        assert 1 < wait <= 60
        read = Limiter(tokens=200).observe(429, said, caught.value.response.content)
        assert (read.kind, read.dimension, read.wait) == ("throttled", "tokens", 60.0)
    with FakeProvider(dialect="azure", requests=6, latency=0) as provider, client(provider) as sdk:
        create(sdk)
        with pytest.raises(openai.RateLimitError, match="exceeded the call rate limit") as caught:
            create(sdk)
        assert caught.value.response.headers["x-ratelimit-type"] == "Requests"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 10


def test_the_address_without_a_deployment_takes_an_azure_key_too() -> None:
    with FakeProvider(dialect="azure", requests=60, latency=0, keys=["azure-key"]) as provider:
        sdk = openai.OpenAI(
            base_url=f"{provider.origin}/openai/v1/",
            api_key="k",
            default_headers={"api-key": "azure-key"},
            max_retries=0,
        )
        with sdk:
            assert create(sdk, stream=False).model == "my-deployment"
            assert "".join(chunk.choices[0].delta.content or "" for chunk in create(sdk, stream=True))
            assert sdk.models.list().data
        assert {arrival.dialect for arrival in provider.log} == {"azure"}


def test_faults() -> None:
    with FakeProvider(dialect="azure", latency=0) as provider, client(provider) as sdk:
        with pytest.raises(openai.RateLimitError, match="call rate limit") as caught:
            create(sdk, extra_headers={"x-fake-fault": "throttled; retry_after=3600"})
        assert caught.value.response.headers["retry-after"] == "3600"
        with pytest.raises(openai.RateLimitError, match="exceeded your current quota"):
            create(sdk, extra_headers={"x-fake-fault": "insufficient_quota"})
