"""Governed clients of every SDK against a provider over real HTTP: how many requests a call makes, and what is left.

The counts of an ungoverned SDK are in facts that anyone can measure: OpenAI's, Anthropic's and Cohere's make three
requests for each of these failures, an empty account included. Governed, a call makes at most ``attempts`` requests,
and one where no retry can help; the gate counts what the server counts; and nothing stays in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
from loops import IDLE, standing
from sdks import SDKS, Sdk

import penstock
from penstock import Limiter, Retry, forgotten
from penstock.errors import PenstockError
from penstock.testing.provider import FakeProvider, Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = [
    pytest.mark.once,
    # Some SDKs leave sockets to the collector, governed or not.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ATTEMPTS = 3
#: Quick, but for what a provider states.
RETRY = Retry(attempts=ATTEMPTS, initial=0.01, jitter="none")

#: What goes wrong, and how many requests a call then makes. A wait of an hour is longer than anyone's patience.
FAILURES: dict[str, tuple[dict[str, Any], int]] = {
    "error": ({}, ATTEMPTS),
    "overloaded": ({}, ATTEMPTS),
    "throttled": ({"retry_after": 0.05}, ATTEMPTS),
    "insufficient_quota": ({}, 1),
    "oversize": ({}, 1),
    "daily": ({}, 1),
    "an hour": ({"kind": "throttled", "retry_after": 3600}, 1),
    "told not to": ({"kind": "error", "headers": {"x-should-retry": "false"}}, 1),
    "drop": ({}, ATTEMPTS),
}


def limiter() -> Limiter:
    return Limiter(requests=10**8, tokens=10**10, concurrency=8)


def words() -> str:
    """A text that nobody has sent before: what failed is remembered."""
    return f"How is the ice? {random.random()}"


def equal(provider: FakeProvider, gate: Limiter) -> None:
    """Both sides counted the same requests, and nothing is held."""
    deadline = time.monotonic() + 10
    while standing(gate) != IDLE and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert standing(gate) == IDLE
    summary = provider.summary()
    assert gate.stats().granted == summary.sent - summary.free


def each(sdk: Sdk, provider: FakeProvider, play: Callable[[Any, Callable[..., Any]], Awaitable[None]]) -> None:
    """Play something with a client: ``play(client, say)``, where ``await say(...)`` makes a call either way."""

    async def run() -> None:
        async def say(client: Any, text: str, **options: Any) -> str:
            return await sdk.asay(client, text, **options) if sdk.tasks else sdk.say(client, text, **options)

        if sdk.tasks:
            async with sdk.aclient(provider) as client:
                await play(client, say)
        else:
            with sdk.client(provider) as client:
                await play(client, say)

    asyncio.run(run())


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> Iterator[None]:
    """Keep the modules of eight SDKs out of what is collected: that is done often here, and quick without them."""
    for sdk in SDKS:
        sdk.errors()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.collect()  # what SDKs left over, while nobody minds
    gc.freeze()  # as conftest.py does


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """SDKs that try again are answered by the gate; how long they pause before they do is not asked here."""
    for name in ("anthropic", "groq", "together", "fireworks"):
        monkeypatch.setattr(f"{name}._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture(params=SDKS, ids=lambda sdk: sdk.name)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    return request.param


def test_answers_and_streams_pass_and_are_settled(sdk: Sdk) -> None:
    """Plain, streamed and compressed, each call once at the gate and once at the server."""
    gate = limiter()

    async def play(client: Any, say: Any) -> None:
        penstock.govern(client, gate)
        plain = await say(client, "How is the ice?")
        assert len(plain) == 80
        assert await say(client, "How is the ice?", stream=True) == plain
        encodings = ("gzip", "deflate") if sdk.compressed else ()
        for encoding in encodings:
            with provider.failing(encoding):
                assert await say(client, "How is the ice?") == plain
                assert await say(client, "How is the ice?", stream=True) == plain
        assert gate.stats().granted == provider.summary().sent == 2 + 2 * len(encodings)
        penstock.ungovern(client)
        assert await say(client, "How is the ice?") == plain
        assert provider.summary().sent == gate.stats().granted + 1

    with FakeProvider(dialect=sdk.dialect, latency=0) as provider:
        each(sdk, provider, play)
        assert standing(gate) == IDLE


@pytest.mark.slow
def test_failures_make_as_many_requests_as_can_help(sdk: Sdk) -> None:
    """Whatever the SDK's own retries are set to, which is two in most."""
    counts = {}

    async def play(client: Any, say: Any) -> None:
        for stream in (False, True):
            for name, (settings, _) in FAILURES.items():
                gate = limiter()
                gates.append(gate)
                penstock.govern(client, gate, retry=RETRY)
                before = provider.summary().sent
                fault = Fault(**{"kind": name, **settings})
                provider.inject(fault)
                # Google's, Mistral's and Cohere's let the HTTP library's errors through.
                with pytest.raises((*sdk.errors(), httpx.TransportError, httpx2.TransportError)) as caught:
                    await say(client, words(), stream=stream)
                provider.heal()
                counts[name, stream] = provider.summary().sent - before
                assert not isinstance(caught.value, PenstockError), name
                assert gate.stats().granted == counts[name, stream], name
                assert standing(gate) == IDLE, name

    gates: list[Limiter] = []
    with FakeProvider(dialect=sdk.dialect, latency=0) as provider:
        each(sdk, provider, play)
    assert counts == {(name, stream): count for name, (_, count) in FAILURES.items() for stream in (False, True)}


@pytest.mark.slow
def test_who_calls_again_is_answered_without_a_request(sdk: Sdk) -> None:
    """As a retry layer outside does, one that nobody told of the gate: three times three are three."""
    gate = limiter()

    async def play(client: Any, say: Any) -> None:
        # Remembered for eight seconds, which a busy machine does not outlast.
        penstock.govern(client, gate, retry=Retry(attempts=ATTEMPTS, initial=0.02, factor=20.0, jitter="none"))
        text = words()
        for kind, settings, count in (("error", {}, ATTEMPTS), ("insufficient_quota", {}, 1)):
            before = provider.summary().sent
            with provider.failing(kind, **settings):
                for _ in range(3):
                    with pytest.raises(sdk.errors()):
                        await say(client, f"{text} {kind}")
            assert provider.summary().sent - before == count

    with FakeProvider(dialect=sdk.dialect, latency=0) as provider:
        each(sdk, provider, play)
        equal(provider, gate)


@pytest.mark.slow
def test_what_goes_wrong_for_a_while_is_overcome(sdk: Sdk) -> None:
    gate = limiter()

    async def play(client: Any, say: Any) -> None:
        penstock.govern(client, gate, retry=RETRY)
        for kind in ("error", "overloaded", "drop", "throttled"):
            provider.inject(Fault(kind, times=2, retry_after=0.05 if kind == "throttled" else None))
            assert len(await say(client, words())) == 80
        assert provider.summary().sent == 12

    with FakeProvider(dialect=sdk.dialect, latency=0) as provider:
        each(sdk, provider, play)
        equal(provider, gate)


def test_streams_that_break_hold_nothing(sdk: Sdk) -> None:
    """Half a stream, an end too soon, an overload after a good beginning, what is not events.

    What fails before anything was handed out may be tried again; on a busy machine all of a stream may come at once.
    """
    gate = limiter()

    async def play(client: Any, say: Any) -> None:
        penstock.govern(client, gate, retry=RETRY)
        for kind in ("half", "short", "overloaded_event", "malformed"):
            before = provider.summary().sent
            with provider.failing(kind), contextlib.suppress(Exception):  # how each SDK takes it is its own business
                await say(client, words(), stream=True)
            assert 1 <= provider.summary().sent - before <= ATTEMPTS, kind

    with FakeProvider(dialect=sdk.dialect, latency=0) as provider:
        each(sdk, provider, play)
        equal(provider, gate)


@pytest.mark.slow
def test_streams_that_are_dropped_hold_nothing(sdk: Sdk) -> None:
    gate = limiter()

    async def play(client: Any, say: Any) -> None:
        penstock.govern(client, gate)
        for read in (0, 1, 3):
            await drop(client, read)

    async def drop(client: Any, read: int) -> None:
        events = sdk.call(client, words(), True, 40)
        if sdk.tasks:
            if asyncio.iscoroutine(events):
                events = await events
            iterator = events.__aiter__()
            for _ in range(read):
                await iterator.__anext__()
            del events, iterator
        else:
            iterator = iter(events)
            for _ in range(read):
                next(iterator)
            del events, iterator
        gc.collect()
        await asyncio.sleep(0.05)
        gc.collect()

    with FakeProvider(dialect=sdk.dialect, latency=0.2, latency_jitter=0) as provider:
        each(sdk, provider, play)
        equal(provider, gate)


#: One of each kind of stream; the others are made alike.
KINDS = {"openai", "openai-async", "anthropic-async", "gemini-async", "mistral", "cohere", "groq-async", "bedrock"}


@pytest.mark.slow
@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.name in KINDS], ids=lambda sdk: sdk.name)
def test_streams_that_are_forgotten_let_others_go(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many SDKs' streams stand in a cycle: left half-way, they stay until the collector comes by, slots and all.

    Nothing is made while all wait, so that it would never come: a call that waits sends for it.
    """
    monkeypatch.setattr(forgotten, "_EVERY", 0.05)
    monkeypatch.setattr(forgotten, "_in_vain", 0)
    monkeypatch.setattr(forgotten, "_resting", 0.0)
    gate = Limiter(requests=10**8, tokens=10**10, concurrency=1)

    async def play(client: Any, say: Any) -> None:
        penstock.govern(client, gate)
        await leave(client)
        with penstock.scope(timeout=10):
            assert len(await say(client, words())) == 80

    async def leave(client: Any) -> None:
        events = sdk.call(client, words(), True, 40)
        if sdk.tasks:
            if asyncio.iscoroutine(events):
                events = await events
            async for _ in events:
                break
        else:
            for _ in events:
                break

    gc.disable()
    try:
        with FakeProvider(dialect=sdk.dialect, latency=0.3, latency_jitter=0) as provider:
            each(sdk, provider, play)
            equal(provider, gate)
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["gemini", "gemini-async", "mistral", "mistral-async"])
def test_retries_that_an_sdk_was_told_to_make_are_off_while_it_is_governed(name: str) -> None:
    """Google's and Mistral's make none unless they are told to, and then know no ``x-should-retry``."""
    (sdk,) = [sdk for sdk in SDKS if sdk.name == name]
    gate = limiter()

    async def play(client: Any, say: Any) -> None:
        if name.startswith("mistral"):
            from mistralai.client.utils import BackoffStrategy, RetryConfig

            client.sdk_configuration.retry_config = RetryConfig("backoff", BackoffStrategy(10, 50, 1.0, 5_000), False)
            kept = client.sdk_configuration.retry_config
        else:
            import tenacity

            api = client._api_client
            api._retry = api._retry.copy(stop=tenacity.stop_after_attempt(5), wait=tenacity.wait_fixed(0.1))
            api._async_retry = api._async_retry.copy(stop=api._retry.stop, wait=api._retry.wait)
            kept = api._retry
        penstock.govern(client, gate, retry=RETRY)
        with provider.failing("error"), pytest.raises(sdk.errors()):
            await say(client, words())
        assert provider.summary().sent == ATTEMPTS
        penstock.ungovern(client)
        now = client.sdk_configuration.retry_config if name.startswith("mistral") else client._api_client._retry
        assert now is kept

    with FakeProvider(dialect=sdk.dialect, latency=0) as provider:
        each(sdk, provider, play)
        equal(provider, gate)
