"""The fake provider in Bedrock's words, as botocore reads them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from penstock import Limiter
from penstock.testing.provider import FakeProvider

session = pytest.importorskip("botocore.session")
config = pytest.importorskip("botocore.config")
exceptions = pytest.importorskip("botocore.exceptions")

CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"
TURN: Any = [{"role": "user", "content": [{"text": "x" * 400}]}]  # 100 tokens
WEATHER: Any = {
    "toolSpec": {
        "name": "weather",
        "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
}


@contextlib.contextmanager
def client(provider: FakeProvider) -> Any:
    sdk = session.get_session().create_client(
        "bedrock-runtime",
        region_name="eu-north-1",
        endpoint_url=provider.origin,
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="secret",
        config=config.Config(retries={"total_max_attempts": 1}),
    )
    try:
        yield sdk
    finally:
        sdk.close()


def converse(sdk: Any, **options: Any) -> Any:
    return sdk.converse(**{"modelId": "amazon.nova", "messages": TURN, "inferenceConfig": {"maxTokens": 30}, **options})


def test_converse() -> None:
    with FakeProvider(dialect="bedrock", tokens=1000, latency=0) as provider, client(provider) as sdk:
        answer = converse(sdk)
        assert len(answer["output"]["message"]["content"][0]["text"]) == 120
        assert answer["usage"] == {"inputTokens": 100, "outputTokens": 30, "totalTokens": 130}
        assert answer["stopReason"] == "end_turn"
        (arrival,) = provider.log
    assert (arrival.dialect, arrival.model, arrival.key, arrival.tokens) == ("bedrock", "amazon.nova", "AKIATEST", 130)


@pytest.mark.parametrize("chunks", [1, 5])
def test_a_stream(chunks: int) -> None:
    with FakeProvider(dialect="bedrock", latency=0.01, stream_chunks=chunks) as provider, client(provider) as sdk:
        events = list(sdk.converse_stream(modelId=CLAUDE, messages=TURN, inferenceConfig={"maxTokens": 30})["stream"])
        plain = converse(sdk, modelId=CLAUDE)["output"]["message"]["content"][0]["text"]
    deltas = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert "".join(deltas) == plain
    assert len(deltas) == chunks
    assert next(iter(events[0])) == "messageStart"
    assert events[-1]["metadata"]["usage"]["totalTokens"] == 130


@pytest.mark.parametrize("stream", [False, True])
def test_tools(stream: bool) -> None:
    with FakeProvider(dialect="bedrock", latency=0) as provider, client(provider) as sdk:

        def ask(messages: Any, **choice: Any) -> tuple[Any, str]:
            given = {"modelId": CLAUDE, "messages": messages, "toolConfig": {"tools": [WEATHER], **choice}}
            if not stream:
                answer = sdk.converse(**given)
                return answer["output"]["message"]["content"], answer["stopReason"]
            events = list(sdk.converse_stream(**given)["stream"])
            starts = [event["contentBlockStart"]["start"] for event in events if "contentBlockStart" in event]
            inputs = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
            reason = next(event["messageStop"]["stopReason"] for event in events if "messageStop" in event)
            if not starts:
                return [{"text": "".join(delta["text"] for delta in inputs)}], reason
            call = json.loads("".join(delta["toolUse"]["input"] for delta in inputs))
            return [{"toolUse": {**starts[0]["toolUse"], "input": call}}], reason

        content, reason = ask(TURN)
        assert (reason, content[0]["toolUse"]["name"], content[0]["toolUse"]["input"]) == (
            "tool_use",
            "weather",
            {"city": "sea"},
        )
        result = {"toolResult": {"toolUseId": content[0]["toolUse"]["toolUseId"], "content": [{"text": "cold"}]}}
        done = [*TURN, {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        assert ask(done)[1] == "end_turn"
        assert ask(done, toolChoice={"any": {}})[1] == "tool_use"
        assert ask(TURN, toolChoice={"tool": {"name": "weather"}})[1] == "tool_use"


def test_invoke_with_anthropic_s_body() -> None:
    with FakeProvider(dialect="bedrock", tokens=1000, latency=0) as provider, client(provider) as sdk:
        body = json.dumps(
            {
                "anthropic_version": "bedrock-2023-05-31",
                "max_tokens": 30,
                "messages": [{"role": "user", "content": "x" * 400}],
            }
        )
        answer = json.loads(sdk.invoke_model(modelId=CLAUDE, body=body)["body"].read())
        assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (100, 30)
        chunks = sdk.invoke_model_with_response_stream(modelId=CLAUDE, body=body)["body"]
        events = [json.loads(chunk["chunk"]["bytes"]) for chunk in chunks]
        assert events[0]["type"] == "message_start"
        assert events[-1]["type"] == "message_stop"
        assert [arrival.tokens for arrival in provider.log] == [130, 130]
        # Settled: the prompt, and five times the output.
        assert provider.summary().tokens_admitted == 2 * (100 + 5 * 30)


def test_a_request_without_a_limit_reserves_the_model_s_most() -> None:
    with FakeProvider(dialect="bedrock", tokens=70_000, latency=0) as provider, client(provider) as sdk:
        converse(sdk, inferenceConfig={})
        converse(sdk, inferenceConfig={})  # the first was settled
        assert [arrival.tokens for arrival in provider.log] == [64_100, 64_100]
        assert provider.summary().tokens_admitted == 2 * 116


@pytest.mark.parametrize(
    ("quota", "dimension", "words"),
    [({"requests": 1}, "requests", "Too many requests"), ({"tokens": 150}, "tokens", "Too many tokens")],
)
def test_refusals(quota: Any, dimension: Any, words: Any) -> None:
    with FakeProvider(dialect="bedrock", latency=0, **quota) as provider, client(provider) as sdk:
        converse(sdk)
        with pytest.raises(exceptions.ClientError, match=words) as caught:
            converse(sdk)
    said = caught.value.response
    assert (said["Error"]["Code"], said["ResponseMetadata"]["HTTPStatusCode"]) == ("ThrottlingException", 429)
    body = json.dumps({"message": said["Error"]["Message"]})
    read = Limiter(requests=1, tokens=150).observe(429, said["ResponseMetadata"]["HTTPHeaders"], body)
    assert read.kind == "throttled"
    assert read.dimension in (dimension, None)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("throttled", "ThrottlingException"),
        ("overloaded", "ServiceUnavailableException"),
        ("error", "InternalServerException"),
        ("insufficient_quota", "ServiceQuotaExceededException"),
        ("oversize", "ValidationException"),
    ],
)
def test_faults(fault: Any, code: Any) -> None:
    with FakeProvider(dialect="bedrock", latency=0) as provider, client(provider) as sdk:
        with provider.failing(fault):
            with pytest.raises(exceptions.ClientError) as caught:
                converse(sdk)
            assert caught.value.response["Error"]["Code"] == code
        with provider.failing("overloaded_event", after=2):
            stream = sdk.converse_stream(modelId=CLAUDE, messages=TURN, inferenceConfig={"maxTokens": 30})["stream"]
            with contextlib.closing(stream), pytest.raises(exceptions.EventStreamError, match="serviceUnavailable"):
                list(stream)


def test_bad_requests() -> None:
    with FakeProvider(dialect="bedrock", latency=0, models=["amazon.nova"]) as provider, client(provider) as sdk:
        with pytest.raises(exceptions.ClientError, match="model identifier is invalid"):
            converse(sdk, modelId=CLAUDE)
        with pytest.raises(exceptions.ClientError, match="anthropic_version"):
            sdk.invoke_model(modelId="amazon.nova", body="{}")
        with pytest.raises(exceptions.ClientError, match="messages field is required"):
            sdk.converse(modelId="amazon.nova", messages=[])
    with FakeProvider(dialect="bedrock", latency=0, keys=["other"]) as provider, client(provider) as sdk:
        with pytest.raises(exceptions.ClientError, match="security token"):
            converse(sdk)
