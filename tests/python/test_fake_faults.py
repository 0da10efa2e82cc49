"""What goes wrong on demand at the fake provider, as the real SDKs see it."""

from __future__ import annotations

import gzip
import http.client
import json
import time
import zlib
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from penstock.testing.provider import FakeProvider, Fault
from penstock.testing.provider.fault import Faults, parse

USER: Any = {"role": "user", "content": "How is the ice?"}


def client(provider: FakeProvider, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(**{"base_url": provider.base_url, "api_key": "k", "max_retries": 0, **options})


def chat(sdk: openai.OpenAI, **options: Any) -> Any:
    return sdk.chat.completions.create(**{"model": "m", "messages": [USER], "max_tokens": 20, **options})


def faulty(fault: str) -> Any:
    return {"extra_headers": {"x-fake-fault": fault}}


def raw(provider: FakeProvider, fault: str, **body: Any) -> tuple[Any, bytes]:
    where: Any = urlsplit(provider.base_url)
    connection = http.client.HTTPConnection(where.hostname, where.port)
    try:
        data = json.dumps({"model": "m", "messages": [USER], "max_tokens": 200, **body})
        headers = {"authorization": "Bearer k", "x-fake-fault": fault}
        connection.request("POST", "/v1/chat/completions", data, headers)
        response = connection.getresponse()
        return response.headers, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("fault", "error", "status", "code", "message"),
    [
        ("throttled", openai.RateLimitError, 429, "rate_limit_exceeded", "Rate limit reached"),
        ("overloaded", openai.InternalServerError, 503, "server_is_overloaded", "currently overloaded"),
        ("error", openai.InternalServerError, 500, None, "The server had an error"),
        ("error; status=502", openai.InternalServerError, 502, None, "The server had an error"),
        ("insufficient_quota", openai.RateLimitError, 429, "insufficient_quota", "exceeded your current quota"),
        ("oversize", openai.RateLimitError, 429, "rate_limit_exceeded", "Request too large"),
        ("daily", openai.RateLimitError, 429, "rate_limit_exceeded", r"\(RPD\).*try again in 12h0m0s"),
        ("status; status=418; body=short and stout", openai.APIStatusError, 418, None, "418"),
    ],
)
def test_answers_in_place_of_the_provider(fault: Any, error: Any, status: Any, code: Any, message: Any) -> None:
    with FakeProvider(requests=2, latency=0) as provider, client(provider) as sdk:
        for stream in (False, True):
            with pytest.raises(error, match=message) as caught:
                chat(sdk, stream=stream, **faulty(fault))
            assert (caught.value.status_code, caught.value.code) == (status, code)
            assert status != 418 or caught.value.response.text == "short and stout"
            assert "retry-after" not in caught.value.response.headers
        assert [arrival.fault for arrival in provider.log] == [fault.partition(";")[0]] * 2
        summary = provider.summary()
        assert (summary.failed, summary.refused, summary.admitted) == (2, 0, 0)
        for _ in range(2):  # no quota was used
            chat(sdk)


def test_a_wait_of_an_hour() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        with pytest.raises(openai.RateLimitError) as caught:
            chat(sdk, **faulty("throttled; retry_after=3600"))
        headers = caught.value.response.headers
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("3600", "3600000")


def test_a_connection_that_is_dropped() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        for stream in (False, True):
            with pytest.raises(openai.APIConnectionError):
                chat(sdk, stream=stream, **faulty("drop"))
        chat(sdk)
        summary = provider.summary()
        # The provider had done its work, and the client did not go away.
        assert (summary.admitted, summary.disconnected, summary.in_flight) == (3, 0, 0)
        assert [arrival.status for arrival in provider.log] == [None, None, 200]


def test_half_an_answer() -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        with pytest.raises(openai.APIConnectionError):
            chat(sdk, **faulty("half"))
        headers, text = None, b""
        with pytest.raises(http.client.IncompleteRead) as caught:
            headers, text = raw(provider, "half")
        assert (headers, text) == (None, b"")
        assert caught.value.partial.startswith(b'{"id":')
        assert provider.summary().in_flight == 0


def test_half_a_stream() -> None:
    with FakeProvider(latency=0, stream_chunks=10) as provider, client(provider) as sdk:
        for fault, expected in (("half", 5), ("half; after=2", 2)):
            texts = []
            with pytest.raises(Exception, match="(?i)incomplete|connection|peer"):
                for chunk in chat(sdk, stream=True, **faulty(fault)):
                    texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
            assert len(texts) == expected
        assert [arrival.disconnected for arrival in provider.log] == [False, False]


def test_a_stream_that_ends_short() -> None:
    with FakeProvider(latency=0, stream_chunks=10) as provider, client(provider) as sdk:
        chunks = list(chat(sdk, stream=True, stream_options={"include_usage": True}, **faulty("short")))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(choice.finish_reason is None for chunk in chunks for choice in chunk.choices)


def test_overload_in_a_stream_that_began_well() -> None:
    with FakeProvider(latency=0, stream_chunks=10) as provider, client(provider) as sdk:
        for fault, expected in (("overloaded_event", 5), ("overloaded_event; after=0", 0)):
            texts = []
            with pytest.raises(openai.APIError, match="currently overloaded"):
                for chunk in chat(sdk, stream=True, **faulty(fault)):
                    texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
            assert len(texts) == expected
        assert {arrival.status for arrival in provider.log} == {200}


def test_what_is_not_json() -> None:
    with FakeProvider(latency=0) as provider:
        headers, body = raw(provider, "malformed")
        assert headers["content-type"] == "application/json"
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(body)
        headers, body = raw(provider, "malformed", stream=True)
        assert headers["content-type"].startswith("text/event-stream")
        with client(provider) as sdk, pytest.raises(ValueError, match="(?i)decode|expecting|utf"):
            list(chat(sdk, stream=True, **faulty("malformed")))


@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15)])
def test_compressed_answers(encoding: Any, bits: Any) -> None:
    with FakeProvider(latency=0, stream_chunks=10) as provider, client(provider) as sdk:
        plain = chat(sdk).choices[0].message.content
        assert chat(sdk, **faulty(encoding)).choices[0].message.content == plain
        chunks = list(chat(sdk, stream=True, **faulty(encoding)))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain
        headers, body = raw(provider, encoding)
        assert headers["content-encoding"] == encoding
        assert json.loads(zlib.decompress(body, bits))["usage"]["completion_tokens"] == 200
        headers, body = raw(provider, f"{encoding}, throttled")
        assert json.loads(zlib.decompress(body, bits))["error"]["code"] == "rate_limit_exceeded"


def test_each_event_of_a_compressed_stream_can_be_read_when_it_comes() -> None:
    with FakeProvider(latency=0, stream_chunks=10) as provider:
        _, body = raw(provider, "gzip, short; after=3", stream=True)
        text = gzip.decompress(body)
        assert text.count(b"data: ") == 4  # the role, and three pieces


def test_headers_that_are_slow() -> None:
    with FakeProvider(latency=0) as provider, client(provider, timeout=0.3) as sdk:
        for stream in (False, True):
            with pytest.raises(openai.APITimeoutError):
                chat(sdk, stream=stream, **faulty("slow; seconds=30"))
        chat(sdk, **faulty("slow; seconds=0.01"))


def test_rules() -> None:
    """By number, by share, for a time, by model, and no more than so often."""

    def kinds(fault: Fault, count: int = 6, now: float = 0.0, model: str = "m") -> list[int]:
        faults = Faults([fault])
        return [number for number in range(1, count + 1) if faults.befalling(number, now, model, None)]

    assert kinds(Fault("drop")) == [1, 2, 3, 4, 5, 6]
    assert kinds(Fault("drop", arrivals={2, 5})) == [2, 5]
    assert kinds(Fault("drop", every=3)) == [3, 6]
    assert kinds(Fault("drop", times=2)) == [1, 2]
    assert kinds(Fault("drop", every=2, times=2)) == [2, 4]
    assert kinds(Fault("drop", between=(1, 2)), now=0.5) == []
    assert kinds(Fault("drop", between=(1, 2)), now=1.5) == [1, 2, 3, 4, 5, 6]
    assert kinds(Fault("drop", model="gpt-*")) == []
    assert kinds(Fault("drop", model="gpt-*"), model="gpt-4o") == [1, 2, 3, 4, 5, 6]


def test_a_storm_that_passes() -> None:
    with (
        FakeProvider(latency=0, faults=[Fault("overloaded", arrivals=range(1, 4))]) as provider,
        client(provider) as sdk,
    ):
        for _ in range(3):
            with pytest.raises(openai.InternalServerError):
                chat(sdk)
        chat(sdk)
        with provider.failing("throttled", retry_after=2) as fault:
            assert fault.retry_after == 2
            with pytest.raises(openai.RateLimitError):
                chat(sdk)
            assert sdk.models.list().data  # what is free is left alone
        chat(sdk)
        provider.inject(Fault("error", times=1))
        provider.inject(Fault("drop"))
        provider.heal()
        chat(sdk)
        began = time.monotonic()
        provider.inject(Fault("error", between=(0, 0.2)))
        while True:
            try:
                chat(sdk)
                break
            except openai.InternalServerError:
                assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flood", "kind must be one of throttled, "),
        ("drop; colour=red", "a fault has after, arrivals, .*, and no 'colour'"),
        ("throttled; retry_after=soon", "could not convert"),
        ("error; status=99", "status must be finite and at least 100"),
    ],
)
def test_nonsense_is_named(text: Any, message: Any) -> None:
    with FakeProvider(latency=0) as provider, client(provider) as sdk:
        with pytest.raises(openai.BadRequestError, match="The header x-fake-fault makes no sense"):
            chat(sdk, **faulty(text))
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_faults_as_text() -> None:
    assert parse("gzip, throttled; retry_after=2; every=3") == [
        Fault("gzip"),
        Fault("throttled", retry_after=2.0, every=3),
    ]
    assert parse("overloaded; between=1.5-3; arrivals=1 2; times=4; model=gpt-*; after=2; seconds=1") == [
        Fault(
            "overloaded", between=(1.5, 3.0), arrivals=frozenset({1, 2}), times=4, model="gpt-*", after=2, seconds=1.0
        )
    ]
