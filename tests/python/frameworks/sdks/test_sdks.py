"""SDKs that the default environment has not, or not in these versions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import boto3
import fireworks
import google.genai
import httpx
import openai
import pytest
import together

import penstock
from penstock import Limiter, Retry
from penstock.testing.provider import FakeProvider, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ASKED: Any = [{"role": "user", "content": "hello"}]
QUICK = Retry(attempts=3, initial=0.01, max_delay=0.05)
GEMINI = "gemini-2.5-flash"


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(requests=100_000, tokens=100_000_000)


@pytest.fixture
def openais() -> Iterator[FakeProvider]:
    with FakeProvider(latency=0) as provider:
        yield provider


@pytest.fixture
def googles() -> Iterator[FakeProvider]:
    with FakeProvider(dialect="gemini", latency=0) as provider:
        yield provider


def idle(limiter: Limiter) -> bool:
    stats = limiter.stats()
    return (stats.in_flight, stats.waiting) == (0, 0)


def make_openai(url: str) -> Any:
    return openai.OpenAI(base_url=url, api_key="k")


def make_together(url: str) -> Any:
    return together.Together(base_url=url.removesuffix("/v1"), api_key="k")


def make_fireworks(url: str) -> Any:
    return fireworks.Fireworks(base_url=url.removesuffix("/v1"), api_key="k")


ERRORS = (openai.APIError, together.APIError, fireworks.APIError)
MAKERS = [make_openai, make_together, make_fireworks]
makers = pytest.mark.parametrize("make", MAKERS)


def test_openai_is_on_the_classic_httpx() -> None:
    client = make_openai("http://127.0.0.1:1/v1")
    assert isinstance(client._client, httpx.Client)


@makers
def test_calls_are_counted(make: Callable[[str], Any], openais: FakeProvider, limiter: Limiter) -> None:
    client = penstock.govern(make(openais.base_url), limiter, retry=QUICK)
    for stream in (False, True):
        answer = client.chat.completions.create(model="m", messages=ASKED, max_tokens=5, stream=stream)
        assert not stream or list(answer)
    assert limiter.stats().granted == openais.summary().sent == 2
    assert idle(limiter)


@makers
def test_a_failing_provider_gets_three_requests(
    make: Callable[[str], Any], openais: FakeProvider, limiter: Limiter
) -> None:
    client = penstock.govern(make(openais.base_url), limiter, retry=QUICK)
    for kind in ("overloaded", "error", "drop"):
        before = openais.summary().sent
        asked: Any = [{"role": "user", "content": kind}]
        with openais.failing(kind), pytest.raises(ERRORS):
            client.chat.completions.create(model="m", messages=asked, max_tokens=5)
        assert openais.summary().sent - before == 3, kind
    assert idle(limiter)


@makers
def test_a_spent_quota_is_asked_once(make: Callable[[str], Any], openais: FakeProvider, limiter: Limiter) -> None:
    client = penstock.govern(make(openais.base_url), limiter, retry=QUICK)
    with openais.failing("insufficient_quota"), pytest.raises(ERRORS):
        client.chat.completions.create(model="m", messages=ASKED, max_tokens=5)
    assert openais.summary().sent == 1


@makers
def test_a_process_is_governed(make: Callable[[str], Any], openais: FakeProvider, limiter: Limiter) -> None:
    with penstock.install(limiter, hosts=[openais.base_url], retry=QUICK):
        make(openais.base_url).chat.completions.create(model="m", messages=ASKED, max_tokens=5)
    make(openais.base_url).chat.completions.create(model="m", messages=ASKED, max_tokens=5)
    assert limiter.stats().granted == 1
    assert openais.summary().sent == 2


def genai(provider: FakeProvider) -> Any:
    return google.genai.Client(api_key="k", http_options={"base_url": provider.origin})


async def generate(client: Any, stream: bool) -> None:
    if stream:
        pieces = await client.aio.models.generate_content_stream(model=GEMINI, contents="hello")
        assert [piece async for piece in pieces]
    else:
        await client.aio.models.generate_content(model=GEMINI, contents="hello")


def test_google_in_threads_and_in_tasks_of_many_loops(googles: FakeProvider, limiter: Limiter) -> None:
    client = genai(googles)
    before = dict(vars(client._api_client))
    assert client._api_client._use_aiohttp()
    penstock.govern(client, limiter, retry=QUICK)
    client.models.generate_content(model=GEMINI, contents="hello")
    for turn in range(4):
        asyncio.run(generate(client, bool(turn % 2)))
    assert limiter.stats().granted == googles.summary().sent == 5
    assert idle(limiter)
    googles.inject(Fault("error"))
    with pytest.raises(google.genai.errors.ServerError):
        asyncio.run(generate(client, False))
    assert googles.summary().sent == 8
    googles.heal()
    penstock.ungovern(client)
    assert client._api_client._use_aiohttp()
    assert vars(client._api_client) == before


def test_google_in_a_governed_process(googles: FakeProvider, limiter: Limiter) -> None:
    client = genai(googles)
    with penstock.install(limiter, hosts=[googles.origin], retry=QUICK):
        client.models.generate_content(model=GEMINI, contents="hello")
        for turn in range(2):
            asyncio.run(generate(client, bool(turn % 2)))
    assert limiter.stats().granted == googles.summary().sent == 3
    assert client._api_client._use_aiohttp()
    assert idle(limiter)


def test_boto3(limiter: Limiter) -> None:
    with FakeProvider(dialect="bedrock", latency=0) as provider:
        client = boto3.client(
            "bedrock-runtime",
            region_name="eu-north-1",
            endpoint_url=provider.origin,
            aws_access_key_id="AKIATEST",
            aws_secret_access_key="secret",
        )
        penstock.govern(client, limiter, retry=QUICK)
        turn: Any = [{"role": "user", "content": [{"text": "hello"}]}]
        answer = client.converse(modelId="amazon.nova-lite-v1:0", messages=turn, inferenceConfig={"maxTokens": 5})
        assert answer["usage"]["outputTokens"] == 5
        assert limiter.stats().granted == provider.summary().sent == 1
        client.close()
    assert idle(limiter)
