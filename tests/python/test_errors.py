"""Bad input: each kind is told with the argument, the value and what is allowed, and leaves nothing charged or held."""

from __future__ import annotations

import asyncio
import copy
import decimal
import fractions
import math
import pickle
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from loops import IDLE, lasting, new_loop, run, spent, standing, turns

import penstock
from penstock import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Nearly all that it is given here is wrong, so there is no use in types.
Limiter: Any = penstock.Limiter

#: What is no amount at all, and numbers that are none.
NOT_NUMBERS: list[Any] = ["5", b"5", [5], {}, (), {5}, object(), 1j, len, Rate(1, 1), True, False]
NOT_AMOUNTS: list[Any] = [
    -1,
    -1.0,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    10**16,
    10**30,
    10**5_000,
    decimal.Decimal("1.5"),
]
NOT_SECONDS: list[Any] = [-1, -0.001, math.nan, -math.inf, timedelta(seconds=-1), timedelta.min]


def named(value: object) -> str:
    """A test's id for a value, also for one that has no short text, or another one each time."""
    if isinstance(value, int) and value.bit_length() > 10_000:  # more digits than Python prints
        return "endless"
    return type(value).__name__ if type(value) is object else repr(value)[:24]


def refuses(do: Callable[[], Any], name: str, value: object) -> None:
    """It raises TypeError or ValueError with the argument's name, the value and what is allowed."""
    with pytest.raises((TypeError, ValueError)) as caught:
        do()
    message = str(caught.value)
    assert name in message
    assert "must " in message
    if named(value) != "endless":
        assert repr(value)[:70] in message
    assert len(message) < 400


# Rates.


@pytest.mark.parametrize("value", [*NOT_NUMBERS, *NOT_AMOUNTS, 0, None], ids=named)
def test_the_amount_and_burst_of_a_rate(value: Any) -> None:
    refuses(lambda: Rate(value, 60), "amount", value)
    for make in (penstock.per_second, penstock.per_minute, penstock.per_hour, penstock.per_day):
        refuses(lambda: make(value), "amount", value)
    if value is not None:
        refuses(lambda: Rate(100, 60, burst=value), "burst", value)


@pytest.mark.parametrize("value", [101, 1e9])
def test_a_burst_above_the_amount(value: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"burst must be a whole number from 1 to the amount \(100\), not {value:.0f}"
    ):
        Rate(100, 60, burst=value)


@pytest.mark.parametrize("value", [*NOT_NUMBERS, *NOT_SECONDS, None], ids=named)
def test_the_period_of_a_rate(value: Any) -> None:
    refuses(lambda: Rate(5, value), "per", value)


@pytest.mark.parametrize(
    "value", [0, 1e-9, 0.0009, 367 * 86_400, math.inf, 10**400, timedelta.max, timedelta(0)], ids=named
)
def test_a_period_that_is_too_short_or_too_long(value: Any) -> None:
    with pytest.raises(ValueError, match=r"per must be from 0.001 seconds to 366 days, not "):
        Rate(5, value)


@pytest.mark.parametrize("value", [1, 0, "yes", 1.0, []], ids=named)
def test_the_window_of_a_rate_is_true_or_false(value: Any) -> None:
    refuses(lambda: Rate(5, 1, window=value), "window", value)


# Limiters.


@pytest.mark.parametrize("name", ["requests", "tokens", "input_tokens", "output_tokens"])
@pytest.mark.parametrize(
    "value", [value for value in [*NOT_NUMBERS, *NOT_AMOUNTS, 0] if not isinstance(value, (Rate, list))], ids=named
)
def test_the_limits_of_a_limiter(name: str, value: Any) -> None:
    refuses(lambda: Limiter(**{name: value}), name, value)
    refuses(lambda: Limiter(**{name: [5, value]}), name, value)
    refuses(lambda: Limiter(per_key={name: value}), f"per_key['{name}']", value)
    limiter = Limiter(requests=3)
    before = limiter.stats()
    refuses(lambda: limiter.update(**{name: value}), name, value)
    assert limiter.stats().levels == before.levels


@pytest.mark.parametrize("name", ["requests", "tokens", "input_tokens", "output_tokens"])
def test_a_list_of_no_rates(name: str) -> None:
    for make in (Limiter, lambda **limits: Limiter(per_key=dict(limits)), Limiter().update):
        with pytest.raises(ValueError, match=rf"{name}.* must name at least one rate, not \[\]; use None for no limit"):
            make(**{name: []})


@pytest.mark.parametrize("value", [*NOT_NUMBERS, *NOT_AMOUNTS, 0], ids=named)
def test_concurrency(value: Any) -> None:
    refuses(lambda: Limiter(concurrency=value), "concurrency", value)
    refuses(lambda: Limiter(per_key={"concurrency": value}), "per_key['concurrency']", value)
    refuses(lambda: Limiter().update(concurrency=value), "concurrency", value)


@pytest.mark.parametrize("value", [*NOT_NUMBERS, *NOT_AMOUNTS], ids=named)
def test_max_waiting(value: Any) -> None:
    refuses(lambda: Limiter(max_waiting=value), "max_waiting", value)


@pytest.mark.parametrize("value", [*NOT_NUMBERS, *NOT_SECONDS], ids=named)
def test_network_jitter(value: Any) -> None:
    refuses(lambda: Limiter(network_jitter=value), "network_jitter", value)


@pytest.mark.parametrize(
    "value", [5, [("requests", 5)], "requests", {5: 5}, {None: 5}, {"words": 5}, {"": 5}], ids=named
)
def test_per_key(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"per_key .*requests, tokens, input_tokens, output_tokens"):
        Limiter(per_key=value)


def test_an_unknown_dimension() -> None:
    limiter = Limiter(requests=5)
    for make in (Limiter, limiter.permit, limiter.acquire, limiter.limit, limiter.update):
        with pytest.raises(TypeError, match="words"):
            make(words=5)
    with pytest.raises(ValueError, match="per_key has an unknown dimension 'words'; it has requests, tokens"):
        Limiter(per_key={"words": 5})


@pytest.mark.parametrize("value", [5, b"x", True, ["x"]], ids=named)
def test_names_of_things(value: Any) -> None:
    for name in ("name", "store", "on_store_failure"):
        refuses(lambda: Limiter(**{name: value}), name, value)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("name", "", "not be empty"),
        ("store", "", "memory://"),
        ("store", "carrier-pigeon://coop", "memory://"),
        ("on_store_failure", "hope", "share.*open.*closed"),
    ],
)
def test_texts_that_are_not_known(name: str, value: Any, allowed: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"{name} must .*{allowed}"):
        Limiter(**{name: value})


# Calls.


def askers(limiter: penstock.Limiter) -> Iterator[Callable[..., Any]]:
    """Every way to ask for a permit."""
    yield limiter.permit
    yield limiter.acquire
    yield lambda **terms: run(_aacquire(limiter, terms))
    yield lambda **terms: run(_block(limiter, terms))
    yield lambda **terms: limiter.limit(**terms)(lambda: None)()


async def _aacquire(limiter: penstock.Limiter, terms: dict[str, Any]) -> None:
    await limiter.aacquire(**terms)


async def _block(limiter: penstock.Limiter, terms: dict[str, Any]) -> None:
    async with limiter.permit(**terms):
        pass


@pytest.mark.parametrize("name", ["requests", "tokens", "input_tokens", "output_tokens"])
@pytest.mark.parametrize("value", [value for value in [*NOT_NUMBERS, *NOT_AMOUNTS] if value is not len], ids=named)
def test_the_cost_of_a_call(name: str, value: Any) -> None:
    limiter = Limiter(requests=lasting(100), tokens=lasting(100), concurrency=1)
    for ask in [*askers(limiter), limiter.try_acquire]:
        refuses(lambda: ask(**{name: value}), name, value)
    assert standing(limiter) == IDLE
    assert (spent(limiter), spent(limiter, "tokens"), limiter.stats().granted) == (0, 0, 0)


@pytest.mark.parametrize("value", [1.5, b"a", [1], {}, object(), True, math.nan], ids=named)
def test_the_key_of_a_call(value: Any) -> None:
    limiter = Limiter(requests=lasting(100))
    for ask in [*askers(limiter), limiter.try_acquire]:
        refuses(lambda: ask(key=value), "key", value)
    assert (standing(limiter), spent(limiter), limiter.stats().keys) == (IDLE, 0, 0)


@pytest.mark.parametrize(
    "value", [1.5, "high", b"1", [1], object(), True, math.nan, math.inf, 2**31, -(2**40)], ids=named
)
def test_the_priority_of_a_call(value: Any) -> None:
    limiter = Limiter(requests=lasting(100))
    for ask in [*askers(limiter), limiter.try_acquire]:
        refuses(lambda: ask(priority=value), "priority", value)
    assert (standing(limiter), spent(limiter)) == (IDLE, 0)


@pytest.mark.parametrize("value", [*[value for value in NOT_NUMBERS if value is not len], *NOT_SECONDS], ids=named)
def test_the_timeout_of_a_call_and_a_cooldown(value: Any) -> None:
    limiter = Limiter(requests=lasting(100))
    for ask in askers(limiter):
        refuses(lambda: ask(timeout=value), "timeout", value)
    refuses(lambda: limiter.cooldown(value), "seconds", value)
    assert (standing(limiter), spent(limiter), limiter.stats().cooldown) == (IDLE, 0, 0)


def test_a_text_of_broken_unicode_is_no_key() -> None:
    limiter = Limiter(requests=lasting(100))
    with pytest.raises(ValueError, match="surrogate"):
        limiter.acquire(key="\ud800")
    assert (standing(limiter), spent(limiter)) == (IDLE, 0)


@pytest.mark.parametrize("name", ["tokens", "input_tokens", "output_tokens"])
@pytest.mark.parametrize("value", [*NOT_NUMBERS, *NOT_AMOUNTS], ids=named)
def test_what_a_permit_is_settled_with(name: str, value: Any) -> None:
    limiter = Limiter(requests=lasting(100), tokens=lasting(100))
    with limiter.permit(10) as permit:
        refuses(lambda: permit.settle(**{name: value}), name, value)
        assert spent(limiter, "tokens") == 10
    refuses(lambda: permit.settle(**{name: value}), name, value)
    assert (standing(limiter), spent(limiter), spent(limiter, "tokens")) == (IDLE, 1, 10)


def test_numbers_of_other_kinds_are_numbers() -> None:
    class Index:
        def __index__(self) -> int:
            return 7

    limiter = Limiter(tokens=lasting(100), concurrency=3.0)
    limiter.acquire(Index()).release()
    limiter.acquire(7.0).release()
    limiter.acquire(0, timeout=fractions.Fraction(1, 2)).release()
    limiter.acquire(0, timeout=decimal.Decimal("0.5")).release()
    assert spent(limiter, "tokens") == 14


def test_numbers_that_raise() -> None:
    class Broken:
        def __index__(self) -> int:
            raise LookupError("index")

        def __float__(self) -> float:
            raise LookupError("float")

        def __lt__(self, other: object) -> bool:
            raise LookupError("less")

        def __repr__(self) -> str:
            raise LookupError("repr")

    limiter = Limiter(requests=lasting(100), tokens=lasting(100))
    for terms in (
        {"tokens": Broken()},
        {"requests": Broken()},
        {"timeout": Broken()},
        {"priority": Broken()},
        {"key": Broken()},
    ):
        with pytest.raises((TypeError, ValueError), match=f"{next(iter(terms))} must"):
            limiter.acquire(**terms)
    assert (standing(limiter), spent(limiter)) == (IDLE, 0)


# Fan-out.


@pytest.mark.parametrize("tokens", [-1, 1.5, "12", object(), [1], [1, 2, 3], [1, -1], [1, "2"], True], ids=named)
def test_gather_closes_what_it_cannot_admit(tokens: Any) -> None:
    limiter = Limiter(tokens=lasting(100))

    async def call() -> None:
        raise AssertionError("made")

    async def main() -> None:
        with pytest.raises((TypeError, ValueError), match="tokens must"):
            limiter.gather(call(), call(), tokens=tokens)

    run(main())  # and no coroutine "was never awaited": warnings are errors here
    assert (standing(limiter), spent(limiter, "tokens")) == (IDLE, 0)


@pytest.mark.parametrize("wrong", [5, None, "text", lambda: None, [1]], ids=named)
def test_gather_refuses_what_cannot_be_awaited_before_anything_starts(wrong: Any) -> None:
    limiter = Limiter(requests=lasting(100))

    async def call() -> None:
        raise AssertionError("made")

    async def main() -> None:
        with pytest.raises(TypeError, match=r"gather\(\) awaits coroutines, tasks and futures, not "):
            limiter.gather(call(), wrong, call())
        await turns()

    run(main())
    assert (standing(limiter), spent(limiter)) == (IDLE, 0)


def test_gather_without_a_loop() -> None:
    async def call() -> None: ...

    with pytest.raises(RuntimeError, match="no running event loop"):
        Limiter().gather(call())


@pytest.mark.parametrize("wrong", [5, None, "text"], ids=named)
def test_maps_refuse_what_cannot_be_called_or_iterated(wrong: Any) -> None:
    limiter = Limiter(requests=lasting(100))

    async def call(item: Any) -> None: ...

    async def consume(*given: Any) -> None:
        async for _ in limiter.astream(*given):
            raise AssertionError

    for use in (limiter.map, lambda *given: run(limiter.amap(*given)), lambda *given: run(consume(*given))):
        with pytest.raises(TypeError, match="function must be callable, not "):
            use(wrong, [1, 2])
        if not isinstance(wrong, str):
            with pytest.raises(TypeError, match="items must be iterable, not "):
                use(call, wrong)
    assert (standing(limiter), spent(limiter)) == (IDLE, 0)


# Awaiting where nothing can be awaited.


def test_a_wait_outside_of_any_loop_says_so() -> None:
    limiter = Limiter(concurrency=1)
    with limiter.acquire():
        with pytest.raises(RuntimeError, match="neither an asyncio event loop nor trio"):
            limiter.aacquire().__await__().send(None)
        with pytest.raises(RuntimeError, match="neither an asyncio event loop nor trio"):
            limiter.permit().__aenter__().__await__().send(None)
        assert standing(limiter) == (1, 0)
    assert standing(limiter) == IDLE


def test_a_wait_that_is_over_says_so() -> None:
    limiter = Limiter(concurrency=1)

    async def main() -> None:
        held = limiter.acquire()
        waiter = limiter.aacquire()
        task = asyncio.ensure_future(waiter)
        await turns()
        held.release()
        (await task).release()
        with pytest.raises(RuntimeError, match="awaited once"):
            await waiter

    run(main())
    assert standing(limiter) == IDLE


def test_a_waiter_of_a_dead_loop_gives_back_what_it_had() -> None:
    limiter = Limiter(concurrency=1)
    held = limiter.acquire()
    event_loop = new_loop()

    async def wait() -> None:
        await limiter.aacquire()

    task = event_loop.create_task(wait())
    event_loop.run_until_complete(turns())
    assert standing(limiter) == (1, 1)
    task._log_destroy_pending = False  # type: ignore[attr-defined, unused-ignore]
    event_loop.close()
    assert standing(limiter) == (1, 0)
    coroutine: Any = task.get_coro()
    with pytest.raises(RuntimeError, match="this wait is over"):
        coroutine.send(None)
    held.release()
    assert standing(limiter) == IDLE


# The errors themselves.


@pytest.mark.parametrize(
    ("error", "base", "values"),
    [
        (penstock.AcquireTimeout("no permit", 1.5), TimeoutError, {"retry_after": 1.5}),
        (
            penstock.CostExceedsLimit("too large", "tokens", 5, 3),
            ValueError,
            {"dimension": "tokens", "cost": 5, "limit": 3},
        ),
        (penstock.QueueFull("full", 7), penstock.PenstockError, {"waiting": 7}),
    ],
)
def test_errors_pickle_and_copy(error: penstock.PenstockError, base: type, values: dict[str, Any]) -> None:
    assert isinstance(error, base)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert {name: getattr(other, name) for name in values} == values


def test_errors_carry_what_helps() -> None:
    limiter = Limiter(requests=lasting(1), tokens=lasting(100), concurrency=1, max_waiting=0, name="openai")
    held = limiter.acquire()
    with pytest.raises(penstock.QueueFull, match=r'max_waiting.*"openai"'):
        limiter.acquire()
    held.release()
    with pytest.raises(penstock.AcquireTimeout, match=r'"openai" has room in [\d.]+ seconds') as caught:
        limiter.acquire(timeout=1)
    assert caught.value.retry_after > 86_400
    with pytest.raises(penstock.CostExceedsLimit, match=r'101 tokens exceeds the limit of 100.*"openai"'):
        limiter.acquire(101)
