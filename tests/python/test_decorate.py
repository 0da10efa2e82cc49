"""`Limiter.limit`: what it makes of each kind of callable, and when the permit comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import itertools
import sys
import types
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from loops import IDLE, lasting, new_loop, run, spent, standing, turns

import penstock
from penstock import Limiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(requests=lasting(1_000), tokens=lasting(1_000_000), concurrency=1)


def charged(limiter: Limiter) -> tuple[int, int]:
    return spent(limiter), spent(limiter, "tokens")


# Kinds.


def test_a_function(limiter: Limiter) -> None:
    @limiter.limit(tokens=10)
    def add(one: int, other: int = 2) -> int:
        """Add."""
        assert standing(limiter) == (1, 0)
        return one + other

    assert add(1) == 3
    assert add(1, other=5) == 6
    assert standing(limiter) == IDLE
    assert charged(limiter) == (2, 20)
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Add.", __name__)
    assert add.__annotations__ == {"one": "int", "other": "int", "return": "int"}
    assert inspect.signature(add) == inspect.signature(vars(add)["__wrapped__"])


def test_a_coroutine_function(limiter: Limiter) -> None:
    @limiter.limit(tokens=10)
    async def add(one: int, other: int = 2) -> int:
        assert limiter.stats().in_flight == 1
        await asyncio.sleep(0)
        return one + other

    async def main() -> None:
        assert await add(1) == 3
        assert await asyncio.gather(*(add(1, other=each) for each in range(5))) == [1, 2, 3, 4, 5]

    run(main())
    assert standing(limiter) == IDLE
    assert charged(limiter) == (6, 60)


def test_a_coroutine_that_is_made_and_not_awaited_asks_for_nothing(limiter: Limiter) -> None:
    @limiter.limit(tokens=10)
    async def call() -> None: ...

    call().close()
    assert charged(limiter) == (0, 0)


def test_kinds_are_kept(limiter: Limiter) -> None:
    def function() -> None: ...
    async def coroutine() -> None: ...
    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    for each in (function, coroutine, generator, async_generator):
        wrapped: Any = limiter.limit()(each)
        assert [kind(wrapped) for kind in kinds] == [kind(each) for kind in kinds]
        assert wrapped.__name__ == each.__name__
        assert wrapped.__wrapped__ is each
        assert asyncio.iscoroutinefunction(wrapped) == asyncio.iscoroutinefunction(each)


def test_methods(limiter: Limiter) -> None:
    class Client:
        name = "client"

        @limiter.limit(tokens=lambda self, text: len(text))
        def call(self, text: str) -> str:
            return self.name + text

        @limiter.limit(tokens=10)
        async def acall(self) -> str:
            return self.name

        @classmethod
        @limiter.limit()
        def of_class(cls) -> str:
            return cls.name

        @staticmethod
        @limiter.limit()
        async def of_nobody() -> str:
            return "static"

        @limiter.limit()
        @classmethod
        def of_class_too(cls) -> str:
            return cls.name

        @limiter.limit()
        @staticmethod
        async def of_nobody_too() -> str:
            assert standing(limiter) == (1, 0)
            return "static"

    client = Client()
    assert client.call("12345") == "client12345"
    assert charged(limiter) == (1, 5)
    assert run(client.acall()) == "client"
    assert Client.of_class() == client.of_class() == Client.of_class_too() == client.of_class_too() == "client"
    assert run(client.of_nobody()) == run(Client.of_nobody()) == "static"
    assert run(client.of_nobody_too()) == run(Client.of_nobody_too()) == "static"
    bound = limiter.limit()(Client().acall)
    assert inspect.iscoroutinefunction(bound)
    assert run(bound()) == "client"
    assert standing(limiter) == IDLE


def test_partials(limiter: Limiter) -> None:
    async def acall(one: int, other: int) -> int:
        assert standing(limiter) == (1, 0)
        return one + other

    def numbers(start: int, end: int) -> Iterator[int]:
        assert standing(limiter) == (1, 0)
        yield from range(start, end)

    wrapped = limiter.limit()(functools.partial(functools.partial(acall, 1), other=2))
    assert inspect.iscoroutinefunction(wrapped)
    assert run(wrapped()) == 3
    assert list(limiter.limit()(functools.partial(numbers, 1))(4)) == [1, 2, 3]
    assert limiter.limit()(functools.partial(max, 3))(7) == 7
    assert standing(limiter) == IDLE
    assert charged(limiter)[0] == 3


def test_objects_that_can_be_called(limiter: Limiter) -> None:
    class Function:
        def __call__(self, value: int) -> int:
            assert standing(limiter) == (1, 0)
            return value

    class Coroutine:
        async def __call__(self, value: int) -> int:
            assert standing(limiter) == (1, 0)
            return value

    class Stream:
        async def __call__(self, value: int) -> AsyncIterator[int]:
            assert standing(limiter) == (1, 0)
            yield value

    async def main() -> None:
        assert [item async for item in limiter.limit()(Stream())(5)] == [5]
        assert await limiter.limit()(functools.partial(Coroutine(), 5))() == 5
        assert await limiter.limit()(mock.AsyncMock(return_value=5))() == 5

    assert limiter.limit()(Function())(5) == 5
    assert run(limiter.limit()(Coroutine())(5)) == 5
    run(main())
    assert limiter.limit()(len)([1, 2]) == 2
    assert standing(limiter) == IDLE


def test_a_function_that_gives_a_coroutine(limiter: Limiter) -> None:
    async def answer() -> int:
        assert standing(limiter) == (1, 0)
        await asyncio.sleep(0)
        return 5

    def plain() -> Any:
        return answer()

    call = limiter.limit(tokens=10, usage=lambda result: result)(plain)
    assert run(call()) == 5
    assert charged(limiter) == (1, 5)
    assert standing(limiter) == IDLE


@pytest.mark.parametrize("wrong", [5, None, "text", object()])
def test_what_cannot_be_called_is_not_decorated(limiter: Limiter, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"limit\(\) decorates functions, not"):
        limiter.limit()(wrong)


def test_without_parentheses_it_says_so(limiter: Limiter) -> None:
    @limiter.limit  # type: ignore[arg-type]
    def call(text: str) -> str:
        return text

    with pytest.raises(TypeError, match="parentheses"):
        call("text")  # type: ignore[type-var]


def test_decorators_in_each_other_keep_metadata(limiter: Limiter) -> None:
    other = Limiter(requests=lasting(5))

    @limiter.limit()
    @other.limit()
    async def call() -> str:
        """Says it."""
        return "it"

    assert call.__doc__ == "Says it."
    assert run(call()) == "it"
    assert (spent(limiter), spent(other)) == (1, 1)


# Exceptions.


def test_exceptions_go_through_and_give_the_permit_back(limiter: Limiter) -> None:
    @limiter.limit()
    def fail() -> None:
        raise ZeroDivisionError("sync")

    @limiter.limit()
    async def afail() -> None:
        raise ZeroDivisionError("async")

    @limiter.limit()
    def stream() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("generator")

    @limiter.limit()
    async def astream() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError("async generator")

    async def consume() -> list[int]:
        return [item async for item in astream()]

    for call, said in ((fail, "sync"), (lambda: run(afail()), "async"), (lambda: list(stream()), "generator")):
        with pytest.raises(ZeroDivisionError, match=said):
            call()
        assert standing(limiter) == IDLE
    with pytest.raises(ZeroDivisionError, match="async generator"):
        run(consume())
    assert standing(limiter) == IDLE


def test_a_refused_call_is_not_made(limiter: Limiter) -> None:
    made: list[int] = []
    call = limiter.limit(tokens=10, timeout=0)(made.append)

    @limiter.limit(tokens=lambda cost: cost)
    async def acall(cost: int) -> None:
        made.append(cost)

    with limiter.acquire(), pytest.raises(penstock.AcquireTimeout):
        call(1)
    with pytest.raises(penstock.CostExceedsLimit):
        run(acall(10**7))
    assert made == []
    assert charged(limiter) == (1, 0)
    assert standing(limiter) == IDLE


# Costs and keys.


def test_costs_and_keys_may_be_functions_of_the_call() -> None:
    limiter = Limiter(
        requests=lasting(100), tokens=lasting(1_000), input_tokens=lasting(1_000), output_tokens=lasting(1_000),
        per_key={"requests": lasting(1)},
    )  # fmt: skip
    seen: list[Any] = []

    @limiter.limit(
        lambda text, *, most=10, user: len(text) + most,
        requests=lambda text, **_: 2 if text == "batch" else 1,
        input_tokens=lambda text, **_: len(text),
        output_tokens=lambda text, *, most=10, **_: most,
        key=lambda text, *, user, **_: user,
        timeout=0,
    )
    def call(text: str, *, most: int = 10, user: str | int | None) -> None:
        seen.append(user)

    call("12345", user="a")
    call("12345", user=7, most=20)
    call("12345", user=None)
    call("12345", user=None)
    with pytest.raises(penstock.AcquireTimeout):
        call("12345", user="a")
    with pytest.raises(penstock.CostExceedsLimit):
        call("batch", user="b")  # its key may make one request
    assert seen == ["a", 7, None, None]
    assert [spent(limiter, name) for name in ("requests", "tokens", "input_tokens", "output_tokens")] == [4, 70, 20, 50]


@pytest.mark.parametrize("name", ["tokens", "requests", "input_tokens", "output_tokens", "key"])
@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_a_cost_that_raises_leaves_nothing_behind(limiter: Limiter, name: str, kind: str) -> None:
    made = []

    def fail(*_: object) -> int:
        raise LookupError(name)

    call = consumer(anything(limiter.limit, **{name: fail})(of_kind(kind, lambda: made.append(1))), kind)
    with pytest.raises(LookupError, match=name):
        call()
    assert made == []
    assert charged(limiter) == (0, 0)
    assert standing(limiter) == IDLE


@pytest.mark.parametrize("name", ["tokens", "requests", "input_tokens", "output_tokens", "key"])
@pytest.mark.parametrize("nonsense", [-1, 1.5, float("nan"), float("inf"), "many", object(), True, [3], 10**30, b"3"])
@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_a_cost_that_gives_nonsense_leaves_nothing_behind(
    limiter: Limiter, name: str, nonsense: object, kind: str
) -> None:
    if name == "key" and (isinstance(nonsense, str) or type(nonsense) is int):
        pytest.skip("that is a key")
    made = []
    call = consumer(anything(limiter.limit, **{name: lambda *_: nonsense})(of_kind(kind, lambda: made.append(1))), kind)
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        call()
    assert made == []
    assert charged(limiter) == (0, 0)
    assert standing(limiter) == IDLE


def anything(call: Any, **given: Any) -> Any:
    """Call it with what its types would not allow."""
    return call(**given)


def of_kind(kind: str, do: Callable[[], Any]) -> Callable[..., Any]:
    """A callable of that kind which does something and gives what that gives."""

    def function() -> Any:
        return do()

    async def coroutine() -> Any:
        return do()

    def generator() -> Iterator[Any]:
        yield do()

    async def async_generator() -> AsyncIterator[Any]:
        yield do()

    kinds = {"function": function, "coroutine": coroutine, "generator": generator, "async generator": async_generator}
    return kinds[kind]


def consumer(call: Callable[..., Any], kind: str) -> Callable[[], Any]:
    """Call it, and take all that it gives."""

    async def collect() -> list[Any]:
        return [item async for item in call()]

    return {
        "function": call,
        "coroutine": lambda: run(call()),
        "generator": lambda: list(call()),
        "async generator": lambda: run(collect()),
    }[kind]


# Usage.


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (40, (40, 70, 30)),
        (40.0, (40, 70, 30)),
        (0, (0, 70, 30)),
        (None, (100, 70, 30)),
        ({"tokens": 40}, (40, 70, 30)),
        ({"input_tokens": 30, "output_tokens": 5}, (35, 30, 5)),
        ({"tokens": 50, "input_tokens": 30, "output_tokens": 5}, (50, 30, 5)),
        ({"input_tokens": 30}, (100, 30, 30)),  # nothing is known of the rest: it stays as estimated
        ({"output_tokens": 3}, (100, 70, 3)),
        ({"tokens": 40, "output_tokens": None}, (40, 70, 30)),
        (penstock.Usage(40), (40, 70, 30)),
        (penstock.Usage(40, 35, 5), (40, 35, 5)),
        ({"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35}, (35, 30, 5)),
        (types.SimpleNamespace(input_tokens=30, output_tokens=5), (35, 30, 5)),
    ],
)
@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_usage_settles_the_permit(used: Any, expected: tuple[int, ...], kind: str) -> None:
    limiter = Limiter(tokens=lasting(1_000), input_tokens=lasting(1_000), output_tokens=lasting(1_000))
    decorated = limiter.limit(tokens=100, input_tokens=70, output_tokens=30, usage=lambda result: used)
    consumer(decorated(of_kind(kind, lambda: "result")), kind)()
    assert tuple(spent(limiter, name) for name in ("tokens", "input_tokens", "output_tokens")) == expected
    assert standing(limiter) == IDLE


@pytest.mark.parametrize(
    "nonsense",
    [
        *(-1, 1.5, float("nan"), 10**30, True, "many", [3], {}, {"words": 3}, {"input_tokens": "many"}, object()),
        {"tokens": 5, "input_tokens": "many", "output_tokens": 3},
        {"input_tokens": -1, "output_tokens": 3},
    ],
)
@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_usage_that_is_nonsense_says_so_and_holds_nothing(limiter: Limiter, nonsense: Any, kind: str) -> None:
    call = consumer(limiter.limit(tokens=100, usage=lambda _: nonsense)(of_kind(kind, lambda: "result")), kind)
    with pytest.raises((TypeError, ValueError), match=r"(usage|tokens) must") as caught:
        call()
    assert caught.value.__traceback__ is not None  # it is alive, and so are its frames
    assert standing(limiter) == IDLE
    assert charged(limiter) == (1, 100)


@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_usage_that_raises_holds_nothing(limiter: Limiter, kind: str) -> None:
    def fail(_: object) -> int:
        raise LookupError("usage")

    call = consumer(limiter.limit(tokens=100, usage=fail)(of_kind(kind, lambda: "result")), kind)
    with pytest.raises(LookupError) as caught:
        call()
    assert caught.value.__traceback__ is not None
    assert standing(limiter) == IDLE
    assert charged(limiter) == (1, 100)


def test_usage_must_be_a_function(limiter: Limiter) -> None:
    with pytest.raises(TypeError, match="usage must be a function of a call's result, or None, not 5"):
        limiter.limit(usage=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_usage_is_found_by_default(limiter: Limiter, kind: str) -> None:
    result = types.SimpleNamespace(usage=types.SimpleNamespace(prompt_tokens=30, completion_tokens=5, total_tokens=35))
    assert consumer(limiter.limit(tokens=100)(of_kind(kind, lambda: result)), kind)() in (result, [result])
    assert charged(limiter) == (1, 35)


@pytest.mark.parametrize("tokens", [-5, 10**30, True, "5"])
def test_usage_that_no_provider_would_report_is_no_reason_to_lose_the_result(limiter: Limiter, tokens: object) -> None:
    result = {"usage": {"total_tokens": tokens, "prompt_tokens": tokens}}
    assert limiter.limit(tokens=100)(lambda: result)() is result
    assert charged(limiter) == (1, 100)


def test_a_limiter_that_counts_no_tokens_does_not_look_for_usage() -> None:
    class Result:
        @property
        def usage(self) -> None:
            raise AssertionError("looked")

    limiter = Limiter(requests=lasting(5))
    assert isinstance(limiter.limit()(lambda: Result())(), Result)


def test_a_stream_of_usage_is_put_together() -> None:
    """OpenAI says it in the last chunk; Anthropic the input in the first event, and the output in later ones."""
    limiter = Limiter(tokens=lasting(1_000), input_tokens=lasting(1_000), output_tokens=lasting(1_000))
    decorated = limiter.limit(tokens=100, input_tokens=70, output_tokens=30)

    def counts() -> tuple[int, ...]:
        return tuple(spent(limiter, name) for name in ("tokens", "input_tokens", "output_tokens"))

    @decorated
    def openai() -> Iterator[Any]:
        yield {"choices": [1], "usage": None}
        yield {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}}

    @decorated
    def anthropic() -> Iterator[Any]:
        yield {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}
        yield {"type": "content_block_delta", "delta": {"text": "hello"}}
        yield {"type": "message_delta", "usage": {"output_tokens": 5}}
        yield {"type": "message_delta", "usage": {"output_tokens": 15}}
        yield {"type": "message_stop"}

    list(openai())
    assert counts() == (30, 20, 10)
    list(anthropic())
    assert counts() == (30 + 40, 20 + 25, 10 + 15)


# Streams.


def numbers(limiter: Limiter, log: list[str], count: int = 3) -> Callable[[], Generator[int, None, None]]:
    @limiter.limit(tokens=10)
    def generator() -> Generator[int, None, None]:
        try:
            for number in range(count):
                assert standing(limiter) == (1, 0)
                yield number
            log.append("exhausted")
        finally:
            assert standing(limiter) == (1, 0)
            log.append("over")

    return generator


def anumbers(limiter: Limiter, log: list[str], count: int = 3) -> Callable[[], AsyncGenerator[int, None]]:
    @limiter.limit(tokens=10)
    async def generator() -> AsyncGenerator[int, None]:
        try:
            for number in range(count):
                assert standing(limiter) == (1, 0)
                await asyncio.sleep(0)
                yield number
            log.append("exhausted")
        finally:
            assert standing(limiter) == (1, 0)
            log.append("over")

    return generator


def test_a_generator_holds_its_permit_until_it_is_exhausted(limiter: Limiter) -> None:
    log: list[str] = []
    stream = numbers(limiter, log)()
    assert charged(limiter) == (0, 0)  # a generator that is not started asks for nothing
    for number in stream:
        assert standing(limiter) == (1, 0)
        assert number in range(3)
    assert standing(limiter) == IDLE
    assert log == ["exhausted", "over"]
    assert charged(limiter) == (1, 10)


def test_a_generator_that_is_closed_or_dropped_half_way(limiter: Limiter) -> None:
    log: list[str] = []
    stream = numbers(limiter, log)()
    assert next(stream) == 0
    stream.close()
    assert standing(limiter) == IDLE
    stream.close()
    stream = numbers(limiter, log)()
    assert next(stream) == 0
    del stream
    gc.collect()
    assert standing(limiter) == IDLE
    assert log == ["over", "over"]
    numbers(limiter, log)()  # never started
    for number in numbers(limiter, log)():
        if number == 1:
            break
    del number
    gc.collect()
    assert standing(limiter) == IDLE
    assert charged(limiter) == (3, 30)


def test_an_async_generator_holds_its_permit_until_it_is_exhausted(limiter: Limiter) -> None:
    log: list[str] = []

    async def main() -> None:
        assert [number async for number in anumbers(limiter, log)()] == [0, 1, 2]
        assert standing(limiter) == IDLE
        stream = anumbers(limiter, log)()
        assert await anext_(stream) == 0
        assert standing(limiter) == (1, 0)
        await stream.aclose()
        assert standing(limiter) == IDLE
        await stream.aclose()
        async with contextlib.aclosing(anumbers(limiter, log)()) as stream:
            async for _ in stream:
                break
        assert standing(limiter) == IDLE
        anumbers(limiter, log)()  # never started

    run(main())
    assert log == ["exhausted", "over", "over", "over"]
    assert charged(limiter) == (3, 30)


def test_an_async_generator_that_is_dropped_half_way(limiter: Limiter) -> None:
    log: list[str] = []

    async def main() -> None:
        async for _ in anumbers(limiter, log)():
            break
        gc.collect()
        await turns()  # the loop closes it
        assert standing(limiter) == IDLE

    run(main())
    assert log == ["over"]


def test_an_async_generator_whose_loop_is_gone(limiter: Limiter) -> None:
    async def start() -> AsyncIterator[int]:
        stream = limiter.limit()(endless)()
        await anext_(stream)
        return stream

    async def endless() -> AsyncIterator[int]:
        while True:
            yield 1

    event_loop = new_loop()
    stream = event_loop.run_until_complete(start())
    event_loop.close()
    assert standing(limiter) == (1, 0)
    del stream
    gc.collect()
    assert standing(limiter) == IDLE


async def anext_(stream: Any) -> Any:
    return await stream.__anext__()


def conversation(log: list[Any]) -> Generator[Any, Any, str]:
    try:
        received = yield "start"
        while received != "stop":
            try:
                received = yield ("got", received)
            except LookupError as error:
                received = yield ("caught", str(error))
    finally:
        log.append("over")
    return "returned"


async def aconversation(log: list[Any]) -> AsyncGenerator[Any, Any]:
    try:
        received = yield "start"
        while received != "stop":
            try:
                received = yield ("got", received)
            except LookupError as error:
                received = yield ("caught", str(error))
    finally:
        log.append("over")


def test_send_throw_and_return_go_through(limiter: Limiter) -> None:
    log: list[Any] = []
    wrapped = limiter.limit()(conversation)
    stream: Any = wrapped(log)
    assert next(stream) == "start"
    assert stream.send(1) == ("got", 1)
    assert stream.throw(LookupError("x")) == ("caught", "x")
    assert stream.send(None) == ("got", None)
    assert standing(limiter) == (1, 0)
    with pytest.raises(StopIteration) as caught:
        stream.send("stop")
    assert caught.value.value == "returned"
    assert standing(limiter) == IDLE
    stream = wrapped(log)
    next(stream)
    with pytest.raises(ZeroDivisionError):
        stream.throw(ZeroDivisionError)
    assert standing(limiter) == IDLE
    stream = wrapped(log)
    next(stream)
    with pytest.raises(GeneratorExit):
        stream.throw(GeneratorExit)
    assert standing(limiter) == IDLE
    assert log == ["over"] * 3

    def delegate() -> Generator[Any, Any, None]:
        assert (yield from wrapped(log)) == "returned"

    stream = delegate()
    assert next(stream) == "start"
    with pytest.raises(StopIteration):
        stream.send("stop")


def test_asend_and_athrow_go_through(limiter: Limiter) -> None:
    log: list[Any] = []
    wrapped = limiter.limit()(aconversation)

    async def main() -> None:
        stream: Any = wrapped(log)
        assert await anext_(stream) == "start"
        assert await stream.asend(1) == ("got", 1)
        assert await stream.athrow(LookupError("x")) == ("caught", "x")
        assert await stream.asend(None) == ("got", None)
        assert standing(limiter) == (1, 0)
        with pytest.raises(StopAsyncIteration):
            await stream.asend("stop")
        assert standing(limiter) == IDLE
        stream = wrapped(log)
        await anext_(stream)
        with pytest.raises(ZeroDivisionError):
            await stream.athrow(ZeroDivisionError)
        assert standing(limiter) == IDLE

    run(main())
    assert log == ["over"] * 2


def test_a_generator_that_ignores_being_closed_says_so_and_holds_nothing(limiter: Limiter) -> None:
    @limiter.limit()
    def stubborn() -> Generator[int, None, None]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                yield 2
                return

    stream = stubborn()
    next(stream)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        stream.close()
    assert standing(limiter) == IDLE


def test_whoever_iterates_is_not_inside_the_permit() -> None:
    limiter = Limiter(requests=lasting(100), concurrency=2)
    inside: list[int] = []

    @limiter.limit()
    def stream() -> Iterator[int]:
        limiter.acquire().release()  # inside: covered
        inside.append(spent(limiter))
        yield 1
        yield 2

    @limiter.limit()
    async def astream() -> AsyncIterator[int]:
        limiter.acquire().release()
        inside.append(spent(limiter))
        yield 1
        yield 2

    async def main() -> None:
        async for _ in astream():
            limiter.acquire().release()

    for _ in stream():
        limiter.acquire().release()  # outside: charged, and it takes a slot
    assert (inside, spent(limiter)) == ([1], 3)
    run(main())
    assert (inside, spent(limiter)) == ([1, 4], 6)


@pytest.mark.parametrize("outer", ["function", "coroutine"])
@pytest.mark.parametrize("inner", ["generator", "async generator"])
@pytest.mark.parametrize("end", ["exhausted", "closed", "dropped", "never started"])
def test_a_stream_that_a_call_gives_holds_the_permit_of_the_call(
    limiter: Limiter, outer: str, inner: str, end: str
) -> None:
    log: list[str] = []

    def stream() -> Iterator[int]:
        try:
            for number in range(3):
                assert standing(limiter) == (1, 0)
                yield number
        finally:
            log.append("over")

    async def astream() -> AsyncIterator[int]:
        try:
            for number in range(3):
                assert standing(limiter) == (1, 0)
                yield number
        finally:
            log.append("over")

    made: Any = stream if inner == "generator" else astream
    call = limiter.limit(tokens=10)(of_kind(outer, made))

    async def main() -> None:
        result = await call() if outer == "coroutine" else call()
        assert standing(limiter) == (1, 0)
        assert charged(limiter) == (1, 10)
        assert limiter.try_acquire() is None  # this is not inside the permit: the only slot is taken
        if inner == "generator":
            if end == "exhausted":
                assert list(result) == [0, 1, 2]
            elif end != "never started":
                assert next(result) == 0
                assert limiter.try_acquire() is None
                if end == "closed":
                    result.close()
        else:
            if end == "exhausted":
                assert [number async for number in result] == [0, 1, 2]
            elif end != "never started":
                assert await anext_(result) == 0
                assert limiter.try_acquire() is None
                if end == "closed":
                    await result.aclose()
        del result
        gc.collect()
        await turns()
        assert standing(limiter) == IDLE
        limiter.acquire().release()  # on its own
        assert charged(limiter) == (2, 10)

    run(main())
    assert log == ([] if end == "never started" else ["over"])


def test_many_streams_at_once_keep_to_the_limit() -> None:
    limiter = Limiter(concurrency=3)
    open_now = most = 0

    @limiter.limit()
    async def stream() -> AsyncIterator[int]:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        for number in range(3):
            await asyncio.sleep(0)
            yield number
        open_now -= 1

    async def consume() -> list[int]:
        return [number async for number in stream()]

    async def main() -> None:
        assert await asyncio.gather(*(consume() for _ in range(20))) == [[0, 1, 2]] * 20

    run(main())
    assert most == 3
    assert standing(limiter) == IDLE


# Interrupts. Ctrl-C reaches Python code when a call in it has come back, so here each call of a wrapper is what comes
# back with it.


@contextlib.contextmanager
def interrupted(code: types.CodeType, after: int) -> Iterator[None]:
    """Raise `KeyboardInterrupt` once ``after`` calls of compiled code from ``code`` have come back."""
    left = after

    def profile(frame: types.FrameType, event: str, _: object) -> None:
        nonlocal left
        if event == "c_return" and frame.f_code is code:
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def plain(limiter: Limiter, **terms: Any) -> tuple[types.CodeType, Callable[[], object]]:
    @limiter.limit(**terms)
    def call() -> str:
        return "done"

    return code_of_wrapper(call), call


def coroutine(limiter: Limiter, **terms: Any) -> tuple[types.CodeType, Callable[[], object]]:
    @limiter.limit(**terms)
    async def call() -> str:
        return "done"

    return code_of_wrapper(call), lambda: asyncio.run(call())


def generator(limiter: Limiter, **terms: Any) -> tuple[types.CodeType, Callable[[], object]]:
    @limiter.limit(**terms)
    def call() -> Iterator[str]:
        yield "done"

    return code_of_wrapper(call), lambda: list(call())


def code_of_wrapper(function: Any) -> types.CodeType:
    code = function.__code__
    assert isinstance(code, types.CodeType)
    return code


@pytest.mark.parametrize("make", [plain, coroutine, generator])
@pytest.mark.parametrize(
    "terms", [{}, {"tokens": lambda: 5}, {"retry": penstock.Retry()}], ids=["fixed", "of call", "retry"]
)
def test_an_interrupt_between_any_two_steps_leaves_nothing(make: Any, terms: dict[str, Any], limiter: Limiter) -> None:
    code, call = make(limiter, **terms)
    call()
    interrupts = 0
    for after in itertools.count(1):
        try:
            with interrupted(code, after):
                call()
        except KeyboardInterrupt:
            interrupts += 1
        else:
            break
        gc.collect()
        assert standing(limiter) == IDLE
        call()  # concurrency is 1: nothing is held, and no permit of before encloses this
        assert standing(limiter) == IDLE
    assert interrupts >= 2


# A retry that finds no permit.


def failing_function(limiter: Limiter) -> Callable[[], object]:
    @limiter.limit(timeout=0, retry=penstock.Retry(on=OSError, initial=0.001))
    def call() -> None:
        raise OSError("the line is down")

    return call


def failing_coroutine(limiter: Limiter) -> Callable[[], object]:
    @limiter.limit(timeout=0, retry=penstock.Retry(on=OSError, initial=0.001))
    async def call() -> None:
        raise OSError("the line is down")

    return lambda: asyncio.run(call())


def failing_generator(limiter: Limiter) -> Callable[[], object]:
    @limiter.limit(timeout=0, retry=penstock.Retry(on=OSError, initial=0.001))
    def call() -> Iterator[None]:
        raise OSError("the line is down")
        yield

    return lambda: list(call())


def failing_async_generator(limiter: Limiter) -> Callable[[], object]:
    @limiter.limit(timeout=0, retry=penstock.Retry(on=OSError, initial=0.001))
    async def call() -> AsyncIterator[None]:
        raise OSError("the line is down")
        yield

    async def consume() -> None:
        async for _ in call():
            pass

    return lambda: asyncio.run(consume())


def failing_late(limiter: Limiter) -> Callable[[], object]:
    async def fail() -> None:
        raise OSError("the line is down")

    @limiter.limit(timeout=0, retry=penstock.Retry(on=OSError, initial=0.001))
    def call() -> Any:
        return fail()

    async def wait() -> None:
        await call()

    return lambda: asyncio.run(wait())


@pytest.mark.parametrize(
    "make", [failing_function, failing_coroutine, failing_generator, failing_async_generator, failing_late]
)
def test_a_retry_that_finds_no_permit_says_what_failed_before(make: Any) -> None:
    call = make(Limiter(requests=penstock.Rate(1, per=3_600)))
    with pytest.raises(penstock.AcquireTimeout) as caught:
        call()
    assert str(caught.value.__cause__) == "the line is down"
    with pytest.raises(penstock.AcquireTimeout) as caught:
        call()
    assert caught.value.__cause__ is None  # the first attempt had nothing before it
    assert not caught.value.__suppress_context__
