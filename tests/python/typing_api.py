"""How Penstock is used, for type checkers: `mypy --strict` reads this file, and nobody runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from datetime import timedelta
from typing import Any

from typing_extensions import assert_type

import penstock
from penstock import (
    AcquireTimeout,
    Cost,
    CostExceedsLimit,
    Level,
    Limiter,
    Permit,
    Rate,
    Retry,
    RetryBudget,
    Share,
    Stats,
    Usage,
    Verdict,
    estimate_tokens,
    per_day,
    per_second,
    providers,
)

limiter = Limiter(
    requests=[per_second(5, burst=2), per_day(10_000)],
    tokens=Rate(1e6, timedelta(minutes=1), window=False),
    concurrency=16,
    per_key={"requests": 60, "concurrency": 2},
    network_jitter=0.1,
    name="gate",
)
Limiter(requests=500, tokens=200_000.0, output_tokens=None)

# Decorators keep the signature of what they decorate.


@limiter.limit(tokens=1_200)
def function(text: str, *, times: int = 1) -> str:
    return text * times


@limiter.limit(tokens=estimate_tokens, key=lambda text: text[:1], usage=Usage)
async def coroutine(text: str) -> int:
    return len(text)


@limiter.limit(timeout=0.5, priority=1)
def generator(text: str) -> Iterator[str]:
    yield text


@limiter.limit()
async def async_generator(text: str) -> AsyncIterator[str]:
    yield text


class Service:
    @limiter.limit(tokens=10)
    async def method(self, text: str) -> bytes:
        return text.encode()


assert_type(function("a", times=2), str)
assert_type(generator("a"), Iterator[str])
assert_type(async_generator("a"), AsyncIterator[str])
function(1)  # type: ignore[arg-type]
function("a", often=2)  # type: ignore[call-arg]
exact: Callable[[Service, str], Awaitable[bytes]] = Service.method

# Providers and numbers.

assert_type(providers.openai(rpm=500, tpm=200_000, concurrency=8, store="memory://"), Limiter)
assert_type(providers.anthropic(itpm=30_000).provider, str | None)
providers.openai(itpm=5)  # type: ignore[call-arg]
providers.gemini(rpm="10")  # type: ignore[arg-type]
providers.ollama(concurency=4)  # type: ignore[call-arg]
assert_type(limiter.stats().labels["ingest"], Share)
assert_type(limiter.stats().levels[0].origin, str)
assert_type(limiter.stats().estimate_error, float | None)

# Blocks and permits.


def threads() -> None:
    with limiter as permit, limiter.permit(tokens=10, key="tenant", timeout=timedelta(seconds=3)) as inner:
        assert_type(permit, Permit)
        assert_type(inner, Permit)
        inner.settle(tokens=5)
        inner.settle(input_tokens=3, output_tokens=None)
        assert_type(inner.cost, Cost)
        assert_type(inner.cost.tokens, int)
        assert_type(inner.waited, float)
    assert_type(limiter.try_acquire(10), Permit | None)
    with limiter.acquire(10, requests=2) as permit:
        permit.release()
    assert_type(limiter.map(len, ["a", "b"], tokens=estimate_tokens), list[int])
    assert_type(limiter.map(len, ["a", "b"], return_exceptions=True), list[int | BaseException])
    assert_type(limiter.map(len, ["a", "b"], retry=Retry(3), journal="lengths.jsonl"), list[int])
    limiter.map(len, [1, 2])  # type: ignore[arg-type]
    limiter.permit(10, 1)  # type: ignore[call-arg]
    limiter.permit(tokens="10")  # type: ignore[arg-type]


async def tasks() -> None:
    async with limiter as outer, limiter.permit(tokens=10) as permit:
        assert_type(outer, Permit)
        assert_type(permit, Permit)
    assert_type(await limiter.aacquire(tokens=10), Permit)
    assert_type(await coroutine("a"), int)
    assert_type(await Service().method("a"), bytes)
    assert_type(await limiter.gather(coroutine("a"), coroutine("b"), tokens=[1, 2]), list[int])
    assert_type(await limiter.gather(coroutine("a"), return_exceptions=True), list[int | BaseException])
    assert_type(await limiter.amap(coroutine, ["a", "b"], key="tenant", retry=Retry(3)), list[int])
    assert_type(await limiter.amap(coroutine, ["a"], return_exceptions=True), list[int | BaseException])
    async for index, result in limiter.astream(coroutine, ["a", "b"]):
        assert_type(index, int)
        assert_type(result, int)


# While it runs.


def numbers() -> None:
    stats = limiter.stats()
    assert_type(stats, Stats)
    assert_type(stats.levels, tuple[Level, ...])
    assert_type(stats.as_dict(), dict[str, Any])
    limiter.cooldown(2)
    limiter.update(requests=100, tokens=None, concurrency=4)
    limiter.update(calls=1)  # type: ignore[call-arg]
    limiter.observe(429, {"retry-after": "2"}, b"{}")
    limiter.observe(0, None)
    try:
        limiter.acquire(timeout=0)
    except AcquireTimeout as error:
        assert_type(error.retry_after, float)
    except CostExceedsLimit as error:
        assert_type(error.dimension, str)
        assert_type(error.limit, int)


@Retry(attempts=3, on=(OSError,), budget=RetryBudget(0.1))
async def retried(text: str) -> int:
    return len(text)


@limiter.limit(tokens=10, retry=Retry(on=lambda error: 2.0 if isinstance(error, OSError) else None))
def retried_behind_the_limiter(text: str) -> list[str]:
    return [text]


async def attempts() -> None:
    assert_type(await retried("a"), int)
    assert_type(retried_behind_the_limiter("a"), list[str])
    async for attempt in Retry():
        with attempt:
            assert_type(attempt.number, int)
    for attempt in Retry(deadline=30.0, jitter=None):
        with attempt:
            verdict = limiter.observe(429, [("retry-after", "2")])
            assert_type(verdict, Verdict)
            assert_type(verdict.wait, float | None)


# What exists already.


class Model:
    name = "mine"


@penstock.scope(key="acme", label="query")
async def scoped(text: str) -> int:
    return len(text)


@penstock.scope(priority=1)
def scoped_generator() -> Generator[int, str, bytes]:
    yield 1
    return b""


async def governing() -> None:
    assert_type(penstock.govern(Model(), limiter), Model)
    assert_type(penstock.govern(Model(), {"gpt-4o*": limiter}, retry=None, stream_usage=False), Model)
    assert_type(penstock.ungovern(Model()), Model)
    penstock.govern(Model(), 5)  # type: ignore[arg-type]
    penstock.install(limiter, hosts=["llm.internal"], retry=Retry(attempts=2)).uninstall()
    with penstock.install({"*": limiter}), penstock.scope(timeout=2.0) as scope:
        assert_type(scope, penstock.scope)
    async with penstock.scope(timeout=timedelta(seconds=2)):
        assert_type(await scoped("a"), int)
    assert_type(scoped_generator(), Generator[int, str, bytes])
    penstock.scope(tenant="acme")  # type: ignore[call-arg]
