"""Whatever ends a wait or a call: nothing is left in flight or waiting, and what never left is not charged."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import sys
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from loops import IDLE, LOOPS, lasting, new_loop, run, spent, standing, turns, until

import penstock
from penstock import Limiter, Permit, Rate, per_second

pytestmark = pytest.mark.parametrize("kind", LOOPS)

needs_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout and TaskGroup came with 3.11")


@pytest.fixture
def limiter() -> Limiter:
    """One slot, and rates that give nothing back while a test runs."""
    return Limiter(requests=lasting(1_000), tokens=lasting(100_000), concurrency=1)


# Every way to wait for a permit and then to hold it for a while.


async def by_acquire(limiter: Limiter) -> None:
    with await limiter.aacquire(10):
        await asyncio.sleep(0)


async def by_block(limiter: Limiter) -> None:
    async with limiter.permit(10):
        await asyncio.sleep(0)


async def by_decorator(limiter: Limiter) -> None:
    await limiter.limit(tokens=10)(asyncio.sleep)(0)


async def by_async_generator(limiter: Limiter) -> None:
    @limiter.limit(tokens=10)
    async def stream() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)
        yield 2

    assert [item async for item in stream()] == [1, 2]


async def by_gather(limiter: Limiter) -> None:
    await limiter.gather(asyncio.sleep(0), tokens=10)


async def by_amap(limiter: Limiter) -> None:
    await limiter.amap(asyncio.sleep, [0], tokens=10)


ways = pytest.mark.parametrize(
    "way",
    [by_acquire, by_block, by_decorator, by_async_generator, by_gather, by_amap],
    ids=lambda way: way.__name__.removeprefix("by_"),
)
Way = Callable[[Limiter], Awaitable[None]]


async def parked(limiter: Limiter, way: Way) -> tuple[Permit, asyncio.Task[None]]:
    """The permit that holds the only slot, and a task that waits for it."""
    held = limiter.acquire()
    task = asyncio.ensure_future(way(limiter))
    await until(lambda: limiter.stats().waiting == 1)
    return held, task


async def cancelled(task: asyncio.Future[Any]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await task


async def works(limiter: Limiter, way: Way) -> None:
    """Afterwards the limiter serves as before."""
    before = spent(limiter)
    await way(limiter)
    assert spent(limiter) == before + 1
    assert standing(limiter) == IDLE


# Ended while it waits.


@ways
def test_cancelled_while_parked(limiter: Limiter, way: Way, kind: str) -> None:
    async def main() -> None:
        held, task = await parked(limiter, way)
        task.cancel()
        await cancelled(task)
        assert standing(limiter) == (1, 0)
        assert spent(limiter) == 1
        held.release()
        await works(limiter, way)

    run(main(), kind)
    assert limiter.stats().cancelled == 1


@ways
def test_cancelled_when_granted_and_not_yet_resumed(limiter: Limiter, way: Way, kind: str) -> None:
    async def main() -> None:
        held, task = await parked(limiter, way)
        held.release()
        assert standing(limiter) == (1, 0)  # the waiter has it, and does not know
        assert (spent(limiter), spent(limiter, "tokens")) == (2, 10)
        task.cancel()
        await cancelled(task)
        assert standing(limiter) == IDLE
        assert (spent(limiter), spent(limiter, "tokens")) == (1, 0)
        await works(limiter, way)

    run(main(), kind)
    stats = limiter.stats()
    assert (stats.granted, stats.attempts, stats.cancelled) == (3, 2, 1)


@ways
def test_what_a_cancelled_call_had_goes_to_the_next(limiter: Limiter, way: Way, kind: str) -> None:
    async def main() -> None:
        held, first = await parked(limiter, way)
        second = asyncio.ensure_future(way(limiter))
        await until(lambda: limiter.stats().waiting == 2)
        held.release()
        first.cancel()
        await cancelled(first)
        await asyncio.wait_for(second, 30)
        assert spent(limiter) == 2

    run(main(), kind)
    assert standing(limiter) == IDLE


@ways
def test_wait_for(limiter: Limiter, way: Way, kind: str) -> None:
    async def main() -> None:
        held = limiter.acquire()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(way(limiter), 0.01)
        assert standing(limiter) == (1, 0)
        held.release()
        assert spent(limiter) == 1
        await asyncio.wait_for(works(limiter, way), 30)

    run(main(), kind)
    assert standing(limiter) == IDLE


def test_wait_for_that_ends_just_as_the_permit_comes(limiter: Limiter, kind: str) -> None:
    got = lost = 0

    async def main() -> None:
        nonlocal got, lost
        for attempt in range(60):
            held = limiter.acquire()
            asyncio.get_running_loop().call_later(0.001 + attempt % 7 * 1e-5, held.release)
            try:
                permit = await asyncio.wait_for(limiter.aacquire(), 0.001)
            except asyncio.TimeoutError:
                lost += 1
            else:
                permit.release()
                got += 1
            del held
            await until(lambda: standing(limiter) == IDLE)

    run(main(), kind)
    assert got + lost == 60


def test_wait_for_without_any_time(limiter: Limiter, kind: str) -> None:
    async def main() -> None:
        held = limiter.acquire()
        for seconds in (0, -1):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(limiter.aacquire(), seconds)
            await turns()
            assert standing(limiter) == (1, 0)
        held.release()

    run(main(), kind)
    assert standing(limiter) == IDLE
    assert spent(limiter) == 1


@needs_311
@ways
def test_asyncio_timeout(limiter: Limiter, way: Way, kind: str) -> None:
    async def main() -> None:
        held = limiter.acquire()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):  # type: ignore[attr-defined, unused-ignore]
                await way(limiter)
        assert standing(limiter) == (1, 0)
        held.release()
        assert spent(limiter) == 1
        await works(limiter, way)

    run(main(), kind)


@needs_311
@ways
def test_a_task_group_that_aborts(limiter: Limiter, way: Way, kind: str) -> None:
    async def fail() -> None:
        await until(lambda: limiter.stats().waiting == 5)
        raise LookupError("abort")

    async def main() -> None:
        held = limiter.acquire()
        with pytest.raises(BaseException) as caught:
            async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined, unused-ignore]
                for _ in range(5):
                    group.create_task(way(limiter))
                group.create_task(fail())
        assert caught.value.exceptions[0].args == ("abort",)  # type: ignore[attr-defined]
        assert standing(limiter) == (1, 0)
        held.release()
        assert spent(limiter) == 1
        await works(limiter, way)

    run(main(), kind)


def hush_async_generators(way: Way) -> None:
    """Python reports that it cannot close an async generator that is dropped in the middle of a step."""
    if way is by_async_generator:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)


@ways
def test_its_coroutine_is_closed(limiter: Limiter, way: Way, kind: str) -> None:
    if way in (by_gather, by_amap):
        pytest.skip("its waits belong to tasks of its own")

    async def main() -> None:
        hush_async_generators(way)
        held = limiter.acquire()
        coroutine: Any = way(limiter)
        coroutine.send(None)
        assert standing(limiter) == (1, 1)
        coroutine.close()
        await turns()
        assert standing(limiter) == (1, 0)
        coroutine = way(limiter)
        coroutine.send(None)
        held.release()
        assert standing(limiter) == (1, 0)  # granted, not resumed
        coroutine.close()
        await turns()
        assert standing(limiter) == IDLE
        assert spent(limiter) == 1
        await works(limiter, way)

    run(main(), kind)


@ways
def test_its_coroutine_is_dropped(limiter: Limiter, way: Way, kind: str) -> None:
    if way in (by_gather, by_amap):
        pytest.skip("its waits belong to tasks of its own")

    async def main() -> None:
        hush_async_generators(way)
        held = limiter.acquire()
        coroutine: Any = way(limiter)
        coroutine.send(None)
        assert standing(limiter) == (1, 1)
        del coroutine
        gc.collect()
        await turns()
        assert standing(limiter) == (1, 0)
        held.release()
        assert spent(limiter) == 1
        await works(limiter, way)

    run(main(), kind)


@ways
def test_an_exception_is_thrown_in(limiter: Limiter, way: Way, kind: str) -> None:
    if way in (by_gather, by_amap):
        pytest.skip("its waits belong to tasks of its own")

    async def main() -> None:
        held = limiter.acquire()
        for release in (False, True):
            coroutine: Any = way(limiter)
            coroutine.send(None)
            if release:
                held.release()
            with pytest.raises(LookupError, match="thrown"):
                coroutine.throw(LookupError("thrown"))
            assert standing(limiter) == (IDLE if release else (1, 0))
            assert spent(limiter) == 1
        await works(limiter, way)

    run(main(), kind)


@ways
def test_cancelled_before_its_first_step(limiter: Limiter, way: Way, kind: str) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(way(limiter))
        task.cancel()
        await cancelled(task)
        assert standing(limiter) == IDLE
        assert spent(limiter) == 0
        await works(limiter, way)

    run(main(), kind)


@ways
@pytest.mark.parametrize("steps", range(12))
def test_cancelled_at_any_step(limiter: Limiter, way: Way, steps: int, kind: str) -> None:
    async def main() -> None:
        for room in (False, True):
            held = None if room else limiter.acquire()
            task = asyncio.ensure_future(way(limiter))
            await turns(steps)
            if held is not None and steps % 2:
                held.release()
            task.cancel()
            await asyncio.wait([task])
            await turns()
            if held is not None:
                held.release()
            assert standing(limiter) == IDLE
        await works(limiter, way)

    run(main(), kind)


def test_a_waiter_that_nobody_awaits(limiter: Limiter, kind: str) -> None:
    async def main() -> None:
        held = limiter.acquire()
        waiter = limiter.aacquire(10)
        assert standing(limiter) == (1, 1)
        del waiter
        assert standing(limiter) == (1, 0)
        waiter = limiter.permit(10).__aenter__()
        assert standing(limiter) == (1, 1)
        del waiter
        assert standing(limiter) == (1, 0)
        waiter = limiter.aacquire(10)
        held.release()
        assert standing(limiter) == (1, 0)  # granted to someone who does not look
        del waiter
        assert standing(limiter) == IDLE
        assert (spent(limiter), spent(limiter, "tokens")) == (1, 0)

    run(main(), kind)


def test_the_iterator_of_a_waiter_is_dropped(limiter: Limiter, kind: str) -> None:
    """As whoever drives an awaitable by hand may do."""

    async def main() -> None:
        held = limiter.acquire()
        for make in (limiter.aacquire, limiter.permit().__aenter__):
            iterator = make().__await__()
            next(iterator)
            assert standing(limiter) == (1, 1)
            del iterator
            gc.collect()
            assert standing(limiter) == (1, 0)
        held.release()

    run(main(), kind)
    assert standing(limiter) == IDLE


def test_a_permit_that_comes_at_once_and_is_never_taken(limiter: Limiter, kind: str) -> None:
    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # as for any coroutine that is never awaited
            limiter.aacquire(10)
            gc.collect()
        assert standing(limiter) == IDLE

    run(main(), kind)


def test_everyone_is_cancelled_at_once(kind: str) -> None:
    limiter = Limiter(requests=per_second(500, burst=1), concurrency=3)

    async def main() -> None:
        tasks = [asyncio.create_task(by_block(limiter)) for _ in range(1_000)]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert standing(limiter) == IDLE

    run(main(), kind)


# Ended while the call runs.


@ways
def test_cancelled_while_the_call_runs(limiter: Limiter, way: Way, kind: str) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(way(limiter))
        for _ in range(100):
            if limiter.stats().in_flight:
                break
            await asyncio.sleep(0)
        assert standing(limiter) == (1, 0)
        task.cancel()
        await asyncio.wait([task])
        assert standing(limiter) == IDLE
        assert spent(limiter) <= 1  # it may have left: it stays charged then
        await works(limiter, way)

    run(main(), kind)


def test_a_generator_is_dropped(limiter: Limiter, kind: str) -> None:
    @limiter.limit()
    def stream() -> Iterator[int]:
        while True:
            yield 1

    @limiter.limit()
    async def astream() -> AsyncIterator[int]:
        while True:
            yield 1

    async def main() -> None:
        generator = stream()
        next(generator)
        assert standing(limiter) == (1, 0)
        del generator
        assert standing(limiter) == IDLE
        agenerator: Any = astream()
        await agenerator.__anext__()
        assert standing(limiter) == (1, 0)
        del agenerator
        gc.collect()
        await until(lambda: standing(limiter) == IDLE)
        hush_async_generators(by_async_generator)
        held = limiter.acquire()
        agenerator = astream()
        step = agenerator.__anext__()  # dropped while it waits for its permit
        step.send(None)
        assert standing(limiter) == (1, 1)
        del step, agenerator
        gc.collect()
        await until(lambda: standing(limiter) == (1, 0))
        held.release()

    run(main(), kind)
    assert standing(limiter) == IDLE


def test_a_permit_that_an_exception_drops_lets_the_exception_through(limiter: Limiter, kind: str) -> None:
    """What is woken by the end of an object must not take the exception that ended it."""

    async def main() -> None:
        for _ in range(20):
            waiting = asyncio.ensure_future(by_block(limiter))
            with pytest.raises(ZeroDivisionError):
                _ = [limiter.acquire(), await turns(), 1 // 0]  # type: ignore[func-returns-value]
            await asyncio.wait_for(waiting, 30)

    run(main(), kind)
    assert standing(limiter) == IDLE


def test_cancelled_while_a_call_inside_waits(kind: str) -> None:
    limiter = Limiter(requests=lasting(3))
    inside: list[object] = []

    async def call() -> None:
        async with limiter:
            limiter.acquire().release()
            async with limiter.permit(requests=3) as permit:
                inside.append(permit)

    async def outside() -> None:
        async with limiter.permit(requests=2):
            pass

    async def main() -> None:
        for _ in range(3):
            limiter.update(requests=lasting(3))
            task = asyncio.create_task(call())
            await until(lambda: limiter.stats().waiting == 1)
            other = asyncio.create_task(outside())
            await until(lambda: limiter.stats().waiting == 2)
            task.cancel()
            await cancelled(task)
            await asyncio.wait_for(other, 30)  # there is room for it now
            limiter.update(requests=None)

    run(main(), kind)
    assert inside == []
    assert standing(limiter) == IDLE


# Ended with everything around it.


def abandon(limiter: Limiter, kind: str, count: int = 5) -> list[Any]:
    """A closed loop, with tasks that waited in it."""
    event_loop = new_loop(kind)
    event_loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending"
    tasks = [event_loop.create_task(by_block(limiter)) for _ in range(count)]
    event_loop.run_until_complete(turns())
    assert standing(limiter) == (1, count)
    event_loop.close()
    return tasks


def test_a_loop_is_closed_while_calls_wait(limiter: Limiter, kind: str) -> None:
    held = limiter.acquire()
    tasks = abandon(limiter, kind)
    assert standing(limiter) == (1, 0)  # though the tasks are still there
    held.release()
    assert standing(limiter) == IDLE
    run(works(limiter, by_block), kind)
    del tasks
    gc.collect()
    assert standing(limiter) == IDLE
    assert spent(limiter) == 2


def test_a_release_finds_the_next_behind_those_of_a_closed_loop(limiter: Limiter, kind: str) -> None:
    held = limiter.acquire()
    tasks = abandon(limiter, kind)

    async def main() -> None:
        task = asyncio.create_task(by_block(limiter))
        await turns()
        held.release()
        await asyncio.wait_for(task, 30)

    run(main(), kind)
    assert standing(limiter) == IDLE
    assert spent(limiter) == 2
    del tasks
    gc.collect()


def test_a_loop_is_closed_between_the_grant_and_the_resumption(limiter: Limiter, kind: str) -> None:
    held = limiter.acquire()
    event_loop = new_loop(kind)
    event_loop.set_exception_handler(lambda *_: None)

    async def release() -> None:
        task = event_loop.create_task(by_block(limiter))
        tasks.append(task)
        await turns()
        held.release()

    tasks: list[Any] = []
    event_loop.run_until_complete(release())
    event_loop.close()
    tasks.clear()
    gc.collect()
    assert standing(limiter) == IDLE
    run(works(limiter, by_block), kind)


def test_a_loop_is_closed_with_its_timer_running(kind: str) -> None:
    limiter = Limiter(requests=per_second(50, burst=1))
    event_loop = new_loop(kind)
    event_loop.set_exception_handler(lambda *_: None)
    tasks = [event_loop.create_task(by_block(limiter)) for _ in range(5)]
    event_loop.run_until_complete(turns())
    assert limiter.stats().waiting > 0
    event_loop.close()
    assert limiter.stats().waiting == 0

    async def main() -> None:
        await by_block(limiter)

    run(main(), kind)
    del tasks
    gc.collect()
    assert standing(limiter) == IDLE


def test_asyncio_run_inside_a_thread_of_a_task(limiter: Limiter, kind: str) -> None:
    def sub() -> None:
        run(by_block(limiter), kind)

    async def main() -> None:
        held = limiter.acquire()
        thread = asyncio.get_running_loop().run_in_executor(None, sub)
        await until(lambda: limiter.stats().waiting == 1)
        held.release()
        await thread

    run(main(), kind)
    assert standing(limiter) == IDLE


def test_a_limiter_is_dropped_while_calls_wait(kind: str) -> None:
    limiter = Limiter(requests=per_second(1_000, burst=1), concurrency=1)
    gone = weakref.ref(limiter)

    async def main() -> None:
        nonlocal limiter
        held = limiter.acquire()
        waiting = [asyncio.ensure_future(limiter.aacquire()) for _ in range(20)]
        await turns()
        del limiter
        gc.collect()
        assert gone() is None
        for each in waiting[::2]:
            each.cancel()
        held.release()
        for each in waiting[1::2]:
            (await asyncio.wait_for(each, 30)).release()

    run(main(), kind)


def test_nothing_of_a_loop_is_kept(kind: str) -> None:
    limiter = Limiter(requests=per_second(1_000, burst=1))
    event_loop = new_loop(kind)
    event_loop.run_until_complete(asyncio.wait_for(_three(limiter), 30))
    event_loop.close()
    gone = weakref.ref(event_loop)
    del event_loop
    gc.collect()
    assert gone() is None


async def _three(limiter: Limiter) -> None:
    await asyncio.gather(*(by_block(limiter) for _ in range(3)))


# Everything at once, at random.


class Random:
    """Tasks that ask, hold, settle, release, cancel, time out, drop, update and cool down, in an order of chance."""

    def __init__(self, seed: int, limiter: Limiter, *, exact: bool) -> None:
        self.random = random.Random(seed)
        self.limiter = limiter
        #: Whether only what can be added up exactly happens: no cooldowns, no updates, no permits inside permits.
        self.exact = exact
        self.operations = 0
        #: Permits in the hand.
        self.held: list[Permit] = []
        self.tasks: list[asyncio.Task[None]] = []
        #: How many calls left, and what those cost in the end that are over.
        self.left = self.tokens = 0

    def terms(self) -> dict[str, Any]:
        chance = self.random
        return {
            "tokens": chance.choice([0, 1, 5, 20, 20, 20, 2_000]),
            "key": chance.choice(["a", "b", "c", "d", None]),
            "priority": chance.choice([0, 0, 0, 1, -1]),
            "timeout": chance.choice([None, None, 0, 0.001, 0.01, 60]),
        }

    async def ask(self, terms: dict[str, Any]) -> None:
        try:
            permit = await self.limiter.aacquire(**terms)
        except penstock.PenstockError:
            return
        self.left += 1
        self.held.append(permit)

    async def block(self, terms: dict[str, Any]) -> None:
        try:
            async with self.limiter.permit(**terms) as permit:
                self.left += 1
                try:
                    self.settle(permit)
                    if not self.exact and self.random.random() < 0.5:
                        async with self.limiter.permit(**terms) as inner:
                            self.left += 1
                            self.settle(inner)
                    if self.random.random() < 0.2:
                        permit.release()
                    await asyncio.sleep(0)
                finally:
                    self.tokens += permit.cost.tokens
        except penstock.PenstockError:
            pass

    def settle(self, permit: Permit) -> None:
        for _ in range(self.random.choice([0, 1, 1, 2])):
            permit.settle(tokens=self.random.choice([0, 3, 20, 40]))

    def step(self) -> None:
        chance, limiter = self.random, self.limiter
        self.operations += 1
        what = chance.random()
        if what < 0.35:
            ask = self.block if chance.random() < 0.3 else self.ask
            self.tasks.append(asyncio.create_task(ask(self.terms())))
        elif what < 0.62 and self.held:
            permit = self.held.pop(chance.randrange(len(self.held)))
            for _ in range(chance.choice([0, 1, 1, 2])):  # not at all: it is dropped
                permit.release()
                self.settle(permit)
            self.tokens += permit.cost.tokens
        elif what < 0.75 and self.held:
            self.settle(chance.choice(self.held))
        elif what < 0.88 and self.tasks:
            chance.choice(self.tasks).cancel()
        elif what < 0.92:
            taken = limiter.try_acquire(chance.choice([0, 5]), key=chance.choice(["a", None]))
            if taken is not None:
                self.left += 1
                self.held.append(taken)
        elif what < 0.94:
            with warnings.catch_warnings():
                # A permit that was there at once is a coroutine; nobody takes it, and Python says so.
                warnings.simplefilter("ignore", RuntimeWarning)
                self.left += inspect.iscoroutine(limiter.aacquire(key="a"))
        elif what < 0.945 and not self.exact:
            limiter.cooldown(chance.choice([0, 0.0001, 0.0005]))
        elif what < 0.95 and not self.exact:
            tokens = Rate(chance.choice([500, 1_000]), 0.01, burst=500, window=chance.random() < 0.5)
            limiter.update(concurrency=chance.choice([1, 3, 10, None]), tokens=tokens)
        if len(self.tasks) > 500:
            self.tasks = [task for task in self.tasks if not task.done()]
            for task in self.tasks[100:]:
                task.cancel()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("exact", [False, True])
def test_random_interleavings_lose_nothing(seed: int, exact: bool, kind: str) -> None:
    requests, tokens = [Rate(2_000, 0.01, burst=1_000)], [Rate(1_000, 0.01, burst=500)]
    if exact:
        requests.append(lasting(10**9))
        tokens.append(lasting(10**9))
    keys = {"concurrency": 3, "requests": Rate(1_000, 0.01, burst=300)}
    limiter = Limiter(requests=requests, tokens=tokens, concurrency=5, max_waiting=400, per_key=keys)
    chance = Random(seed, limiter, exact=exact)

    async def main() -> None:
        while chance.operations < 50_000:
            for _ in range(chance.random.randrange(1, 40)):
                chance.step()
            await asyncio.sleep(0)
            assert limiter.stats().in_flight >= len(chance.held)
        for task in chance.tasks:
            task.cancel()
        await asyncio.gather(*chance.tasks, return_exceptions=True)
        assert standing(limiter) == (len(chance.held), 0)
        chance.tokens += sum(permit.cost.tokens for permit in chance.held)
        chance.held.clear()

    run(main(), kind)
    gc.collect()
    assert standing(limiter) == IDLE
    stats = limiter.stats()
    assert min(stats.attempts, stats.cancelled, stats.timeouts, stats.refused) > 500  # none of it is rare here
    # Each call that left was counted and charged once, and what it settled for; each that never left gave all back.
    assert stats.attempts == chance.left
    if exact:
        assert [level.rate.amount - level.window for level in stats.levels if level.rate.amount == 10**9] == [
            chance.left,
            chance.tokens,
        ]
    # Whatever was owed is earned again, and every slot is there.
    for _ in range(400):
        time.sleep(0.01)
        levels = [level for level in limiter.stats().levels if level.rate.amount < 10**9]
        if all(level.available == level.rate.burst and level.window == level.rate.amount for level in levels):
            break
    limiter.update(concurrency=5)
    permits = [limiter.try_acquire(5, key=key) for key in "aaaabbbc"]
    assert [permit is not None for permit in permits] == [True, True, True, False, True, True, False, False]
