"""What a limiter does is the same whatever store it is over: the conformance suite of stores.

A store that is added is a line in `STORES`. What only a store of several processes can do is tested beside that store.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from loops import IDLE, run, standing, until
from redis_servers import redis_store
from sharing import fresh_store

from penstock import (
    AcquireTimeout,
    CostExceedsLimit,
    Limiter,
    QueueFull,
    QuotaExhausted,
    Rate,
    per_minute,
    per_second,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Each gives the URL of a store in which nothing is used.
STORES: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
    "memory": lambda: contextlib.nullcontext("memory://"),
    "shm": fresh_store,
    "redis": redis_store,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    with STORES[request.param]() as url:
        yield url


#: How long a call waits that is to be seen to wait, in seconds.
WAIT = 0.05


@contextlib.contextmanager
def released_while_one_waits(limiter: Limiter, permit: Any) -> Iterator[None]:
    """Give a permit back from another thread, once a call waits, and has done so for `WAIT`."""

    def release() -> None:
        deadline = time.monotonic() + 20
        while limiter.stats().waiting == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(WAIT)
        permit.release()

    releasing = threading.Thread(target=release)
    releasing.start()
    try:
        yield
    finally:
        releasing.join()


def level(limiter: Limiter, dimension: str) -> Any:
    return next(level for level in limiter.stats().levels if level.dimension == dimension)


def test_all_dimensions_are_charged_or_none(store: str) -> None:
    limiter = Limiter(requests=per_minute(10, burst=10), tokens=per_minute(1_000, burst=1_000), store=store)
    permits = [limiter.try_acquire(300) for _ in range(4)]
    assert [permit is not None for permit in permits] == [True, True, True, False]
    assert (level(limiter, "requests").window, level(limiter, "tokens").window) == (7, 100)
    assert limiter.try_acquire(100) is not None
    assert limiter.try_acquire(1) is None
    assert limiter.try_acquire(0) is not None  # requests have room, and a call without tokens needs none
    with pytest.raises(CostExceedsLimit) as told:
        limiter.try_acquire(1_001)
    assert (told.value.dimension, told.value.cost, told.value.limit) == ("tokens", 1_001, 1_000)


def test_a_call_is_settled_to_what_it_used(store: str) -> None:
    limiter = Limiter(tokens=per_minute(1_000, burst=1_000), store=store)
    with limiter.permit(800) as permit:
        permit.settle(tokens=100)
    assert level(limiter, "tokens").window == 900
    with limiter.permit(100) as permit:
        permit.settle(tokens=1_500)
    assert level(limiter, "tokens").available < -500
    assert limiter.try_acquire(1) is None
    permit.settle(tokens=0)  # late, and it still counts
    assert limiter.try_acquire(900) is not None


def test_slots_are_given_back_once(store: str) -> None:
    limiter = Limiter(concurrency=2, store=store)
    one, two = limiter.acquire(), limiter.acquire()
    assert limiter.try_acquire() is None
    one.release()
    one.release()
    three = limiter.try_acquire()
    assert three is not None
    assert limiter.try_acquire() is None
    del two, three
    assert standing(limiter) == IDLE


def test_a_wait_is_told_before_it_is_waited(store: str) -> None:
    limiter = Limiter(requests=Rate(1, 60), store=store)
    limiter.acquire().release()
    with pytest.raises(AcquireTimeout) as told:
        limiter.acquire(timeout=5)
    assert 50 < told.value.retry_after <= 61


def test_those_who_wait_leave_in_their_order(store: str) -> None:
    async def main() -> None:
        limiter = Limiter(requests=per_second(100, burst=1), concurrency=1, store=store)
        order: list[int] = []

        async def call(number: int, priority: int) -> None:
            with await limiter.aacquire(priority=priority):
                order.append(number)

        held = await limiter.aacquire()
        calls = [asyncio.ensure_future(call(number, number // 5)) for number in range(10)]
        await until(lambda: limiter.stats().waiting == 10)
        held.release()
        await asyncio.gather(*calls)
        assert order == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
        assert standing(limiter) == IDLE

    run(main())


def test_a_queue_may_be_full(store: str) -> None:
    async def main() -> None:
        limiter = Limiter(concurrency=1, max_waiting=1, store=store)
        permit = await limiter.aacquire()
        waiting = asyncio.ensure_future(limiter.aacquire())
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await limiter.aacquire()
        permit.release()
        (await waiting).release()

    run(main())


def test_a_release_wakes_a_task_and_a_thread(store: str) -> None:
    limiter = Limiter(concurrency=1, store=store)

    def wait(permit: Any) -> Any:
        with released_while_one_waits(limiter, permit):
            return limiter.acquire(timeout=20)

    async def await_(permit: Any) -> Any:
        with released_while_one_waits(limiter, permit):
            return await limiter.aacquire(timeout=20)

    permit = wait(limiter.acquire())
    assert permit.waited >= WAIT
    permit = run(await_(permit))
    assert permit.waited >= WAIT
    permit.release()
    assert standing(limiter) == IDLE


def test_who_gives_up_holds_nobody_up(store: str) -> None:
    async def main() -> None:
        limiter = Limiter(concurrency=1, store=store)
        permit = await limiter.aacquire()
        first, second = (asyncio.ensure_future(limiter.aacquire()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        permit.release()
        (await second).release()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert standing(limiter) == IDLE
        assert limiter.stats().cancelled == 1

    run(main())


def test_what_the_provider_says_holds(store: str) -> None:
    limiter = Limiter(requests=per_minute(600), tokens=per_minute(1_000), store=store)
    verdict = limiter.observe(429, {"retry-after": "30"}, None)
    assert verdict.kind == "throttled"
    assert 25 < limiter.stats().cooldown <= 30 or limiter.try_acquire() is None
    assert limiter.try_acquire() is None


def test_learned_limits_hold(store: str) -> None:
    limiter = Limiter(requests=per_minute(600, burst=600), store=store)
    limiter.observe(200, {"x-ratelimit-limit-requests": "60"}, None)
    assert level(limiter, "requests").rate.amount == 60
    admitted = sum(limiter.try_acquire() is not None for _ in range(100))
    assert admitted == 60


def test_a_spent_quota_fails_those_who_wait_and_those_who_come(store: str) -> None:
    async def main() -> None:
        limiter = Limiter(concurrency=1, store=store)
        permit = await limiter.aacquire()
        waiting = asyncio.ensure_future(limiter.aacquire())
        await asyncio.sleep(0)
        limiter.observe(429, {}, {"error": {"code": "insufficient_quota", "message": "..."}})
        with pytest.raises(QuotaExhausted):
            await waiting
        with pytest.raises(QuotaExhausted):
            await limiter.aacquire()
        permit.release()
        limiter.observe(200, {}, None)
        (await limiter.aacquire()).release()

    run(main())


def test_limits_change_while_calls_wait(store: str) -> None:
    async def main() -> None:
        limiter = Limiter(requests=Rate(1, 60), concurrency=1, store=store)
        permit = await limiter.aacquire()
        waiting = [asyncio.ensure_future(limiter.aacquire(requests=cost)) for cost in (1, 1)]
        await asyncio.sleep(0)
        limiter.update(requests=[per_minute(600, burst=10), per_second(50)], concurrency=3)
        for waiter in waiting:
            (await waiter).release()
        assert [str(level.rate.amount) for level in limiter.stats().levels] == ["600", "50"]
        with pytest.raises(CostExceedsLimit):
            await limiter.aacquire(requests=51)
        limiter.update(requests=None)
        (await limiter.aacquire(requests=5_000)).release()
        permit.release()
        assert standing(limiter) == IDLE

    run(main())


def test_a_cooldown_holds_all_and_ends(store: str) -> None:
    limiter = Limiter(requests=per_second(1_000), store=store)
    began = time.monotonic()
    limiter.cooldown(0.2)
    limiter.acquire(timeout=20).release()
    assert time.monotonic() - began > 0.19
    limiter.cooldown(30)
    assert limiter.try_acquire() is None


def test_numbers_say_what_happened(store: str) -> None:
    limiter = Limiter(concurrency=1, store=store)
    permit = limiter.acquire()
    for _ in range(3):
        with released_while_one_waits(limiter, permit):
            permit = limiter.acquire()
    permit.release()
    limiter.cooldown(30)
    with pytest.raises(AcquireTimeout):
        limiter.acquire(timeout=0)
    stats = limiter.stats()
    assert (stats.granted, stats.attempts, stats.timeouts, stats.in_flight, stats.waiting) == (4, 4, 1, 0, 0)
    assert 3 * WAIT <= stats.waited < 20
    assert 0 < stats.waited_p99 <= stats.waited_max


def test_inside_a_permit_no_second_slot_is_taken(store: str) -> None:
    limiter = Limiter(requests=per_minute(60, burst=60), concurrency=1, store=store)
    with limiter.permit(), limiter.permit():
        assert limiter.stats().in_flight == 2
    assert level(limiter, "requests").window == 59
    assert standing(limiter) == IDLE


def test_many_at_once_keep_the_limit_and_are_all_served(store: str) -> None:
    async def main() -> int:
        limiter = Limiter(requests=Rate(400, 0.5, burst=400), concurrency=7, network_jitter=0.1, store=store)
        running = most = 0

        async def call() -> None:
            nonlocal running, most
            async with limiter.permit():
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(call() for _ in range(900)))
        assert standing(limiter) == IDLE
        assert limiter.stats().granted == 900
        return most

    began = time.monotonic()
    assert run(main()) == 7
    assert time.monotonic() - began >= 1.2  # two whole windows


def test_threads_of_one_limiter_keep_its_concurrency(store: str) -> None:
    limiter = Limiter(concurrency=3, store=store)
    lock, running, most = threading.Lock(), 0, 0

    def call() -> None:
        nonlocal running, most
        for _ in range(50):
            with limiter:
                with lock:
                    running += 1
                    most = max(most, running)
                time.sleep(0)
                with lock:
                    running -= 1

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 3
    assert standing(limiter) == IDLE


def test_a_pickle_finds_the_limiter_again(store: str) -> None:
    limiter = Limiter(requests=60, name="pickled", store=store)
    assert pickle.loads(pickle.dumps(limiter)) is limiter
    assert limiter.store == store
