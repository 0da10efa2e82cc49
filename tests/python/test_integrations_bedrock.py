"""Governed clients of Bedrock: botocore's own, in front of the fake provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from governed import roomy
from loops import IDLE, spent, standing
from sdks import SDKS, boto3_client

import penstock
from penstock import Limiter, Retry
from penstock.testing import FakeProvider
from penstock.testing.provider import Fault

botocore = pytest.importorskip("botocore")
pytest.importorskip("botocore.config")
pytest.importorskip("botocore.session")

CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"
NOVA = "amazon.nova-lite-v1:0"
TURN: Any = [{"role": "user", "content": [{"text": "x" * 400}]}]  # 100 tokens
QUICK = Retry(attempts=3, initial=0.01, max_delay=0.05)


@contextmanager
def client(provider: FakeProvider, **settings: Any) -> Iterator[Any]:
    sdk = botocore.session.get_session().create_client(
        "bedrock-runtime",
        region_name="eu-north-1",
        endpoint_url=provider.origin,
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="secret",
        config=botocore.config.Config(**settings),
    )
    try:
        yield sdk
    finally:
        sdk.close()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(dialect="bedrock", latency=0) as provider:
        yield provider


def converse(sdk: Any, **more: Any) -> Any:
    return sdk.converse(**{"modelId": NOVA, "messages": TURN, "inferenceConfig": {"maxTokens": 30}, **more})


def test_a_call_is_charged_and_settled(provider: FakeProvider) -> None:
    limiter = roomy()
    with client(provider) as sdk:
        assert penstock.govern(sdk, limiter, retry=QUICK) is sdk
        answer = converse(sdk)
    assert answer["usage"] == {"inputTokens": 100, "outputTokens": 30, "totalTokens": 130}
    assert answer["ResponseMetadata"]["RetryAttempts"] == 0
    assert spent(limiter) == 1
    assert spent(limiter, "tokens") == 130
    assert standing(limiter) == IDLE
    assert provider.summary().sent == 1


def test_a_stream_holds_its_permit_to_its_end(provider: FakeProvider) -> None:
    limiter = roomy()
    with client(provider) as sdk:
        penstock.govern(sdk, limiter, retry=QUICK)
        answer = sdk.converse_stream(modelId=NOVA, messages=TURN, inferenceConfig={"maxTokens": 30})
        held = [standing(limiter) for _ in answer["stream"]]
        assert set(held[:-1]) == {(1, 0)}
        assert standing(limiter) == IDLE
        assert spent(limiter, "tokens") == 130
        half = sdk.converse_stream(modelId=NOVA, messages=TURN, inferenceConfig={"maxTokens": 30})["stream"]
        next(iter(half))
        assert standing(limiter) == (1, 0)
        half.close()
        assert standing(limiter) == IDLE
    assert provider.summary().sent == spent(limiter) == 2


def test_invoke_model(provider: FakeProvider) -> None:
    limiter = roomy()
    asked = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 30}
    body = json.dumps(asked | {"messages": [{"role": "user", "content": "x" * 400}]})
    with client(provider) as sdk:
        penstock.govern(sdk, limiter, retry=QUICK)
        answer = sdk.invoke_model(modelId=CLAUDE, body=body)
        said = json.loads(answer["body"].read())
        assert said["usage"]["output_tokens"] == 30
        assert standing(limiter) == IDLE
        stream = sdk.invoke_model_with_response_stream(modelId=CLAUDE, body=body)["body"]
        assert [event for event in stream if "chunk" in event]
        assert standing(limiter) == IDLE
    assert provider.summary().sent == spent(limiter) == 2
    assert spent(limiter, "tokens") > 2 * 130  # the output of Claude counts several times


@pytest.mark.parametrize("mode", ["standard", "legacy"])
def test_botocore_does_not_retry(provider: FakeProvider, mode: str) -> None:
    limiter = roomy()
    with client(provider, retries={"mode": mode, "total_max_attempts": 5}) as sdk:
        penstock.govern(sdk, limiter, retry=QUICK)
        provider.inject(Fault("overloaded"))
        for _ in range(2):  # the second is answered without a request
            with pytest.raises(botocore.exceptions.ClientError) as raised:
                converse(sdk)
            assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
            assert raised.value.response["Error"]["Code"]
        assert provider.summary().sent == 3
    assert standing(limiter) == IDLE


def test_a_failure_is_tried_again(provider: FakeProvider) -> None:
    limiter = roomy()
    with client(provider) as sdk:
        penstock.govern(sdk, limiter, retry=QUICK)
        provider.inject(Fault("error", times=1))
        provider.inject(Fault("drop", arrivals=[2]))
        answer = converse(sdk)
        assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    assert provider.summary().sent == 3
    assert standing(limiter) == IDLE


def test_connections_that_keep_breaking(provider: FakeProvider) -> None:
    limiter = roomy()
    with client(provider) as sdk:
        penstock.govern(sdk, limiter, retry=QUICK)
        provider.inject(Fault("drop"))
        for _ in range(2):
            with pytest.raises(botocore.exceptions.HTTPClientError):
                converse(sdk)
    assert provider.summary().sent == 3
    assert standing(limiter) == IDLE


def test_an_error_inside_of_a_stream(provider: FakeProvider) -> None:
    limiter = roomy()
    with client(provider) as sdk:
        penstock.govern(sdk, limiter, retry=QUICK)
        provider.inject(Fault("overloaded_event", after=2))
        stream = sdk.converse_stream(modelId=NOVA, messages=TURN, inferenceConfig={"maxTokens": 30})["stream"]
        with pytest.raises(botocore.exceptions.EventStreamError):
            list(stream)
        assert standing(limiter) == IDLE  # though the stream is still there
        stream.close()
    assert provider.summary().sent == 1


@pytest.mark.parametrize("mode", ["standard", "legacy", "adaptive"])
def test_threads_of_boto3_share_a_client(provider: FakeProvider, mode: str) -> None:
    """Every way to call it, with three throttles: all answered, counted alike on both sides, and settled."""
    pytest.importorskip("boto3")
    limiter = roomy(concurrency=4)
    patient = Retry(attempts=5, initial=0.01, max_delay=0.05)
    sdk = boto3_client(provider, retries={"mode": mode, "total_max_attempts": 10})
    penstock.govern(sdk, limiter, retry=patient)
    ways = [way for way in SDKS if way.dialect == "bedrock"]
    provider.inject(Fault("throttled", times=3, retry_after=0.05))

    def calls(thread: int) -> list[str]:
        said = [(way, stream, f"{thread} {turn}") for turn in range(2) for way in ways for stream in (False, True)]
        return [way.say(sdk, text, stream=stream) for way, stream, text in said]

    with ThreadPoolExecutor(6) as pool:
        answers = [text for texts in pool.map(calls, range(6)) for text in texts]
    sdk.close()
    assert [len(text) for text in answers] == [80] * 48
    summary = provider.summary()
    assert (summary.sent, summary.admitted) == (51, 48)
    assert limiter.stats().granted == limiter.stats().attempts == 51
    assert summary.peak_concurrency <= 4
    assert spent(limiter, "tokens") == summary.tokens_admitted
    assert standing(limiter) == IDLE


@pytest.mark.slow
def test_boto3_is_refused_for_no_longer_than_the_gate_tries(provider: FakeProvider) -> None:
    """Three requests each at the most, and fewer where many fail at once, however often boto3 was told to try."""
    pytest.importorskip("boto3")
    limiter = roomy()
    sdk = penstock.govern(boto3_client(provider, retries={"total_max_attempts": 10}), limiter, retry=QUICK)
    provider.inject(Fault("throttled"))

    def refused(thread: int) -> int:
        with pytest.raises(botocore.exceptions.ClientError) as raised:
            converse(sdk, messages=[{"role": "user", "content": [{"text": f"{thread}"}]}])
        return raised.value.response["ResponseMetadata"]["HTTPStatusCode"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refused, range(8))) == [429] * 8
    sdk.close()
    assert 8 <= provider.summary().sent == limiter.stats().granted <= 24
    assert standing(limiter) == IDLE


def test_no_permit_in_time(provider: FakeProvider) -> None:
    limiter = Limiter(requests=penstock.per_day(1))
    limiter.acquire().release()
    with client(provider) as sdk, penstock.scope(timeout=0), pytest.raises(penstock.AcquireTimeout):
        converse(penstock.govern(sdk, limiter))
    assert provider.summary().sent == 0


def test_it_is_undone(provider: FakeProvider) -> None:
    limiter, other = roomy(), roomy()
    with client(provider) as sdk:
        before = dict(vars(sdk._endpoint))
        penstock.govern(sdk, limiter)
        penstock.govern(sdk, other)
        converse(sdk)
        penstock.ungovern(sdk)
        assert vars(sdk._endpoint) == before
        converse(sdk)
    assert (spent(limiter), spent(other)) == (0, 1)


def test_other_services_are_not_governed() -> None:
    sdk = botocore.session.get_session().create_client(
        "sts", region_name="eu-north-1", aws_access_key_id="AKIATEST", aws_secret_access_key="secret"
    )
    with pytest.raises(TypeError):
        penstock.govern(sdk, roomy())
    sdk.close()
