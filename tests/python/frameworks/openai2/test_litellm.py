"""litellm under `install` and `govern`: its functions, its router, its bridge from httpx to aiohttp."""

import asyncio

import litellm
import pytest
from counting import at_gate, at_server, equal, gate, settled

import penstock
from penstock import Limiter, Rate, Retry
from penstock.testing.provider import Fault

litellm.suppress_debug_info = True
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def where(provider):
    return {"api_base": provider.origin + "/v1", "api_key": "any"}


@pytest.fixture
def router(where):
    return litellm.Router([{"model_name": "small", "litellm_params": {"model": "openai/gpt-4o-mini", **where}}])


def completion(where):
    assert litellm.completion("openai/gpt-4o-mini", HELLO, **where).choices[0].message.content


def streamed(where):
    assert list(litellm.completion("openai/gpt-4o-mini", HELLO, stream=True, **where))


def acompletion(where):
    assert asyncio.run(litellm.acompletion("openai/gpt-4o-mini", HELLO, **where)).choices[0].message.content


def astreamed(where):
    async def read():
        return [chunk async for chunk in await litellm.acompletion("openai/gpt-4o-mini", HELLO, stream=True, **where)]

    assert asyncio.run(read())


def gathered(where):
    async def main():
        calls = (litellm.acompletion("openai/gpt-4o-mini", HELLO, **where) for _ in range(8))
        return await asyncio.gather(*calls)

    assert len(asyncio.run(main())) == 8


def batched(where):
    assert len(litellm.batch_completion("openai/gpt-4o-mini", [HELLO] * 3, **where)) == 3


def embedding(where):
    assert litellm.embedding("openai/text-embedding-3-small", ["Hello", "Goodbye"], **where).data


def aembedding(where):
    assert asyncio.run(litellm.aembedding("openai/text-embedding-3-small", ["Hello"], **where)).data


def anthropic(where):
    where = {**where, "api_base": where["api_base"].removesuffix("/v1")}
    assert litellm.completion("anthropic/claude-sonnet-5", HELLO, max_tokens=50, **where).choices[0].message.content


def aanthropic(where):
    where = {**where, "api_base": where["api_base"].removesuffix("/v1")}

    async def read():
        answer = await litellm.acompletion("anthropic/claude-sonnet-5", HELLO, max_tokens=50, **where)
        stream = await litellm.acompletion("anthropic/claude-sonnet-5", HELLO, max_tokens=50, stream=True, **where)
        return answer, [chunk async for chunk in stream]

    assert asyncio.run(read())


ENTRIES = [
    completion,
    streamed,
    acompletion,
    astreamed,
    gathered,
    batched,
    embedding,
    aembedding,
    anthropic,
    aanthropic,
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
@pytest.mark.parametrize("how", ["install", "govern"])
def test_the_gate_sees_what_the_server_sees(provider, where, entry, how) -> None:
    limiter = gate()
    if how == "install":
        with penstock.install(limiter, hosts=[provider.origin]):
            entry(where)
    else:
        assert penstock.govern(litellm, limiter) is litellm
        try:
            entry(where)
        finally:
            penstock.ungovern(litellm)
    before = equal(provider, limiter)
    completion(where)
    assert at_gate(limiter) == before
    assert at_server(provider).calls == before.calls + 1


def test_the_bridge_to_aiohttp_is_what_is_governed(where) -> None:
    # Else the tests above say nothing about it.
    from litellm.llms.custom_httpx.aiohttp_transport import LiteLLMAiohttpTransport

    from penstock.integrations import http

    used = []
    attach = http.AsyncTransport.__init__

    def noting(self, inner, *args, **kwargs):
        used.append(type(inner))
        attach(self, inner, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http.AsyncTransport, "__init__", noting)
        litellm.in_memory_llm_clients_cache.flush_cache()
        with penstock.install(gate(), hosts=[where["api_base"]]):
            acompletion(where)
    assert LiteLLMAiohttpTransport in used


def test_a_router_is_governed_and_nothing_else(provider, where, router) -> None:
    limiter = gate()
    assert penstock.govern(router, limiter) is router

    async def main():
        await asyncio.gather(*(router.acompletion("small", HELLO) for _ in range(5)))
        stream = await router.acompletion("small", HELLO, stream=True)
        return [chunk async for chunk in stream]

    router.completion("small", HELLO)
    assert list(router.completion("small", HELLO, stream=True))
    assert asyncio.run(main())
    assert equal(provider, limiter).calls == 8
    completion(where)
    assert at_gate(limiter).calls == 8
    penstock.ungovern(router)
    router.completion("small", HELLO)
    assert at_gate(limiter).calls == 8
    assert len(provider.log) == 10


def test_a_router_that_is_gone_leaves_nothing(provider, where) -> None:
    import gc

    from penstock.integrations import process

    made = litellm.Router([{"model_name": "small", "litellm_params": {"model": "openai/gpt-4o-mini", **where}}])
    penstock.govern(made, gate())
    installed = len(process._installed)
    penstock.govern(made, gate())
    assert len(process._installed) == installed
    penstock.ungovern(made)
    assert len(process._installed) == installed - 1
    gc.collect()


@pytest.mark.parametrize("kind", ["error", "overloaded", "insufficient_quota", "daily", "oversize"])
@pytest.mark.parametrize("num_retries", [0, 2])
def test_litellm_retries_no_more(provider, where, kind, num_retries) -> None:
    provider.inject(Fault(kind))
    retry = Retry(attempts=2, initial=0.01, factor=1000, max_delay=20, jitter=None)
    for call in (litellm.completion, lambda *args, **kwargs: asyncio.run(litellm.acompletion(*args, **kwargs))):
        before = len(provider.log)
        with (
            penstock.install(gate(), hosts=[provider.origin], retry=retry),
            pytest.raises(Exception, match=r"[Ee]rror"),
        ):
            call("openai/gpt-4o-mini", HELLO, num_retries=num_retries, **where)
        assert len(provider.log) - before == (2 if kind in {"error", "overloaded"} else 1)


def test_a_router_retries_no_more(provider, router) -> None:
    provider.inject(Fault("error"))
    retry = Retry(attempts=2, initial=0.01, factor=1000, max_delay=20, jitter=None)
    limiter = gate()
    penstock.govern(router, limiter, retry=retry)
    with pytest.raises(litellm.InternalServerError):
        router.completion("small", HELLO, num_retries=2)
    assert len(provider.log) == 2
    settled(limiter)


def test_a_wait_that_is_too_long_is_told_and_sends_nothing(provider, where) -> None:
    limiter = Limiter(requests=Rate(1, 3600))
    with penstock.install(limiter, hosts=[provider.origin]), penstock.scope(timeout=0.1):
        completion(where)
        with pytest.raises(Exception, match=r"no permit in time"):
            completion(where)
    assert len(provider.log) == 1
    settled(limiter)


def test_cancelled_in_the_queue(provider, where) -> None:
    limiter = Limiter(requests=Rate(2, 60, burst=2))

    async def main():
        calls = [asyncio.create_task(litellm.acompletion("openai/gpt-4o-mini", HELLO, **where)) for _ in range(6)]
        while limiter.stats().waiting < 4:
            await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    with penstock.install(limiter, hosts=[provider.origin]):
        asyncio.run(main())
    settled(limiter)
    assert len(provider.log) <= 2
