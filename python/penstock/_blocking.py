"""Waits that hold an event loop up: where a thread sleeps that runs one, every task in it sleeps, too.

If those tasks have the permits that the thread waits for, it waits for ever. Nothing but a warning can say so.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

#: What runs a cell, or a line, of code that is not asynchronous in its own loop: to wait there is what was asked for.
_CONSOLES = ("IPython", "ipykernel", "marimo", "asyncio.__main__")

#: The flags of code that is a coroutine's or an asynchronous generator's: CO_COROUTINE, CO_ITERABLE_COROUTINE and
#: CO_ASYNC_GENERATOR of `inspect`, which is slow to import.
_ASYNCHRONOUS = 0x80 | 0x100 | 0x200

_HERE = os.path.dirname(__file__) + os.sep

#: Where code is that frameworks call: if they do so from a coroutine, that is their own affair.
_CALLED_BY_FRAMEWORKS = _HERE + "integrations" + os.sep


def warn(what: str, instead: str) -> None:
    """Warn, if an event loop runs in this thread, that it is about to sleep.

    Args:
        what: what waits, as its caller wrote it.
        instead: what would let the loop go on.

    Raises:
        RuntimeWarning: when warnings are errors.
    """
    if not _in_event_loop():
        return
    level, frame = 1, sys._getframe()  # noqa: SLF001  what `warnings` itself does; `inspect` is slow to import
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        if frame.f_code.co_filename.startswith(_CALLED_BY_FRAMEWORKS):
            return
        level, frame = level + 1, frame.f_back
    if not _in_console(frame):
        message = f"{what} has to wait, and holds up the event loop that runs in this thread; {instead}"
        warnings.warn(message, RuntimeWarning, stacklevel=level)


def _in_event_loop() -> bool:
    # Not "asyncio" itself, which another thread may be about to import.
    events: Any = sys.modules.get("asyncio.events")
    running = getattr(events, "_get_running_loop", None)
    if running is not None and running() is not None:
        return True
    trio = sys.modules.get("trio")
    return trio is not None and in_trio(trio)


def in_trio(trio: Any) -> bool:
    """Whether this code runs in a task of trio."""
    try:
        trio.lowlevel.current_task()
    except (AttributeError, RuntimeError):  # half imported, or not in a task
        return False
    return True


def _in_console(frame: FrameType | None) -> bool:
    """Whether a console runs this code, and no coroutine of the user's."""
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module == "__main__":
            module = getattr(frame.f_globals.get("__spec__"), "name", None)
        if isinstance(module, str) and module.startswith(_CONSOLES):
            return True
        if frame.f_code.co_flags & _ASYNCHRONOUS:
            return False
        frame = frame.f_back
    return False
