"""`penstock.budget`: what it counts, where it stops, and that it costs nothing where there is none."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import pickle
import threading
from datetime import timedelta
from typing import Any

import pytest
from loops import IDLE, run, standing, turns

import penstock
from penstock import BudgetExceeded, Limiter, Rate, Retry, per_second
from penstock.testing import virtual_time


def counts(spent: Any) -> tuple[int, int]:
    return spent.calls, spent.tokens


# Calls.


def test_calls_are_counted_and_the_next_one_does_not_leave() -> None:
    gate = Limiter(requests=1_000)
    with penstock.budget(calls=2) as spent:
        with gate.permit():
            pass
        gate.acquire().release()
        with pytest.raises(BudgetExceeded) as caught:
            gate.acquire()
        error = caught.value
        assert (error.dimension, error.spent, error.limit) == ("calls", 2, 2)
        assert str(error) == "the budget of 2 calls is used up: 2 are spent, and the next call needs 1"
        assert counts(spent) == (2, 0)
    gate.acquire().release()
    assert gate.stats().granted == 3
    assert standing(gate) == IDLE


def test_every_way_to_a_permit_counts() -> None:
    gate = Limiter(requests=1_000)

    async def main() -> None:
        async with penstock.budget(calls=8) as spent:
            async with gate.permit(), gate:
                pass
            with gate, gate.permit():
                pass
            (await gate.aacquire()).release()
            permit = gate.try_acquire()
            assert permit is not None
            permit.release()
            await gate.limit()(asyncio.sleep)(0)
            await gate.gather(asyncio.sleep(0), asyncio.sleep(0))
            await gate.amap(asyncio.sleep, [0])
            assert spent.calls == 8  # a nested permit is its outer one's call
            for ask in (gate.acquire, gate.try_acquire, gate.permit().__enter__, gate.__enter__):
                with pytest.raises(BudgetExceeded):
                    ask()
            for awaitable in (gate.aacquire, gate.permit().__aenter__, gate.__aenter__):
                with pytest.raises(BudgetExceeded):
                    await awaitable()
            with pytest.raises(BudgetExceeded):
                await gate.gather(asyncio.sleep(0))
            with pytest.raises(BudgetExceeded):
                await gate.amap(asyncio.sleep, [0])

    run(main())
    assert standing(gate) == IDLE


def test_all_limiters_count_together() -> None:
    with penstock.budget(calls=3):
        for gate in (Limiter(requests=10), Limiter(tokens=10), Limiter(concurrency=1)):
            with gate:
                pass
        with pytest.raises(BudgetExceeded):
            Limiter(requests=10).acquire()


def test_a_call_that_counts_several_requests_needs_all_of_them() -> None:
    gate = Limiter(requests=1_000)
    with penstock.budget(calls=5) as spent:
        gate.acquire(requests=3).release()
        with pytest.raises(
            BudgetExceeded, match="the budget of 5 calls is used up: 3 are spent, and the next call needs 3"
        ):
            gate.acquire(requests=3)
        gate.acquire(requests=2).release()
        gate.acquire(requests=0).release()
        assert spent.calls == 5


def test_what_the_limiter_refuses_does_not_count() -> None:
    gate = Limiter(requests=1_000, tokens=100, max_waiting=0)
    with penstock.budget(calls=2, tokens=1_000) as spent:
        with pytest.raises(penstock.CostExceedsLimit):
            gate.acquire(tokens=101)
        with pytest.raises(penstock.CostExceedsLimit):
            gate.try_acquire(tokens=101)
        gate.acquire(tokens=100).release()
        assert gate.try_acquire(tokens=100) is None
        with pytest.raises(penstock.AcquireTimeout):
            gate.acquire(tokens=100, timeout=0)
        with pytest.raises(penstock.QueueFull):
            gate.acquire(tokens=100)
        assert counts(spent) == (1, 100)


def test_nested_permits_count_once() -> None:
    gate = Limiter(requests=1_000, tokens=10_000)
    with penstock.budget(calls=10) as spent, gate.permit(tokens=100):
        with gate.permit(tokens=150) as inner:
            assert counts(spent) == (1, 150)
            inner.settle(tokens=40)
            assert counts(spent) == (1, 40)
        with gate.permit(tokens=10):
            assert counts(spent) == (2, 50)


def test_a_call_counts_inside_a_budget_though_a_permit_outside_covers_it() -> None:
    gate = Limiter(requests=1_000, tokens=10_000)
    with penstock.budget() as around, gate.permit(tokens=100), penstock.budget(calls=2, tokens=500) as spent:
        for made in (1, 2):
            with gate.permit(tokens=60):
                assert counts(spent) == (made, 60 * made)
        with pytest.raises(BudgetExceeded):
            gate.acquire()
        assert counts(around) == (2, 100 + 60)


def test_a_nested_call_that_waits_counts_once() -> None:
    gate = Limiter(requests=per_second(1), tokens=per_second(100), network_jitter=0)

    async def main() -> None:
        gate.acquire(tokens=20, requests=0).release()
        with penstock.budget(calls=5) as spent:
            async with gate.permit(tokens=80), gate.permit(tokens=100) as inner:  # must wait for its 20
                assert inner.waited > 0
                assert counts(spent) == (1, 100)
                inner.settle(tokens=30)
                assert counts(spent) == (1, 30)
            async with gate.permit(tokens=80):
                gate.cooldown(100)
                task = asyncio.ensure_future(gate.aacquire(tokens=100))
                await turns()
                assert counts(spent) == (2, 130)
                task.cancel()
                await turns()
                assert counts(spent) == (2, 110)

    with virtual_time():
        run(main())
    assert standing(gate) == IDLE


# Tokens.


def test_tokens_are_what_was_settled_and_estimates_until_then() -> None:
    gate = Limiter(tokens=100_000)
    with penstock.budget(tokens=1_000) as spent:
        first, second = gate.acquire(tokens=500), gate.acquire(tokens=500)
        with pytest.raises(
            BudgetExceeded, match="the budget of 1000 tokens is used up: 1000 are spent, and the next call needs 1"
        ):
            gate.acquire(tokens=1)
        with pytest.raises(BudgetExceeded) as caught:
            gate.acquire()  # nobody knows what it will cost, and nothing is left
        assert (caught.value.dimension, caught.value.spent, caught.value.limit) == ("tokens", 1_000, 1_000)
        first.settle(tokens=100)
        assert spent.tokens == 600
        third = gate.acquire(tokens=400)
        first.release()
        first.settle(input_tokens=90, output_tokens=60)  # after the release it still counts
        assert spent.tokens == 1_050
        second.settle(tokens=0)
        third.settle(tokens=2_000)
        assert spent.tokens == 2_150  # what has been used has been used
        with pytest.raises(BudgetExceeded) as caught:
            gate.acquire(requests=1)
        assert (caught.value.spent, caught.value.limit) == (2_150, 1_000)


class Answer:
    def __init__(self, tokens: int) -> None:
        self.usage = {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens}


def test_usage_is_read_for_a_budget_though_the_limiter_counts_no_tokens() -> None:
    gate = Limiter(requests=1_000)
    call = gate.limit()(lambda: Answer(300))
    call()
    gc.collect()  # budgets that tracebacks of other tests hold
    assert not gate.counts
    with penstock.budget(tokens=1_000) as spent:
        assert gate.counts
        for _ in range(4):
            call()
        with pytest.raises(BudgetExceeded) as caught:
            call()
        assert (caught.value.dimension, caught.value.spent, spent.calls) == ("tokens", 1_200, 4)
    del spent, caught
    assert not gate.counts


# Seconds.


def test_seconds_stop_calls() -> None:
    gate = Limiter(requests=1_000)
    with virtual_time() as clock, penstock.budget(seconds=timedelta(seconds=10)) as spent:
        gate.acquire().release()
        clock.advance(9.5)
        gate.acquire().release()
        clock.advance(0.5)
        with pytest.raises(BudgetExceeded) as caught:
            gate.acquire()
        assert (caught.value.dimension, caught.value.spent, caught.value.limit) == ("seconds", 10.0, 10.0)
        assert str(caught.value) == "the budget of 10 seconds is used up: 10 are over, and no call may leave any more"
        assert (spent.calls, spent.seconds) == (2, 10.0)


def test_a_wait_that_outlasts_the_budget_fails_at_once() -> None:
    gate = Limiter(requests=Rate(1, per=60), network_jitter=0)
    with virtual_time() as clock:
        gate.acquire().release()
        clock.advance(5)
        with penstock.budget(calls=3, seconds=20) as spent:
            clock.advance(1)
            with pytest.raises(
                BudgetExceeded, match=r"20 seconds is used up: 1 are over, and no permit in time.*in 54 sec"
            ):
                gate.acquire()
            with pytest.raises(penstock.AcquireTimeout):  # the shorter of both times says which it was
                gate.acquire(timeout=2)
            with pytest.raises(BudgetExceeded):
                gate.acquire(timeout=30)
            assert (spent.seconds, spent.calls) == (1.0, 0)


@pytest.mark.parametrize("task", [True, False])
def test_waiting_ends_with_the_budget(task: bool) -> None:
    gate = Limiter(concurrency=1)
    held = gate.acquire()

    async def main() -> None:
        with pytest.raises(BudgetExceeded) as caught, penstock.budget(seconds=3) as spent:
            await gate.aacquire()
        assert (caught.value.dimension, caught.value.limit) == ("seconds", 3.0)
        assert caught.value.spent == pytest.approx(3.0, abs=0.01)
        assert spent.calls == 0

    if task:
        with virtual_time():
            run(main())
    else:
        with pytest.raises(BudgetExceeded) as caught, penstock.budget(seconds=0.05):
            gate.acquire()
        assert caught.value.spent >= 0.05
    held.release()
    assert standing(gate) == IDLE


def test_pauses_between_attempts_are_bounded_too() -> None:
    gate = Limiter(requests=1_000)
    tried = 0

    @gate.limit(retry=Retry(attempts=10, initial=4.0, jitter="none"))
    async def call() -> None:
        nonlocal tried
        tried += 1
        raise ConnectionError

    async def main() -> None:
        with pytest.raises(BudgetExceeded, match="the next attempt is due in"), penstock.budget(seconds=10) as spent:
            await call()
        assert spent.calls == tried
        assert 1 < tried < 10
        assert spent.seconds < 10

    with virtual_time():
        run(main())


def test_every_attempt_counts() -> None:
    gate = Limiter(requests=1_000)

    @gate.limit(retry=Retry(attempts=10, initial=0.0))
    def call() -> None:
        raise ConnectionError

    with pytest.raises(BudgetExceeded), penstock.budget(calls=3):
        call()
    assert gate.stats().granted == 3


# Who is inside.


def test_calls_that_wait_count_and_those_that_give_up_do_not() -> None:
    gate = Limiter(concurrency=1)

    async def main() -> None:
        with penstock.budget(calls=3) as spent:
            held = await gate.aacquire()
            waiting = [asyncio.ensure_future(gate.aacquire()) for _ in range(2)]
            await turns()
            with pytest.raises(BudgetExceeded):
                await gate.aacquire()
            waiting[0].cancel()
            await turns()
            assert spent.calls == 2
            third = asyncio.ensure_future(gate.aacquire())
            await turns()
            assert spent.calls == 3
            held.release()
            (await waiting[1]).release()
            waiting[1] = third
            third.cancel()  # granted already, and never taken
            await turns()
            assert spent.calls == 2

    run(main())
    assert standing(gate) == IDLE


def test_a_permit_that_fan_out_abandons_does_not_count() -> None:
    gate = Limiter(requests=1_000)
    with penstock.budget(calls=1, tokens=100) as spent:
        permit = gate.acquire(tokens=70)
        permit.abandon()
        assert counts(spent) == (0, 0)
        gate.acquire(tokens=70).release()
        assert counts(spent) == (1, 70)


def test_tasks_and_threads_with_its_context_are_inside_and_others_are_not() -> None:
    gate = Limiter(requests=10_000)

    async def outside(done: asyncio.Event) -> None:
        await done.wait()
        (await gate.aacquire()).release()

    async def call() -> None:
        (await gate.aacquire()).release()

    def in_thread() -> None:
        gate.acquire().release()

    async def main() -> None:
        done = asyncio.Event()
        bystander = asyncio.create_task(outside(done))
        await turns()
        with penstock.budget(calls=40) as spent:
            await asyncio.gather(*(call() for _ in range(10)))
            await asyncio.gather(*(asyncio.to_thread(in_thread) for _ in range(10)))
            await asyncio.to_thread(gate.map, lambda _: None, range(10))
            assert spent.calls == 30
            thread = threading.Thread(target=in_thread)  # no copy of the context
            thread.start()
            thread.join()
            done.set()
            await bystander
            assert spent.calls == 30
            results = await asyncio.gather(*(call() for _ in range(20)), return_exceptions=True)
            assert [type(result) for result in results].count(BudgetExceeded) == 10
            assert spent.calls == 40

    run(main())


def test_what_a_block_started_stays_bound_when_it_is_over() -> None:
    gate = Limiter(requests=10_000)
    made = 0

    async def agent() -> None:
        nonlocal made
        while True:
            async with gate.permit():
                made += 1
            await asyncio.sleep(0)

    async def main() -> None:
        with pytest.raises(BudgetExceeded), penstock.budget(calls=25):
            await asyncio.gather(*(agent() for _ in range(10)))
        await turns(20)
        assert made == 25
        async with gate.permit():
            pass

    run(main())


def test_budgets_inside_budgets_all_count() -> None:
    gate = Limiter(requests=1_000, tokens=100_000)
    with penstock.budget(calls=5, tokens=1_000) as outer:
        gate.acquire(tokens=100).release()
        for limits in ({"calls": 2}, {"tokens": 250}):
            with pytest.raises(BudgetExceeded) as caught, penstock.budget(**limits) as inner:
                for _ in range(3):
                    gate.acquire(tokens=100).release()
            assert {caught.value.dimension: caught.value.limit} == limits
            assert counts(inner) == (2, 200)
        assert counts(outer) == (5, 500)
        with penstock.budget(calls=100) as inner:
            with pytest.raises(BudgetExceeded) as caught:
                gate.acquire()
            assert (caught.value.spent, caught.value.limit) == (5, 5)
            assert counts(inner) == (0, 0)  # a call that one of them refuses, none of them counts


def test_one_object_makes_a_fresh_budget_for_each_block() -> None:
    gate = Limiter(requests=1_000)
    twice = penstock.budget(calls=2)
    assert repr(twice) == "budget(calls=2)"

    async def one() -> int:
        async with twice as spent:
            for _ in range(2):
                async with gate.permit():
                    await asyncio.sleep(0)
            return spent.calls

    async def main() -> None:
        assert await asyncio.gather(*(one() for _ in range(5))) == [2] * 5

    run(main())
    with twice, twice as spent:
        gate.acquire().release()
        assert spent.calls == 1


def test_as_a_decorator_each_call_has_one() -> None:
    gate = Limiter(requests=1_000)

    @penstock.budget(calls=2)
    def work(times: int) -> int:
        """It works."""
        for _ in range(times):
            gate.acquire().release()
        return times

    @penstock.budget(calls=2)
    async def awork(times: int) -> int:
        for _ in range(times):
            async with gate.permit():
                await asyncio.sleep(0)
        return times

    assert (work(2), work(2), work.__doc__) == (2, 2, "It works.")
    assert run(awork(2)) == 2
    with pytest.raises(BudgetExceeded):
        work(3)
    with pytest.raises(BudgetExceeded):
        run(awork(3))

    def generator() -> Any:
        yield

    with pytest.raises(TypeError, match="put the block where it is iterated"):
        penstock.budget(calls=2)(generator)
    with pytest.raises(TypeError, match="decorates functions, not 3"):
        penstock.budget(calls=2)(3)  # type: ignore[type-var]


def test_a_block_that_ends_in_another_context_leaves_nobody_bound() -> None:
    gate = Limiter(requests=1_000)
    around = contextvars.copy_context()

    def block() -> Any:
        with penstock.budget(calls=0):
            yield

    with penstock.budget(calls=1) as outer:
        generator = block()
        around.run(next, generator)
        generator.close()
        around.run(gate.acquire).release()  # inside nothing
        gate.acquire().release()
        assert outer.calls == 1
    del outer


def test_nothing_is_counted_where_there_is_no_limit() -> None:
    gate = Limiter(concurrency=1)
    with penstock.budget() as spent:
        for _ in range(50):
            gate.acquire(tokens=10).release()
    assert counts(spent) == (50, 500)
    assert repr(spent).startswith("<Budget: 50 calls, 500 tokens, ")


def test_repr_says_how_it_stands() -> None:
    with virtual_time() as clock, penstock.budget(calls=5, tokens=100, seconds=60) as spent:
        Limiter(requests=10).acquire(tokens=7).release()
        clock.advance(1.5)
        assert repr(spent) == "<Budget: 1 of 5 calls, 7 of 100 tokens, 1.5 of 60 seconds>"


def test_a_framework_that_keeps_the_text_of_an_error_alone_does_not_hide_it() -> None:
    gate = Limiter(requests=1_000)

    def team() -> None:
        try:
            while True:
                gate.acquire().release()
        except BudgetExceeded as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None

    with pytest.raises(BudgetExceeded) as caught, penstock.budget(calls=3):
        team()
    assert (caught.value.dimension, caught.value.spent, caught.value.limit) == ("calls", 3, 3)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(RuntimeError, match="about something else"), penstock.budget(calls=0):
        with pytest.raises(BudgetExceeded):
            gate.acquire()
        raise RuntimeError("about something else")


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        ({"calls": -1}, ValueError, "calls must be a whole number from 0 to 1000000000000000, not -1"),
        ({"tokens": 1.5}, ValueError, "tokens must be a whole number"),
        ({"calls": "3"}, TypeError, "calls must be a whole number"),
        ({"seconds": -1}, ValueError, "seconds must be a number of seconds, 0 or more, or a timedelta, not -1"),
        ({"seconds": True}, TypeError, "seconds must be"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(limits: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        penstock.budget(**limits)


def test_nothing_at_all_may_be_allowed() -> None:
    gate = Limiter(requests=1_000)
    for limits in ({"calls": 0}, {"tokens": 0}, {"seconds": 0}):
        with pytest.raises(BudgetExceeded) as caught, penstock.budget(**limits):
            gate.acquire()
        assert caught.value.limit == 0
    assert gate.stats().granted == 0


def test_the_error_survives_copies() -> None:
    with pytest.raises(BudgetExceeded) as caught, penstock.budget(calls=0):
        Limiter(requests=1).acquire()
    for copied in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert (str(copied), copied.dimension, copied.spent, copied.limit) == (str(caught.value), "calls", 0, 0)
