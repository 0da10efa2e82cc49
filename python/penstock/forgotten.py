"""Streams that were left half-way and that nobody holds any more, but a cycle: among an SDK's own objects, mostly.

Python's collector finds such cycles when enough other objects were made meanwhile. Where all calls wait for the slots
of such streams nothing is made, and they would wait for ever. So while calls wait, and a stream is open from
which nobody has read for a second, the collector is called: three times for that stream, a second apart, since what one
run closes lets go of what the next one finds; and no more until somebody reads from it again. But readers may be
slow and heaps large: each time that the collector was called in vain it is left alone for twice as long as before.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from types import TracebackType

#: How often is looked, in seconds.
_EVERY = 1.0
#: At which looks a stream that nobody reads from is taken to be forgotten.
_LOOKS = range(2, 5)
#: How many times it may be called in vain before its rests, of so many doublings of the time it took, grow no more.
_MOST_IN_VAIN = 6


class Stream:
    """What is known of how a stream is read."""

    __slots__ = ("__weakref__", "event_loop", "looks", "reading")

    def __init__(self) -> None:
        #: Whether somebody waits for its next bytes.
        self.reading = False
        #: How often was looked since it was last read.
        self.looks = 0
        #: Of the task that reads it.
        self.event_loop: AbstractEventLoop | None = None

    def watch(self) -> None:
        """It is somebody's to read from now on."""
        with _lock:
            _open[id(self)] = weakref.ref(self)
            _begin()

    def unwatch(self) -> None:
        """It is over, or was closed, or dropped."""
        global _in_vain  # noqa: PLW0603
        _open.pop(id(self), None)
        if self.looks >= _LOOKS.start:
            _in_vain = 0


_lock = threading.Lock()
_open: dict[int, weakref.ref[Stream]] = {}
_waiting = 0
_looking: threading.Thread | None = None
#: Before when the collector is not called again, by `time.monotonic`.
_resting = 0.0
#: How often it was called since a stream ended that nobody had read from.
_in_vain = 0


def running_loop() -> AbstractEventLoop | None:
    """The event loop of asyncio that runs here."""
    events = sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()  # noqa: SLF001


class Waiting:
    """A block in which a call waits for its permit."""

    __slots__ = ()

    def __enter__(self) -> None:
        global _waiting  # noqa: PLW0603  a process has one number of calls that wait
        with _lock:
            _waiting += 1
            _begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _waiting  # noqa: PLW0603
        with _lock:
            _waiting -= 1


waiting = Waiting()


def _begin() -> None:
    """Look from now on, if there may be something to find."""
    global _looking  # noqa: PLW0603
    if _waiting > 0 and _open and _looking is None:
        looking = threading.Thread(target=_look, name="penstock-streams", daemon=True)
        with contextlib.suppress(RuntimeError):  # Python is ending, and starts no more threads
            looking.start()
            _looking = looking


def _in_child() -> None:
    """A fork leaves a child no thread to look, and the lock as another thread may have held it."""
    global _lock, _looking
    _lock, _looking = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _look() -> None:
    global _looking  # noqa: PLW0603
    while True:
        time.sleep(max(_EVERY, _resting - time.monotonic()))
        with _lock:
            if _waiting <= 0 or not _open:
                _looking = None
                return
            # A list at once: streams end without the lock, wherever the collector finds them.
            known = list(_open.items())
            for place, ref in known:
                if ref() is None:  # a generator of tasks whose loop is gone: nobody closes it
                    _open.pop(place, None)
            event_loops = _of_forgotten([ref for _, ref in known])
        _collect(event_loops)


def _of_forgotten(refs: list[weakref.ref[Stream]]) -> set[AbstractEventLoop | None]:
    """The loops that forgotten streams belong to; None for those of threads. No name of a stream outlives this."""
    return {stream.event_loop for ref in refs if (stream := ref()) is not None and _is_forgotten(stream)}


def _is_forgotten(stream: Stream) -> bool:
    if stream.reading:
        return False
    stream.looks += 1
    return stream.looks in _LOOKS


def _collect(event_loops: set[AbstractEventLoop | None]) -> None:
    """Call the collector where what it finds can be closed: in the loop that it belongs to."""
    here = False
    for event_loop in event_loops:
        if event_loop is not None and event_loop.is_running():
            with contextlib.suppress(RuntimeError):  # it was closed just now
                event_loop.call_soon_threadsafe(_run_collector)
                continue
        here = True
    if here:
        _run_collector()


def _run_collector() -> None:
    global _resting, _in_vain  # noqa: PLW0603
    began = time.monotonic()
    _in_vain = min(_in_vain + 1, _MOST_IN_VAIN)
    gc.collect()
    ended = time.monotonic()
    _resting = ended + (ended - began) * 2**_in_vain
