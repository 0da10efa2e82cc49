"""`Retry`: what is tried again, how often, when, and what is left when it is over."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import math
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from loops import IDLE, lasting, run, spent, standing, until

import penstock
from penstock import AcquireTimeout, Limiter, QuotaExhausted, Retry, RetryBudget, _parking
from penstock.testing import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Answer(Exception):
    """A provider's answer, as SDKs raise it."""

    def __init__(self, status_code: int, headers: dict[str, str] | None = None, body: Any = None) -> None:
        super().__init__(f"{status_code}")
        self.status_code = status_code
        self.headers = headers or {}
        self.body = body


def throttled(wait: float | None = None) -> Answer:
    return Answer(429, {} if wait is None else {"retry-after": f"{wait:g}"})


def out_of_quota() -> Answer:
    return Answer(429, body={"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "spent"}})


def too_large() -> Answer:
    message = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000."
    return Answer(429, body={"error": {"type": "tokens", "code": "rate_limit_exceeded", "message": message}})


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time."""
    waits: list[float] = []

    async def apause(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(_parking, "pause", lambda seconds, *_: waits.append(seconds))
    monkeypatch.setattr(_parking, "apause", apause)
    return waits


class Calls:
    """A function that fails with each of these in turn, and then gives "done"; as every kind of callable."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.made = 0

    def function(self, *_: Any) -> str:
        self.made += 1
        if self.made <= len(self.failures):
            raise self.failures[self.made - 1]
        return "done"

    async def coroutine(self, *_: Any) -> str:
        await asyncio.sleep(0)
        return self.function()

    def generator(self, *_: Any) -> Iterator[str]:
        yield self.function()
        yield "more"

    async def async_generator(self, *_: Any) -> AsyncIterator[str]:
        yield await self.coroutine()
        yield "more"


async def _collected(stream: AsyncIterator[str]) -> list[str]:
    return [item async for item in stream]


# The forms: each makes one call to the end and gives its result.


def as_function(decorate: Any, calls: Calls) -> Any:
    return decorate(calls.function)()


def as_coroutine(decorate: Any, calls: Calls) -> Any:
    return run(decorate(calls.coroutine)())


def as_plain_function_around_a_coroutine(decorate: Any, calls: Calls) -> Any:
    async def main() -> Any:
        return await decorate(lambda *_: calls.coroutine())()

    return run(main())


def as_callable(decorate: Any, calls: Calls) -> Any:
    class Model:
        async def __call__(self) -> str:
            return await calls.coroutine()

    return run(decorate(Model())())


def as_partial(decorate: Any, calls: Calls) -> Any:
    return run(decorate(functools.partial(calls.coroutine, 1))())


def as_generator(decorate: Any, calls: Calls) -> Any:
    items = list(decorate(calls.generator)())
    assert items == ["done", "more"]
    return items[0]


def as_async_generator(decorate: Any, calls: Calls) -> Any:
    items = run(_collected(decorate(calls.async_generator)()))
    assert items == ["done", "more"]
    return items[0]


def as_loop(retry: Retry, calls: Calls) -> Any:
    for number, attempt in enumerate(retry, 1):
        assert attempt.number == number
        with attempt:
            return calls.function()
    return None


def as_async_loop(retry: Retry, calls: Calls) -> Any:
    async def main() -> Any:
        async for attempt in retry:
            with attempt:
                return await calls.coroutine()
        return None

    return run(main())


DECORATED = [
    as_function,
    as_coroutine,
    as_plain_function_around_a_coroutine,
    as_callable,
    as_partial,
    as_generator,
    as_async_generator,
]
FORMS = [*DECORATED, as_loop, as_async_loop]
Form = Any


# How often, and how late.


@pytest.mark.parametrize("form", FORMS)
def test_a_failure_that_passes_is_tried_again(form: Form, pauses: list[float]) -> None:
    calls = Calls(ConnectionError(), throttled(), Answer(503))
    assert form(Retry(4), calls) == "done"
    assert calls.made == 4
    assert len(pauses) == 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_call_makes_no_more_attempts_than_allowed(form: Form, attempts: int, pauses: list[float]) -> None:
    failures = [Answer(500) for _ in range(9)]
    calls = Calls(*failures)
    with pytest.raises(Answer) as caught:
        form(Retry(attempts), calls)
    assert calls.made == attempts
    assert caught.value is failures[attempts - 1]
    told = caught.value.penstock  # type: ignore[attr-defined]
    assert isinstance(told, penstock.GaveUp)
    assert (told.attempts, told.waits) == (attempts, tuple(pauses))
    assert f"{attempts} attempt" in told.reason
    if sys.version_info >= (3, 11):
        assert [told.reason in note for note in caught.value.__notes__] == [True]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("failure", [out_of_quota, too_large, lambda: Answer(401), lambda: Answer(400)])
def test_what_no_retry_cures_is_attempted_once(form: Form, failure: Callable[[], Answer], pauses: list[float]) -> None:
    error = failure()
    calls = Calls(error)
    with pytest.raises(Answer) as caught:
        form(Retry(), calls)
    assert (caught.value is error, calls.made, pauses) == (True, 1, [])
    assert caught.value.penstock.attempts == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("error", [ValueError("a bug"), AcquireTimeout("no permit"), QuotaExhausted("spent")])
def test_what_no_provider_failed_with_is_attempted_once(form: Form, error: Exception, pauses: list[float]) -> None:
    calls = Calls(error)
    with pytest.raises(type(error)) as caught:
        form(Retry(), calls)
    assert (caught.value is error, calls.made, pauses) == (True, 1, [])
    assert not getattr(error, "__notes__", [])  # nothing is known of it, so nothing is said


@pytest.mark.parametrize("form", FORMS)
def test_a_stated_wait_is_a_floor(form: Form, pauses: list[float]) -> None:
    for jitter in ("full", "equal", "decorrelated", None):
        form(Retry(initial=0.5, jitter=jitter), Calls(throttled(7), throttled(90)))
    assert all(7 <= wait <= 7.5 for wait in pauses[::2])
    assert all(90 <= wait <= 90.5 for wait in pauses[1::2])  # above max_delay, and not shortened
    assert len(pauses) == 8


def test_a_wait_above_five_minutes_is_not_waited_for(pauses: list[float]) -> None:
    calls = Calls(throttled(301))
    with pytest.raises(Answer) as caught:
        Retry()(calls.function)()
    assert (calls.made, pauses) == (1, [])
    assert "301 s" in caught.value.penstock.reason  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("jitter", "bounds"),
    [
        (None, [(1, 1), (3, 3), (9, 9), (20, 20), (20, 20)]),
        ("full", [(0, 1), (0, 3), (0, 9), (0, 20), (0, 20)]),
        ("equal", [(0.5, 1), (1.5, 3), (4.5, 9), (10, 20), (10, 20)]),
    ],
)
def test_delays_keep_within_their_bounds(
    jitter: str | None, bounds: list[tuple[float, float]], pauses: list[float]
) -> None:
    seen: list[list[float]] = [[] for _ in bounds]
    for _ in range(200):
        pauses.clear()
        with pytest.raises(Answer):
            Retry(6, initial=1, factor=3, max_delay=20, jitter=jitter)(Calls(*[Answer(500)] * 6).function)()
        for delays, wait in zip(seen, pauses, strict=True):
            delays.append(wait)
    for delays, (least, most) in zip(seen, bounds, strict=True):
        assert least <= min(delays)
        assert max(delays) <= most
        if jitter is not None:  # all of the range is used: 200 draws leave out a tenth of it once in 10^9 times
            assert min(delays) < least + (most - least) / 10
            assert max(delays) > most - (most - least) / 10


def test_decorrelated_delays_grow_by_chance(pauses: list[float]) -> None:
    for _ in range(100):
        pauses.clear()
        with pytest.raises(Answer):
            Retry(6, initial=1, max_delay=20, jitter="decorrelated")(Calls(*[Answer(500)] * 6).function)()
        previous = 1.0
        for wait in pauses:
            assert 1 <= wait <= min(20, 3 * previous)
            previous = wait


@pytest.mark.parametrize("form", FORMS)
def test_a_deadline_is_looked_at_before_sleeping(form: Form, pauses: list[float]) -> None:
    calls = Calls(throttled(4), throttled(60))
    with pytest.raises(Answer) as caught:
        form(Retry(deadline=50, jitter=None), calls)
    assert (calls.made, pauses[0] >= 4, len(pauses)) == (2, True, 1)
    assert "deadline" in caught.value.penstock.reason  # type: ignore[attr-defined]


def test_a_deadline_is_counted_from_the_first_attempt() -> None:
    with virtual_time() as clock:
        calls = Calls(*[Answer(500)] * 9)
        with pytest.raises(Answer):
            Retry(9, initial=4, factor=1, jitter=None, deadline=10)(calls.function)()
        assert calls.made == 3  # after 0, 4 and 8 seconds
        assert clock.now == pytest.approx(8)


# What to retry: `on`.


@pytest.mark.parametrize(
    "on", [KeyError, (KeyError, OSError), lambda error: isinstance(error, LookupError) or None, lambda error: True]
)
@pytest.mark.parametrize("form", FORMS)
def test_on_names_what_else_to_retry(form: Form, on: Any, pauses: list[float]) -> None:
    assert form(Retry(on=on), Calls(KeyError(), Answer(500), KeyError())) == "done"
    assert len(pauses) == 3


@pytest.mark.parametrize("on", [KeyError, (KeyError, OSError), lambda error: None])
def test_on_leaves_the_rest_as_it_is(on: Any, pauses: list[float]) -> None:
    with pytest.raises(ValueError, match="a bug"):
        Retry(on=on)(Calls(ValueError("a bug")).function)()
    with pytest.raises(Answer):
        Retry(on=on)(Calls(out_of_quota()).function)()
    assert Retry(on=on)(Calls(Answer(500)).function)() == "done"
    assert len(pauses) == 1


@pytest.mark.parametrize("on", [Exception, lambda error: True, lambda error: 0.1])
@pytest.mark.parametrize("failure", [out_of_quota, too_large])
def test_on_does_not_cure_what_nothing_cures(on: Any, failure: Callable[[], Answer], pauses: list[float]) -> None:
    calls = Calls(failure())
    with pytest.raises(Answer):
        Retry(on=on)(calls.function)()
    assert (calls.made, pauses) == (1, [])


def test_on_can_forbid(pauses: list[float]) -> None:
    calls = Calls(Answer(500))
    with pytest.raises(Answer):
        Retry(on=lambda error: False)(calls.function)()
    assert (calls.made, pauses) == (1, [])


def _always(wait: Any) -> Callable[[BaseException], Any]:
    return lambda error: wait


def test_on_can_say_how_long(pauses: list[float]) -> None:
    for wait in (2.5, 2, timedelta(seconds=2.5), 0, 0.0):
        Retry(on=_always(wait))(Calls(KeyError()).function)()
    assert pauses == pytest.approx([2.5, 2, 2.5, 0, 0], abs=1e-6)  # exactly: nothing is spread


def test_what_on_says_does_not_shorten_what_the_provider_said(pauses: list[float]) -> None:
    Retry(on=lambda error: 0.1)(Calls(throttled(7)).function)()
    Retry(on=lambda error: 9)(Calls(throttled(7)).function)()
    assert pauses == [7, 9]


@pytest.mark.parametrize("answer", [-1, math.nan, math.inf, "soon", [1], -0.001])
@pytest.mark.parametrize("form", FORMS)
def test_what_on_may_not_say(form: Form, answer: Any, pauses: list[float]) -> None:
    retry, error = Retry(on=lambda _: answer), KeyError()
    with pytest.raises(TypeError, match="on must give True, False, None or a number of seconds, not ") as caught:
        form(retry, Calls(error))
    assert caught.value.__cause__ is error
    assert retry._own.account()[:2] == (0, 0)


def test_errors_of_the_gate_are_not_even_shown_to_on(pauses: list[float]) -> None:
    shown: list[BaseException] = []
    with pytest.raises(AcquireTimeout):
        Retry(on=lambda error: shown.append(error))(Calls(AcquireTimeout("no permit")).function)()
    assert (shown, pauses) == ([], [])


# Streams.


@pytest.mark.parametrize("limited", [False, True])
def test_a_stream_that_has_begun_is_not_begun_again(limited: bool, pauses: list[float]) -> None:
    made = 0
    decorate: Any = Limiter(concurrency=1).limit(retry=Retry()) if limited else Retry()

    def stream() -> Iterator[int]:
        nonlocal made
        made += 1
        if made == 1:
            raise Answer(500)
        yield 1
        raise Answer(500)

    async def astream() -> AsyncIterator[int]:
        for item in stream():
            yield item

    async def main() -> list[Any]:
        return [item async for item in decorate(astream)()]

    def consumed() -> Any:
        return list(decorate(stream)())

    for consume in (consumed, lambda: run(main())):
        made = 0
        pauses.clear()
        with pytest.raises(Answer) as caught:
            consume()
        assert (made, len(pauses)) == (2, 1)
        assert "part of the answer" in caught.value.penstock.reason  # type: ignore[attr-defined]


def test_what_is_sent_and_thrown_in_reaches_the_stream(pauses: list[float]) -> None:
    seen: list[Any] = []

    def body() -> Iterator[Any]:
        try:
            seen.append((yield 1))
            yield 2
        except KeyError as error:
            seen.append(type(error))
            yield 3
        finally:
            seen.append("closed")

    async def abody() -> AsyncIterator[Any]:
        try:
            seen.append((yield 1))
            yield 2
        except KeyError as error:
            seen.append(type(error))
            yield 3
        finally:
            seen.append("closed")

    stream: Any = Retry()(body)()
    assert (next(stream), stream.send("word"), stream.throw(KeyError())) == (1, 2, 3)
    stream.close()
    assert seen == ["word", KeyError, "closed"]

    async def main() -> None:
        seen.clear()
        stream: Any = Retry()(abody)()
        assert (await anext(stream), await stream.asend("word"), await stream.athrow(KeyError())) == (1, 2, 3)
        await stream.aclose()
        assert seen == ["word", KeyError, "closed"]

    run(main())


def test_a_generator_gives_its_return_value(pauses: list[float]) -> None:
    def body() -> Any:
        yield 1
        return "end"

    def outer() -> Any:
        return (yield from Retry()(body)())

    stream = outer()
    assert next(stream) == 1
    with pytest.raises(StopIteration) as stop:
        next(stream)
    assert stop.value.value == "end"
    assert list(Retry()(lambda: iter(()))()) == []


# One owner.


class Wrapper(Exception):
    """What a framework makes of an SDK's exception."""


@pytest.mark.parametrize("wrapped", ["not", "by cause", "by context"])
@pytest.mark.parametrize("outer", DECORATED)
def test_a_retry_around_another_does_not_multiply(outer: Form, wrapped: str, pauses: list[float]) -> None:
    calls = Calls(*[Answer(500) for _ in range(99)])
    inner = Retry(3)(calls.function)

    def framework() -> str:
        try:
            return inner()
        except Answer as error:
            if wrapped == "not":
                raise
            if wrapped == "by cause":
                raise Wrapper from error
            raise Wrapper  # noqa: B904

    nested = Calls()
    nested.function = framework  # type: ignore[method-assign]
    with pytest.raises((Answer, Wrapper)):
        outer(Retry(4, on=Exception), nested)
    assert calls.made == 3


def test_a_fallback_is_retried_though_what_it_falls_back_from_was_given_up(pauses: list[float]) -> None:
    first, second = Calls(*[Answer(500) for _ in range(9)]), Calls(Answer(500), Answer(503))

    async def main() -> str:
        try:
            return await Retry(2)(first.coroutine)()
        except Answer:
            return await Retry(3)(second.coroutine)()

    assert run(main()) == "done"
    assert (first.made, second.made) == (2, 3)
    try:
        raise throttled(3)
    except Answer:
        # A bug in a fallback is no throttle, though that is its context.
        with pytest.raises(ValueError, match="a bug"):
            Retry()(Calls(ValueError("a bug")).function)()
    assert len(pauses) == 3


def test_an_exception_that_is_raised_by_every_call_is_given_up_by_each(pauses: list[float]) -> None:
    error = Answer(500)  # as mocks raise it
    for _ in range(3):
        calls = Calls(*[error] * 9)
        with pytest.raises(Answer):
            Retry(4)(calls.function)()
        assert calls.made == 4


def test_exceptions_that_let_nothing_be_set_are_raised_all_the_same(pauses: list[float]) -> None:
    class Sealed(Answer):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "penstock":
                raise RuntimeError("sealed")
            super().__setattr__(name, value)

        @property
        def add_note(self) -> Any:
            raise RuntimeError("sealed")

    error = Sealed(500)
    with pytest.raises(Sealed) as caught:
        Retry(2)(Calls(error, error).function)()
    assert caught.value is error


# The budget.


def test_retries_are_a_share_of_the_calls_in_flight() -> None:
    budget = RetryBudget(ratio=0.2, minimum=3)
    retry = Retry(5, initial=0, budget=budget)
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        raise Answer(500)

    async def main() -> list[Any]:
        return await asyncio.gather(*(retry(call)() for _ in range(100)), return_exceptions=True)

    results = run(main())
    in_flight, retries, granted, suppressed = budget.account()
    assert (in_flight, retries) == (0, 0)
    assert calls == 100 + granted
    assert 0 < granted <= 23
    assert suppressed >= 80
    assert sum("budget" in error.penstock.reason for error in results) == suppressed


def test_a_limiter_has_one_budget_for_all_its_retries(pauses: list[float]) -> None:
    limiter = Limiter()
    assert limiter.retry_budget is limiter.retry_budget
    for decorate in (limiter.limit(retry=Retry()), limiter.limit(retry=Retry(3))):
        assert decorate(Calls(Answer(500)).function)() == "done"
    assert limiter.retry_budget.account() == (0, 0, 2, 0)
    own = RetryBudget()
    assert limiter.limit(retry=Retry(budget=own))(Calls(Answer(500)).function)() == "done"
    assert (own.account()[2], limiter.retry_budget.account()[2]) == (1, 2)


def test_a_budget_may_bound_the_retries_of_a_minute() -> None:
    budget = RetryBudget(minimum=100, per_minute=8)
    with virtual_time() as clock:
        for _ in range(30):
            calls = Calls(Answer(500))
            try:
                Retry(2, initial=0, budget=budget)(calls.function)()
            except Answer as error:
                assert "budget" in error.penstock.reason  # type: ignore[attr-defined]
        granted, suppressed = budget.account()[2:]
        assert 1 <= granted <= 8
        assert granted + suppressed == 30
        clock.advance(60)
        assert Retry(2, initial=0, budget=budget)(Calls(Answer(500)).function)() == "done"


def test_throttles_with_a_stated_wait_need_no_budget(pauses: list[float]) -> None:
    none = RetryBudget(ratio=0, minimum=0)
    assert Retry(budget=none)(Calls(throttled(1), throttled(2)).function)() == "done"
    with pytest.raises(Answer):
        Retry(budget=none)(Calls(Answer(500)).function)()
    assert none.account() == (0, 0, 0, 1)


@pytest.mark.parametrize("form", FORMS)
def test_the_budget_is_free_again_while_tracebacks_are_kept(form: Form, pauses: list[float]) -> None:
    budget = RetryBudget()
    kept: list[BaseException] = []
    given_up = Calls(*[Answer(500) for _ in range(9)])
    inner = Retry(2)(given_up.function)
    nested = Calls()
    nested.function = inner  # type: ignore[method-assign]
    stopped = [Calls(Answer(401)), Calls(ValueError()), Calls(KeyboardInterrupt()), nested]
    for calls in stopped:
        try:
            form(Retry(budget=budget), calls)
        except BaseException as error:
            kept.append(error)
        assert budget.account()[:2] == (0, 0)
    assert len(kept) == 4


# Inside limit().


@pytest.mark.parametrize("form", DECORATED)
def test_every_attempt_passes_the_limiter(form: Form, pauses: list[float]) -> None:
    limiter = Limiter(requests=lasting(100), tokens=lasting(10_000), concurrency=1)
    calls = Calls(Answer(500), Answer(503), ConnectionError())
    assert form(limiter.limit(100, retry=Retry()), calls) == "done"
    assert (calls.made, spent(limiter)) == (4, 4)
    # Who was overloaded did not run the call; a 500 and a broken connection may come after it ran.
    assert spent(limiter, "tokens") == 300
    assert standing(limiter) == IDLE
    assert limiter.stats().granted == 4


@pytest.mark.parametrize("form", DECORATED)
@pytest.mark.parametrize("failure", [out_of_quota, too_large, lambda: Answer(401)])
def test_what_was_refused_costs_no_tokens(form: Form, failure: Callable[[], Answer], pauses: list[float]) -> None:
    limiter = Limiter(requests=lasting(100), tokens=lasting(10_000), concurrency=1)
    with pytest.raises(Answer) as caught:
        form(limiter.limit(100, retry=Retry()), Calls(failure()))
    assert caught.value.penstock.attempts == 1  # type: ignore[attr-defined]
    assert (spent(limiter), spent(limiter, "tokens"), standing(limiter)) == (1, 0, IDLE)


def test_a_throttle_stops_all_who_wait() -> None:
    limiter = Limiter(requests=penstock.per_second(1_000), concurrency=10)
    with virtual_time() as clock:
        calls = Calls(throttled(5))
        left: list[float] = []

        @limiter.limit(retry=Retry())
        async def call() -> None:
            calls.function()
            left.append(clock.now)

        async def main() -> None:
            first = asyncio.ensure_future(call())
            await asyncio.sleep(0.5)
            await asyncio.gather(first, *(call() for _ in range(20)))

        asyncio.run(main())
    assert len(left) == 21
    assert min(left) == pytest.approx(5, abs=0.001)
    assert standing(limiter) == IDLE


def test_what_an_inner_retry_gave_up_is_told_to_the_limiter(pauses: list[float]) -> None:
    limiter = Limiter(requests=lasting(100), tokens=lasting(1_000))
    inner = Calls(*[throttled(30) for _ in range(9)])
    with pytest.raises(Answer):
        limiter.limit(100, retry=Retry())(Retry(2)(inner.function))()
    assert inner.made == 2
    assert limiter.stats().cooldown == pytest.approx(30, abs=1)
    assert spent(limiter, "tokens") == 0


@pytest.mark.parametrize("limited", [False, True])
def test_a_call_that_is_cancelled_during_its_backoff_leaves_nothing(limited: bool) -> None:
    limiter, budget = Limiter(concurrency=1), RetryBudget()
    calls = Calls(*[Answer(500) for _ in range(9)])
    retry = Retry(initial=3_000, max_delay=3_000, jitter=None, budget=budget)
    decorated: Any = (limiter.limit(retry=retry) if limited else retry)(calls.coroutine)

    async def main() -> None:
        task = asyncio.ensure_future(decorated())
        await until(lambda: budget.account()[:2] == (1, 1))
        assert standing(limiter) == IDLE  # nobody holds a slot while it sleeps
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert (calls.made, budget.account()[:2]) == (1, (0, 0))
        del caught

    run(main())


@pytest.mark.parametrize("limited", [False, True])
def test_a_stream_that_is_dropped_leaves_nothing(limited: bool, pauses: list[float]) -> None:
    limiter, budget = Limiter(concurrency=1), RetryBudget()
    retry = Retry(budget=budget)
    stream: Any = (limiter.limit(retry=retry) if limited else retry)(Calls(Answer(500)).generator)()
    assert next(stream) == "done"
    assert budget.account()[:2] == (1, 1)
    stream.close()
    del stream
    gc.collect()
    assert (budget.account()[:2], standing(limiter)) == ((0, 0), IDLE)


def test_a_retry_that_finds_no_permit_in_time(pauses: list[float]) -> None:
    limiter = Limiter(requests=lasting(1))
    with pytest.raises(AcquireTimeout):
        limiter.limit(timeout=0, retry=Retry())(Calls(Answer(500)).function)()
    assert (limiter.retry_budget.account()[:2], standing(limiter)) == ((0, 0), IDLE)


# Loops.


def test_a_loop_ends_with_the_first_success(pauses: list[float]) -> None:
    numbers = []
    for attempt in Retry(5):
        with attempt:
            numbers.append(attempt.number)
            if attempt.number < 3:
                raise ConnectionError
    assert numbers == [1, 2, 3]
    assert repr(attempt) == "<Attempt 3>"


def test_a_loop_can_be_left(pauses: list[float]) -> None:
    retry = Retry()
    for attempt in retry:
        with attempt:
            break
    for _ in retry:
        break
    gc.collect()
    assert retry._own.account() == (0, 0, 0, 0)


# Decorated functions stay what they were, and arguments are looked at.


def test_what_is_decorated_keeps_its_name_and_kind() -> None:
    calls = Calls()
    retry = Retry()
    assert retry(calls.function).__name__ == "function"
    assert inspect.iscoroutinefunction(retry(calls.coroutine))
    assert inspect.isgeneratorfunction(retry(calls.generator))
    assert inspect.isasyncgenfunction(retry(calls.async_generator))

    class Client:
        @Retry()
        @staticmethod
        def static(value: int) -> int:
            return value

        @Retry()
        @classmethod
        def of_class(cls, value: int) -> tuple[type, int]:
            return cls, value

        @Retry()
        def method(self, value: int) -> tuple[Client, int]:
            return self, value

    client = Client()
    assert (client.static(1), client.of_class(2), client.method(3)) == (1, (Client, 2), (client, 3))
    assert repr(Retry(3, deadline=9)).startswith("Retry(3, initial=1.0")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attempts": 0}, r"attempts must be a whole number from 1 to 4294967295, not 0"),
        ({"attempts": -1}, r"attempts must be .* not -1"),
        ({"attempts": 2.5}, r"attempts must be .* not 2.5"),
        ({"attempts": math.nan}, r"attempts must be .* not nan"),
        ({"initial": -1}, r"initial must be .* from 0 .* not -1"),
        ({"initial": math.nan}, r"initial must be .* not NaN"),
        ({"initial": math.inf}, r"initial must be .* not inf"),
        ({"initial": 10**400}, r"initial must be .* not inf"),
        ({"initial": 61}, r"initial must be at most max_delay \(60 s\), not 61"),
        ({"factor": 0.5}, r"factor must be .* at least 1, not 0.5"),
        ({"factor": math.nan}, r"factor must be .* not NaN"),
        ({"max_delay": -0.1}, r"max_delay must be .* not -0.1"),
        ({"deadline": 0}, r"deadline must be .* not 0"),
        ({"deadline": math.nan}, r"deadline must be .* not NaN"),
        ({"jitter": "Full"}, r'jitter must be "full" or .* not .Full.'),
    ],
)
def test_values_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retry(**given)


@pytest.mark.parametrize("value", ["5", b"5", [5], {}, object(), 1j, True])
@pytest.mark.parametrize("name", ["attempts", "initial", "factor", "max_delay", "jitter", "deadline", "on", "budget"])
def test_arguments_of_the_wrong_type(name: str, value: Any) -> None:
    wrong = ValueError if (name, value) == ("jitter", "5") else TypeError  # a str, though a wrong one
    with pytest.raises(wrong, match=f"^{name} must be "):
        Retry(**{name: value})


@pytest.mark.parametrize("on", [(), (KeyError, 5), 5, "KeyError"])
def test_what_on_cannot_be(on: Any) -> None:
    with pytest.raises(TypeError, match="on must be an exception class, a tuple of these, a function or None, not "):
        Retry(on=on)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"ratio": -0.1}, ValueError, "ratio must be a number from 0 to 100, not -0.1"),
        ({"ratio": math.nan}, ValueError, "ratio must be .* not NaN"),
        ({"ratio": "a"}, TypeError, "ratio must be a number, not 'a'"),
        ({"ratio": True}, TypeError, "ratio must be a number, not True"),
        ({"minimum": -1}, ValueError, "minimum must be .* not -1"),
        ({"minimum": "a"}, TypeError, "minimum must be .* not 'a'"),
        ({"per_minute": 0}, ValueError, "per_minute must be a whole number from 1 .* not 0"),
        ({"per_minute": 0.5}, ValueError, "per_minute must be .* not 0.5"),
    ],
)
def test_budgets_that_cannot_be(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RetryBudget(**given)


def test_what_cannot_be_decorated() -> None:
    with pytest.raises(TypeError, match="without its parentheses"):
        Retry()(5)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="attempts must be"):
        Retry(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="retry must be a Retry or None, not 5"):
        Limiter().limit(retry=5)  # type: ignore[arg-type]
