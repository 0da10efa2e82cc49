"""Where calls sleep that must wait: threads here, and tasks of async libraries that are not asyncio.

Threads park in Python, on a lock, so that signals reach them: a sleep in Rust would hold Ctrl-C back until it is over.
Nor may a frame of Rust be below them. Before 3.14 the interpreter ends, when it exits, a daemon thread that wakes by
unwinding its stack, and a frame of Rust on it takes that for a crash. So what must wait comes back to Python first.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from penstock import _blocking, _core
from penstock.forgotten import waiting

if TYPE_CHECKING:
    from penstock._core import Acquire, Permit


#: What a thread sleeps on; `penstock.testing.virtual_time` puts its own in this place.
Lock = threading.Lock


class _Block(Protocol):
    def enter_now(self, entered: list[Permit], /) -> Permit | Acquire: ...
    def undo(self, permit: Permit, /) -> None: ...
    def enter_with(self, permit: Permit, /) -> None: ...


def sleep_on(lock: Any, seconds: float) -> None:
    """Sleep until ``lock`` is released, or so many seconds; negative: until it is released.

    `penstock.testing.virtual_time` puts its own in this place, too.
    """
    lock.acquire(True, min(seconds, threading.TIMEOUT_MAX) if seconds >= 0 else -1)


def park(waiter: Acquire, what: str | None = None, instead: str = "") -> Permit:
    """Sleep until ``waiter`` is decided; give its permit or raise its refusal.

    Where that holds an event loop up it warns that ``what`` does, and what to do ``instead``; not if that is left out,
    since what a framework calls from its coroutines is its own affair.
    """
    lock = Lock()
    lock.acquire()
    try:
        if what is not None:
            _blocking.warn(what, instead)
        with waiting:
            while (seconds := waiter.park(lock)) is not None:
                sleep_on(lock, seconds)
        return waiter.result()
    except BaseException:
        waiter.close()
        raise


def enter(block: _Block) -> Permit:
    """``__enter__`` of a limiter and of its permits."""
    entered: list[Permit] = []
    try:
        permit = block.enter_now(entered)
        if not isinstance(permit, _core.Permit):
            permit = park(permit, "`with`", "use `async with` in a coroutine")
            entered.append(permit)
            block.enter_with(permit)
    except BaseException:
        # Ctrl-C may come when the block has begun already, but Python does not know of it yet.
        for begun in entered:
            block.undo(begun)
        raise
    return permit


async def foreign(wait: Acquire) -> Permit:
    """Wait in whatever async library runs here; asyncio needs no such help."""
    try:
        trio = sys.modules.get("trio")
        if trio is not None and _blocking.in_trio(trio):
            return await _park_in_trio(trio, wait)
    except BaseException:
        wait.close()
        raise
    wait.close()
    raise RuntimeError("a limiter was awaited where neither an asyncio event loop nor trio runs")


class _TrioLock:
    """Looks like a lock that a thread sleeps on; releasing it wakes a trio task, from any thread."""

    def __init__(self, trio: Any) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self._trio = trio

    def release(self) -> None:
        # The task that slept here may be gone with its run; it gave back what it had.
        with contextlib.suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(self._event.set)

    async def sleep(self, seconds: float) -> None:
        if seconds < 0:
            await self._event.wait()
        else:
            with self._trio.move_on_after(seconds):
                await self._event.wait()
        self._event = self._trio.Event()


async def _park_in_trio(trio: Any, wait: Acquire) -> Permit:
    if _core.clock_frozen():
        raise RuntimeError("virtual_time() drives the event loops of asyncio itself, not trio")
    lock = _TrioLock(trio)
    while (seconds := wait.park(lock)) is not None:
        await lock.sleep(seconds)
    return wait.result()


async def given(permit: Permit) -> Permit:
    """Give a permit that is there already."""
    return permit


given.__qualname__ = "Limiter.aacquire"  # whose coroutine nobody awaited, as Python's warning says it

_core.Scope.__enter__ = enter  # type: ignore[method-assign]


def pause(seconds: float, what: str | None = None, instead: str = "") -> None:
    """Sleep in a thread, between two attempts. Not at all if a budget is over before the next one. Warns as `park`."""
    _core.check_pause(seconds)
    if what is not None and seconds > 0:
        _blocking.warn(what, instead)
    until = _core.clock_now() + seconds
    lock = Lock()
    lock.acquire()
    while (left := until - _core.clock_now()) > 0:
        sleep_on(lock, left)


async def apause(seconds: float) -> None:
    """Sleep in a task, between two attempts. Not at all if a budget is over before the next one."""
    _core.check_pause(seconds)
    trio = sys.modules.get("trio")
    if trio is not None and _blocking.in_trio(trio):
        await trio.sleep(seconds)
    else:
        import asyncio  # costs 20 ms, and whoever has a loop has it already

        await asyncio.sleep(seconds)
