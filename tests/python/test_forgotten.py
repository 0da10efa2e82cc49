"""How the collector is sent for. That it is, and finds what SDKs forget, is shown in test_govern_sdks.py."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from loops import IDLE, run, standing, until

from penstock import Limiter, forgotten


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The collector comes when it is sent for, and not by itself; a look takes no second."""
    monkeypatch.setattr(forgotten, "_EVERY", 0.02)
    monkeypatch.setattr(forgotten, "_in_vain", 0)
    monkeypatch.setattr(forgotten, "_resting", 0.0)
    # What there is already is not looked through: or each run takes seconds, and rests between runs multiples of it.
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def forget(stream: Any) -> None:
    """Leave it to a cycle, and to nobody else."""
    cycle = [stream]
    cycle.append(cycle)


@pytest.mark.usefixtures("hasty")
def test_decorated_calls_that_wait_for_a_forgotten_generator() -> None:
    gate = Limiter(concurrency=1)

    @gate.limit()
    def numbers() -> Iterator[int]:
        yield from range(10)

    @gate.limit(timeout=50)
    def call() -> str:
        return "hi"

    for _ in range(2):
        stream = numbers()
        assert next(stream) == 0
        forget(stream)
        del stream
        assert call() == "hi"
    assert standing(gate) == IDLE


@pytest.mark.usefixtures("hasty")
def test_decorated_tasks_that_wait_for_a_forgotten_generator() -> None:
    gate = Limiter(concurrency=1)

    @gate.limit()
    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            yield number

    @gate.limit(timeout=50)
    async def call() -> str:
        return "hi"

    @gate.limit(timeout=50)
    async def words() -> AsyncIterator[str]:
        yield "hi"

    async def main() -> None:
        for _ in range(2):
            stream = numbers()
            assert await anext(stream) == 0
            forget(stream)
            del stream
            assert await call() == "hi"
            stream = numbers()
            assert await anext(stream) == 0
            forget(stream)
            del stream
            assert [word async for word in words()] == ["hi"]
        await until(lambda: standing(gate) == IDLE)

    run(main())


@pytest.mark.usefixtures("hasty")
def test_a_generator_that_is_read_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for its next item has not forgotten it."""
    collected: list[float] = []
    before: list[int] = []
    monkeypatch.setattr(forgotten, "_run_collector", lambda: collected.append(time.monotonic()))
    gate = Limiter(concurrency=1)

    @gate.limit()
    async def numbers() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.3)  # fifteen looks
        before.append(len(collected))
        yield 2

    @gate.limit()
    async def call() -> None:
        pass

    async def main() -> None:
        stream = numbers()
        await anext(stream)
        waiting = asyncio.create_task(call())
        assert await anext(stream) == 2
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await waiting
        assert before == [0]

    run(main())


def test_the_collector_is_called_more_and_more_seldom_where_it_is_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(100.0, 0.5)  # half a second for each run
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(gc, "collect", lambda: None)
    monkeypatch.setattr(forgotten, "_resting", 0.0)
    monkeypatch.setattr(forgotten, "_in_vain", 0)

    def rest() -> float:
        forgotten._run_collector()
        return forgotten._resting - next(now) + 0.5

    assert [rest() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0]

    read = forgotten.Stream()
    read.unwatch()
    assert rest() == 32.0
    left = forgotten.Stream()
    left.looks = 3
    left.unwatch()
    assert rest() == 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_that_is_forked_while_someone_looks_does_not_wait_for_ever() -> None:
    stream = forgotten.Stream()
    with forgotten._lock:
        child = os.fork()
        if child == 0:
            with forgotten.waiting:
                stream.watch()
                # It has a thread of its own to look.
                os._exit(0 if forgotten._looking is not None and forgotten._looking.is_alive() else 1)
    until = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)
