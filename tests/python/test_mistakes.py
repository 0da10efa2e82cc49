"""Mistakes that everyone makes once: the error names the argument, the value and what is allowed, or what was meant."""

from __future__ import annotations

import asyncio
import functools
import gc
import re
from collections.abc import Callable
from typing import Any

import pytest

import penstock
from penstock import Limiter, Rate, Retry, RetryBudget, estimate_tokens, per_minute, providers


def plain(text: str = "") -> str:
    return text


async def coroutine(text: str = "") -> str:
    return text


def gate() -> Limiter:
    return Limiter(requests=500, tokens=200_000)


def awaited(call: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await call()

    return asyncio.run(main())


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    # Limits.
    "a limit without its name": (
        lambda: Limiter(500),
        "Limiter() takes limits by name, as in Limiter(requests=500), not 500",
    ),
    "a provider's word": (lambda: Limiter(rpm=500), "Limiter() has no argument 'rpm'; did you mean 'requests'?"),
    "a letter short": (lambda: Limiter(request=500), "Limiter() has no argument 'request'; did you mean 'requests'?"),
    "nothing like it": (lambda: Limiter(dollars=5), "Limiter() has no argument 'dollars'; it has requests, tokens,"),
    "a number as text": (lambda: Limiter(requests="500"), "requests must be a whole number per minute, a Rate or a"),
    "no calls at all": (lambda: Limiter(requests=0), "requests must be a whole number from 1 to"),
    "half a slot": (
        lambda: Limiter(concurrency=2.5),
        "concurrency must be a whole number from 1 to 1000000000, not 2",
    ),
    "a rate as text": (
        lambda: per_minute("500"),
        "amount must be a whole number from 1 to",
    ),
    "a period of nothing": (lambda: Rate(5, 0), "per must be from 0.001 seconds to 366 days, not 0 seconds"),
    "a dimension of keys": (
        lambda: Limiter(per_key={"request": 5}),
        "per_key has an unknown dimension 'request'; did you mean 'requests'?",
    ),
    "a limit to change": (
        lambda: gate().update(token=5),
        "limiter.update() has no argument 'token'; did you mean 'tokens'?",
    ),
    # Stores.
    "a store without scheme": (lambda: Limiter(store="localhost:6379"), 'not "localhost:6379": it has no scheme'),
    "a store misspelt": (
        lambda: Limiter(store="reddis://localhost"),
        "redis://HOST:PORT/DB, rediss://..., unix:///PATH",
    ),
    "Redis without a name": (lambda: Limiter(store="redis://localhost"), "name must be given with a store in Redis"),
    "a choice misspelt": (
        lambda: Limiter(requests=5, on_store_failure="shared"),
        """on_store_failure must be "share" or "open" or "closed", not 'shared\'""",
    ),
    # Calls.
    "a cost beyond the limit": (lambda: gate().acquire(10**6), "a cost of 1000000 tokens exceeds the limit of 200000"),
    "a cost as text": (
        lambda: gate().acquire("5"),
        "tokens must be a whole number from 0 to",
    ),
    **{
        f"no cost at all in {name}()": (call, "tokens must be a whole number from 0 to 1000000000000000, not None")
        for name, call in {
            "permit": lambda: gate().permit(None),
            "acquire": lambda: gate().acquire(tokens=None),
            "aacquire": lambda: gate().aacquire(None),
            "try_acquire": lambda: gate().try_acquire(tokens=None, key="acme"),
        }.items()
    },
    "no requests": (lambda: gate().permit(requests=None), "requests must be a whole number from 0 to"),
    "half a letter as a key": (
        lambda: gate().acquire(key="\ud800"),
        r"key must be text that UTF-8 can hold, without half surrogates, not '\ud800'",
    ),
    "arguments of a subclass": (
        lambda: type("Named", (Limiter,), {"__init__": lambda self, tenant: None})("acme"),
        "not 'acme'; what else a subclass takes it takes in __new__, too",
    ),
    "a key that is a list": (lambda: gate().acquire(key=["acme"]), "key must be a str, an int or None, not ['acme']"),
    **{
        f"a letter amiss in {name}()": (call, f"limiter.{name}() has no argument 'toknes'; did you mean 'tokens'?")
        for name, call in {
            "limit": lambda: gate().limit(toknes=3),
            "update": lambda: gate().update(toknes=3),
            "gather": lambda: gate().gather(toknes=3),
            "map": lambda: gate().map(plain, [], toknes=3),
            "amap": lambda: awaited(lambda: gate().amap(coroutine, [], toknes=3)),
            "astream": lambda: gate().astream(coroutine, [], toknes=3),
        }.items()
    },
    # Python's own words: taking in names that are not known would cost each call of these a sixth.
    **{
        f"a letter amiss in {name}()": (call, f"{name}() got an unexpected keyword argument 'toknes'")
        for name, call in {
            "permit": lambda: gate().permit(toknes=3),
            "acquire": lambda: gate().acquire(toknes=3),
            "aacquire": lambda: gate().aacquire(toknes=3),
            "try_acquire": lambda: gate().try_acquire(toknes=3),
            "settle": lambda: gate().acquire().settle(toknes=3),
        }.items()
    },
    "a word of a provider's for a cost": (
        lambda: gate().limit(prompt_tokens=3),
        "limiter.limit() has no argument 'prompt_tokens'; did you mean 'input_tokens'?",
    ),
    "a cost that is nothing like it": (
        lambda: gate().limit(dollars=3),
        "limiter.limit() has no argument 'dollars'; it has tokens, requests, input_tokens, output_tokens, key,",
    ),
    "a Retry misspelt": (
        lambda: Retry(max_retries=3),
        "Retry() has no argument 'max_retries'; did you mean 'attempts'?",
    ),
    "a budget misspelt": (
        lambda: penstock.budget(token=3),
        "budget() has no argument 'token'; did you mean 'tokens'?",
    ),
    "a scope misspelt": (
        lambda: penstock.scope(lable="chat"),
        "scope() has no argument 'lable'; did you mean 'label'?",
    ),
    "shared memory without a name": (lambda: Limiter(store="shm://"), 'with a letter or digit, not "shm://"'),
    "a priority in words": (lambda: gate().permit(priority="high"), "priority must be a whole number from -2147483648"),
    "a timeout in the past": (
        lambda: gate().permit(timeout=-5),
        "timeout must be a number of seconds, 0 or more",
    ),
    "a usage below nothing": (lambda: gate().acquire().settle(-5), "tokens must be a whole number from 0 to"),
    # Decorators.
    "@limit without parentheses": (
        lambda: gate().limit(plain)("text"),
        "limiter.limit() decorates functions, not 'text'; is it @limiter.limit without its parentheses?",
    ),
    "the same without arguments": (
        lambda: gate().limit(plain)(),
        "decorates one function, and was called with (); is it @limiter.limit without its parentheses?",
    ),
    "the same with names": (
        lambda: gate().limit(plain)(text="a"),
        "was called with (text='a'); is it @limiter.limit without its parentheses?",
    ),
    "the same on a coroutine": (
        lambda: gate().limit(coroutine),
        "tokens must be a value, or a function that gives one at once, not <function coroutine",
    ),
    "@Retry without parentheses": (lambda: Retry(plain), "is it @Retry without its parentheses?"),
    "@budget without parentheses": (lambda: penstock.budget(plain), "is it @budget without its parentheses?"),
    "@limit on a class": (
        lambda: gate().limit()(Retry),
        "limiter.limit() decorates functions, not the class <class 'penstock.retry.Retry'>; decorate its methods",
    ),
    "@Retry on a class": (lambda: Retry()(Retry), "Retry() decorates functions, not the class"),
    "@scope on a class": (lambda: penstock.scope()(Retry), "scope() decorates functions, not the class"),
    "@budget on a class": (lambda: penstock.budget()(Retry), "budget() decorates functions, not the class"),
    "@limit on a property": (lambda: gate().limit()(property(plain)), "decorates functions, not <property object"),
    "the class Retry": (lambda: gate().limit(retry=Retry), "retry must be a Retry or None, not <class"),
    "a cost of None": (lambda: gate().limit(lambda text: None)(plain)("a"), "tokens must be a function that gives a"),
    "a cost of text": (lambda: gate().limit(lambda text: "5")(plain)("a"), "tokens must be a whole number from 0 to"),
    # Many calls.
    "gather of values": (lambda: awaited(lambda: gate().gather(5)), "awaits coroutines, tasks and futures, not 5"),
    "gather without a star": (
        lambda: awaited(functools.partial(gate().gather, [])),
        "not []; is it gather(calls) without the star of gather(*calls)?",
    ),
    "gather without a loop": (
        lambda: gate().gather(coroutine()),
        "no running event loop: call gather() in a coroutine",
    ),
    "map over None": (lambda: gate().map(plain, None), "items must be iterable, not None"),
    "map of nothing": (lambda: gate().map(None, ["a"]), "function must be callable, not None"),
    "map of a coroutine": (lambda: gate().map(coroutine, ["a"]), "for coroutine functions there is amap()"),
    "amap of a function": (lambda: awaited(lambda: gate().amap(plain, ["a"])), "gave 'a'; there is map() for others"),
    "a map's cost of None": (
        lambda: gate().map(plain, ["a"], tokens=lambda text: None),
        "tokens must be a whole",
    ),
    # The rest.
    "no attempts": (lambda: Retry(attempts=0), "attempts must be a whole number from 1 to 4294967295, not 0"),
    "a list of exceptions": (
        lambda: Retry(on=[OSError]),
        "on must be an exception class, a tuple of these",
    ),
    "a jitter misspelt": (
        lambda: Retry(jitter="ful"),
        'jitter must be "full" or "equal" or',
    ),
    "a budget in per cent": (lambda: RetryBudget(ratio=200), "ratio must be a number from 0 to 100, not 200"),
    "a scope's priority": (lambda: penstock.scope(priority="high"), "priority must be a whole number, not 'high'"),
    "a budget below nothing": (lambda: penstock.budget(calls=-1), "calls must be a whole number from 0 to"),
    "govern anything": (lambda: penstock.govern(5, gate()), "govern() knows clients of openai, anthropic, groq,"),
    "govern by a number": (lambda: penstock.transport(500), "limiter must be a Limiter, or a mapping from model names"),
    "install for one host": (
        lambda: penstock.install(gate(), hosts="a.com"),
        "hosts must be a list of host names",
    ),
    "a provider unknown": (
        lambda: Limiter(provider="opnai"),
        "provider must be one of openai, azure_openai",
    ),
    "a provider's argument": (
        lambda: providers.openai(rmp=500),
        "openai() has no argument 'rmp'; did you mean 'rpm'?",
    ),
    "another provider's": (
        lambda: providers.groq(dollars=5),
        "groq() has no argument 'dollars'; it has rpm, tpm, rpd, tpd, concurrency, per_key, name, store,",
    ),
    "messages for text": (lambda: estimate_tokens([{"role": "user"}]), "text must be a str, not [{'role': 'user'}]"),
    "a cooldown in words": (
        lambda: gate().cooldown("5"),
        "seconds must be a number of seconds, 0 or more",
    ),
    "a status as text": (lambda: gate().observe("429", {}), "status must be a whole number from 0 to 999, not '429'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told(mistake: str) -> None:
    call, message = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError, RuntimeError), match=re.escape(message)):
        call()


def test_a_forgotten_await_is_told() -> None:
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Limiter\.aacquire' was never awaited"):
        gate().aacquire()
        gc.collect()
