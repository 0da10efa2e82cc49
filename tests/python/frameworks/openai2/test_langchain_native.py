"""LangChain's own hooks: a rate limiter and agent middleware, alone and over a governed model."""

import asyncio
import gc
import pickle

import pytest
from chat_models import openai, plain
from counting import at_gate, at_server, equal, gate, settled
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.tools import tool

import penstock
from penstock import AcquireTimeout, Limiter, Rate, Retry
from penstock.integrations.langchain import Middleware, RateLimiter
from penstock.testing.provider import Fault


@tool
def weather(city: str) -> str:
    """How the weather is in a city."""
    return f"dry in {city}"


def every_way(llm) -> int:
    """Call a model in each way that there is; gives how many calls that makes."""

    async def in_tasks():
        await asyncio.gather(*(llm.ainvoke("Hello " * number) for number in range(1, 9)))
        [chunk async for chunk in llm.astream("Hello")]

    llm.invoke("Hello")
    list(llm.stream("Good morning"))
    llm.batch(["Hello", "Good morning", "Good night"])
    asyncio.run(in_tasks())
    return 14


@pytest.mark.parametrize("make", [openai, plain])
@pytest.mark.parametrize("governed", [False, True], ids=["alone", "governed"])
def test_a_rate_limiter_counts_each_call_once(provider, make, governed) -> None:
    limiter = gate()
    settings = {"stream_usage": True} if make is openai else {}
    llm = make(provider, rate_limiter=RateLimiter(limiter), **settings)
    if governed:
        penstock.govern(llm, limiter)
    calls = every_way(llm)
    gc.collect()
    assert equal(provider, limiter).calls == calls
    stats = limiter.stats()
    assert stats.attempts == calls


def test_its_permit_is_held_while_the_call_is_under_way(provider) -> None:
    limiter = gate(concurrency=2)
    llm = plain(provider, rate_limiter=RateLimiter(limiter))

    async def main():
        await asyncio.gather(*(llm.ainvoke("Hello") for _ in range(10)))

    asyncio.run(main())
    llm.batch(["Hello"] * 10)
    assert provider.summary().peak_concurrency <= 2
    settled(limiter)


def test_it_charges_what_the_prompt_and_the_bound_of_the_answer_say(provider) -> None:
    limiter = gate(tokens=Rate(1000, 3600, burst=1000))
    llm = plain(provider, max_tokens=300, rate_limiter=RateLimiter(limiter, timeout=0))

    async def main():
        return await asyncio.gather(*(llm.ainvoke("Hello") for _ in range(4)), return_exceptions=True)

    results = asyncio.run(main())
    assert sum(isinstance(result, AcquireTimeout) for result in results) == 1  # 3 x 302 are 906
    assert len(provider.log) == 3


def test_it_says_whether_a_call_may_leave_now(provider) -> None:
    limiter = Limiter(requests=Rate(1, 3600))
    hook = RateLimiter(limiter)
    assert hook.acquire(blocking=False) is True
    assert hook.acquire(blocking=False) is False
    assert asyncio.run(hook.aacquire(blocking=False)) is False
    settled(limiter)


def test_a_failure_gives_the_permit_back_and_tells_the_limiter(provider) -> None:
    provider.inject(Fault("throttled", retry_after=40, times=1))
    limiter = Limiter(requests=600)
    llm = openai(provider, max_retries=0, rate_limiter=RateLimiter(limiter, timeout=1))
    with pytest.raises(Exception, match="429"):
        llm.invoke("Hello")
    settled(limiter)
    with pytest.raises(AcquireTimeout) as raised:
        llm.invoke("Hello")
    assert 30 < raised.value.retry_after <= 40
    assert len(provider.log) == 1


def test_cached_answers_ask_for_nothing(provider) -> None:
    limiter = gate()
    llm = plain(provider, rate_limiter=RateLimiter(limiter), cache=InMemoryCache())
    llm.invoke("Hello")
    llm.invoke("Hello")
    assert equal(provider, limiter).calls == 1


def test_it_finds_its_limiter_again_when_it_is_pickled() -> None:
    limiter = Limiter(requests=60, name="pickled with LangChain")
    made = pickle.loads(pickle.dumps(RateLimiter(limiter, key="acme", priority=2)))
    assert (made.limiter, made.key, made.priority) == (limiter, "acme", 2)


def test_a_model_with_it_is_equal_to_itself_in_the_cache() -> None:
    limiter = Limiter(requests=60, name="named")
    before = repr(RateLimiter(limiter))
    limiter.acquire().release()
    assert repr(RateLimiter(limiter)) == before == "RateLimiter('named')"


@pytest.mark.parametrize("governed", [False, True], ids=["alone", "governed"])
@pytest.mark.parametrize("hooked", [False, True], ids=["without a rate limiter", "with a rate limiter"])
def test_middleware_counts_each_model_call_once(provider, governed, hooked) -> None:
    limiter = gate()
    llm = openai(provider, **({"rate_limiter": RateLimiter(limiter)} if hooked else {}))
    if governed:
        penstock.govern(llm, limiter)
    agent = create_agent(llm, [weather], middleware=[Middleware(limiter)])
    agent.invoke({"messages": [("user", "How is the weather?")]})
    asyncio.run(agent.ainvoke({"messages": [("user", "How is the weather?")]}))
    gc.collect()
    assert equal(provider, limiter).calls == 4


def test_middleware_retries_and_is_the_only_one_to_do_so(provider) -> None:
    provider.inject(Fault("error"))
    limiter = gate()
    retry = Retry(attempts=3, initial=0.01)
    agent = create_agent(openai(provider, max_retries=0), [], middleware=[Middleware(limiter, retry=retry)])
    with pytest.raises(Exception, match="500"):
        agent.invoke({"messages": [("user", "Hello")]})
    assert at_server(provider).calls == at_gate(limiter).calls == 3
    settled(limiter)


def test_middleware_knows_whose_call_it_is(provider) -> None:
    limiter = gate(requests=Rate(100, 3600, burst=100), per_key={"requests": Rate(1, 3600)})
    middleware = Middleware(limiter, key=lambda request: request.messages[-1].content, timeout=0)
    agent = create_agent(openai(provider), [], middleware=[middleware])
    for user in ("ada", "ben"):
        agent.invoke({"messages": [("user", user)]})
        with pytest.raises(AcquireTimeout):
            agent.invoke({"messages": [("user", user)]})
    assert len(provider.log) == 2
