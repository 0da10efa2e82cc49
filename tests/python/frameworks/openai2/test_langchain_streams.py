"""Streams of governed models that nobody reads to their end, and calls that are cancelled: nothing stays held."""

import asyncio
import gc

import pytest
from chat_models import MAKERS, openai, plain
from counting import gate, settled

import penstock
from penstock import Limiter, Rate
from penstock.integrations.langchain import RateLimiter


@pytest.mark.parametrize("name", MAKERS)
def test_a_stream_holds_its_place_until_it_is_left(provider, name) -> None:
    limiter = gate()
    llm = penstock.govern(MAKERS[name](provider), limiter)
    stream = llm.stream("Hello")
    next(stream)
    assert limiter.stats().in_flight == 1
    stream.close()
    settled(limiter)

    async def left():
        stream = llm.astream("Hello")
        await anext(stream)
        held = limiter.stats().in_flight
        await stream.aclose()
        return held

    assert asyncio.run(left()) == 1
    gc.collect()
    settled(limiter)


@pytest.mark.parametrize("name", MAKERS)
def test_a_stream_that_is_dropped_unread_or_half_read_holds_nothing(provider, name) -> None:
    limiter = gate()
    llm = penstock.govern(MAKERS[name](provider), limiter)

    async def dropped():
        llm.astream("Hello")
        async for _ in llm.astream("Hello"):
            break
        gc.collect()
        for _ in range(100):
            if limiter.stats().in_flight == 0:
                return
            await asyncio.sleep(0.02)

    llm.stream("Hello")
    for _ in llm.stream("Hello"):
        break
    gc.collect()
    settled(limiter)
    asyncio.run(dropped())
    settled(limiter)


@pytest.mark.parametrize("make", [openai, plain])
@pytest.mark.parametrize("how", ["governed", "with a rate limiter"])
def test_cancelled_in_the_queue_and_under_way(provider, make, how) -> None:
    limiter = Limiter(requests=Rate(3, 60, burst=3), concurrency=3)
    if how == "governed":
        llm = penstock.govern(make(provider), limiter)
    else:
        llm = make(provider, rate_limiter=RateLimiter(limiter))

    async def main():
        calls = [asyncio.create_task(llm.ainvoke("Hello")) for _ in range(10)]
        while limiter.stats().waiting < 7:
            await asyncio.sleep(0.005)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())
    gc.collect()
    settled(limiter)
    assert len(provider.log) <= 3
