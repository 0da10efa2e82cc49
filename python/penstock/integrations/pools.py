"""Whose connections a governed transport uses: those of this process and of this event loop.

A connection belongs to the loop that opened it. A client that outlives its loop (a second ``asyncio.run``) fails on
what is left of the first, or sends a request again that the provider has had. And a forked child that goes on with its
parent's connections reads the parent's answers.
"""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.forgotten import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncGenerator

#: The member of a transport that keeps its pools.
_KEPT = "_penstock_pools"

_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603  a process has one number of forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def cloned(transport: Any) -> Any:
    """A transport with the same settings and no connections; the same one where nobody knows how."""
    pool = getattr(transport, "_pool", None)
    if pool is None or not {"_connections", "_requests", "_optional_thread_lock"} <= set(getattr(pool, "__dict__", ())):
        return transport
    fresh = copy.copy(pool)
    lock = type(pool._optional_thread_lock)()  # noqa: SLF001
    vars(fresh).update(_connections=[], _requests=[], _optional_thread_lock=lock)
    clone = copy.copy(transport)
    vars(clone)["_pool"] = fresh
    vars(clone).pop(_KEPT, None)
    return clone


#: In place of what makes the sessions of a transport that has none, or was given one.
_NO_SESSIONS = object()


def _sessions_of(transport: Any) -> Any:
    """What a transport on aiohttp (``openai[aiohttp]``) makes its session of: None for its settings, or a function."""
    made = getattr(transport, "__dict__", {}).get("client", _NO_SESSIONS)
    is_maker = callable(getattr(type(transport), "get_client", None)) and (made is None or callable(made))
    return made if is_maker else _NO_SESSIONS


class Pools:
    """The connections of a transport for threads: one pool, and a fresh one in a forked child."""

    __slots__ = ("_forks", "_here", "transport")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self._here = transport
        self._forks = _forks

    def here(self) -> Any:
        """The transport to send with."""
        if self._forks != _forks:
            # The parent's sockets are left alone: closing them here would say goodbye in the parent's name.
            self._here = cloned(self.transport)
            self._forks = _forks
        return self._here

    def close(self) -> None:
        """Close the connections."""
        self.here().close()


class _Own(NamedTuple):
    """What belongs to one event loop."""

    transport: Any
    #: An async generator that closes the transport when its loop shuts down.
    guard: AsyncGenerator[None, None] | None


class AsyncPools:
    """The connections of a transport for tasks: a pool for each event loop.

    The first loop has the transport itself, and so has the next one once that is gone; others that live at the same
    time have clones of it. A loop that shuts down, as ``asyncio.run`` lets it, closes its own; what a loop leaves
    behind that was only closed is closed when the next one comes.

    They live as long as the transport, and not as whoever governs it: the guard of a loop closes the transport when it
    is collected, too, and a client that is no longer governed, or anew, has requests under way there.
    """

    __slots__ = ("_forks", "_lock", "_original", "_owners", "_sessions", "transport")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self._original = transport
        self._sessions = _sessions_of(transport)
        self._owners: dict[AbstractEventLoop, _Own] = {}
        self._lock = threading.Lock()
        self._forks = _forks

    @classmethod
    def of(cls, transport: Any) -> AsyncPools:
        """The pools of a transport, always the same ones."""
        members = getattr(transport, "__dict__", None)
        if members is None:
            return cls(transport)
        pools: AsyncPools = members.setdefault(_KEPT, cls(transport))
        if pools._original is not transport:  # a copy took its original's along
            pools = members[_KEPT] = cls(transport)
        return pools

    def __reduce__(self) -> tuple[Any, ...]:
        # A transport is pickled with its members: where it is read it has pools of its own.
        return AsyncPools, (self._original,)

    def known(self) -> Any:
        """The transport to send with, if this loop has one."""
        event_loop = running_loop()
        own = None if event_loop is None else self._owners.get(event_loop)
        return None if own is None or self._forks != _forks else own.transport

    async def here(self) -> Any:
        """The transport to send with."""
        event_loop = running_loop()
        if event_loop is None:
            return self.transport  # trio, whose runs do not share clients
        known = self.known()
        if known is not None:
            return known
        own = self._begin(event_loop)
        if own.guard is not None:
            await own.guard.__anext__()  # from here on its loop knows it
        return own.transport

    def _begin(self, event_loop: AbstractEventLoop) -> _Own:
        with self._lock:
            if self._forks != _forks:
                self.transport = cloned(self.transport)
                self._owners = {}
                self._forks = _forks
            for gone in [other for other in self._owners if other.is_closed()]:
                _drop(self._owners.pop(gone).transport)
            taken = any(own.transport is self.transport for own in self._owners.values())
            transport = cloned(self.transport) if taken else self.transport
            if self._sessions is not _NO_SESSIONS:
                if taken:
                    transport = copy.copy(self.transport)
                    vars(transport).pop(_KEPT, None)
                vars(transport)["client"] = self._sessions  # a session belongs to the loop that it was made in
            _forget_dead(transport)
            # Not where it is shared between loops, nor where nothing keeps the guard for as long as it is in use.
            guarded = not (transport is self.transport and taken) and hasattr(transport, "__dict__")
            own = _Own(transport, self._guard(event_loop, transport) if guarded else None)
            self._owners[event_loop] = own
            return own

    async def _guard(self, event_loop: AbstractEventLoop, transport: Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with self._lock:
                own = self._owners.get(event_loop)
                if own is not None and own.transport is transport:
                    del self._owners[event_loop]
            if running_loop() is None:  # a loop that nobody closed, as the interpreter exits
                _drop(transport)
            else:
                await transport.aclose()

    async def aclose(self) -> None:
        """Close the connections of all loops."""
        with self._lock:
            owners, self._owners = self._owners, {}
        here = running_loop()
        for event_loop, own in owners.items():
            if event_loop is here:
                continue
            if event_loop.is_closed():
                _drop(own.transport)
            elif own.guard is not None:
                with contextlib.suppress(RuntimeError):  # it was closed just now
                    event_loop.call_soon_threadsafe(_close_there, event_loop, own.guard)
        own_here = None if here is None else owners.get(here)
        if own_here is not None and own_here.guard is not None:
            await own_here.guard.aclose()
        elif not any(own.transport is self.transport for own in owners.values()):
            await self.transport.aclose()


def _close_there(event_loop: AbstractEventLoop, guard: AsyncGenerator[None, None]) -> None:
    keep(event_loop.create_task(guard.aclose()))


#: What is being closed: a loop alone does not keep its tasks.
_closing: set[Any] = set()


def keep(task: Any) -> None:
    """Keep a task until it is done."""
    _closing.add(task)
    task.add_done_callback(_closing.discard)


def _drop(transport: Any) -> None:
    """Close what a loop left behind that is closed itself: nothing of it can be awaited any more."""
    connections = _connections(transport)
    left = list(connections)
    connections.clear()
    for connection in left:
        _close_socket(connection)


def _forget_dead(transport: Any) -> None:
    """Close what was opened before anyone governed it, in a loop that is closed: an ``asyncio.run`` that is over."""
    connections = _connections(transport)
    for connection in list(connections):
        with contextlib.suppress(Exception):
            stream = connection._connection._network_stream._stream  # noqa: SLF001
            while hasattr(stream, "transport_stream"):  # TLS
                stream = stream.transport_stream
            if stream._transport._loop.is_closed():  # noqa: SLF001
                connections.remove(connection)
                _close_socket(connection)


def _connections(transport: Any) -> list[Any]:
    connections = getattr(getattr(transport, "_pool", None), "_connections", None)
    return connections if isinstance(connections, list) else []


def _close_socket(connection: Any) -> None:
    with contextlib.suppress(Exception):
        sock = connection._connection._network_stream.get_extra_info("socket")  # noqa: SLF001
        getattr(sock, "_sock", sock).close()
