"""A call inside a permit is charged when it leaves, not when the permit outside was given."""

import asyncio

import pytest

from penstock import AcquireTimeout, Limiter, Permit, Rate

HOUR = 3_600


def limiter() -> Limiter:
    """Ten requests and a thousand tokens at once, next to nothing after that."""
    return Limiter(
        requests=Rate(10, HOUR, burst=10), tokens=Rate(1_000, HOUR, burst=1_000), concurrency=8, network_jitter=0
    )


def available(gate: Limiter) -> tuple[int, ...]:
    return tuple(level.available for level in gate.stats().levels)


async def parked(gate: Limiter, count: int) -> None:
    """Wait until as many calls wait."""
    for _ in range(100):
        await asyncio.sleep(0)
    assert gate.stats().waiting == count


def test_calls_of_a_gather_that_wait_for_tokens_hold_no_requests() -> None:
    """Else ten would leave at once when the tokens come, and ten more on the requests that came back meanwhile."""
    gate = limiter()
    made = []

    @gate.limit(tokens=10)
    async def call(number: int) -> int:
        made.append(number)
        return number

    async def main() -> None:
        gate.acquire(1_000).release()
        calls = gate.gather(*(call(number) for number in range(5)))
        await parked(gate, 5)
        assert available(gate) == (9, 0)
        gate.update(tokens=Rate(2_000, HOUR, burst=2_000))
        assert await calls == [0, 1, 2, 3, 4] == made
        assert available(gate) == (4, 950)

    asyncio.run(main())
    stats = gate.stats()
    assert (stats.in_flight, stats.waiting) == (0, 0)


def test_a_permit_is_charged_again_when_the_call_inside_gives_up() -> None:
    gate = limiter()

    async def main() -> None:
        gate.acquire(900).release()
        async with gate.permit(100) as outside:
            assert available(gate) == (8, 0)
            inside = asyncio.ensure_future(_acquire(gate, 200))
            await parked(gate, 1)
            assert available(gate) == (9, 100)
            inside.cancel()
            with pytest.raises(asyncio.CancelledError):
                await inside
            del inside
            assert available(gate) == (8, 0)
            with pytest.raises(AcquireTimeout):
                await gate.aacquire(200, timeout=0)
            assert available(gate) == (8, 0)
            (await gate.aacquire(100)).release()  # covered, now as before
            assert available(gate) == (8, 0)
            assert outside.cost.tokens == 100

    asyncio.run(main())
    assert gate.stats().in_flight == 0


def test_a_call_inside_that_waits_is_charged_the_larger_of_both_once() -> None:
    gate = limiter()

    async def main() -> None:
        gate.acquire(900).release()
        async with gate.permit(100):
            inside = asyncio.ensure_future(_acquire(gate, 300))
            await parked(gate, 1)
            gate.update(tokens=Rate(2_000, HOUR, burst=2_000))
            (await inside).release()
            assert available(gate) == (8, 800)

    asyncio.run(main())


def test_the_call_inside_leaves_first() -> None:
    """What the permit outside is given back is for the call inside, not for those who wait outside."""
    gate = Limiter(requests=Rate(2, HOUR, burst=2), tokens=Rate(100, HOUR, burst=100), network_jitter=0)
    order = []

    async def outside(begun: asyncio.Event) -> None:
        await begun.wait()
        async with gate.permit():
            order.append("outside")

    async def main() -> None:
        gate.acquire(100).release()
        begun = asyncio.Event()
        other = asyncio.ensure_future(outside(begun))  # made here, so that it is not inside the permit
        async with gate.permit():
            begun.set()
            await parked(gate, 1)
            inside = asyncio.ensure_future(_acquire(gate, 10))
            await parked(gate, 2)
            gate.update(tokens=Rate(200, HOUR, burst=200))
            (await inside).release()
            order.append("inside")
            await parked(gate, 1)
            other.cancel()
        assert order == ["inside"]

    asyncio.run(main())


async def _acquire(gate: Limiter, tokens: int) -> Permit:
    return await gate.aacquire(tokens)
