"""`gather` beside `asyncio.gather`, and `map`, `amap` and `astream`."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import threading
import types
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from loops import IDLE, LOOPS, lasting, run, spent, standing, turns, until

import penstock
from penstock import Limiter, Retry, per_second
from penstock.testing import virtual_time


async def give(value: Any, steps: int = 1) -> Any:
    for _ in range(steps):
        await asyncio.sleep(0)
    return value


async def fail(error: BaseException, steps: int = 1) -> Any:
    for _ in range(steps):
        await asyncio.sleep(0)
    raise error


class Awaitable:
    """Something to await that is no coroutine."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from give(self.value).__await__())


# Semantics of asyncio.gather: each case is run with both, and must end alike.


def twice(coroutine: Any) -> list[Any]:
    return [coroutine, coroutine]


async def cancelled_task() -> asyncio.Task[Any]:
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    return task


async def done_future() -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_result("done")
    return future


async def failed_future() -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(LookupError("future"))
    return future


async def _empty() -> list[Any]:
    return []


async def _coroutines() -> list[Any]:
    return [give(index, steps=5 - index) for index in range(5)]


async def _duplicates() -> list[Any]:
    task, future = asyncio.create_task(give("task")), await done_future()
    return [*twice(give("coroutine")), task, future, task, future, give("other")]


async def _mixed() -> list[Any]:
    return [
        give(1),
        asyncio.create_task(give(2)),
        await done_future(),
        Awaitable(4),
        asyncio.ensure_future(Awaitable(5)),
    ]


async def _one_fails() -> list[Any]:
    return [give(1, 9), fail(LookupError("one"), 2), give(3, 9), fail(ValueError("other"), 4)]


async def _first_to_fail_is_not_the_first() -> list[Any]:
    return [fail(LookupError("late"), 6), fail(ValueError("early"), 1)]


async def _failed_future() -> list[Any]:
    return [give(1), await failed_future(), give(2)]


async def _cancelled_inside() -> list[Any]:
    return [give(1), await cancelled_task(), fail(asyncio.CancelledError(), 2), give(4)]


async def _duplicate_that_fails() -> list[Any]:
    return [*twice(fail(LookupError("twice"))), give(1)]


CASES = [
    _empty, _coroutines, _duplicates, _mixed, _one_fails, _first_to_fail_is_not_the_first, _failed_future,
    _cancelled_inside, _duplicate_that_fails,
]  # fmt: skip


async def ending(future: Any) -> Any:
    try:
        results = await future
    except BaseException as error:
        return ("raised", type(error), str(error))
    return [(type(result), str(result)) if isinstance(result, BaseException) else result for result in results]


@pytest.mark.parametrize("return_exceptions", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.strip("_"))
@pytest.mark.parametrize("kind", LOOPS)
def test_gather_ends_as_asyncio_gather_does(case: Callable[[], Any], return_exceptions: bool, kind: str) -> None:
    limiter = Limiter(requests=lasting(100), concurrency=10)

    async def main() -> None:
        expected = await ending(asyncio.gather(*await case(), return_exceptions=return_exceptions))
        ours = await ending(limiter.gather(*await case(), return_exceptions=return_exceptions))
        assert ours == expected
        await turns(20)  # what is left of a gather that raised goes on, as asyncio's does

    run(main(), kind)
    assert standing(limiter) == IDLE


@pytest.mark.parametrize("gather", ["asyncio", "penstock"])
@pytest.mark.parametrize("return_exceptions", [False, True])
@pytest.mark.parametrize("how", ["the future", "the task that awaits it", "one of the tasks"])
def test_gather_is_cancelled_as_asyncio_gather_is(gather: str, return_exceptions: bool, how: str) -> None:
    limiter = Limiter(requests=lasting(100), concurrency=2)
    ended: list[str] = []
    over: Any = None

    async def call(name: str) -> str:
        try:
            await over.wait()
        except asyncio.CancelledError:
            ended.append(name)
            raise
        return name

    async def main() -> Any:
        nonlocal over
        over = asyncio.Event()
        task = asyncio.create_task(call("task"))
        awaitables = [call("one"), task, call("two")]
        if gather == "asyncio":
            together = asyncio.gather(*awaitables, return_exceptions=return_exceptions)
        else:
            together = limiter.gather(*awaitables, return_exceptions=return_exceptions)
        awaiting = asyncio.ensure_future(ending(together))
        await turns()
        {"the future": together, "the task that awaits it": awaiting, "one of the tasks": task}[how].cancel()
        await turns(20)  # until the cancellation has come to all whom it concerns
        over.set()
        result = await awaiting
        await turns(20)
        return result

    result = run(main())
    if how == "one of the tasks":
        assert ended == ["task"]
        expected: Any = ["one", (asyncio.CancelledError, ""), "two"]
        assert result == (expected if return_exceptions else ("raised", asyncio.CancelledError, ""))
    else:
        assert sorted(ended) == ["one", "task", "two"]
        assert result[:2] == ("raised", asyncio.CancelledError)
    assert standing(limiter) == IDLE


def test_gather_is_awaited_later_as_a_future_and_shielded_as_one() -> None:
    limiter = Limiter(concurrency=1)

    async def main() -> None:
        together = limiter.gather(give(1), give(2))
        assert asyncio.isfuture(together)
        assert await asyncio.wait_for(asyncio.shield(together), 30) == [1, 2]
        assert together.result() == [1, 2]

    run(main())


# What gather does beyond: it admits one by one.


@pytest.mark.parametrize("kind", LOOPS)
def test_gather_admits_in_order_and_keeps_to_the_limits(kind: str) -> None:
    limiter = Limiter(requests=per_second(2_000, burst=1), concurrency=3)
    order: list[int] = []
    running = most = 0

    async def call(index: int) -> int:
        nonlocal running, most
        order.append(index)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return index

    async def main() -> None:
        assert await limiter.gather(*(call(index) for index in range(50))) == list(range(50))

    run(main(), kind)
    assert order == list(range(50))
    assert most <= 3
    assert standing(limiter) == IDLE


def test_gather_charges_coroutines_and_settles_what_they_say() -> None:
    limiter = Limiter(requests=lasting(100), tokens=lasting(1_000))
    usage = types.SimpleNamespace(usage={"total_tokens": 7})

    async def main() -> None:
        task = asyncio.create_task(give("runs already"))
        await limiter.gather(give(1), task, give(usage), Awaitable(2), tokens=[10, 500, 30, 400])

    run(main())
    assert (spent(limiter), spent(limiter, "tokens")) == (2, 10 + 7)


@pytest.mark.parametrize("tokens", [10, 10.0, [10, 10, 10], (10, 10, 10), range(10, 13)])
def test_tokens_of_gather(tokens: Any) -> None:
    limiter = Limiter(tokens=lasting(1_000))

    async def main() -> None:
        await limiter.gather(*(give(index) for index in range(3)), tokens=tokens)

    run(main())
    assert spent(limiter, "tokens") == (33 if isinstance(tokens, range) else 30)


def test_a_coroutine_that_cannot_be_admitted_is_closed() -> None:
    limiter = Limiter(tokens=lasting(100))

    async def main() -> None:
        results = await limiter.gather(give(1), give(2), tokens=[10, 101], return_exceptions=True)
        assert results[0] == 1
        assert isinstance(results[1], penstock.CostExceedsLimit)

    run(main())
    assert spent(limiter, "tokens") == 10


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_coroutines_that_never_started_are_closed_when_gather_is_cancelled(steps: int) -> None:
    limiter = Limiter(requests=lasting(100), concurrency=1)

    async def main() -> None:
        held = limiter.acquire()
        together = limiter.gather(*(give(index) for index in range(10)))
        await turns(steps)
        together.cancel()
        with pytest.raises(asyncio.CancelledError):
            await together
        assert standing(limiter) == (1, 0)
        held.release()

    run(main())  # and no coroutine "was never awaited": warnings are errors here
    assert spent(limiter) == 1


def test_a_coroutine_that_runs_elsewhere_is_left_alone() -> None:
    limiter = Limiter(requests=lasting(100))

    async def main() -> None:
        coroutine = give("value", steps=10)
        one = limiter.gather(coroutine)
        await turns(2)
        with pytest.raises(RuntimeError, match="already"):
            await limiter.gather(coroutine)
        assert await one == ["value"]

    run(main())
    assert standing(limiter) == IDLE


def test_gather_runs_in_copies_of_the_context() -> None:
    limiter = Limiter()
    variable = contextvars.ContextVar("variable", default="outside")

    async def call() -> str:
        before = variable.get()
        variable.set("inside")
        return before

    async def main() -> None:
        variable.set("around")
        assert await limiter.gather(call(), call()) == ["around", "around"]
        assert variable.get() == "around"

    run(main())


# Maps.


async def double(item: int) -> int:
    await asyncio.sleep(0)
    return item * 2


def all_maps(limiter: Limiter) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each kind of map as a function that gives a list of results in order."""

    def of_coroutine(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def call(item: Any) -> Any:
            await asyncio.sleep(0)
            return function(item)

        return call

    async def collect(*given: Any, **terms: Any) -> list[Any]:
        results = {index: result async for index, result in limiter.astream(*given, **terms)}
        assert sorted(results) == list(range(len(results)))
        return [results[index] for index in range(len(results))]

    yield "map", limiter.map
    yield "amap", lambda function, items, **terms: run(limiter.amap(of_coroutine(function), items, **terms))
    yield "astream", lambda function, items, **terms: run(collect(of_coroutine(function), items, **terms))


MAPS = ["map", "amap", "astream"]


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("items", [[], [1], range(100), (1, 2), {1: 2}, "text"], ids=repr)
@pytest.mark.parametrize(
    "made", [lambda items: items, iter, lambda items: (item for item in items)], ids=["itself", "iterator", "generator"]
)
def test_maps_give_results_in_order(kind: str, items: Any, made: Callable[[Any], Any]) -> None:
    limiter = Limiter(requests=lasting(1_000), concurrency=3)
    results = dict(all_maps(limiter))[kind](lambda item: (item, "done"), made(items))
    assert results == [(item, "done") for item in items]
    assert (standing(limiter), spent(limiter)) == (IDLE, len(items))


@pytest.mark.parametrize("kind", MAPS)
def test_maps_keep_to_the_concurrency(kind: str) -> None:
    limiter = Limiter(requests=lasting(1_000), concurrency=3)
    seen: list[int] = []
    dict(all_maps(limiter))[kind](lambda item: seen.append(limiter.stats().in_flight), range(50))
    assert len(seen) == 50
    assert 1 <= min(seen) <= max(seen) <= 3


@pytest.mark.parametrize("kind", MAPS)
def test_costs_and_keys_of_maps_are_functions_of_the_item(kind: str) -> None:
    limiter = Limiter(tokens=lasting(1_000), per_key={"requests": lasting(3)}, concurrency=2)
    use = dict(all_maps(limiter))[kind]
    use(str, ["a", "bb"], tokens=len, key=lambda item: item)
    assert spent(limiter, "tokens") == 3
    use(str, ["a", "bb"], tokens=10, key="a")
    assert spent(limiter, "tokens") == 23
    use(lambda item: {"usage": {"total_tokens": 5}}, [1, 2], tokens=100)
    assert spent(limiter, "tokens") == 33
    results = use(str, ["x" * 3, "x" * 1_001, "x"], tokens=len, return_exceptions=True)
    assert (results[0], type(results[1]), results[2]) == ("xxx", penstock.CostExceedsLimit, "x")
    assert standing(limiter) == IDLE


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("name", ["tokens", "key"])
@pytest.mark.parametrize("bad", ["raises", "nonsense"])
def test_costs_and_keys_of_maps_that_fail(kind: str, name: str, bad: str) -> None:
    limiter = Limiter(requests=lasting(100), tokens=lasting(1_000), concurrency=2)

    def term(item: int) -> Any:
        if item != 2:
            return 1
        if bad == "raises":
            raise LookupError("two")
        return 1.5

    expected = LookupError if bad == "raises" else (TypeError, ValueError)
    with pytest.raises(expected, match="two" if bad == "raises" else f"{name} must be"):
        dict(all_maps(limiter))[kind](str, range(4), **{name: term})
    assert standing(limiter) == IDLE
    results = dict(all_maps(limiter))[kind](str, range(4), return_exceptions=True, **{name: term})
    assert results[:2] + results[3:] == ["0", "1", "3"]
    assert isinstance(results[2], expected)
    assert standing(limiter) == IDLE


@pytest.mark.parametrize("kind", MAPS)
def test_a_call_that_fails_ends_a_map(kind: str) -> None:
    limiter = Limiter(requests=lasting(1_000), concurrency=1)
    made: list[int] = []

    def call(item: int) -> int:
        made.append(item)
        if item == 3:
            raise LookupError("three")
        return item

    with pytest.raises(LookupError, match="three"):
        dict(all_maps(limiter))[kind](call, itertools.count())
    assert made[:4] == [0, 1, 2, 3]
    assert len(made) <= 6
    assert standing(limiter) == IDLE
    results = dict(all_maps(limiter))[kind](call, range(6), return_exceptions=True)
    assert [type(result) for result in results] == [int, int, int, LookupError, int, int]
    assert standing(limiter) == IDLE


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_is_no_result_of_a_map(ending: type[BaseException]) -> None:
    limiter = Limiter(concurrency=1)

    def call(_item: int) -> None:
        raise ending

    with pytest.raises(ending):
        limiter.map(call, range(3), return_exceptions=True)
    assert standing(limiter) == IDLE


def refusal() -> openai.RateLimitError:
    """What openai raises for a 429 that says nothing more."""
    response = httpx2.Response(429, request=httpx2.Request("POST", "http://provider/v1/chat/completions"))
    return openai.RateLimitError("429", response=response, body=None)


@pytest.mark.parametrize("kind", MAPS)
def test_a_call_of_a_map_is_tried_again_with_a_permit_of_its_own(kind: str, tmp_path: Path) -> None:
    limiter = Limiter(requests=lasting(1_000), tokens=lasting(100_000), concurrency=2)
    made: list[int] = []

    def call(item: int) -> int:
        made.append(item)
        if item == 3 and made.count(item) < 3:
            raise refusal()
        return item

    journal = tmp_path / "journal"
    with virtual_time():
        results = dict(all_maps(limiter))[kind](call, range(5), tokens=10, retry=Retry(3), journal=journal)
    assert results == [0, 1, 2, 3, 4]
    assert sorted(made) == [0, 1, 2, 3, 3, 3, 4]
    assert limiter.stats().attempts == 7
    assert limiter.stats().as_dict()["in_flight"] == 0
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 6  # the line at the top, and each result once


@pytest.mark.parametrize("kind", MAPS)
def test_a_call_of_a_map_that_is_given_up_ends_with_what_it_raised(kind: str) -> None:
    limiter = Limiter(requests=lasting(1_000), concurrency=2)

    def call(item: int) -> int:
        raise refusal()

    with virtual_time():
        with pytest.raises(openai.RateLimitError) as ended:
            dict(all_maps(limiter))[kind](call, [1], retry=Retry(3))
        assert ended.value.penstock.attempts == 3  # type: ignore[attr-defined]
        (result,) = dict(all_maps(limiter))[kind](call, [1], retry=Retry(2), return_exceptions=True)
    assert result.penstock.attempts == 2
    assert limiter.stats().attempts == 5
    assert limiter.stats().in_flight == 0


@pytest.mark.parametrize("kind", MAPS)
def test_without_retry_a_map_tries_nothing_again(kind: str) -> None:
    limiter = Limiter(requests=lasting(1_000))
    made: list[int] = []

    def call(item: int) -> int:
        made.append(item)
        raise refusal()

    with pytest.raises(openai.RateLimitError):
        dict(all_maps(limiter))[kind](call, [1])
    assert made == [1]
    with pytest.raises(TypeError, match="retry must be a Retry or None, not 3"):
        dict(all_maps(limiter))[kind](call, [1], retry=3)


@pytest.mark.parametrize("kind", MAPS)
def test_a_map_that_ends_waits_for_nobodys_next_attempt(kind: str) -> None:
    limiter = Limiter(requests=lasting(1_000))
    failed = threading.Event()

    def call(item: int) -> int:
        if item == 0:
            failed.set()
            raise ConnectionError  # and is tried again in an hour: the test would not outlast that
        failed.wait(30)  # in threads the second may come first
        raise LookupError

    patient = Retry(3, initial=3_600, max_delay=3_600, jitter=None, on=ConnectionError)
    with pytest.raises(LookupError):
        dict(all_maps(limiter))[kind](call, range(2), retry=patient)
    assert limiter.stats().in_flight == 0


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("return_exceptions", [False, True])
def test_an_iterable_that_fails_ends_a_map(kind: str, return_exceptions: bool) -> None:
    limiter = Limiter(requests=lasting(1_000), concurrency=2)

    def items() -> Iterator[int]:
        yield from range(5)
        raise LookupError("items")

    with pytest.raises(LookupError, match="items"):
        dict(all_maps(limiter))[kind](str, items(), return_exceptions=return_exceptions)
    assert standing(limiter) == IDLE


def test_astream_gives_results_as_they_come() -> None:
    limiter = Limiter(concurrency=3)
    others = 5

    async def call(item: int) -> int:
        nonlocal others
        if item == 0:
            await until(lambda: others == 0)
        else:
            await asyncio.sleep(0)
            others -= 1
        return item * 10

    async def main() -> None:
        seen = [entry async for entry in limiter.astream(call, range(6))]
        assert seen[-1] == (0, 0)
        assert sorted(seen) == [(index, index * 10) for index in range(6)]

    run(main())


@pytest.mark.parametrize("kind", LOOPS)
def test_leaving_astream_early_cancels_what_runs_and_gives_back_what_never_left(kind: str) -> None:
    limiter = Limiter(requests=lasting(10_000), concurrency=4)
    started: list[int] = []
    cancelled: list[int] = []

    async def call(item: int) -> int:
        started.append(item)
        if item < 3:
            return item
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async def main() -> None:
        stream: Any = limiter.astream(call, itertools.count())
        async for index, result in stream:
            assert index == result
            break
        await stream.aclose()
        assert standing(limiter) == IDLE
        async for _ in limiter.astream(call, itertools.count()):
            break
        gc.collect()
        await until(lambda: standing(limiter) == IDLE)  # dropped: the loop closes it
        limiter.astream(call, itertools.count())  # never started

    run(main(), kind)
    assert sorted(started) == sorted([item for item in started if item < 3] + cancelled)
    assert spent(limiter) == len(started)


def test_a_cancelled_amap_leaves_nothing() -> None:
    limiter = Limiter(requests=lasting(10_000), concurrency=4)
    started = 0

    async def call(item: int) -> None:
        nonlocal started
        started += 1
        await asyncio.sleep(60)

    async def main() -> None:
        for steps in range(12):
            task = asyncio.create_task(limiter.amap(call, range(100)))
            await turns(steps)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert standing(limiter) == IDLE
            assert spent(limiter) == started

    run(main())


def test_a_call_that_cancels_itself_is_told() -> None:
    limiter = Limiter(concurrency=2)

    async def call(item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await limiter.amap(call, range(3))
        results = await limiter.amap(call, range(3), return_exceptions=True)
        assert [type(result) for result in results] == [int, asyncio.CancelledError, int]

    run(main())
    assert standing(limiter) == IDLE


@pytest.mark.slow
def test_a_million_items_need_no_million_tasks() -> None:
    limiter = Limiter(concurrency=100)
    most = taken = 0
    total = 1_000_000

    def items() -> Iterator[int]:
        nonlocal taken
        for taken in range(total):
            yield taken

    async def call(item: int) -> int:
        nonlocal most
        if item % 1_000 == 0:
            most = max(most, len(asyncio.all_tasks()))
        await asyncio.sleep(0)
        return item

    async def main() -> None:
        count = 0
        stream: Any = limiter.astream(call, items())
        async for _ in stream:
            count += 1
            assert taken - count < 3_000  # who iterates slowly is not run away from
            if count == 20_000:
                break
        await stream.aclose()

    run(main())
    assert most < 200
    assert standing(limiter) == IDLE


def test_astream_waits_for_whoever_iterates() -> None:
    limiter = Limiter()
    made = 0

    async def call(item: int) -> int:
        nonlocal made
        made += 1
        return item

    async def main() -> None:
        stream: Any = limiter.astream(call, itertools.count())
        await stream.__anext__()
        await asyncio.sleep(0.05)
        assert made < 2_000
        await stream.aclose()

    run(main())


def test_maps_inside_a_permit() -> None:
    limiter = Limiter(requests=lasting(100), concurrency=1)

    async def main() -> None:
        async with limiter:
            assert await limiter.amap(double, range(5)) == [0, 2, 4, 6, 8]

    run(main())
    assert spent(limiter) == 5
    with limiter:
        assert limiter.map(str, range(5)) == list("01234")
    assert spent(limiter) == 10
    assert standing(limiter) == IDLE


def test_calls_of_a_map_run_inside_their_permit() -> None:
    limiter = Limiter(requests=lasting(100), concurrency=1)

    @limiter.limit()
    def call(item: int) -> str:
        return threading.current_thread().name

    @limiter.limit()
    async def acall(item: int) -> int:
        return item

    assert all(name.startswith("penstock-map") for name in limiter.map(call, range(5)))
    assert run(limiter.amap(acall, range(5))) == list(range(5))
    assert spent(limiter) == 10


def test_map_carries_the_context_into_its_threads() -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    variable.set("around")
    assert Limiter().map(lambda _: variable.get(), range(3)) == ["around"] * 3


def test_progress_is_shown_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = Limiter(concurrency=2)

    async def main() -> None:
        assert await limiter.gather(double(1), double(2), progress=True) == [2, 4]
        assert await limiter.amap(double, [1, 2], progress=True) == [2, 4]

    run(main())
    assert limiter.map(str, [1], progress=True) == ["1"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(main())
    assert limiter.map(str, (item for item in (1, 2, 3)), progress=True) == ["1", "2", "3"]
    shown = capsys.readouterr().err
    assert "2/2 done, 0 in flight, 0 waiting" in shown
    assert "3 done" in shown
    assert shown.count("\n") == 3
