"""Virtual time: hours of waiting in milliseconds.

While `virtual_time` holds, the clock of every limiter and of asyncio's event loops stands still as long as anyone is
at work, and jumps to the next wake-up when all wait. So waits take no time, and happen exactly when they are due.

Who waits is known of event loops and of threads that wait for a permit: they sleep here. Of other threads it is told by
where they stand: one that waits for another (`threading`, `queue`, `concurrent.futures`) waits, any other is at work,
until it has stood still for `PATIENCE` real seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import select
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from penstock import _core, _parking

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import FrameType, TracebackType

#: Real seconds after which a thread that is neither known to wait nor gets on no longer holds time back.
PATIENCE = 1.0

#: The most of that which one look at it counts for: where the whole process stood still, or was given no processor,
#: nobody could get on, and that says nothing of those who would have.
_GLANCE = 0.02

#: Of one that seems to stand still, it is looked after so many real seconds whether it has used a processor meanwhile.
_LOOK_AGAIN = 0.1

#: Real seconds that a loop with sockets gives them to answer before time may go on.
_GRACE = 0.001

#: Threads of Penstock that listen to other processes, and what they listen to. They sleep nearly always, so that they
#: have stood still long enough after this many real seconds.
_LISTENERS = {("penstock._bells", "_listen"): "descriptor", ("penstock._watching", "_watch"): "reader"}
_LISTENERS_PATIENCE = 0.01

_NEVER = math.inf


class VirtualClock:
    """What `virtual_time` gives: the time, and a way to move it."""

    __slots__ = ("_start",)

    def __init__(self) -> None:
        self._start = _core.clock_now()

    @property
    def now(self) -> float:
        """Virtual seconds since the block began."""
        return _core.clock_now() - self._start

    def advance(self, seconds: float) -> None:
        """Move the time forward at once. Whoever was due meanwhile wakes at the new time, the earliest first.

        To let time pass and everything happen when it is due, wait: ``await asyncio.sleep(seconds)``.

        Args:
            seconds: by how much; not negative.

        Raises:
            TypeError, ValueError: for something that is no such number.
            RuntimeError: when the block is over.
        """
        timeline = _Hold.timeline
        if timeline is None:
            raise RuntimeError("the virtual time of this clock is over")
        timeline.advance(seconds)

    def __repr__(self) -> str:
        return f"<VirtualClock at {self.now:.6f} s>"


def virtual_time() -> _Hold:
    """Let time pass by itself: a context manager in which waiting takes no time.

    Around ``asyncio.run``, or inside a running loop::

        with virtual_time() as clock:
            asyncio.run(main())  # an hour of waiting
            assert clock.now == pytest.approx(3_600)

    Limiters, ``asyncio.sleep``, ``asyncio.timeout``, ``loop.call_later``, `FakeProvider` and threads that wait in
    `Limiter.acquire` see virtual time. It goes on when all of them wait, to whoever wakes next; of several, the one
    that is due first wakes first, and the next one not before that one waits again. Results of executors, of threads
    and of sockets on loopback are waited for in real time. Blocks can be nested; after the outermost, waits that are
    left go on in real time, and limiters keep the time that has passed.

    What it cannot do: ``time.sleep``, ``time.monotonic`` and C code stay real; a thread that is at work, in
    ``time.sleep``, or waits for a socket, holds time back while it gets on and `PATIENCE` (a second) more; an answer
    from another host or process may come later than a virtual timeout; event loops other than asyncio's own (uvloop)
    and trio have clocks of their own, so that a call that must wait in them fails with `RuntimeError`.

    Returns:
        A context manager that gives a `VirtualClock`.

    Raises:
        RuntimeError: on entering, inside of an event loop that is not asyncio's own.
    """
    return _Hold()


class _Hold:
    """One block of virtual time. The first puts it in place, the last takes it away."""

    timeline: _Timeline | None = None
    _depth = 0
    _lock = threading.Lock()

    def __enter__(self) -> VirtualClock:
        running = asyncio._get_running_loop()  # noqa: SLF001  the only one that does not raise
        if running is not None and not isinstance(running, asyncio.BaseEventLoop):
            kind = f"{type(running).__module__}.{type(running).__qualname__}"
            raise RuntimeError(f"virtual_time() drives the event loops of asyncio itself, not {kind}")
        with _Hold._lock:
            if _Hold.timeline is None:
                _Hold.timeline = _Timeline()
                _Hold.timeline.begin()
            _Hold._depth += 1
        return VirtualClock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _Hold._lock:
            _Hold._depth -= 1
            timeline = _Hold.timeline
            if _Hold._depth == 0 and timeline is not None:
                _Hold.timeline = None
                timeline.end()

    @staticmethod
    def after_fork() -> None:
        """Only the thread that forked is here; nobody else waits."""
        _Hold._lock = threading.Lock()
        if _Hold.timeline is not None:
            _Hold.timeline.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Hold.after_fork)


class _Bell:
    """A thread's lock that remembers that it was released.

    The lock itself does not: its sleeper locks it again before it has run.
    """

    __slots__ = ("_lock", "rung")

    def __init__(self, lock: Any = None) -> None:
        self._lock = threading.Lock() if lock is None else lock
        self.rung = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken: bool = self._lock.acquire(blocking, timeout)
        return taken

    def release(self) -> None:
        self.rung = True
        with contextlib.suppress(RuntimeError):  # released already, and not yet noticed
            self._lock.release()


class _Sleeper:
    """A loop or a thread that waits, until a time or until something happens."""

    __slots__ = ("deadline", "has_news", "order", "thread", "told", "wake")

    def __init__(self, deadline: float, order: int, wake: Callable[[], object], has_news: Callable[[], bool]) -> None:
        self.deadline = deadline
        self.order = order
        self.thread = threading.get_ident()
        self.wake = wake
        self.has_news = has_news
        self.told = False

    def turn(self) -> tuple[float, int]:
        return self.deadline, self.order


class _Selector:
    """Stands before the selector of a loop while that runs: where it would sleep, time goes on."""

    __slots__ = ("_loop", "_real", "_timeline")

    def __init__(self, timeline: _Timeline, loop: Any, real: Any) -> None:
        self._timeline = timeline
        self._loop = loop
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def select(self, timeout: float | None = None) -> Any:
        real = self._real
        events = real.select(0)
        if not events and (timeout is None or timeout > 0):
            # Beside the loop's own wake-up call there are sockets: what they are sent may still be on its way.
            if len(_registered(real)) > 1:
                events = real.select(_GRACE)
            if not events:
                events = self._timeline.sleep_in_loop(self._loop, real, _NEVER if timeout is None else timeout)
        return events


def _registered(selector: Any) -> Any:
    get_map = getattr(selector, "get_map", None)
    return () if get_map is None else get_map() or ()


class _Timeline:
    """Who waits, until when, and what moves the time to the next of them."""

    def __init__(self) -> None:
        self._loops: weakref.WeakSet[Any] = weakref.WeakSet()
        self._undo: list[tuple[Any, str, Any]] = []
        self._ended = False
        self.forget()

    def forget(self) -> None:
        self._mutex = threading.Lock()
        self._order = itertools.count()
        self._sleepers: set[_Sleeper] = set()
        self._jobs: set[Future[Any]] = set()
        self._standing: dict[object, tuple[object, float, float, int | None]] = {}
        self._keeper: threading.Thread | None = None
        self._kick = threading.Event()

    # Putting it in place, and taking it away.

    def begin(self) -> None:
        run_once, submit = asyncio.BaseEventLoop._run_once, ThreadPoolExecutor.submit  # type: ignore[attr-defined] # noqa: SLF001
        _core.clock_freeze()
        shift = time.monotonic() - _core.clock_now()

        def virtual_run_once(loop: Any) -> None:
            real = loop._selector  # noqa: SLF001
            self._loops.add(loop)
            loop._selector = _Selector(self, loop, real)  # noqa: SLF001
            try:
                run_once(loop)
            finally:
                loop._selector = real  # noqa: SLF001

        def noted_submit(pool: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = submit(pool, *args, **kwargs)
            self._jobs.add(future)
            future.add_done_callback(self._jobs.discard)
            return future

        self._replace(asyncio.BaseEventLoop, "time", lambda _loop: shift + _core.clock_now())
        self._replace(asyncio.BaseEventLoop, "_run_once", virtual_run_once)
        self._replace(ThreadPoolExecutor, "submit", noted_submit)
        self._replace(_parking, "Lock", _Bell)
        self._replace(_parking, "sleep_on", self.sleep_in_thread)

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def end(self) -> None:
        with self._mutex:
            self._ended = True
            virtual = {loop: loop.time() for loop in self._loops}
            for owner, name, value in reversed(self._undo):
                setattr(owner, name, value)
            _core.clock_thaw()
            for loop, was in virtual.items():
                # What is to ring so much later still does; all by the same amount, so the heap stays one.
                back = loop.time() - was
                for handle in loop._scheduled:  # noqa: SLF001
                    handle._when += back  # noqa: SLF001
            for sleeper in self._sleepers:
                sleeper.wake()
            keeper = self._keeper
        self._kick.set()
        if keeper is not None:
            keeper.join()

    # Sleeping.

    def sleep_in_thread(self, lock: Any, seconds: float) -> None:
        """Takes the place of `_parking.sleep_on`."""
        bell = lock if isinstance(lock, _Bell) else _Bell(lock)
        if not bell.acquire(blocking=False):
            deadline = _core.clock_now() + seconds if seconds >= 0 else _NEVER
            self._sleep(_Sleeper(deadline, next(self._order), bell.release, lambda: bell.rung), bell.acquire)
        bell.rung = False

    def sleep_in_loop(self, loop: Any, selector: Any, seconds: float) -> Any:
        """Takes the place of the sleep in a loop's selector; gives its events."""

        def wake() -> None:
            loop.call_soon_threadsafe(_nothing)

        sleeper = _Sleeper(_core.clock_now() + seconds, next(self._order), wake, lambda: _readable(selector))
        return self._sleep(sleeper, selector.select) or []

    def _sleep(self, sleeper: _Sleeper, block: Callable[[], Any]) -> Any:
        with self._mutex:
            self._sleepers.add(sleeper)
        try:
            with self._mutex:
                over = self._ended or self._go_on(sleeper)
                if not over and any(other.deadline < _NEVER for other in self._sleepers):
                    self._wake_keeper()
            return None if over else block()
        finally:
            with self._mutex:
                self._sleepers.discard(sleeper)

    def advance(self, seconds: float) -> None:
        with self._mutex:
            _core.clock_advance(seconds)
            if self._sleepers:
                self._wake_keeper()

    # Moving the time. All of this is called with the mutex held.

    def _go_on(self, caller: _Sleeper | None) -> bool:
        """If all wait, let the next one wake, at its time. Gives whether that is the caller."""
        first = min(self._sleepers, key=_Sleeper.turn, default=None)
        if first is None or first.deadline == _NEVER or not self._all_wait(caller):
            return False
        ahead = first.deadline - _core.clock_now()
        if ahead > 0:
            # Rounded up to whole nanoseconds, as the core counts: nobody wakes early.
            _core.clock_advance(math.ceil(ahead * 1e9) / 1e9)
        first.told = True
        if first is not caller:
            first.wake()
        return first is caller

    def _all_wait(self, caller: _Sleeper | None) -> bool:
        frames = sys._current_frames()  # noqa: SLF001
        if len(frames) == 1:
            return True
        for sleeper in self._sleepers:
            if sleeper.told or (sleeper is not caller and sleeper.has_news()):
                return False
        here = {threading.get_ident(), None if self._keeper is None else self._keeper.ident}
        asleep = {sleeper.thread for sleeper in self._sleepers} | here
        busy_workers = free_workers = 0
        for thread, frame in frames.items():
            if self._jobs and _is_worker(frame):
                if _stands_in(frame, "concurrent.futures.thread", "_worker"):
                    free_workers += 1
                else:
                    busy_workers += 1
            if thread in asleep or _waits_for_a_thread(frame, frames):
                continue
            listener = _LISTENERS.get((frame.f_globals.get("__name__", ""), frame.f_code.co_name))
            if listener is not None and _has_news(frame.f_locals[listener]):
                return False
            patience = PATIENCE if listener is None else _LISTENERS_PATIENCE
            if self._gets_on(thread, (id(frame), frame.f_lasti), patience):
                return False
        # A job that a free worker has been given, but has not begun yet.
        pending = len(self._jobs)
        return not (pending > busy_workers and free_workers and self._gets_on("pool", (pending, busy_workers)))

    def _gets_on(self, who: object, where: object, patience: float = PATIENCE) -> bool:
        """Whether it stands elsewhere than before, or has not stood there for long."""
        now = time.monotonic()
        before, seen, stood, spent = self._standing.get(who, (None, now, 0.0, None))
        if before != where:
            stood, spent = 0.0, None
        else:
            stood += min(now - seen, _GLANCE)
        gets_on = stood < patience
        if not gets_on:
            # One that looks for something now and then stands where it sleeps nearly always when it is looked at.
            used = _processor_time(who)
            if used != spent:
                gets_on, stood, spent = True, max(patience - _LOOK_AGAIN, 0.0), used
        self._standing[who] = where, now, stood, spent
        return gets_on

    def _wake_keeper(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="penstock-virtual-time", daemon=True)
            self._keeper.start()
        self._kick.set()

    def _keep(self) -> None:
        """Watches, while somebody is at work that does not sleep here, for the moment when all wait."""
        while not self._ended:
            self._kick.wait()
            self._kick.clear()
            pause = 0.000_1
            while True:
                time.sleep(pause)
                pause = min(pause * 1.5, 0.002)
                with self._mutex:
                    if self._ended or all(sleeper.deadline == _NEVER for sleeper in self._sleepers):
                        break
                    self._go_on(None)


def _nothing() -> None:
    """Called by a loop that is only to wake."""


def _readable(selector: Any) -> bool:
    """Whether a selector that another thread sleeps in has something for it, as far as the platform tells."""
    try:
        return _has_news(selector.fileno())
    except (AttributeError, ValueError):
        return False


def _processor_time(thread: object) -> int | None:
    """How many nanoseconds a thread has run, where the system tells."""
    known = threading._active.get(thread)  # type: ignore[attr-defined]  # noqa: SLF001
    try:
        with open(f"/proc/self/task/{known.native_id}/schedstat", encoding="ascii") as times:
            return int(times.read().split()[0])
    except (AttributeError, OSError, ValueError, IndexError):
        return None


def _has_news(descriptor: int) -> bool:
    """Whether there is something to read."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _stands_in(frame: FrameType, module: str, *names: str) -> bool:
    return frame.f_code.co_name in names and frame.f_globals.get("__name__") == module


def _is_worker(frame: FrameType | None) -> bool:
    """Whether a thread belongs to a `ThreadPoolExecutor`."""
    while frame is not None:
        if _stands_in(frame, "concurrent.futures.thread", "_worker"):
            return True
        frame = frame.f_back
    return False


def _waits_for_a_thread(frame: FrameType, frames: dict[int, FrameType]) -> bool:
    """Whether a thread that stands here goes on only when another one sees to that, which none has yet."""
    names = frame.f_locals if frame.f_globals.get("__name__") in _KNOWN else {}
    if _stands_in(frame, "threading", "wait"):
        starts = frame.f_back is not None and _stands_in(frame.f_back.f_back or frame, "threading", "start")
        waiting: Any = getattr(names.get("self"), "_waiters", ())
        return not starts and names.get("waiter") in tuple(waiting)
    if _stands_in(frame, "threading", "join", "_wait_for_tstate_lock"):
        return getattr(names.get("self"), "ident", None) in frames
    if _stands_in(frame, "concurrent.futures.thread", "_worker"):
        pool = names["executor_reference"]()
        return pool is not None and not pool._shutdown and names["work_queue"].empty()  # noqa: SLF001
    return False


_KNOWN = frozenset({"threading", "concurrent.futures.thread"})
