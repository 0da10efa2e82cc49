"""`Limiter`: how it is made, asked, changed and read."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import pickle
import time
import weakref
from datetime import timedelta
from typing import Any

import pytest
from loops import IDLE, LOOPS, lasting, run, spent, standing, turns, until

import penstock
from penstock import Limiter, Rate, per_day, per_hour, per_minute, per_second
from penstock.testing import virtual_time

# Making one.


def test_rates_by_their_period() -> None:
    assert (per_second(5), per_minute(5), per_hour(5), per_day(5)) == (
        Rate(5, 1), Rate(5, 60), Rate(5, 3_600), Rate(5, 86_400),
    )  # fmt: skip
    assert Rate(5, timedelta(minutes=1)) == Rate(5, 60)
    assert per_minute(600).burst == 10
    assert per_minute(3).burst == 1
    assert per_minute(600, burst=600, window=False) == Rate(600, 60, burst=600, window=False)


def test_a_rate_shows_itself_compares_and_pickles() -> None:
    rate = Rate(600, 60, burst=5, window=False)
    assert repr(rate) == "Rate(600, per=60, burst=5, window=False)"
    assert eval(repr(rate), {"Rate": Rate}) == rate
    assert pickle.loads(pickle.dumps(rate)) == rate
    assert rate != Rate(600, 60, burst=5)
    assert len({rate, Rate(600, 60, burst=5, window=False), Rate(600, 60)}) == 2


def test_a_number_is_an_amount_per_minute() -> None:
    levels = Limiter(requests=500, tokens=200_000.0, input_tokens=7, output_tokens=9).stats().levels
    assert [(level.dimension, level.rate) for level in levels] == [
        ("requests", per_minute(500)),
        ("tokens", per_minute(200_000)),
        ("input_tokens", per_minute(7)),
        ("output_tokens", per_minute(9)),
    ]


def test_several_rates_of_one_dimension_all_hold() -> None:
    limiter = Limiter(requests=[lasting(10), lasting(3)], tokens=(per_day(1_000), lasting(100)))
    assert [limiter.try_acquire() is not None for _ in range(5)] == [True, True, True, False, False]
    with pytest.raises(penstock.CostExceedsLimit) as caught:
        limiter.try_acquire(101)
    assert (caught.value.dimension, caught.value.cost, caught.value.limit) == ("tokens", 101, 100)


def test_names() -> None:
    assert Limiter(name="openai").name == "openai"
    assert Limiter().name != Limiter().name
    assert Limiter().store == "memory://"


def test_a_limiter_without_limits_lets_everything_pass() -> None:
    limiter = Limiter()
    permits = [limiter.acquire(10**9) for _ in range(1_000)]
    assert standing(limiter) == (1_000, 0)
    del permits
    assert standing(limiter) == IDLE


def test_a_subclass_is_a_limiter() -> None:
    class Named(Limiter):
        def shout(self) -> str:
            return self.name.upper()

    limiter = Named(requests=lasting(1), name="x")
    assert limiter.shout() == "X"
    with limiter:
        assert standing(limiter) == (1, 0)


def test_a_dropped_limiter_is_freed_with_all_that_belongs_to_it() -> None:
    limiter = Limiter(requests=5)
    gone = weakref.ref(limiter)
    with limiter:
        pass
    del limiter
    gc.collect()
    assert gone() is None


# Asking.


def test_a_block_of_a_thread() -> None:
    limiter = Limiter(requests=lasting(5), tokens=lasting(100), concurrency=1)
    with limiter.permit(30) as permit:
        assert standing(limiter) == (1, 0)
        assert "held" in repr(permit)
        assert permit.waited == 0.0
        assert repr(permit.cost) == "Cost(requests=1, tokens=30, input_tokens=0, output_tokens=0)"
    assert permit.released
    with limiter as permit:
        assert isinstance(permit, penstock.Permit)
    assert standing(limiter) == IDLE
    assert (spent(limiter), spent(limiter, "tokens")) == (2, 30)


def test_a_block_of_a_task() -> None:
    limiter = Limiter(requests=lasting(5), tokens=lasting(100), concurrency=1)

    async def main() -> None:
        async with limiter.permit(tokens=30) as permit:
            assert standing(limiter) == (1, 0)
            assert "held" in repr(permit)
        assert permit.released
        async with limiter:
            pass
        with limiter:  # when there is room a task may use it as a thread does
            pass

    run(main())
    assert standing(limiter) == IDLE
    assert (spent(limiter), spent(limiter, "tokens")) == (3, 30)


def test_a_block_that_raises_gives_its_permit_back() -> None:
    limiter = Limiter(concurrency=1)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with limiter.permit():
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), limiter.permit():
        raise ZeroDivisionError
    run(main())
    assert standing(limiter) == IDLE


def test_a_permit_in_the_hand() -> None:
    limiter = Limiter(requests=lasting(9), concurrency=1)
    permit = limiter.acquire()
    assert standing(limiter) == (1, 0)
    assert limiter.try_acquire() is None
    permit.release()
    permit.release()
    assert standing(limiter) == IDLE
    with limiter.acquire() as permit:
        assert standing(limiter) == (1, 0)
    assert permit.released
    taken = limiter.try_acquire()
    assert taken is not None
    assert "held" in repr(taken)
    taken.release()
    assert "released" in repr(taken)
    assert spent(limiter) == 3


def test_a_permit_that_is_dropped_gives_its_slot_back() -> None:
    limiter = Limiter(concurrency=2)
    limiter.acquire()
    permit = limiter.acquire()
    assert standing(limiter) == (1, 0)
    del permit
    assert standing(limiter) == IDLE


def test_aacquire_gives_a_permit_now_or_later() -> None:
    limiter = Limiter(concurrency=1)

    async def main() -> None:
        first = await limiter.aacquire()
        later = asyncio.ensure_future(limiter.aacquire())
        await turns()
        assert standing(limiter) == (1, 1)
        first.release()
        second = await later
        assert standing(limiter) == (1, 0)
        assert second.waited > 0
        with second:
            pass

    run(main())
    assert standing(limiter) == IDLE
    stats = limiter.stats()
    assert (stats.granted, stats.attempts, stats.cancelled) == (2, 2, 0)
    assert stats.waited > 0
    assert stats.waited_max >= stats.waited_p99 >= stats.waited_p50 == 0


def test_one_scope_serves_many_tasks_at_once() -> None:
    limiter = Limiter(concurrency=3)
    scope = limiter.permit()
    seen: list[int] = []

    async def call(gate: object) -> None:
        async with gate:  # type: ignore[attr-defined]
            seen.append(limiter.stats().in_flight)
            await asyncio.sleep(0.001)

    async def main() -> None:
        await asyncio.gather(*(call(scope) for _ in range(20)), *(call(limiter) for _ in range(20)))

    run(main())
    assert len(seen) == 40
    assert max(seen) == 3
    assert standing(limiter) == IDLE


def test_a_block_whose_permit_was_given_back_early_ends_no_other_block() -> None:
    limiter = Limiter(concurrency=50)

    async def main() -> None:
        leave = asyncio.Event()

        async def stay() -> None:
            async with limiter:
                await leave.wait()

        async def hurry() -> None:
            async with limiter as permit:
                permit.release()

        stays = [asyncio.create_task(stay()) for _ in range(20)]
        await turns()
        for _ in range(20):
            await hurry()
        assert standing(limiter) == (20, 0)
        leave.set()
        await asyncio.gather(*stays)

    run(main())
    assert standing(limiter) == IDLE


def test_first_come_first_served() -> None:
    limiter = Limiter(requests=per_second(1_000, burst=1), concurrency=2)
    order: list[int] = []

    async def call(index: int) -> None:
        async with limiter.permit():
            order.append(index)

    async def main() -> None:
        await asyncio.gather(*(call(index) for index in range(60)))

    run(main())
    assert order == list(range(60))


def test_a_higher_priority_goes_first() -> None:
    limiter = Limiter(concurrency=1)
    order: list[str] = []

    async def call(name: str, priority: int) -> None:
        async with limiter.permit(priority=priority):
            order.append(name)

    async def main() -> None:
        held = limiter.acquire()
        calls = [("low", -5), ("first", 0), ("high", 7), ("second", 0), ("higher", 2**31 - 1), ("lowest", -(2**31))]
        tasks = [asyncio.create_task(call(*each)) for each in calls]
        await turns()
        held.release()
        await asyncio.gather(*tasks)

    run(main())
    assert order == ["higher", "high", "first", "second", "low", "lowest"]


def test_keys_take_turns() -> None:
    limiter = Limiter(concurrency=1)
    order: list[str] = []

    async def call(key: str) -> None:
        async with limiter.permit(key=key):
            order.append(key)

    async def main() -> None:
        held = limiter.acquire()
        tasks = [asyncio.create_task(call("big")) for _ in range(30)]
        tasks += [asyncio.create_task(call("small")) for _ in range(3)]
        await turns()
        assert limiter.stats().keys == 2
        held.release()
        await asyncio.gather(*tasks)

    run(main())
    assert max(place for place, key in enumerate(order) if key == "small") < 10
    assert limiter.stats().keys == 0


def test_each_key_has_limits_of_its_own() -> None:
    limiter = Limiter(requests=lasting(100), per_key={"requests": lasting(3), "tokens": lasting(50), "concurrency": 2})
    held = [limiter.try_acquire(10, key="a") for _ in range(3)]
    assert [permit is not None for permit in held] == [True, True, False]
    assert limiter.try_acquire(10, key="b") is not None
    held.clear()
    assert limiter.try_acquire(40, key="a") is None  # of its 50 tokens 20 are spent
    assert limiter.try_acquire(30, key="a") is not None
    assert limiter.try_acquire(key="a") is None  # and of its 3 requests all
    assert limiter.try_acquire(key="b") is not None
    assert [limiter.try_acquire(key=None) is not None for _ in range(9)] == [True] * 9  # no key, no limit of its own
    with pytest.raises(penstock.CostExceedsLimit) as caught:
        limiter.try_acquire(51, key="a")
    assert (caught.value.dimension, caught.value.cost, caught.value.limit) == ("tokens", 51, 50)
    assert standing(limiter) == IDLE


def test_a_call_without_a_key_is_not_held_to_the_limits_of_keys() -> None:
    limiter = Limiter(per_key={"tokens": lasting(50)})
    assert limiter.try_acquire(1_000) is not None


def test_a_key_that_waits_for_its_own_limits_holds_up_no_other() -> None:
    limiter = Limiter(concurrency=10, per_key={"concurrency": 1})

    async def main() -> None:
        held = limiter.acquire(key="a")
        waiting = asyncio.ensure_future(limiter.aacquire(key="a"))
        await turns()
        assert standing(limiter) == (1, 1)
        async with limiter.permit(key="b"), limiter.permit(key=7), limiter.permit():
            assert standing(limiter) == (4, 1)
        held.release()
        (await waiting).release()

    run(main())
    assert standing(limiter) == IDLE


def test_a_wait_that_is_too_long_is_told_at_once() -> None:
    limiter = Limiter(requests=per_hour(1))
    limiter.acquire().release()
    before = time.monotonic()
    for timeout in (0, 1, 600.0, timedelta(minutes=50)):
        with pytest.raises(penstock.AcquireTimeout) as caught:
            limiter.acquire(timeout=timeout)
        assert 3_000 < caught.value.retry_after < 3_700
        assert limiter.name in str(caught.value)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await limiter.aacquire(timeout=60)
        with pytest.raises(penstock.AcquireTimeout):
            async with limiter.permit(timeout=60):
                pass

    run(main())
    assert time.monotonic() - before < 10
    assert standing(limiter) == IDLE
    stats = limiter.stats()
    assert (stats.timeouts, stats.granted) == (6, 1)


def test_a_timeout_that_comes_while_the_call_waits() -> None:
    limiter = Limiter(concurrency=1)

    async def main() -> None:
        with limiter.acquire():
            began = time.monotonic()
            with pytest.raises(penstock.AcquireTimeout) as caught:
                await limiter.aacquire(timeout=0.05)
            assert time.monotonic() - began >= 0.04
            assert caught.value.retry_after == 0
            with pytest.raises(penstock.AcquireTimeout):
                async with limiter.permit(timeout=timedelta(milliseconds=20)):
                    pass
            with pytest.raises(penstock.AcquireTimeout):
                await asyncio.to_thread(limiter.acquire, timeout=0.02)

    run(main())
    assert standing(limiter) == IDLE
    assert limiter.stats().timeouts == 3


@pytest.mark.parametrize("timeout", [math.inf, 1e300, timedelta.max, 10**18])
def test_an_endless_timeout_is_none(timeout: Any) -> None:
    limiter = Limiter(concurrency=1)

    async def main() -> None:
        held = limiter.acquire()
        waiting = asyncio.ensure_future(limiter.aacquire(timeout=timeout))
        await turns()
        held.release()
        (await waiting).release()

    run(main())
    assert standing(limiter) == IDLE


def test_a_cost_that_no_wait_can_satisfy_is_told_at_once() -> None:
    limiter = Limiter(tokens=lasting(100), concurrency=1)
    held = limiter.acquire(10)
    with pytest.raises(penstock.CostExceedsLimit, match="101 tokens exceeds the limit of 100"):
        limiter.acquire(101)

    async def main() -> None:
        with pytest.raises(ValueError, match="tokens"):
            await limiter.aacquire(101)
        with pytest.raises(penstock.CostExceedsLimit):
            async with limiter.permit(101):
                pass

    run(main())
    held.release()
    assert standing(limiter) == IDLE
    assert spent(limiter, "tokens") == 10
    assert limiter.stats().refused == 3


def test_input_and_output_make_the_tokens_where_these_are_not_said() -> None:
    limiter = Limiter(tokens=lasting(1_000), input_tokens=lasting(1_000), output_tokens=lasting(1_000))
    limiter.acquire(input_tokens=100, output_tokens=20).release()
    assert [spent(limiter, name) for name in ("tokens", "input_tokens", "output_tokens")] == [120, 100, 20]
    limiter.acquire(7, input_tokens=100, output_tokens=20).release()
    assert [spent(limiter, name) for name in ("tokens", "input_tokens", "output_tokens")] == [127, 200, 40]


def test_requests_may_be_several_or_none() -> None:
    limiter = Limiter(requests=lasting(10))
    limiter.acquire(requests=4).release()
    limiter.acquire(requests=0).release()
    assert spent(limiter) == 4


def test_the_queue_may_be_bounded() -> None:
    limiter = Limiter(concurrency=1, max_waiting=2)

    async def main() -> None:
        held = limiter.acquire()
        waiting = [asyncio.ensure_future(limiter.aacquire()) for _ in range(2)]
        await turns()
        with pytest.raises(penstock.QueueFull) as caught:
            await limiter.aacquire()
        assert caught.value.waiting == 2
        with pytest.raises(penstock.QueueFull):
            limiter.acquire()
        assert limiter.try_acquire() is None
        assert standing(limiter) == (1, 2)
        held.release()
        for each in waiting:
            (await each).release()

    run(main())
    assert standing(limiter) == IDLE
    assert limiter.stats().refused == 2


def test_max_waiting_zero_is_now_or_never() -> None:
    limiter = Limiter(concurrency=1, max_waiting=0)
    with limiter.acquire(), pytest.raises(penstock.QueueFull):
        limiter.acquire()
    assert standing(limiter) == IDLE


# Settling.


def test_settling_replaces_the_estimate() -> None:
    limiter = Limiter(requests=lasting(9), tokens=lasting(1_000), input_tokens=lasting(1_000))
    permit = limiter.acquire(500, input_tokens=400)
    permit.settle(tokens=300)
    assert (spent(limiter, "tokens"), spent(limiter, "input_tokens"), spent(limiter)) == (300, 400, 1)
    permit.settle(tokens=700, input_tokens=600)  # again: the last word counts
    assert (spent(limiter, "tokens"), spent(limiter, "input_tokens")) == (700, 600)
    permit.settle(tokens=700, input_tokens=600)
    permit.release()
    permit.settle(10, 5)  # after the release, too
    assert (spent(limiter, "tokens"), spent(limiter, "input_tokens")) == (10, 5)
    assert permit.cost.tokens == 10
    assert (permit.cost.requests, permit.cost.input_tokens, permit.cost.output_tokens) == (1, 5, 0)
    assert standing(limiter) == IDLE


def test_settling_by_input_and_output_makes_the_tokens() -> None:
    limiter = Limiter(tokens=lasting(1_000))
    permit = limiter.acquire(500)
    permit.settle(input_tokens=30, output_tokens=12)
    assert spent(limiter, "tokens") == 42
    permit.settle(input_tokens=50)  # output_tokens and tokens stay as they are
    assert spent(limiter, "tokens") == 42
    permit.settle()
    assert spent(limiter, "tokens") == 42


def test_a_settlement_may_go_beyond_the_limit_into_debt() -> None:
    limiter = Limiter(tokens=lasting(100))
    with limiter.acquire(50) as permit:
        permit.settle(tokens=5_000)
    level = limiter.stats().levels[0]
    assert level.available == -4_900
    assert level.window == 0
    assert limiter.try_acquire(1) is None
    assert limiter.try_acquire(0) is not None


def test_a_refund_sets_free_who_waits() -> None:
    limiter = Limiter(tokens=lasting(100))

    async def main() -> None:
        permit = limiter.acquire(100)
        waiting = asyncio.ensure_future(limiter.aacquire(60))
        await turns()
        assert standing(limiter) == (1, 1)
        permit.settle(tokens=40)
        (await waiting).release()
        permit.release()

    run(main())
    assert spent(limiter, "tokens") == 100


# Changing it.


def test_update_changes_limits_while_calls_wait() -> None:
    limiter = Limiter(requests=lasting(10), tokens=lasting(100), concurrency=1)

    async def main() -> None:
        held = limiter.acquire(90)
        small, large = asyncio.ensure_future(limiter.aacquire(50)), asyncio.ensure_future(limiter.aacquire(80))
        await turns()
        limiter.update(tokens=lasting(70))  # 80 cannot be any more
        with pytest.raises(penstock.CostExceedsLimit):
            await large
        assert standing(limiter) == (1, 1)
        limiter.update(concurrency=2, tokens=lasting(1_000))
        (await small).release()
        held.release()
        assert spent(limiter, "tokens") == 140
        limiter.update(tokens=None, concurrency=None, requests=[lasting(20), lasting(30)])
        assert [level.dimension for level in limiter.stats().levels] == ["requests", "requests"]
        assert limiter.stats().concurrency is None
        permits = [await limiter.aacquire(10**6) for _ in range(10)]
        assert standing(limiter) == (10, 0)
        del permits

    run(main())
    assert standing(limiter) == IDLE


def test_an_update_that_cannot_be_changes_nothing() -> None:
    limiter = Limiter(requests=10, concurrency=3)
    before = limiter.stats()
    for wrong in ({"requests": 5, "tokens": 0}, {"requests": 5, "words": 3}, {"requests": 5, "concurrency": -1}):
        with pytest.raises((TypeError, ValueError)):
            limiter.update(**wrong)
    after = limiter.stats()
    assert [level.rate for level in after.levels] == [level.rate for level in before.levels]
    assert after.concurrency == 3


def test_a_smaller_concurrency_takes_no_slot_away() -> None:
    limiter = Limiter(concurrency=3)
    held = [limiter.acquire() for _ in range(3)]
    limiter.update(concurrency=1)
    assert standing(limiter) == (3, 0)
    held.pop().release()
    held.pop().release()
    assert limiter.try_acquire() is None
    held.pop().release()
    assert limiter.try_acquire() is not None


def test_a_cooldown_holds_everyone() -> None:
    limiter = Limiter(requests=1_000)

    async def main() -> None:
        limiter.cooldown(0.1)
        limiter.cooldown(0.01)  # never shortens
        assert limiter.try_acquire() is None
        assert 0 < limiter.stats().cooldown <= 0.1
        assert "cooling down" in repr(limiter)
        assert "cooling down" in str(limiter.stats())
        async with limiter:
            assert clock.now >= 0.1
        with pytest.raises(penstock.AcquireTimeout) as caught:
            limiter.cooldown(timedelta(hours=1))
            limiter.acquire(timeout=10)
        assert 3_590 < caught.value.retry_after <= 3_600

    with virtual_time() as clock:
        run(main())
    assert standing(limiter) == IDLE


# Reading it.


def test_stats_tell_what_happened() -> None:
    limiter = Limiter(requests=per_minute(500), tokens=200_000, concurrency=16, name="openai")
    with limiter.permit(1_200) as permit:
        stats = limiter.stats()
        assert (stats.name, stats.in_flight, stats.waiting, stats.concurrency) == ("openai", 1, 0, 16)
        assert (stats.granted, stats.attempts, stats.cancelled, stats.timeouts, stats.refused) == (1, 1, 0, 0, 0)
        assert [(level.dimension, level.window) for level in stats.levels] == [("requests", 499), ("tokens", 198_800)]
        permit.settle(tokens=200)
    text = str(limiter.stats())
    for part in ("openai", "0 of 16 in flight, 0 waiting", "1 granted", "499 of 500 per 60 s left"):
        assert part in text
    values = json.loads(json.dumps(limiter.stats().as_dict()))
    assert values["levels"][1]["dimension"] == "tokens"
    assert values["levels"][1]["window"] == 199_800
    assert values["granted"] == 1
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_repr_is_one_readable_line() -> None:
    limiter = Limiter(requests=500, tokens=per_day(1_000), concurrency=16, name="openai")
    with limiter.acquire():
        shown = repr(limiter)
    for part in ("openai", "requests 500/min", "tokens 1000/day", "concurrency 16", "1 in flight", "0 waiting"):
        assert part in shown
    assert "\n" not in shown
    assert "no limits" in repr(Limiter())
    assert "openai" in repr(limiter.permit(5))
    assert "tokens=5" in repr(limiter.permit(5))
    assert "openai" in repr(limiter.acquire(5))


def test_a_limiter_made_at_import_time_serves_one_loop_after_the_other() -> None:
    limiter = Limiter(requests=per_second(1_000, burst=1), concurrency=2)

    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(10)))

    async def call() -> None:
        async with limiter:
            await asyncio.sleep(0)

    for _ in range(3):
        run(main())
        assert standing(limiter) == IDLE
    assert limiter.stats().granted == 30


def test_a_limiter_that_is_dropped_still_serves_who_waits() -> None:
    limiter = Limiter(requests=per_second(1_000, burst=1), concurrency=1)

    async def main() -> None:
        nonlocal limiter
        held = limiter.acquire()
        waiting = [asyncio.ensure_future(limiter.aacquire()) for _ in range(5)]
        await turns()
        del limiter
        gc.collect()
        held.release()
        for each in waiting:
            (await each).release()

    run(main())


def test_waits_are_woken_by_one_timer_however_many_they_are() -> None:
    limiter = Limiter(requests=per_second(2_000, burst=1))

    async def main() -> None:
        event_loop = asyncio.get_running_loop()
        waiting = [asyncio.ensure_future(limiter.aacquire()) for _ in range(200)]
        await turns()
        timers = [handle for handle in event_loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        assert len(timers) <= 1
        await until(lambda: limiter.stats().waiting == 0)
        for each in waiting:
            (await each).release()
        assert not [handle for handle in event_loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]

    run(main())
    assert standing(limiter) == IDLE


class EarlyLoop(asyncio.SelectorEventLoop):
    """Its timers ring two milliseconds early, as those of loops do that count in milliseconds, or a little at least."""

    def call_at(self, when: float, *given: Any, **more: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        return super().call_at(when - 0.002, *given, **more)


@pytest.mark.parametrize("kind", [*LOOPS, "early"])
def test_no_one_sleeps_on_because_a_timer_rang_early(kind: str) -> None:
    limiter = Limiter(requests=per_second(1_000, burst=1), concurrency=1)

    async def call() -> None:
        async with limiter.permit():
            pass

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(*(call() for _ in range(300))), 30)

    if kind == "early":
        event_loop = EarlyLoop()
        event_loop.run_until_complete(main())
        event_loop.close()
    else:
        run(main(), kind)
    assert standing(limiter) == IDLE
