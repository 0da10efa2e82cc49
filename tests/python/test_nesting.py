"""Permits inside permits: one slot for a task tree, and the first call inside is covered by the permit outside."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from loops import IDLE, lasting, run, spent, standing, turns

import penstock
from penstock import Limiter, per_second


def make(concurrency: int | None = 1) -> Limiter:
    return Limiter(requests=lasting(1_000), tokens=lasting(100_000), concurrency=concurrency)


def charged(limiter: Limiter) -> tuple[int, int]:
    return spent(limiter), spent(limiter, "tokens")


def test_no_second_slot_and_no_deadlock() -> None:
    limiter = make(concurrency=1)

    async def main() -> None:
        async with limiter, limiter.permit(), limiter:
            with await limiter.aacquire():
                assert standing(limiter) == (4, 0)
                assert limiter.try_acquire() is not None

    with limiter, limiter.permit(), limiter, limiter.acquire():
        assert standing(limiter) == (4, 0)
    run(main())
    assert standing(limiter) == IDLE


def test_the_first_call_inside_is_covered_and_the_others_are_charged() -> None:
    limiter = make()
    with limiter.permit(100):
        assert charged(limiter) == (1, 100)
        with limiter.permit(80):
            assert charged(limiter) == (1, 100)
        with limiter.permit(80):
            assert charged(limiter) == (2, 180)
        with limiter.permit(80):
            assert charged(limiter) == (3, 260)
    assert charged(limiter) == (3, 260)


def test_the_first_call_inside_is_charged_for_what_it_costs_beyond() -> None:
    limiter = make()
    with limiter.permit(100), limiter.permit(150, requests=2) as inner:
        assert charged(limiter) == (2, 150)
        assert (inner.cost.requests, inner.cost.tokens) == (2, 150)
    assert charged(limiter) == (2, 150)


@pytest.mark.parametrize("actual", [0, 30, 100, 130, 500])
def test_a_covered_call_settles_what_the_permit_outside_was_charged(actual: int) -> None:
    limiter = make()
    with limiter.permit(100) as outer:
        with limiter.permit(120) as inner:
            inner.settle(tokens=actual)
            assert charged(limiter) == (1, actual)
            assert inner.cost.tokens == actual
        assert charged(limiter) == (1, actual)
        outer.settle(tokens=777)  # what calls inside have settled is not settled again
        assert charged(limiter) == (1, actual)
    assert charged(limiter) == (1, actual)


def test_a_covered_call_may_settle_as_often_as_it_likes() -> None:
    limiter = make()
    with limiter.permit(100), limiter.permit(100) as inner:
        for actual in (40, 40, 100, 250, 0, 60, 60):
            inner.settle(tokens=actual)
            assert charged(limiter) == (1, actual)
            assert inner.cost.tokens == actual
        inner.release()
        inner.settle(tokens=70)
        assert charged(limiter) == (1, 70)


def test_three_deep_is_still_one_call() -> None:
    """As in ``gather`` of a decorated function that calls a governed client."""
    limiter = make()
    with limiter.permit(), limiter.permit(100), limiter.permit(120) as inner:
        assert charged(limiter) == (1, 120)
        for actual in (50, 110, 300, 0, 90):
            inner.settle(tokens=actual)
            assert charged(limiter) == (1, actual)
    assert charged(limiter) == (1, 90)
    assert standing(limiter) == IDLE


def test_a_permit_whose_own_call_was_settled_covers_no_other() -> None:
    limiter = make()
    with limiter.permit(100) as outer:
        outer.settle(tokens=80)
        with limiter.permit(50):
            assert charged(limiter) == (2, 130)


def test_a_call_inside_that_never_left_covers_nothing_and_settles_nothing() -> None:
    limiter = Limiter(requests=lasting(10), tokens=lasting(100_000), concurrency=1)
    limiter.acquire(requests=8).release()

    async def main() -> None:
        async with limiter.permit(100) as outer:
            # Of 10 requests 9 are charged, and 3 inside would need two more.
            with pytest.raises(penstock.CostExceedsLimit):
                limiter.acquire(10**6)
            with pytest.raises(penstock.AcquireTimeout):
                limiter.acquire(10, requests=3, timeout=0)
            assert limiter.try_acquire(10, requests=3) is None
            parked = asyncio.ensure_future(limiter.aacquire(10, requests=3))
            await turns()
            assert standing(limiter) == (1, 1)
            parked.cancel()
            await asyncio.gather(parked, return_exceptions=True)
            limiter.aacquire(10, requests=3)  # parked, and dropped without being awaited
            assert standing(limiter) == (1, 0)
            outer.settle(tokens=30)
            assert charged(limiter) == (9, 30)

        limiter.update(requests=lasting(11))
        async with limiter.permit(100):
            assert limiter.try_acquire(10, requests=3) is None
            async with limiter.permit(100):  # so this one is the first
                assert charged(limiter) == (10, 130)

    run(main())
    assert standing(limiter) == IDLE


def test_the_rates_hold_inside_as_well() -> None:
    limiter = Limiter(requests=lasting(3), concurrency=1)
    with limiter:
        limiter.acquire().release()  # covered
        limiter.acquire().release()
        limiter.acquire().release()
        assert limiter.try_acquire() is None
        with pytest.raises(penstock.AcquireTimeout):
            limiter.acquire(timeout=1)
    assert spent(limiter) == 3
    assert standing(limiter) == IDLE


def test_calls_inside_go_before_those_outside() -> None:
    limiter = Limiter(requests=per_second(200, burst=1), concurrency=1)
    order: list[str] = []

    async def outside() -> None:
        async with limiter.permit(priority=1_000):
            order.append("outside")

    async def main() -> None:
        async with limiter:
            waiting = [asyncio.create_task(outside()) for _ in range(3)]
        # Tasks that were made inside are inside; these must not be.
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        free = contextvars.copy_context()
        async with limiter:
            waiting = [free.run(asyncio.create_task, outside()) for _ in range(3)]
            await turns()
            for _ in range(3):
                async with limiter:
                    order.append("inside")
        await asyncio.gather(*waiting)

    run(main())
    assert order == ["inside"] * 3 + ["outside"] * 3


def test_tasks_that_are_made_inside_are_inside() -> None:
    limiter = make(concurrency=1)
    together = 0

    async def call() -> None:
        nonlocal together
        async with limiter.permit(10):
            together = max(together, limiter.stats().in_flight)
            await asyncio.sleep(0.001)

    async def main() -> None:
        async with limiter.permit(10):
            await asyncio.gather(*(call() for _ in range(5)))
            async with limiter.permit(10):
                await asyncio.create_task(call())

    run(main())
    assert together == 6  # five and the one outside, at a concurrency of 1
    assert charged(limiter) == (7 - 1, 60)
    assert standing(limiter) == IDLE


def test_gather_inside_a_permit() -> None:
    limiter = make(concurrency=1)

    async def call(index: int) -> int:
        await asyncio.sleep(0.001)
        return index

    async def main() -> None:
        async with limiter.permit(10):
            assert await limiter.gather(*(call(index) for index in range(5)), tokens=10) == list(range(5))

    run(main())
    assert charged(limiter) == (5, 50)
    assert standing(limiter) == IDLE


def test_gather_of_a_decorated_function_charges_each_call_once() -> None:
    limiter = make(concurrency=2)
    running = most = 0

    @limiter.limit(tokens=120, usage=lambda result: result)
    async def call(index: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return 100

    async def main() -> None:
        assert await limiter.gather(*(call(index) for index in range(8))) == [100] * 8

    run(main())
    assert most == 2
    assert charged(limiter) == (8, 800)
    assert standing(limiter) == IDLE


def test_decorated_functions_in_each_other() -> None:
    limiter = make(concurrency=1)

    @limiter.limit(tokens=50)
    def inner() -> int:
        return limiter.stats().in_flight

    @limiter.limit(tokens=70)
    def outer() -> list[int]:
        return [inner(), inner()]

    assert outer() == [2, 2]
    assert charged(limiter) == (2, 70 + 50)
    assert standing(limiter) == IDLE


def test_another_limiter_in_between() -> None:
    limiter, other = make(concurrency=1), make(concurrency=1)
    with limiter.permit(10), other.permit(20), limiter.permit(10), other.permit(20):
        assert (standing(limiter), standing(other)) == ((2, 0), (2, 0))
    assert (charged(limiter), charged(other)) == ((1, 10), (1, 20))
    assert standing(limiter) == standing(other) == IDLE


def test_a_task_that_outlives_the_permit_is_on_its_own() -> None:
    limiter = make(concurrency=1)

    async def main() -> None:
        go, done = asyncio.Event(), asyncio.Event()

        async def background() -> None:
            await go.wait()
            async with limiter.permit(10):
                done.set()
                await asyncio.sleep(0)

        async with limiter.permit(10):
            task = asyncio.create_task(background())
            await turns()
        held = limiter.acquire()  # the only slot
        go.set()
        await turns()
        assert not done.is_set()
        assert standing(limiter) == (1, 1)
        held.release()
        await task

    run(main())
    assert charged(limiter) == (3, 20)
    assert standing(limiter) == IDLE


def test_what_runs_beside_a_permit_is_not_inside() -> None:
    limiter = make(concurrency=2)

    async def call(log: list[Any]) -> None:
        async with limiter.permit(10):
            log.append(limiter.stats().in_flight)
            await asyncio.sleep(0.001)

    async def main() -> None:
        log: list[Any] = []
        await asyncio.gather(*(call(log) for _ in range(10)))
        assert max(log) == 2

    run(main())
    assert charged(limiter) == (10, 100)


def test_permits_that_are_released_out_of_order() -> None:
    limiter = make(concurrency=1)
    outer, inner = limiter.permit(10), limiter.permit(10)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert standing(limiter) == (1, 0)
    inner.__exit__(None, None, None)
    assert standing(limiter) == IDLE
    with limiter.permit(10):
        assert limiter.acquire(10).waited == 0
    assert charged(limiter) == (2, 20)


def test_after_a_block_nothing_is_inside() -> None:
    limiter = make(concurrency=1)
    for _ in range(3):
        with limiter.permit(10):
            pass
    assert charged(limiter) == (3, 30)
    with limiter.permit(10) as permit:
        permit.release()
        limiter.acquire(10).release()
    assert charged(limiter) == (5, 50)


def test_keys_inside() -> None:
    limiter = Limiter(requests=lasting(100), per_key={"requests": lasting(2), "concurrency": 1})
    with limiter.permit(key="a"):
        limiter.acquire(key="a").release()
        limiter.acquire(key="a").release()
        assert limiter.try_acquire(key="a") is None
        assert limiter.try_acquire(key="b") is not None
    assert standing(limiter) == IDLE


# A call that outlives the permit which it was made inside of: the tree keeps its one slot until the last is over.


def test_a_call_that_outlives_the_permit_outside_keeps_its_slot() -> None:
    limiter = make(concurrency=1)
    most = under_way = 0
    over: Any = None

    @limiter.limit()
    async def call() -> None:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await over.wait()
        await turns(2)
        under_way -= 1

    async def main() -> None:
        nonlocal over
        over = asyncio.Event()
        async with limiter:
            left_behind = asyncio.create_task(call())
            await turns()
        assert under_way == 1
        assert limiter.try_acquire() is None
        over.set()
        await asyncio.gather(left_behind, *(call() for _ in range(3)))

    run(main())
    assert most == 1
    assert standing(limiter) == IDLE


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_the_slot_of_a_tree_is_free_when_all_in_it_are_over(order: tuple[int, int, int]) -> None:
    limiter = make(concurrency=1)

    def main() -> None:
        with limiter as outer, limiter.permit() as middle, limiter.permit() as inner:
            permits = [outer, middle, inner]
            for index in order[:2]:
                permits[index].release()
                permits[index].release()
                contextvars.Context().run(refused)
            permits[order[2]].release()
            assert contextvars.Context().run(limiter.try_acquire) is not None

    def refused() -> None:
        assert limiter.try_acquire() is None

    main()
    assert standing(limiter) == IDLE


def test_a_call_that_gives_up_waiting_inside_frees_the_slot_that_was_kept_for_it() -> None:
    limiter = Limiter(requests=penstock.Rate(1, per=3_600), concurrency=1)

    async def main() -> None:
        async with limiter:
            await limiter.aacquire()  # covered, and over at once
            waiting = asyncio.create_task(asyncio.wait_for(limiter.aacquire(), 60))
            await turns()
            assert standing(limiter) == (1, 1)
        assert standing(limiter) == (0, 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert standing(limiter) == IDLE

    run(main())


def test_an_abandoned_call_inside_frees_the_slot_that_was_kept_for_it() -> None:
    limiter = make(concurrency=1)
    with limiter as outer:
        inner = limiter.acquire()
        outer.release()
        assert standing(limiter) == (1, 0)
        assert contextvars.Context().run(limiter.try_acquire) is None
        inner.abandon()
        assert standing(limiter) == IDLE
