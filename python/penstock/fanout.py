"""Many calls at once: `asyncio.gather` and ``map``, admitted one by one."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from penstock import _blocking
from penstock.calls import Calls, check_retry, settle
from penstock.journal import Journal
from penstock.progress import Progress

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from penstock._core import Permit, Scope
    from penstock.limiter import Limiter
    from penstock.retry import Retry

#: Threads of a ``map`` whose limiter does not bound concurrency: calls of LLMs wait far more than they work.
_THREADS = 64


def gather(
    limiter: Limiter,
    awaitables: Sequence[Awaitable[Any]],
    *,
    return_exceptions: bool,
    tokens: int | Sequence[int],
    progress: bool,
) -> asyncio.Future[list[Any]]:
    """See `Limiter.gather`."""
    try:
        _check(awaitables)
        scopes = _scopes(limiter, tokens, len(awaitables))
        loop = _loop()
    except BaseException:
        for awaitable in awaitables:
            _close(awaitable)
        raise
    shown = Progress(limiter, len(awaitables), shown=progress)
    tasks: dict[int, asyncio.Future[Any]] = {}
    for awaitable, scope in zip(awaitables, scopes, strict=True):
        if id(awaitable) in tasks:  # asyncio.gather, too, runs a coroutine that it is given twice once
            continue
        if inspect.iscoroutine(awaitable):
            task: asyncio.Future[Any] = loop.create_task(_admitted(scope, awaitable))
            # A task that is cancelled before its first step never sees its coroutine.
            task.add_done_callback(_Closing(awaitable))
        else:
            task = asyncio.ensure_future(awaitable)
        if progress:
            task.add_done_callback(lambda _: shown.step())
        tasks[id(awaitable)] = task
    together = asyncio.gather(*(tasks[id(awaitable)] for awaitable in awaitables), return_exceptions=return_exceptions)
    if progress:
        shown.__enter__()
        together.add_done_callback(lambda _: shown.__exit__(None, None, None))
    return together


def _loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("no running event loop: call gather() in a coroutine that asyncio.run() runs") from None


def _check(awaitables: Sequence[object]) -> None:
    for awaitable in awaitables:
        if not inspect.isawaitable(awaitable):
            several = isinstance(awaitable, (list, tuple, set)) or inspect.isgenerator(awaitable)
            hint = "; is it gather(calls) without the star of gather(*calls)?" if several else ""
            raise TypeError(f"gather() awaits coroutines, tasks and futures, not {awaitable!r}{hint}")


def _scopes(limiter: Limiter, tokens: Any, count: int) -> list[Scope]:
    """The permits to ask for, one for each awaitable."""
    if isinstance(tokens, (int, float)) or not hasattr(tokens, "__len__"):
        return [limiter.permit(tokens)] * count
    if len(tokens) != count:
        raise ValueError(f"tokens must be one number, or as many as there are awaitables: {count}, not {len(tokens)}")
    return [limiter.permit(cost) for cost in tokens]


async def _admitted(scope: Scope, coroutine: Coroutine[Any, Any, Any]) -> Any:
    async with scope as permit:
        result = await coroutine
        settle(permit, result)
        return result


class _Closing:
    """Closes a coroutine when its task is done, if it was never started."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __call__(self, _task: asyncio.Future[Any]) -> None:
        _close(self._coroutine)


def _close(awaitable: object) -> None:
    # One that runs is someone else's.
    if inspect.iscoroutine(awaitable) and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED:
        awaitable.close()


def _iterator(function: object, items: Iterable[Any]) -> Iterator[Any]:
    """What a map goes through, once both are what they must be."""
    if not callable(function):
        raise TypeError(f"function must be callable, not {function!r}")
    try:
        return iter(items)
    except TypeError:
        raise TypeError(f"items must be iterable, not {items!r}") from None


def _length(items: object) -> int | None:
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None


def _ordered(results: dict[int, Any]) -> list[Any]:
    return [results[index] for index in range(len(results))]


def map_in_threads(
    limiter: Limiter,
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    tokens: Any,
    key: Any,
    retry: Retry | None,
    return_exceptions: bool,
    progress: bool,
    journal: str | os.PathLike[str] | None,
) -> list[Any]:
    """See `Limiter.map`.

    This thread asks for the permits, so that they are given in order and Ctrl-C ends the wait; a permit is asked for
    only when a thread is free to use it.
    """
    iterator = _iterator(function, items)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"function must be a plain function, not {function!r}; for coroutine functions there is amap()")
    check_retry(retry)
    _blocking.warn("limiter.map()", "use `await limiter.amap()` in a coroutine")
    results: dict[int, Any] = {}
    running: dict[Future[Any], int] = {}
    threads = limiter.stats().concurrency or _THREADS
    with (
        _journal(journal, function) as notes,
        ThreadPoolExecutor(threads, "penstock-map") as pool,
        Calls(limiter, function, tokens=tokens, key=key, retry=retry, notes=notes) as calls,
        Progress(limiter, _length(items), shown=progress) as shown,
    ):

        def collect(done: Iterable[Future[Any]]) -> None:
            for future in done:
                index = running.pop(future)
                error = future.exception()
                # What ends a process is nobody's result, as in asyncio.
                if error is not None and (not return_exceptions or isinstance(error, (KeyboardInterrupt, SystemExit))):
                    raise error
                results[index] = future.result() if error is None else error
                shown.step()

        for index, item in enumerate(iterator):
            while len(running) >= threads:
                collect(wait(running, return_when=FIRST_COMPLETED).done)
            collect([future for future in running if future.done()])
            try:
                name = notes.name(item) if notes is not None else ""
                if notes is not None and notes.knows(name):
                    results[index] = notes.recall(name)
                    shown.step()
                    continue
                permit = calls.acquire(item)
            except Exception as error:
                if not return_exceptions:
                    raise
                results[index] = error
                shown.step()
                continue
            context = contextvars.copy_context()
            running[pool.submit(context.run, calls.make, permit, item, name)] = index
        while running:
            collect(wait(running, return_when=FIRST_COMPLETED).done)
    return _ordered(results)


def _journal(path: str | os.PathLike[str] | None, function: object) -> AbstractContextManager[Journal | None]:
    return contextlib.nullcontext() if path is None else Journal(path, function)


async def amap(
    limiter: Limiter, function: Callable[[Any], Awaitable[Any]], items: Iterable[Any], **terms: Any
) -> list[Any]:
    """See `Limiter.amap`."""
    stream = astream(limiter, function, items, **terms)
    try:
        results = {index: result async for index, result in stream}
    finally:
        await stream.aclose()
    return _ordered(results)


#: How many results of an ``astream`` may wait for whoever iterates it before no further call is made.
_AHEAD = 1_024


def astream(
    limiter: Limiter, function: Callable[[Any], Awaitable[Any]], items: Iterable[Any], **terms: Any
) -> AsyncGenerator[tuple[int, Any], None]:
    """See `Limiter.astream`."""
    check_retry(terms["retry"])
    return _astream(limiter, function, _iterator(function, items), _length(items), **terms)


async def _astream(
    limiter: Limiter,
    function: Callable[[Any], Awaitable[Any]],
    items: Iterator[Any],
    length: int | None,
    *,
    tokens: Any,
    key: Any,
    retry: Retry | None,
    return_exceptions: bool,
    progress: bool,
    journal: str | os.PathLike[str] | None,
) -> AsyncGenerator[tuple[int, Any], None]:
    finished: asyncio.Queue[tuple[int, Any, BaseException | None] | None] = asyncio.Queue()
    ahead = asyncio.Semaphore(_AHEAD)
    running: set[asyncio.Task[Any]] = set()

    def done(index: int, permit: Permit, task: asyncio.Task[Any]) -> None:
        running.discard(task)
        permit.abandon()  # unless it was released: a task that is cancelled before its first step makes no call
        if not task.cancelled():
            error = task.exception()
            finished.put_nowait((index, None if error else task.result(), error))
        elif not feeder.cancelled():  # the call cancelled itself: asyncio.gather, too, counts that as its failure
            finished.put_nowait((index, None, asyncio.CancelledError()))

    async def feed(calls: Calls, notes: Journal | None) -> None:
        for index, item in enumerate(items):
            await ahead.acquire()
            try:
                name = notes.name(item) if notes is not None else ""
                if notes is not None and notes.knows(name):
                    finished.put_nowait((index, notes.recall(name), None))
                    continue
                permit = await limiter.aacquire(**calls.terms(item))
            except Exception as error:  # noqa: BLE001  it is this item's, and is told as such
                finished.put_nowait((index, None, error))
                continue
            task = asyncio.create_task(calls.amake(permit, item, name))
            running.add(task)
            task.add_done_callback(functools.partial(done, index, permit))
            del permit  # its call's alone from here on
        if running:
            await asyncio.wait(running)

    def fed(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:  # the iterable itself raised
            finished.put_nowait((-1, None, error))
        finished.put_nowait(None)

    with _journal(journal, function) as notes:
        calls = Calls(limiter, function, tokens=tokens, key=key, retry=retry, notes=notes)
        feeder = asyncio.create_task(feed(calls, notes))
        feeder.add_done_callback(fed)
        try:
            with Progress(limiter, length, shown=progress) as shown:
                while (entry := await finished.get()) is not None:
                    index, result, error = entry
                    ahead.release()
                    if error is not None and (index < 0 or not return_exceptions):
                        raise error
                    shown.step()
                    yield index, result if error is None else error
        finally:
            await _end([feeder, *running])


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
