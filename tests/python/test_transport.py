"""`penstock.transport` and `atransport`: connections of threads, of loops and of forks; over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import openai
import pytest
from governed import body, roomy
from loops import IDLE, run, spent, standing, turns, until

import penstock
from penstock import Limiter
from penstock.integrations.http import Governed
from penstock.integrations.pools import AsyncPools
from penstock.testing import FakeProvider

BOTH = pytest.mark.parametrize("library", [httpx, httpx2])

ASKED: Any = [{"role": "user", "content": "hello"}]

KEY = {"authorization": "Bearer k"}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(requests=100_000, tokens=100_000_000, latency=0.0) as provider:
        yield provider


class Own(httpx.AsyncBaseTransport):
    """A transport that can be pickled."""


def chat(provider: FakeProvider) -> str:
    return provider.base_url + "/chat/completions"


@BOTH
def test_one_transport_serves_either_library(library: Any, provider: FakeProvider) -> None:
    limiter = roomy()
    with library.Client(transport=penstock.transport(limiter)) as http:
        for _ in range(3):
            assert http.post(chat(provider), json=body(max_tokens=5), headers=KEY).status_code == 200

    async def main() -> None:
        async with library.AsyncClient(transport=penstock.atransport(limiter)) as http:
            for _ in range(3):
                assert (await http.post(chat(provider), json=body(max_tokens=5), headers=KEY)).status_code == 200

    run(main())
    assert spent(limiter) == provider.summary().sent == 6
    assert standing(limiter) == IDLE


@BOTH
def test_many_runs_share_a_client(library: Any, provider: FakeProvider) -> None:
    limiter = roomy()
    http = penstock.govern(library.AsyncClient(), limiter)

    async def main() -> None:
        answers = await asyncio.gather(
            *(http.post(chat(provider), json=body(max_tokens=5), headers=KEY) for _ in range(3))
        )
        assert {answer.status_code for answer in answers} == {200}

    for _ in range(6):
        run(main())  # which fails when anything is left open
    assert spent(limiter) == provider.summary().sent == 18
    assert standing(limiter) == IDLE


def test_many_runs_share_an_sdk(provider: FakeProvider) -> None:
    limiter = roomy()
    sdk = penstock.govern(openai.AsyncOpenAI(base_url=provider.base_url, api_key="k"), limiter)

    async def main(stream: bool) -> None:
        answer = await sdk.chat.completions.create(model="m", messages=ASKED, max_tokens=5, stream=stream)
        if stream:
            assert [chunk async for chunk in answer]

    for turn in range(6):
        run(main(bool(turn % 2)))
    assert spent(limiter) == provider.summary().sent == 6
    assert provider.summary().disconnected == 0


@BOTH
def test_loops_that_live_at_once_have_connections_of_their_own(library: Any, provider: FakeProvider) -> None:
    limiter = roomy()
    http = penstock.govern(library.AsyncClient(), limiter)
    together = threading.Barrier(3)
    failed = []

    async def main() -> None:
        for _ in range(4):
            await asyncio.to_thread(together.wait)
            await asyncio.gather(*(http.post(chat(provider), json=body(max_tokens=5), headers=KEY) for _ in range(3)))

    def thread() -> None:
        try:
            run(main())
        except BaseException as error:
            failed.append(error)
            together.abort()

    threads = [threading.Thread(target=thread) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failed
    assert spent(limiter) == provider.summary().sent == 36
    assert http._transport._pools._owners == {}


@BOTH
def test_a_loop_that_is_only_closed_leaves_nothing(library: Any, provider: FakeProvider) -> None:
    http = penstock.govern(library.AsyncClient(), roomy())
    pools: AsyncPools = http._transport._pools

    async def main() -> None:
        assert (await http.post(chat(provider), json=body(max_tokens=5), headers=KEY)).status_code == 200

    first = asyncio.new_event_loop()
    first.run_until_complete(main())
    pool = pools.transport._pool
    assert len(pool._connections) == 1
    first.close()
    with pytest.warns(ResourceWarning):  # asyncio's own, of a connection whose loop was not shut down
        run(main())
        gc.collect()
    assert pools._owners == {}
    assert pool._connections == []


@BOTH
def test_connections_of_a_loop_before_anyone_governed_are_not_used(library: Any, provider: FakeProvider) -> None:
    # A script that called the bare client in an `asyncio.run`, and governs it for the next.
    http = library.AsyncClient()

    async def main() -> None:
        assert (await http.post(chat(provider), json=body(max_tokens=5), headers=KEY)).status_code == 200

    run(main())
    (left,) = http._transport._pool._connections
    limiter = roomy()
    penstock.govern(http, limiter)
    with pytest.warns(ResourceWarning):  # asyncio's own, of the connection that the first loop left
        run(main())
        del left
        gc.collect()
    run(main())
    assert spent(limiter) == 2
    assert provider.summary().sent == 3


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_an_interpreter_that_exits_with_an_open_loop_says_nothing(library: str, provider: FakeProvider) -> None:
    source = f"""
import asyncio, {library}, penstock
http = penstock.govern({library}.AsyncClient(trust_env=False), penstock.Limiter(requests=6_000))

async def main():
    answer = await http.post({chat(provider)!r}, json={body(max_tokens=5)!r}, headers={dict(KEY)!r})
    print(answer.status_code)

event_loop = asyncio.new_event_loop()
event_loop.run_until_complete(main())
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.stderr) == ("200\n", "")


@BOTH
def test_closing_closes_the_connections(library: Any, provider: FakeProvider) -> None:
    async def main() -> None:
        http = penstock.govern(library.AsyncClient(), roomy())
        await http.post(chat(provider), json=body(max_tokens=5), headers=KEY)
        pool = http._transport.inner._pool
        assert len(pool._connections) == 1
        await http.aclose()
        assert pool._connections == []
        assert http._transport._pools._owners == {}

    run(main())
    with penstock.govern(library.Client(), roomy()) as http:
        http.post(chat(provider), json=body(max_tokens=5), headers=KEY)
        pool = http._transport.inner._pool
        assert len(pool._connections) == 1
    assert pool._connections == []


@BOTH
def test_closing_here_closes_in_loops_elsewhere(library: Any, provider: FakeProvider) -> None:
    http = penstock.govern(library.AsyncClient(), roomy())
    reached, closed = threading.Event(), threading.Event()
    pools = []

    async def elsewhere() -> None:
        await http.post(chat(provider), json=body(max_tokens=5), headers=KEY)
        (own,) = http._transport._pools._owners.values()
        pools.append(own.transport._pool)
        reached.set()
        await asyncio.to_thread(closed.wait, 20)
        for _ in range(1_000):
            if not pools[0]._connections:
                return
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: run(elsewhere()))
    thread.start()
    assert reached.wait(20)
    assert pools[0]._connections

    async def here() -> None:
        await http.aclose()
        closed.set()

    run(here())
    thread.join()
    assert pools[0]._connections == []


@BOTH
def test_settings_of_a_client_are_those_of_each_loop(library: Any) -> None:
    inner = library.AsyncHTTPTransport(http2=False, retries=3, limits=library.Limits(max_connections=7))
    pools = AsyncPools(inner)

    async def main() -> Any:
        return await pools.here()

    outer = asyncio.new_event_loop()
    assert outer.run_until_complete(main()) is inner
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(main())))
    thread.start()
    thread.join()
    (clone,) = seen
    assert clone is not inner
    assert type(clone) is type(inner)
    assert clone._pool is not inner._pool
    assert (clone._pool._retries, clone._pool._max_connections) == (3, 7)
    assert clone._pool._connections is not inner._pool._connections
    outer.run_until_complete(outer.shutdown_asyncgens())
    outer.close()
    assert asyncio.run(main()) is inner  # which is free again


def test_what_cannot_be_cloned_is_shared() -> None:
    inner = httpx.MockTransport(lambda _: httpx.Response(200))
    pools = AsyncPools(inner)

    async def main() -> Any:
        return await pools.here()

    outer = asyncio.new_event_loop()
    assert outer.run_until_complete(main()) is inner
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert asyncio.run(main()) is inner
    outer.run_until_complete(outer.shutdown_asyncgens())
    outer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@BOTH
def test_a_forked_child_has_connections_of_its_own(library: Any, provider: FakeProvider) -> None:
    limiter = roomy()
    http = penstock.govern(library.Client(), limiter)
    assert http.post(chat(provider), json=body(max_tokens=5), headers=KEY).status_code == 200
    parents = http._transport._pools.here()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            answer = http.post(chat(provider), json=body(max_tokens=5), headers=KEY)
            own = http._transport._pools.here()
            if answer.status_code == 200 and own is not parents and standing(limiter) == IDLE:
                code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert http.post(chat(provider), json=body(max_tokens=5), headers=KEY).status_code == 200
    assert http._transport._pools.here() is parents
    assert provider.summary().sent == 3
    http.close()


@pytest.mark.parametrize("make", [penstock.transport, penstock.atransport])
def test_a_transport_can_be_copied_and_pickled(make: Any) -> None:
    limiter = Limiter(requests=100, name=f"travels-{make.__name__}")
    transport = make(limiter)
    assert copy.copy(transport) is transport
    assert copy.deepcopy(transport) is transport
    other = pickle.loads(pickle.dumps(transport))
    assert type(other) is type(transport)
    assert other.keeper.limiter is limiter


def test_a_client_that_is_dropped_is_gone(provider: FakeProvider) -> None:
    async def main() -> None:
        http = penstock.govern(httpx.AsyncClient(), roomy())
        await http.post(chat(provider), json=body(max_tokens=5), headers=KEY)
        await http.aclose()
        gone = weakref.ref(http._transport)
        del http
        gc.collect()
        assert gone() is None

    run(main())


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("how", ["govern", "install"])
@BOTH
def test_a_governor_that_is_collected_closes_nothing_that_is_in_use(library: Any, how: str, again: bool) -> None:
    """A client that is no longer governed, or anew, has the connections of before, and a request under way on one."""
    collected = threading.Event()
    first = True

    def answer(_prompt: object) -> None:
        nonlocal first
        if not first:
            assert collected.wait(20)
        first = False

    async def call(http: Any) -> int:
        return (await http.post(chat(provider), json=body(max_tokens=5), headers=KEY)).status_code

    async def main() -> None:
        async with library.AsyncClient() as http:
            with contextlib.ExitStack() as governed:
                govern(http, governed)
                assert await call(http) == 200
                governor = weakref.ref(http._transport)
            assert not isinstance(http._transport, Governed)
            with contextlib.ExitStack() as governed:
                if again:
                    govern(http, governed)
                task = asyncio.create_task(call(http))
                await until(lambda: provider.summary().sent == 2)
                gc.collect()
                assert governor() is None
                await turns()
                collected.set()
                assert await task == 200

    def govern(http: Any, governed: contextlib.ExitStack) -> None:
        if how == "install":
            governed.enter_context(penstock.install(roomy(), hosts=[provider.origin]))
        else:
            penstock.govern(http, roomy())
            governed.callback(penstock.ungovern, http)

    with FakeProvider(latency=0, answer=answer) as provider:
        try:
            run(main())
        finally:
            collected.set()
        assert provider.summary().sent == 2


def test_a_transport_has_the_same_pools_whoever_governs_it() -> None:
    inner = httpx.AsyncHTTPTransport()
    pools = AsyncPools.of(inner)
    assert AsyncPools.of(inner) is pools
    other = copy.copy(inner)
    assert AsyncPools.of(other) is not pools
    assert AsyncPools.of(other).transport is other
    assert AsyncPools.of(inner) is pools


def test_a_transport_of_ones_own_is_pickled_without_its_pools() -> None:
    transport = penstock.atransport(roomy(), transport=Own())
    pools = AsyncPools.of(transport.inner)
    other = pickle.loads(pickle.dumps(transport))
    assert isinstance(other.inner, Own)
    assert AsyncPools.of(other.inner).transport is other.inner
    assert AsyncPools.of(transport.inner) is pools


def test_governing_a_client_with_a_governed_transport_changes_its_limiter(provider: FakeProvider) -> None:
    own, other = roomy(), roomy()
    with httpx.Client(transport=penstock.transport(own)) as http:
        before = http._transport
        penstock.govern(http, other)
        http.post(chat(provider), json=body(max_tokens=5), headers=KEY)
        assert (spent(own), spent(other)) == (0, 1)
        penstock.ungovern(http)
        assert http._transport is before
        http.post(chat(provider), json=body(max_tokens=5), headers=KEY)
        assert (spent(own), spent(other)) == (1, 1)
