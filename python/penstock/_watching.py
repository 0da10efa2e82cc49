"""The thread that wakes calls which wait at a shared limiter when another process has given something back.

It reads from a pipe, into which a thread of the core writes that never enters the interpreter. Where it sleeps no frame
of Rust is below it, so that the interpreter may exit at any time (see `penstock._parking`).
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os

from penstock import _core

#: Held while calls are woken: who exits waits for that, and lets it begin no more.
_looking = _thread.allocate_lock()


def begin(reader: int) -> None:
    """Begin the thread, in a process that has none: once, and again in each of its forks."""
    global _looking  # noqa: PLW0603  that of a parent may be held, by a thread which is not here
    _looking = _thread.allocate_lock()
    _thread.start_new_thread(_watch, (reader, _looking))


def _watch(reader: int, looking: _thread.LockType) -> None:
    while os.read(reader, 64):
        with looking:
            _core.look()


@atexit.register
def _end() -> None:
    with contextlib.suppress(RuntimeError):
        _looking.acquire(timeout=1)
