"""`Limiter.stats`: what it says of how rates came to be, of estimates, and of calls by label."""

from __future__ import annotations

import json

import pytest

import penstock
from penstock import Limiter, Share, _core, providers
from penstock.testing import FakeProvider

httpx = pytest.importorskip("httpx")

CHAT = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
BODY = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello there"}]}


def test_a_rate_says_how_it_came_to_be() -> None:
    limiter = providers.openai(tpm=1_000)
    assert [(level.dimension, level.origin) for level in limiter.stats().levels] == [
        ("tokens", "configured"),
        ("requests", "tried"),
    ]
    assert "(tried)" in str(limiter.stats())
    limiter.observe(200, CHAT)
    assert [level.origin for level in limiter.stats().levels] == ["configured", "told"]
    assert "requests: " in str(limiter.stats()) and "(as the provider says)" in str(limiter.stats())
    assert {level.origin for level in Limiter(requests=5, tokens=5).stats().levels} == {"configured"}


def test_estimates_say_how_far_off_they_are() -> None:
    limiter = Limiter(tokens=1_000_000)
    assert limiter.stats().estimate_error is None
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello there " * 200}]}).encode()
    call = _core.read_call("/v1/chat/completions", body)

    def learn(reported: int) -> None:
        answer = _core.UsageReader("openai")
        answer.feed(json.dumps({"usage": {"prompt_tokens": reported, "completion_tokens": 1}}).encode())
        limiter.learn(call, answer)

    learn(call.input_tokens * 2)
    assert limiter.stats().estimate_error == pytest.approx(0.5)
    for _ in range(100):
        learn(call.input_tokens * 2)
    error = limiter.stats().estimate_error
    assert error is not None and error < 0.05
    assert f"estimates of input off by {error:.0%}" in str(limiter.stats())


def test_governed_calls_are_counted_by_label() -> None:
    limiter = Limiter(requests=60_000, tokens=1_000_000)
    headers = {"authorization": "Bearer test"}
    with FakeProvider(latency=0, answer_tokens=7) as provider, httpx.Client(headers=headers) as client:
        penstock.govern(client, limiter, retry=penstock.Retry(attempts=3, initial=0.001))
        url = provider.base_url + "/chat/completions"
        client.post(url, json=BODY)
        with penstock.scope(label="ingest"):
            for _ in range(3):
                assert client.post(url, json=BODY).status_code == 200
            with penstock.scope(label="query"), client.stream("POST", url, json={**BODY, "stream": True}) as stream:
                stream.read()
        with penstock.scope(label="down"), provider.failing("error"):
            assert client.post(url, json=BODY).status_code == 500
    stats = limiter.stats()
    assert stats.attempts == 1 + 3 + 1 + 3
    assert {label: share.attempts for label, share in stats.labels.items()} == {"down": 3, "ingest": 3, "query": 1}
    one = stats.labels["query"]
    assert isinstance(one, Share) and (one.tokens, one.output_tokens) == (20, 7)  # max_tokens is not given back
    assert stats.labels["ingest"].tokens == 60
    assert "label ingest: 3 calls" in str(stats)
    assert json.loads(json.dumps(stats.as_dict(), default=str))["labels"]["query"]["output_tokens"] == 7


def test_a_permit_that_was_given_back_is_no_call() -> None:
    limiter = Limiter(requests=10)
    permit = limiter.acquire()
    permit.abandon()
    limiter.count_label("x", permit)
    assert limiter.stats().labels == {}
