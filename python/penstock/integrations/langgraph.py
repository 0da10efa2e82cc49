"""LangGraph's nodes: their heartbeat beats while a call of theirs queues.

A node's ``TimeoutPolicy(idle_timeout=...)`` would count the time in which a call waits for its permit as idleness, and
kill nodes that have only to wait for quota. ``run_timeout`` is a hard bound that nothing refreshes: it must leave time
to queue.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import TracebackType

#: Seconds between beats where the node does not say after how much idleness it is killed.
_INTERVAL = 0.25
#: The node's own limit on progress events is a quarter of its idle timeout: beats that often are early enough.
_LEAST, _MOST = 0.02, 10.0


def heartbeat() -> Callable[[], None] | None:
    """The heartbeat of the node that runs here; None outside of nodes, and in nodes without an idle timeout.

    Costs a look into `sys.modules` where LangGraph was never imported.
    """
    runtime = sys.modules.get("langgraph.runtime")
    if runtime is None:
        return None
    try:
        beat = runtime.get_runtime().heartbeat
    except Exception:  # noqa: BLE001  no node runs here: RuntimeError, KeyError or AttributeError, as versions have it
        return None
    # Without an idle timeout it is a function that does nothing; the real one belongs to the node's attempt.
    return beat if getattr(beat, "__self__", None) is not None else None


class Beating:
    """A block in which the heartbeat of the node that runs here beats; for tasks, since only they have idle timeouts.

    One timer of the loop at a time, and none outside of nodes with an idle timeout.
    """

    __slots__ = ("_beat", "_interval", "_timer")

    def __init__(self) -> None:
        self._beat = heartbeat()
        self._timer: asyncio.TimerHandle | None = None
        self._interval = 0.0

    def __enter__(self) -> None:
        if self._beat is None:
            return
        least: Any = getattr(getattr(self._beat, "__self__", None), "_progress_min_interval", None)
        known = isinstance(least, float) and least > 0
        self._interval = min(max(least, _LEAST), _MOST) if known else _INTERVAL
        self._tick()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._beat is not None:
            self._beat()  # what comes now has the whole idle timeout for itself

    def _tick(self) -> None:
        import asyncio  # whoever has a node has it already

        if self._beat is None:
            return
        self._beat()
        with contextlib.suppress(RuntimeError):  # in another async library's task there is no loop of asyncio
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)
