"""The fake provider over real HTTP, with the real OpenAI SDK, and by hand where the SDK is too polite."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.testing.provider import FakeProvider, request_cost
from penstock.testing.provider.__main__ import main as command
from penstock.testing.provider.__main__ import parser as command_line
from penstock.testing.provider.__main__ import provider as from_options
from penstock.testing.provider.dialect import Incoming, Problem
from penstock.testing.provider.openai import OpenAI as Dialect

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGES: Any = [{"role": "user", "content": "x" * 400}]  # 100 tokens
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 8}


def client(provider: FakeProvider, **options: object) -> openai.OpenAI:
    given: dict[str, Any] = {"base_url": provider.base_url, "api_key": "sk-test", "max_retries": 0}
    return openai.OpenAI(**given | options)


def async_client(provider: FakeProvider, **options: object) -> openai.AsyncOpenAI:
    given: dict[str, Any] = {"base_url": provider.base_url, "api_key": "sk-test", "max_retries": 0}
    return openai.AsyncOpenAI(**given | options)


def send(
    provider: FakeProvider, path: str, body: object, method: str = "POST", key: str | None = "sk-test", **headers: str
) -> tuple[int, Any, Any]:
    """One raw request; gives (status, headers, JSON)."""
    where: Any = urlsplit(provider.base_url)
    connection = http.client.HTTPConnection(where.hostname, where.port)
    try:
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())
    finally:
        connection.close()


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


# Answers


def test_chat_sync() -> None:
    with FakeProvider(requests=500, tokens=200_000, latency=0) as provider, client(provider) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(**CHAT)
        completion = raw.parse()
        assert completion.choices[0].finish_reason == "stop"
        assert len(completion.choices[0].message.content) == 4 * 8
        assert completion.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
            "prompt_tokens": 100,
            "completion_tokens": 8,
            "total_tokens": 108,
        }
        assert {name: value for name, value in raw.headers.items() if name.startswith("x-ratelimit")} == {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "200000",
            "x-ratelimit-remaining-tokens": "199900",
            "x-ratelimit-reset-tokens": "30ms",
        }
        assert raw.headers["openai-processing-ms"].isdigit()
        assert raw.headers["x-request-id"] == "req_" + "1".zfill(32)
        assert raw.headers["date"].endswith("GMT")
        arrival: Any = provider.log[0]
        assert len(provider.log) == 1
    assert (arrival.endpoint, arrival.model, arrival.key) == ("/v1/chat/completions", "gpt-4o", "sk-test")
    assert (arrival.admitted, arrival.status, arrival.refused_by, arrival.wait) == (True, 200, None, None)
    assert (arrival.requests, arrival.tokens, arrival.tokens_in, arrival.tokens_out) == (1, 100, 100, 8)
    assert (arrival.attempt, arrival.stream, arrival.disconnected) == (0, False, False)
    assert arrival.finished >= arrival.time


@pytest.mark.slow
def test_chat_async_and_concurrency() -> None:
    async def run() -> FakeProvider:
        # Nobody is answered before all are there, unless the machine takes 2 s to send twenty requests.
        async with FakeProvider(requests=500, latency=2.0, latency_jitter=0) as provider, async_client(provider) as sdk:
            answers = await asyncio.gather(*(sdk.chat.completions.create(**CHAT) for _ in range(20)))
            assert {answer.usage.total_tokens for answer in answers} == {108}
            assert len({answer.id for answer in answers}) == 20
            return provider

    summary = asyncio.run(run()).summary()
    assert (summary.sent, summary.admitted, summary.refused, summary.failed, summary.in_flight) == (20, 20, 0, 0, 0)
    assert summary.peak_concurrency == 20
    assert (summary.tokens_admitted, summary.tokens_in, summary.tokens_out) == (2000, 2000, 160)


@pytest.mark.parametrize("include_usage", [False, True])
def test_stream(include_usage: Any) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    with (
        FakeProvider(requests=500, latency=0.2, latency_jitter=0, stream_chunks=4) as provider,
        client(provider) as sdk,
    ):
        plain = sdk.chat.completions.create(**CHAT).choices[0].message.content
        with sdk.chat.completions.create(**CHAT, stream=True, **options) as stream:
            chunks = list(stream)
        arrival: Any = provider.log[1]
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in deltas) == plain
    assert sum(bool(choice.delta.content) for choice in deltas) == 4
    assert deltas[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    if include_usage:
        assert chunks[-1].choices == []
        assert chunks[-1].usage.total_tokens == 108
        assert all(chunk.usage is None for chunk in chunks[:-1])
    else:
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert arrival.stream
    assert (arrival.tokens_in, arrival.tokens_out) == (100, 8)
    assert arrival.finished - arrival.time >= 0.199  # timers may be early by the clock's resolution


def test_stream_async() -> None:
    async def run() -> None:
        async with FakeProvider(requests=500, latency=0.01) as provider, async_client(provider) as sdk:
            stream = await sdk.chat.completions.create(**CHAT, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert len(text) == 32

    asyncio.run(run())


def test_stream_on_the_wire() -> None:
    with FakeProvider(latency=0, stream_chunks=1) as provider:
        where: Any = urlsplit(provider.base_url)
        connection = http.client.HTTPConnection(where.hostname, where.port)
        body = json.dumps({**CHAT, "stream": True, "max_tokens": 1, "stream_options": {"include_usage": True}})
        connection.request("POST", "/v1/chat/completions", body, {"authorization": "Bearer k"})
        response = connection.getresponse()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *events, done, end = response.read().decode().split("\n\n")
        connection.close()
    assert (done, end) == ("data: [DONE]", "")
    payloads = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all(event.startswith("data: ") for event in events)
    assert [payload["usage"] is None for payload in payloads] == [True, True, True, False]  # role, text, end, usage
    assert {payload["object"] for payload in payloads} == {"chat.completion.chunk"}


@pytest.mark.parametrize(
    ("given", "tokens", "vectors"),
    [
        ("x" * 401, 101, 1),
        (["x" * 8, "y" * 9], 5, 2),
        ([1, 2, 3], 3, 1),
        ([[1, 2], [3], [4, 5, 6]], 6, 3),
    ],
)
def test_embeddings(given: Any, tokens: Any, vectors: Any) -> None:
    with FakeProvider(tokens=1000, latency=0) as provider, client(provider) as sdk:
        response = sdk.embeddings.create(model="text-embedding-3-small", input=given)
        short = sdk.embeddings.create(
            model="text-embedding-3-small", input=given, dimensions=12, encoding_format="float"
        )
        assert [arrival.tokens for arrival in provider.log] == [tokens, tokens]
    assert request_cost({"model": "m", "input": given}) == tokens
    assert (response.usage.prompt_tokens, response.usage.total_tokens) == (tokens, tokens)
    assert [item.index for item in response.data] == list(range(vectors))
    assert {len(item.embedding) for item in response.data} == {1536}
    assert {len(item.embedding) for item in short.data} == {12}
    assert sum(value * value for value in response.data[0].embedding) == pytest.approx(1, rel=1e-5)
    assert len({tuple(item.embedding) for item in response.data}) == vectors


def test_embeddings_are_the_same_in_both_encodings_and_depend_on_the_text_alone() -> None:
    with FakeProvider(latency=0) as provider:
        body = {"model": "m", "input": "a"}
        floats = send(provider, "/v1/embeddings", body)[2]["data"][0]["embedding"]
        encoded = send(provider, "/v1/embeddings", {**body, "encoding_format": "base64"})[2]["data"][0]["embedding"]
        other = send(provider, "/v1/embeddings", {**body, "input": "b"})[2]["data"][0]["embedding"]
    assert list(struct.unpack("<1536f", base64.b64decode(encoded))) == floats
    assert abs(sum(map(float.__mul__, floats, other))) < 0.2


@pytest.mark.parametrize(
    ("options", "headers", "length", "finish_reason"),
    [
        ({}, {}, 16, "stop"),
        ({"max_tokens": 5}, {}, 5, "stop"),
        ({"max_completion_tokens": 5}, {}, 5, "stop"),
        ({"max_tokens": 5}, {"x-fake-answer-tokens": "3"}, 3, "stop"),
        ({"max_tokens": 5}, {"x-fake-answer-tokens": "9"}, 5, "length"),
        ({}, {"x-fake-answer-tokens": "1000"}, 1000, "stop"),
        ({"n": 3, "max_tokens": 5}, {}, 15, "stop"),
    ],
)
def test_the_client_chooses_the_length_of_the_answer(
    options: Any, headers: Any, length: Any, finish_reason: Any
) -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        body = {"model": "m", "messages": MESSAGES, **options}
        answer = sdk.chat.completions.create(**body, extra_headers=headers)
        with sdk.chat.completions.create(**body, extra_headers=headers, stream=True) as stream:
            choices = [choice for chunk in stream for choice in chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    assert answer.usage.completion_tokens == length
    assert {choice.finish_reason for choice in answer.choices} == {finish_reason}
    assert {choice.finish_reason for choice in choices} == {None, finish_reason}
    assert sum(len(choice.message.content) for choice in answer.choices) == len(text) == 4 * length


def test_answer_tokens_of_the_provider() -> None:
    with FakeProvider(latency=0, answer_tokens=7) as provider, client(provider) as sdk:
        assert sdk.chat.completions.create(**CHAT).usage.completion_tokens == 7
        assert sdk.chat.completions.create(**{**CHAT, "max_tokens": 4}).choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        ({"messages": MESSAGES}, 100),
        ({"messages": MESSAGES, "max_tokens": 99}, 100),
        ({"messages": MESSAGES, "max_tokens": 101}, 101),
        ({"messages": MESSAGES, "max_completion_tokens": 500}, 500),
        ({"messages": [*MESSAGES, {"role": "user", "content": "y"}]}, 101),
        ({"messages": [{"role": "user", "content": ""}]}, 1),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "日本語です"}, {"type": "image_url"}]}
                ]
            },
            2,
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}x"}}]}]}, 1),
        ({"messages": [{"role": "user", "content": "ab"}], "tools": [{"a": 1}]}, 3),
    ],
)
def test_request_cost_is_what_is_charged(body: Any, cost: Any) -> None:
    body = {"model": "m", **body}
    assert request_cost(body) == cost
    with FakeProvider(tokens=1000, latency=0) as provider:
        assert send(provider, "/v1/chat/completions", body)[0] == 200
        assert provider.log[0].tokens == cost


def test_request_cost_of_a_bad_body() -> None:
    with pytest.raises(
        ValueError, match=r"the provider would refuse this body: .*Missing required parameter: 'messages'"
    ):
        request_cost({"model": "m"})


def test_a_body_of_many_megabytes() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        big: Any = [{"role": "user", "content": "x" * 8_000_000}]
        usage: Any = sdk.chat.completions.create(model="m", messages=big).usage
        assert usage.prompt_tokens == 2_000_000


# Refusals


def test_429_of_requests() -> None:
    with FakeProvider(requests=3, latency=0) as provider, client(provider) as sdk:
        for _ in range(3):
            sdk.chat.completions.create(**CHAT)
        with pytest.raises(openai.RateLimitError) as caught:
            sdk.chat.completions.create(**CHAT)
        refused = provider.log[-1]
    error: Any = caught.value
    assert (error.code, error.type, error.param) == ("rate_limit_exceeded", "requests", None)
    assert re.fullmatch(
        r"Rate limit reached for gpt-4o in organization org-\w+ on requests per min \(RPM\): Limit 3, Used 3, "
        r"Requested 1\. Please try again in 20s\. "
        r"Visit https://platform\.openai\.com/account/rate-limits to learn more\.",
        error.body["message"],
    )
    headers = error.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("20", "20000")
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("3", "0")
    assert (refused.admitted, refused.refused_by, refused.wait, refused.status) == (False, "requests", 20.0, 429)


def test_429_of_tokens() -> None:
    with FakeProvider(tokens=10_000, requests=5, latency=0) as provider, client(provider) as sdk:
        sdk.chat.completions.create(**{**CHAT, "max_tokens": 8_554})
        with pytest.raises(openai.RateLimitError) as caught:
            sdk.chat.completions.create(**{**CHAT, "max_tokens": 3_082})
        # Failed requests count, and what was refused took no tokens.
        headers = caught.value.response.headers
        summary = provider.summary()
    body: Any = caught.value.body
    said: Any = re.search(
        r"on tokens per min \(TPM\): Limit (\d+), Used (\d+), Requested (\d+)\. Please try again in ([\d.]+)s\.",
        body["message"],
    )
    limit, used, requested, wait = said.groups()
    assert caught.value.type == "tokens"
    assert float(wait) == pytest.approx((int(used) + int(requested) - int(limit)) * 60 / int(limit), abs=1e-9)
    assert (int(limit), int(requested)) == (10_000, 3_082)
    assert 7_000 < int(used) <= 8_554
    assert int(headers["retry-after-ms"]) == round(float(wait) * 1000)
    assert int(headers["x-ratelimit-remaining-tokens"]) == 10_000 - int(used)
    assert headers["x-ratelimit-remaining-requests"] == "3"
    assert (summary.sent, summary.admitted, summary.refused, summary.tokens_admitted) == (2, 1, 1, 8_554)


def test_too_large_is_never_to_be_retried() -> None:
    with FakeProvider(tokens=30_000, latency=0) as provider, client(provider) as sdk:
        with pytest.raises(
            openai.RateLimitError, match=r"Request too large for gpt-4o .*Limit 30000, Requested 30001\."
        ) as caught:
            sdk.chat.completions.create(**{**CHAT, "max_tokens": 30_001})
        assert "retry-after" not in caught.value.response.headers
        assert (provider.log[0].refused_by, provider.log[0].wait) == ("tokens", None)


@pytest.mark.parametrize("enforcement", ["token_bucket", "fixed_window", "rolling_window", "sub_window"])
def test_who_obeys_the_stated_wait_is_admitted(enforcement: Any) -> None:
    with FakeProvider(requests=2, per=0.4, enforcement=enforcement, sub_window=0.2, latency=0) as provider:
        for _ in range(3):
            status, headers, _ = send(provider, "/v1/chat/completions", CHAT)
            while status == 200:
                status, headers, _ = send(provider, "/v1/chat/completions", CHAT)
            time.sleep(int(headers["retry-after-ms"]) / 1000)
            assert send(provider, "/v1/chat/completions", CHAT)[0] == 200


def test_the_sdk_obeys_and_its_attempts_are_logged() -> None:
    with FakeProvider(requests=1, per=0.3, latency=0) as provider, client(provider, max_retries=2) as sdk:
        sdk.chat.completions.create(**CHAT)
        sdk.chat.completions.create(**CHAT)
        attempts = [(arrival.attempt, arrival.status) for arrival in provider.log]
    # The second call may come so late on a busy machine that it needs no retry.
    assert attempts in ([(0, 200), (0, 429), (1, 200)], [(0, 200), (0, 200)])


def test_each_model_has_its_own_quota() -> None:
    with FakeProvider(requests=1, latency=0) as provider, client(provider) as sdk:
        for model in ("a", "b"):
            sdk.chat.completions.create(**{**CHAT, "model": model})
            with pytest.raises(openai.RateLimitError, match=f"for {model} in"):
                sdk.chat.completions.create(**{**CHAT, "model": model})
        assert provider.summary().utilisation == {"requests": 1.0}


def test_quotas_by_model() -> None:
    quotas: Any = {"big": {"requests": 3}, "tiny-*": {"requests": None, "tokens": 250}}
    with FakeProvider(requests=1, quotas=quotas, latency=0) as provider, client(provider) as sdk:

        def admitted(model: str) -> int:
            count = 0
            while count < 10:
                try:
                    sdk.chat.completions.create(**{**CHAT, "model": model})
                except openai.RateLimitError:
                    break
                count += 1
            return count

        assert [admitted(model) for model in ("big", "tiny-1", "other")] == [3, 2, 1]
        assert provider.summary().utilisation["requests"] == 1.0 + 2 / 4  # tiny ones are counted, and have no quota


def test_a_quota_of_a_day() -> None:
    with FakeProvider(requests=500, daily={"requests": 200}, latency=0) as provider, client(provider) as sdk:
        for _ in range(200):
            send(provider, "/v1/chat/completions", CHAT)
        with pytest.raises(openai.RateLimitError, match=r"on requests per day \(RPD\): Limit 200, Used 200") as caught:
            sdk.chat.completions.create(**CHAT)
        assert int(caught.value.response.headers["retry-after"]) == 432


def test_failures_can_be_free() -> None:
    for failed_count, status in ((True, 429), (False, 200)):
        with FakeProvider(requests=1, failed_count=failed_count, latency=0) as provider:
            assert send(provider, "/v1/chat/completions", {**CHAT, "messages": []})[0] == 400
            assert send(provider, "/v1/chat/completions", CHAT)[0] == status


# Bad requests


@pytest.mark.parametrize(
    ("body", "message", "param", "code"),
    [
        (b"{", "We could not parse the JSON body", None, None),
        (b"[1]", "We could not parse the JSON body", None, None),
        (b"[" * 100_000, "We could not parse the JSON body", None, None),
        ({}, "you must provide a model parameter", None, None),
        ({"model": "m"}, "Missing required parameter: 'messages'.", "messages", "missing_required_parameter"),
        ({**CHAT, "messages": []}, "Invalid 'messages': empty array", "messages", "empty_array"),
        ({**CHAT, "messages": "hi"}, "Invalid 'messages'", "messages", "invalid_type"),
        (
            {**CHAT, "messages": [{"content": 5}]},
            "Invalid 'messages[0].content'",
            "messages[0].content",
            "invalid_type",
        ),
        ({**CHAT, "max_tokens": 0}, "Invalid 'max_tokens': integer below", "max_tokens", "integer_below_min_value"),
        ({**CHAT, "max_tokens": "9"}, "Invalid 'max_tokens': expected an integer", "max_tokens", "invalid_type"),
        ({**CHAT, "max_tokens": 10**7}, "Invalid 'max_tokens': integer above", "max_tokens", "integer_above_max_value"),
        (
            {**CHAT, "max_completion_tokens": 9},
            "Setting 'max_tokens' and",
            "max_tokens",
            "invalid_parameter_combination",
        ),
        ({**CHAT, "stream": "yes"}, "Invalid 'stream'", "stream", "invalid_type"),
        ({**CHAT, "stream_options": {}}, "The 'stream_options' parameter is only", "stream_options", None),
        ({**CHAT, "stream": True, "stream_options": 1}, "Invalid 'stream_options'", "stream_options", "invalid_type"),
        ({**CHAT, "n": 0}, "Invalid 'n'", "n", "integer_below_min_value"),
    ],
)
def test_400(body: Any, message: Any, param: Any, code: Any) -> None:
    with FakeProvider(latency=0) as provider:
        status, headers, answer = send(provider, "/v1/chat/completions", body)
        summary = provider.summary()
    assert status == 400
    assert headers["content-type"] == "application/json"
    assert answer["error"]["message"].startswith(message)
    assert {name: answer["error"][name] for name in ("type", "param", "code")} == {
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    assert (summary.sent, summary.failed, summary.refused, summary.admitted) == (1, 1, 0, 0)


def test_400_of_a_compressed_body() -> None:
    with FakeProvider(latency=0) as provider:
        for body in (gzip.compress(json.dumps(CHAT).encode()), b"not gzip"):
            assert send(provider, "/v1/chat/completions", body, **{"content-encoding": "gzip"})[0] == 400


@pytest.mark.parametrize("given", [None, "", [], [""], ["a", 1], [1, -1], [[]], [[1], "a", {}], 5, {"a": 1}])
def test_400_of_embeddings(given: Any) -> None:
    with FakeProvider(latency=0) as provider:
        status, _, answer = send(provider, "/v1/embeddings", {"model": "m", "input": given})
    assert (status, answer["error"]["param"]) == (400, "input")


def test_401_404_405() -> None:
    with FakeProvider(latency=0, keys=["sk-good"], models={"gpt-4o"}) as provider:
        with client(provider, api_key="sk-bad") as sdk, pytest.raises(openai.AuthenticationError) as unknown_key:
            sdk.chat.completions.create(**CHAT)
        assert unknown_key.value.code == "invalid_api_key"
        assert send(provider, "/v1/chat/completions", CHAT, key=None)[0] == 401
        with client(provider, api_key="sk-good") as sdk:
            sdk.chat.completions.create(**CHAT)
            with pytest.raises(openai.NotFoundError, match="The model `gpt-5` does not exist") as unknown_model:
                sdk.chat.completions.create(**{**CHAT, "model": "gpt-5"})
        assert unknown_model.value.code == "model_not_found"
        status, _, answer = send(provider, "/v1/nothing", CHAT)
        assert (status, answer["error"]["message"]) == (404, "Invalid URL (POST /v1/nothing)")
        assert send(provider, "/v1/chat/completions", b"", method="GET")[0] == 405
        assert send(provider, "/v1/chat/completions", CHAT, key="sk-good", **{"x-fake-answer-tokens": "-1"})[0] == 400
        assert [arrival.status for arrival in provider.log] == [401, 401, 200, 404, 404, 405, 400]
        assert (provider.summary().failed, provider.summary().admitted) == (6, 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
NAMES = "model messages input max_tokens max_completion_tokens stream stream_options n tools dimensions encoding_format"
MESSAGE = st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]), JSON)
BODIES = st.dictionaries(st.sampled_from(NAMES.split()), JSON) | st.builds(
    lambda messages, rest: {**rest, "model": "m", "messages": messages},
    st.lists(MESSAGE, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["stream", "n", "tools"]), JSON),
)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["/v1/chat/completions", "/v1/embeddings"]),
    BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(),
)
def test_any_body_is_understood_or_answered_with_an_error(path: Any, body: Any) -> None:
    try:
        call = Dialect().read(Incoming("POST", path, {"authorization": "Bearer k"}, body))
    except Problem as problem:
        assert problem.status == 400
        assert json.loads(problem.body)["error"]["type"] == "invalid_request_error"
    else:
        assert call.cost["tokens"] >= 1
        assert json.loads(call.answer(1, 0))["usage"]["prompt_tokens"] == call.tokens_in
        assert call.events(1, 0, 4)


# Clients that go away


def test_a_client_that_gives_up_is_logged() -> None:
    with FakeProvider(latency=30) as provider:
        with client(provider, timeout=0.2) as sdk, pytest.raises(openai.APITimeoutError):
            sdk.chat.completions.create(**CHAT)
        eventually(lambda: provider.log[0].finished is not None)
        (arrival,) = provider.log
        assert (arrival.admitted, arrival.disconnected, arrival.status, arrival.tokens_out) == (True, True, None, 0)
        assert (provider.summary().disconnected, provider.summary().in_flight) == (1, 0)


def test_a_stream_that_is_dropped_is_logged() -> None:
    with FakeProvider(latency=60, latency_jitter=0, stream_chunks=300) as provider, client(provider) as sdk:
        with sdk.chat.completions.create(**{**CHAT, "max_tokens": 300}, stream=True) as stream:
            next(stream)
        eventually(lambda: provider.log[0].finished is not None)
        (arrival,) = provider.log
    assert (arrival.disconnected, arrival.status) == (True, 200)
    assert 1 <= arrival.tokens_out < 300


def test_what_is_under_way_when_the_provider_ends_is_cut_off() -> None:
    async def run() -> None:
        async with FakeProvider(latency=30) as provider, async_client(provider) as sdk:
            call = asyncio.create_task(sdk.chat.completions.create(**CHAT))
            while not provider.log:
                await asyncio.sleep(0.005)
            begun = time.monotonic()
            await provider.__aexit__(None, None, None)
            assert time.monotonic() - begun < 10
            with pytest.raises(openai.APIConnectionError):
                await call
            assert provider.summary().in_flight == 0

    asyncio.run(run())


# Running


def test_network_jitter_delays_what_is_counted() -> None:
    async def run() -> None:
        async with FakeProvider(network_jitter=0.2, latency=0, seed=3) as provider, async_client(provider) as sdk:
            calls = (sdk.chat.completions.create(**{**CHAT, "max_tokens": 100 + index}) for index in range(20))
            await asyncio.gather(*calls)
            assert [arrival.time for arrival in provider.log] == sorted(arrival.time for arrival in provider.log)
            assert [arrival.tokens for arrival in provider.log] != [100 + index for index in range(20)]

    asyncio.run(run())


def test_a_plain_with_serves_while_the_callers_loop_is_busy() -> None:
    async def run() -> None:
        with FakeProvider(latency=0) as provider, client(provider) as sdk:
            assert sdk.chat.completions.create(**CHAT).usage.total_tokens == 108  # blocks this loop

    before = threading.active_count()
    asyncio.run(run())
    assert threading.active_count() == before


def test_it_runs_once_and_has_no_address_before() -> None:
    provider = FakeProvider(requests=5, tokens=100)
    with pytest.raises(RuntimeError, match="has no address before it runs"):
        _ = provider.base_url
    assert repr(provider).startswith("<FakeProvider not started: 5 requests and 100 tokens per 60 s (token bucket);")
    with provider:
        with pytest.raises(RuntimeError, match="runs once"), provider:
            pass
        assert send(provider, "/v1/embeddings", {"model": "m", "input": "a"})[0] == 200
        assert repr(provider).startswith(f"<FakeProvider {provider.base_url}: ")
    with pytest.raises(RuntimeError, match="runs once"), provider:
        pass


def test_a_port_in_use() -> None:
    with FakeProvider() as provider:
        port: Any = urlsplit(provider.base_url).port
        with pytest.raises(OSError, match=str(port)), FakeProvider(port=port):
            pass

        async def run() -> None:
            async with FakeProvider(port=port):
                pass

        with pytest.raises(OSError, match=str(port)):
            asyncio.run(run())


def test_the_summary_outlives_the_log() -> None:
    with FakeProvider(requests=4, tokens=1000, enforcement="fixed_window", per=3600, latency=0) as provider:
        assert provider.summary().utilisation == {}
        for _ in range(5):
            send(provider, "/v1/chat/completions", CHAT)
        provider.log.clear()
        summary = provider.summary()
    assert (summary.sent, summary.admitted, summary.refused) == (5, 4, 1)
    assert summary.utilisation == {"requests": 1.0, "tokens": 0.4}
    assert str(summary).startswith("5 sent, 4 admitted, 1 refused, 0 failed, 0 disconnected; 400 tokens admitted; ")
    assert str(summary).endswith("used 100.0% of requests, 40.0% of tokens")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"requests": 0}, ValueError, "requests must be finite and at least 1, not 0"),
        ({"latency": -0.1}, ValueError, "latency must be finite and at least 0, not -0.1"),
        ({"latency_jitter": "a"}, TypeError, "latency_jitter must be a number, not 'a'"),
        ({"network_jitter": float("inf")}, ValueError, "network_jitter must be finite and at least 0, not inf"),
        ({"stream_chunks": 0}, ValueError, "stream_chunks must be finite and at least 1, not 0"),
        ({"answer_tokens": 1.5}, ValueError, "answer_tokens must be a whole number, not 1.5"),
        ({"answer_tokens": 10**7}, ValueError, "answer_tokens must be at most 1000000, not 10000000"),
        ({"keys": "sk-1"}, TypeError, "keys must be a collection of strings, not 'sk-1'"),
        ({"models": []}, ValueError, "models must not be empty: None allows any"),
        ({"port": 70_000}, ValueError, "port must be at most 65535, not 70000"),
        ({"seed": "x"}, TypeError, "seed must be a whole number, not 'x'"),
        ({"dialect": "french"}, ValueError, "dialect must be one of .*, not 'french'"),
        ({"answer": "hello"}, TypeError, "answer must be callable with a Prompt, not 'hello'"),
        ({"faults": ["drop"]}, TypeError, "faults must be a collection of Fault"),
        ({"daily": 5}, TypeError, "daily must be a mapping such as"),
        ({"daily": {"images": 5}}, ValueError, "daily names 'images'; there is requests"),
        ({"quotas": {"m": 5}}, TypeError, "quotas of 'm' must be a mapping"),
        ({"quotas": {"m": {"rpm": 5}}}, ValueError, "quotas of 'm' name 'rpm'; there is requests"),
        ({"output_tokens": 0}, ValueError, "output_tokens must be finite and at least 1, not 0"),
    ],
)
def test_bad_options_are_named(arguments: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        FakeProvider(**arguments)


# From a shell


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to a child alone")
def test_the_command(tmp_path: Any) -> None:
    log = tmp_path / "arrivals.jsonl"
    command = [sys.executable, "-m", "penstock.testing.provider", "--requests", "1", "--tokens", "none", "--port", "0"]
    with subprocess.Popen(
        [*command, "--log", str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    ) as process:
        stdout: Any = process.stdout
        said: Any = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+/v1); Ctrl-C to stop\n", stdout.readline())
        with openai.OpenAI(base_url=said[1], api_key="k", max_retries=0) as sdk:
            sdk.chat.completions.create(**CHAT)
            with pytest.raises(openai.RateLimitError):
                sdk.chat.completions.create(**CHAT)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert output.startswith("2 sent, 1 admitted, 1 refused, 0 failed")
    assert [json.loads(line)["status"] for line in log.read_text().splitlines()] == [200, 429]


def test_the_command_makes_what_its_options_say() -> None:
    options = "--dialect anthropic --tokens none --input-tokens 30_000 --output-tokens 8000 --requests-per-day 200"
    given = command_line().parse_args([*options.split(), "--fault", "overloaded; between=1-4, drop; every=50"])
    assert repr(from_options(given)).startswith(
        "<FakeProvider not started: 500 requests and 30,000 input_tokens and 8,000 output_tokens per 60 s "
        "(token bucket), 200 requests per day;"
    )
    assert str(from_options(command_line().parse_args(["--dialect", "azure"]))._policy).endswith("(sub window)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--requests", "0"], "error: requests must be finite and at least 1, not 0"),
        (["--requests", "x"], "error: argument --requests: invalid amount value: 'x'"),
        (["--enforcement", "fixed_window", "--burst-tokens", "5"], "error: burst is the capacity of a token bucket"),
        (["--log", "/nowhere/at/all"], "error: [Errno 2]"),
        (["--fault", "flood"], "error: kind must be one of throttled, "),
        (["--dialect", "french"], "error: argument --dialect: invalid choice: 'french'"),
        (["--requests-per-day", "0"], "error: daily requests must be finite and at least 1, not 0"),
    ],
)
def test_the_command_refuses_nonsense(arguments: Any, message: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_and_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "penstock.testing.provider", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: cannot listen on port" in done.stderr
