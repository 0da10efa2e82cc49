"""A thread with a loop of its own, in which a provider runs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["Thread"]


class Thread:
    """Enters and leaves an asynchronous context on a loop in a thread."""

    def __init__(self, context: AbstractAsyncContextManager[object]) -> None:
        self._context = context
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="penstock-fake-provider", daemon=True)

    def begin(self) -> None:
        """Return when the context is entered, or raise why it cannot be."""
        self._thread.start()
        self._ready.result()

    def end(self) -> None:
        """Return when all is closed."""
        loop, stop = self._ready.result()
        loop.call_soon_threadsafe(stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        stop = asyncio.Event()
        try:
            await self._context.__aenter__()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that began this one
            self._ready.set_exception(error)
            return
        self._ready.set_result((asyncio.get_running_loop(), stop))
        try:
            await stop.wait()
        finally:
            await self._context.__aexit__(None, None, None)
