"""Waits that hold an event loop up are told, once for each place in the code, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loops import IDLE, standing

from penstock import Limiter, Retry


def waits(limiter: Limiter) -> None:
    with limiter:
        pass


def by_permit(limiter: Limiter) -> None:
    with limiter.permit(requests=1):
        pass


def by_acquire(limiter: Limiter) -> None:
    limiter.acquire().release()


def by_function(limiter: Limiter) -> None:
    limiter.limit()(len)("")


def by_generator(limiter: Limiter) -> None:
    @limiter.limit()
    def letters() -> Iterator[str]:
        yield "a"

    assert list(letters()) == ["a"]


def by_map(limiter: Limiter) -> None:
    assert limiter.map(len, [""]) == [0]


WAYS: dict[Callable[[Limiter], None], tuple[str, str]] = {
    waits: ("`with`", "`async with`"),
    by_permit: ("`with`", "`async with`"),
    by_acquire: ("limiter.acquire()", "`await limiter.aacquire()`"),
    by_function: ("limiter.limit()", "decorate a coroutine function"),
    by_generator: ("a decorated generator", "decorate an async generator"),
    by_map: ("limiter.map()", "`await limiter.amap()`"),
}


@contextlib.contextmanager
def crowded() -> Iterator[Limiter]:
    """A limiter whose only slot is taken, until a call waits for it."""
    limiter = Limiter(concurrency=1)
    held = limiter.acquire()
    over = threading.Event()

    def give_way() -> None:
        while not (over.is_set() or limiter.stats().waiting):
            over.wait(0.001)
        held.release()

    thread = threading.Thread(target=give_way)
    thread.start()
    try:
        yield limiter
    finally:
        over.set()
        thread.join()
    assert standing(limiter) == IDLE


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_wait_that_holds_the_loop_up_is_told(way: Callable[[Limiter], None]) -> None:
    what, instead = WAYS[way]

    async def main() -> None:
        with crowded() as limiter, pytest.warns(RuntimeWarning, match="holds up the event loop that runs") as told:
            way(limiter)
        assert len(told) == 1
        assert what in str(told[0].message)
        assert instead in str(told[0].message)
        assert told[0].filename == __file__

    asyncio.run(main())


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_warnings_that_are_errors_leave_nothing_behind(way: Callable[[Limiter], None]) -> None:
    async def main() -> None:
        with crowded() as limiter, pytest.raises(RuntimeWarning, match="holds up the event loop"):
            way(limiter)

    asyncio.run(main())


def test_each_place_in_the_code_is_told_once() -> None:
    def call() -> None:
        with crowded() as limiter:
            waits(limiter)

    async def main() -> None:
        for _ in range(3):
            call()
        with crowded() as limiter:
            by_acquire(limiter)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        asyncio.run(main())
    assert len(told) == 2
    assert told[0].lineno != told[1].lineno


@pytest.mark.parametrize("way", [way for way in WAYS if way is not by_map], ids=lambda way: way.__name__)
def test_who_need_not_wait_is_told_nothing(way: Callable[[Limiter], None]) -> None:
    async def main() -> None:
        way(Limiter(concurrency=1))

    asyncio.run(main())  # and warnings are errors


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_threads_may_wait(way: Callable[[Limiter], None]) -> None:
    with crowded() as limiter:
        way(limiter)

    async def main() -> None:
        with crowded() as limiter:
            await asyncio.to_thread(way, limiter)

    asyncio.run(main())


def test_the_asynchronous_forms_may_wait() -> None:
    async def plain(limiter: Limiter) -> None:
        async with limiter:
            pass

    async def permit(limiter: Limiter) -> None:
        async with limiter.permit():
            pass

    async def acquire(limiter: Limiter) -> None:
        (await limiter.aacquire()).release()

    async def function(limiter: Limiter) -> None:
        await limiter.limit()(asyncio.sleep)(0)

    async def fan_out(limiter: Limiter) -> None:
        await limiter.amap(asyncio.sleep, [0])

    async def main() -> None:
        for way in (plain, permit, acquire, function, fan_out):
            with crowded() as limiter:
                await way(limiter)

    asyncio.run(main())


def test_a_callback_of_the_loop_is_told_too() -> None:
    told: list[int] = []

    def callback(done: asyncio.Event) -> None:
        with crowded() as limiter, pytest.warns(RuntimeWarning, match="holds up") as warned:
            waits(limiter)
        told.append(len(warned))
        done.set()

    async def main() -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(callback, done)
        await done.wait()

    asyncio.run(main())
    assert told == [1]


def cell(module: str, source: str, **names: Any) -> Any:
    """A function of that module, as a console has one that runs cells in its own loop."""
    namespace = types.ModuleType(module).__dict__ | names
    exec(source, namespace)
    return namespace["run_code"]


def test_a_cell_of_a_notebook_may_wait() -> None:
    source = "async def run_code(cell):\n    cell()\n"
    run_code = cell("IPython.core.interactiveshell", source)
    with crowded() as limiter:
        asyncio.run(run_code(lambda: waits(limiter)))


def test_a_coroutine_in_a_cell_of_a_notebook_may_not() -> None:
    run_code = cell("IPython.core.interactiveshell", "async def run_code(cell):\n    await cell()\n")

    async def main() -> None:
        waits(limiter)

    with crowded() as limiter, pytest.raises(RuntimeWarning, match="holds up"):
        asyncio.run(run_code(main))


def test_a_task_of_trio_is_told() -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        with crowded() as limiter, pytest.warns(RuntimeWarning, match="holds up"):
            waits(limiter)

    trio.run(main)


@pytest.mark.parametrize("form", ["loop", "function"])
def test_a_backoff_that_holds_the_loop_up_is_told(form: str) -> None:
    failed: list[None] = []

    def call() -> None:
        if not failed:
            failed.append(None)
            raise ConnectionError("once")

    retry = Retry(initial=0.001, jitter=None)

    def attempts() -> None:
        if form == "function":
            return retry(call)()
        for attempt in retry:
            with attempt:
                call()
        return None

    async def main() -> None:
        with pytest.warns(RuntimeWarning, match="holds up .* coroutine"):
            attempts()

    asyncio.run(main())
    failed.clear()
    attempts()
