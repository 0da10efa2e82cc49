"""`penstock.scope`: what governed calls inherit from the code around them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from governed import URL, answer, body
from loops import lasting

import penstock
from penstock import Limiter
from penstock.scoping import Inherited, inherited
from penstock.testing import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NOTHING = Inherited()


def test_a_scope_names_what_it_names() -> None:
    assert inherited() == NOTHING
    with penstock.scope(key="a", priority=2):
        assert inherited() == Inherited(key="a", priority=2)
        with penstock.scope(key="b", timeout=3, label="chat"):
            assert inherited() == Inherited(key="b", priority=2, timeout=3, label="chat")
        assert inherited() == Inherited(key="a", priority=2)
    assert inherited() == NOTHING


def test_a_scope_can_be_used_again_and_inside_itself() -> None:
    scope = penstock.scope(label="x")
    with scope, scope:
        assert inherited().label == "x"
    assert inherited() == NOTHING
    with pytest.raises(ZeroDivisionError), scope:
        raise ZeroDivisionError
    assert inherited() == NOTHING


def test_tasks_share_a_scope() -> None:
    scope = penstock.scope(label="x")
    seen = []

    async def one(turns: int) -> None:
        async with scope:
            for _ in range(turns):
                await asyncio.sleep(0)
            seen.append(inherited().label)
        seen.append(inherited().label)

    async def main() -> None:
        await asyncio.gather(one(1), one(3), one(2))
        assert inherited() == NOTHING

    asyncio.run(main())
    assert sorted(seen, key=str) == [None] * 3 + ["x"] * 3


def test_functions_and_coroutines_run_in_it() -> None:
    @penstock.scope(label="f")
    def function(a: int, *, b: int = 0) -> tuple[int, str | None]:
        """Doc."""
        return a + b, inherited().label

    @penstock.scope(label="c")
    async def coroutine() -> str | None:
        await asyncio.sleep(0)
        return inherited().label

    assert function(1, b=2) == (3, "f")
    assert (function.__name__, function.__doc__) == ("function", "Doc.")
    assert asyncio.run(coroutine()) == "c"
    assert inherited() == NOTHING


def test_generators_run_in_it_and_who_iterates_does_not() -> None:
    closed = []

    @penstock.scope(label="g")
    def generator() -> Iterator[Any]:
        try:
            sent = yield inherited().label
            try:
                yield sent, inherited().label
            except KeyError as error:
                yield error, inherited().label
            return "end"
        finally:
            closed.append(inherited().label)

    stream: Any = generator()
    assert next(stream) == "g"
    assert inherited() == NOTHING
    assert stream.send(5) == (5, "g")
    error = KeyError()
    assert stream.throw(error) == (error, "g")
    with pytest.raises(StopIteration) as stop:
        next(stream)
    assert stop.value.value == "end"
    half: Any = generator()
    next(half)
    half.close()
    assert closed == ["g", "g"]
    assert inherited() == NOTHING


def test_async_generators_run_in_it() -> None:
    closed = []

    @penstock.scope(label="g")
    async def generator() -> AsyncIterator[Any]:
        try:
            await asyncio.sleep(0)
            sent = yield inherited().label
            try:
                yield sent, inherited().label
            except KeyError as error:
                yield error, inherited().label
        finally:
            closed.append(inherited().label)

    async def main() -> None:
        stream: Any = generator()
        assert await anext(stream) == "g"
        assert inherited() == NOTHING
        assert await stream.asend(5) == (5, "g")
        error = KeyError()
        assert await stream.athrow(error) == (error, "g")
        assert [item async for item in stream] == []
        half: Any = generator()
        await anext(half)
        await half.aclose()
        assert closed == ["g", "g"]
        assert inherited() == NOTHING

    asyncio.run(main())


def test_methods_of_every_kind() -> None:
    class Agent:
        @penstock.scope(label="m")
        def method(self) -> Any:
            return self, inherited().label

        @penstock.scope(label="c")
        @classmethod
        def of_class(cls) -> Any:
            return cls, inherited().label

        @penstock.scope(label="s")
        @staticmethod
        def static() -> Any:
            return inherited().label

    agent = Agent()
    assert agent.method() == (agent, "m")
    assert Agent.of_class() == (Agent, "c")
    assert Agent.static() == "s"


def test_threads_that_copy_the_context_inherit_it() -> None:
    async def main() -> tuple[Any, Any]:
        with penstock.scope(key="tenant"):
            return await asyncio.to_thread(inherited), await asyncio.create_task(asyncio.to_thread(inherited))

    assert asyncio.run(main()) == (Inherited(key="tenant"), Inherited(key="tenant"))
    seen: list[Inherited] = []
    with penstock.scope(key="tenant"):
        context = contextvars.copy_context()
        threads = [threading.Thread(target=context.run, args=(lambda: seen.append(inherited()),))]
        threads += [threading.Thread(target=lambda: seen.append(inherited()))]
        for thread in threads:
            thread.start()
            thread.join()
    assert seen[0] == Inherited(key="tenant")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"key": 1.5}, TypeError, "key must be text or a whole number, not 1.5"),
        ({"priority": "high"}, TypeError, "priority must be a whole number, not 'high'"),
        ({"priority": 2**31}, ValueError, "priority must be from"),
        ({"timeout": "1"}, TypeError, "timeout must be seconds or a timedelta, not '1'"),
        ({"timeout": -1}, ValueError, "timeout must be 0 or more, not -1"),
        ({"timeout": timedelta(seconds=-1)}, ValueError, "timeout must be 0 or more"),
        ({"timeout": float("nan")}, ValueError, "timeout must be 0 or more"),
        ({"label": 5}, TypeError, "label must be text, not 5"),
    ],
)
def test_what_cannot_be_is_named(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        penstock.scope(**arguments)


def test_what_is_no_function_is_named() -> None:
    with pytest.raises(TypeError, match=r"scope\(\) decorates functions, not 5"):
        penstock.scope(label="x")(5)  # type: ignore[type-var]


# What governed calls do with it.


def client(limiter: Limiter, order: list[str]) -> httpx.AsyncClient:
    def provider(request: httpx.Request) -> httpx.Response:
        order.append(request.headers["x-who"])
        return httpx.Response(200, json=answer())

    return penstock.govern(httpx.AsyncClient(transport=httpx.MockTransport(provider)), limiter)


def test_governed_calls_have_its_priority() -> None:
    order: list[str] = []

    async def main() -> None:
        http = client(Limiter(requests=penstock.Rate(1, 10)), order)

        async def call(who: str, **what: Any) -> None:
            with penstock.scope(**what):
                await http.post(URL, json=body(), headers={"x-who": who})

        calls = [call("first"), call("low"), call("high", priority=5), call("middle", priority=4)]
        await asyncio.gather(*calls)

    with virtual_time():
        asyncio.run(main())
    assert order == ["first", "high", "middle", "low"]


def test_governed_calls_are_counted_for_its_key() -> None:
    order: list[str] = []

    async def main() -> None:
        http = client(Limiter(per_key={"requests": lasting(1)}), order)
        for key in ("a", "b"):
            with penstock.scope(key=key, timeout=0):
                await http.post(URL, json=body(), headers={"x-who": key})
                with pytest.raises(penstock.AcquireTimeout):
                    await http.post(URL, json=body(), headers={"x-who": key})

    asyncio.run(main())
    assert order == ["a", "b"]


def test_governed_calls_have_its_timeout() -> None:
    order: list[str] = []

    async def main() -> None:
        limiter = Limiter(requests=penstock.Rate(1, 10))
        http = client(limiter, order)
        await http.post(URL, json=body(), headers={"x-who": "first"})
        with pytest.raises(penstock.AcquireTimeout) as raised:
            async with penstock.scope(timeout=timedelta(seconds=3)):
                await http.post(URL, json=body(), headers={"x-who": "second"})
        assert raised.value.retry_after == pytest.approx(10, rel=0.1)

    with virtual_time() as clock:
        asyncio.run(main())
        assert clock.now < 1  # told at once
    assert order == ["first"]
