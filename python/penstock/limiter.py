"""`Limiter`: what decides when calls may leave, and the ways to put calls behind it."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from penstock import _core, _parking, arguments, decorate, identity
from penstock._core import Memory, Permit, RetryBudget
from penstock.stats import Level, Share, Stats

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from datetime import timedelta

    from penstock.retry import Retry

T = TypeVar("T")
R = TypeVar("R")


class Limiter(_core.Limiter):
    """A named set of rates and a concurrency: no more leaves than they allow, in every dimension at once.

    A number is an amount per minute, as providers quote RPM and TPM; a `Rate` says more, and a list of these sets
    several limits on one dimension::

        gate = Limiter(requests=500, tokens=200_000, concurrency=16)
        gate = Limiter(requests=[per_second(5), per_day(10_000)])

    A limiter can be made at import time, outside of any event loop, and used from any number of loops and threads at
    once. After ``fork`` the child goes on with a limiter of its own, in which nothing is under way; with ``shm://`` it
    shares the quota with its parent.

    Args:
        requests: how many calls may leave.
        tokens: how many tokens, input and output together.
        input_tokens: how many tokens may be sent.
        output_tokens: how many tokens may be received.
        concurrency: how many calls may be under way at once.
        per_key: what each key (tenant, user, agent) may use on its own: a dict of the five names above.
        name: what messages and numbers call it; one is made up if none is given.
        store: where the ledger is kept: ``"memory://"`` is this process; ``"shm://NAME"`` is shared memory, and all
            processes of this user on this host that say the same name share one quota (see docs/shared-memory.md);
            ``"redis://HOST:PORT/DB"`` (also ``rediss://``, ``redis+cluster://``, ``unix://``) is a server, and limiters
            of the same ``name`` share one quota wherever they are (see docs/redis.md).
        network_jitter: seconds by which the network's delay varies: within a rate's period and so much more, no more
            than its amount leaves. By default 1 % of the period, at most half a second.
        max_waiting: how many calls may wait; others get `QueueFull`. By default there is no bound.
        on_store_failure: what happens while Redis is away: with ``"share"`` (the default) each process goes on with
            the limits divided by the number of processes, with ``"open"`` everything leaves, with ``"closed"`` nothing
            does, and calls get `StoreUnavailable`. Without meaning for ``"memory://"`` and ``"shm://"``.
        on_conflict: when other processes share the memory of that name with other limits: ``"error"`` (the default)
            tells the one that came later, ``"keep"`` goes on with theirs, ``"replace"`` sets the new ones for all.
        provider: whose quota it is, as `penstock.providers` sets it: limits that are not given are found out from its
            answers.

    Raises:
        TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed; for shared
            memory with other limits, or with ``per_key``, which neither it nor Redis keeps.
        StoreUnavailable: for shared memory that cannot be had or is not a limiter's.
        NotImplementedError: for shared memory on Windows.
    """

    __slots__ = ("__weakref__", "_given_up", "_retry_budget", "given", "origin")

    __enter__ = _parking.enter

    if not TYPE_CHECKING:  # its arguments are those of `_core.Limiter`

        def __new__(cls, *args: Any, **given: Any) -> Any:  # noqa: D102  the class has the docstring
            try:
                return super().__new__(cls, *args, **given)
            except TypeError as error:
                if args:
                    message = f"Limiter() takes limits by name, as in Limiter(requests=500), not {args[0]!r}"
                    own = cls.__init__ is not Limiter.__init__
                    wrong = TypeError(message + "; what else a subclass takes it takes in __new__, too" * own)
                else:
                    wrong = arguments.unknown("Limiter", given, cls.__signature__.parameters)
                raise wrong or error from None

        def __init__(self, **given: Any) -> None:
            self.given = given
            self.origin = identity.origin_of(given)
            identity.note(self, self.origin)

        @functools.wraps(_core.Limiter.update)
        def update(self, **limits: Any) -> None:  # noqa: D102  it has the docstring of what it wraps
            super().update(**limits)
            self.given = {**self.given, **limits}

    else:
        #: The arguments that it was made with, and what `update` has changed since.
        given: dict[str, Any]
        #: Where its name was made up; nothing if it was given.
        origin: str

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is the limiter itself; a pickle finds it again by name and store, or makes one with its limits."""
        return identity.find, (type(self), self.store, self.name, self.origin, self.given)

    def acquire(
        self,
        tokens: int = 0,
        *,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        key: str | int | None = None,
        priority: int = 0,
        timeout: float | timedelta | None = None,
    ) -> Permit:
        """Wait until the call may leave, and give its permit, which is to be released. Tasks use `aacquire`.

        In a thread that runs an event loop the wait holds that up; a `RuntimeWarning` says so.

        Args:
            tokens: estimated tokens of the call, input and output together.
            requests: calls to the provider that it makes.
            input_tokens: estimated tokens sent.
            output_tokens: estimated tokens received.
            key: whom the call belongs to.
            priority: a higher one goes first.
            timeout: seconds that the call is ready to wait; 0 is now or never.

        Raises:
            AcquireTimeout: the wait would be, or was, longer than ``timeout``.
            CostExceedsLimit: no wait can satisfy the cost.
            QueueFull: more calls wait than ``max_waiting`` allows.
            QuotaExhausted: the provider said that the quota is spent.
            TypeError, ValueError: for an argument that cannot be; nothing is charged then.
        """
        permit = self.ask(tokens, requests, input_tokens, output_tokens, key, priority, timeout)
        if isinstance(permit, Permit):
            return permit
        return _parking.park(permit, "limiter.acquire()", "use `await limiter.aacquire()` in a coroutine")

    @arguments.checked("limiter.limit")
    def limit(
        self,
        tokens: int | Callable[..., int] = 0,
        *,
        requests: int | Callable[..., int] = 1,
        input_tokens: int | Callable[..., int] = 0,
        output_tokens: int | Callable[..., int] = 0,
        key: str | int | Callable[..., str | int | None] | None = None,
        priority: int = 0,
        timeout: float | timedelta | None = None,
        retry: Retry | None = None,
        usage: Callable[[Any], Any] | None = None,
    ) -> Callable[[decorate.F], decorate.F]:
        """Put a permit around each call of a function, a coroutine, a generator or an async generator.

        Costs and key may be functions: they are called with the arguments of the call. A generator holds its permit
        until it is exhausted, closed or dropped, and so does one that a decorated function or coroutine returns; a
        coroutine that a function returns holds it until it is done.

        When the limiter counts tokens, the permit is settled by what the result says that it used: results of OpenAI,
        Anthropic, Google, LangChain, LlamaIndex and AutoGen are recognised (of a stream: what its items say together).

        Args:
            tokens: estimated tokens of a call.
            requests: calls to the provider that one call makes.
            input_tokens: estimated tokens sent.
            output_tokens: estimated tokens received.
            key: whom the call belongs to.
            priority: a higher one goes first.
            timeout: seconds that a call is ready to wait; 0 is now or never.
            retry: how a failed call is tried again. Every attempt passes the limiter, which heeds what the provider
                said; the cost of a failed one is settled as the provider counts failures.
            usage: from the result, what was used: a number of tokens, a dict of ``tokens``, ``input_tokens`` and
                ``output_tokens``, a provider's usage object, or None to leave the estimate. Of a stream it is asked for
                each item, and the last that says something counts.

        Raises:
            AcquireTimeout, CostExceedsLimit, QueueFull: from the decorated call, before it is made.
            TypeError, ValueError: for a cost that cannot be; nothing is charged then.
        """
        terms = decorate.Terms(
            self,
            usage,
            retry,
            tokens=tokens,
            requests=requests,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            key=key,
            priority=priority,
            timeout=timeout,
        )

        def decorator(*called: Any, **named: Any) -> Any:
            if len(called) != 1 or named:
                given = ", ".join([*map(repr, called), *(f"{name}={value!r}" for name, value in named.items())])
                raise TypeError(
                    f"limiter.limit() decorates one function, and was called with ({given}); "
                    "is it @limiter.limit without its parentheses?"
                )
            return decorate.decorate(terms, called[0])

        return decorator

    @overload
    def gather(
        self,
        *awaitables: Awaitable[T],
        return_exceptions: Literal[False] = False,
        tokens: int | Sequence[int] = 0,
        progress: bool = False,
    ) -> asyncio.Future[list[T]]: ...
    @overload
    def gather(
        self,
        *awaitables: Awaitable[T],
        return_exceptions: bool,
        tokens: int | Sequence[int] = 0,
        progress: bool = False,
    ) -> asyncio.Future[list[T | BaseException]]: ...
    @arguments.checked("limiter.gather")
    def gather(
        self,
        *awaitables: Awaitable[Any],
        return_exceptions: bool = False,
        tokens: int | Sequence[int] = 0,
        progress: bool = False,
    ) -> asyncio.Future[list[Any]]:
        """`asyncio.gather`, but its coroutines are admitted one by one, in their order.

        Results, exceptions and cancellation are those of `asyncio.gather`. A task or future among the awaitables runs
        already, so it is waited for but not charged. A coroutine that never started is closed.

        Args:
            *awaitables: coroutines, tasks, futures.
            return_exceptions: as in `asyncio.gather`.
            tokens: estimated tokens of each call: one number, or one for each awaitable.
            progress: whether to show on stderr how many are done; only if that is a terminal.

        Raises:
            ValueError: when ``tokens`` is a sequence of another length than the awaitables.
        """
        from penstock import fanout  # asyncio is slow to import; who calls this has it already

        return fanout.gather(self, awaitables, return_exceptions=return_exceptions, tokens=tokens, progress=progress)

    @overload
    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        tokens: int | Callable[[T], int] = 0,
        key: str | int | Callable[[T], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> list[R]: ...
    @overload
    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        tokens: int | Callable[[T], int] = 0,
        key: str | int | Callable[[T], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: bool,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> list[R | BaseException]: ...
    @arguments.checked("limiter.map")
    def map(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        tokens: int | Callable[[Any], int] = 0,
        key: str | int | Callable[[Any], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: bool = False,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> list[Any]:
        """Call ``function`` with each item, in threads, each call with a permit. Gives the results in order.

        Items are taken as calls are admitted, so that an endless iterable needs no endless memory for what waits.
        Usage in results settles the permits, as in `limit`.

        Args:
            function: called in threads with one item.
            items: what to call it with.
            tokens: estimated tokens of each call, or a function of the item.
            key: whom each call belongs to, or a function of the item.
            retry: how a failed call is tried again, as in `limit`: each attempt with a permit of its own. None by
                default: the first failure of a call is its last.
            return_exceptions: whether an exception stands among the results; otherwise the first is raised, and
                calls that have not started are not made.
            progress: whether to show on stderr how many are done; only if that is a terminal.
            journal: a file in which each result is written down as it comes. A second run with the same function and
                file makes no call for what is written there, and goes on with the rest; failures are tried again.
                Items and results must be what JSON can hold, and come back as JSON holds them (tuples as lists).

        Raises:
            TypeError: for an item or a result that a journal cannot hold.
            ValueError: for a file that is no journal, is damaged, or is one of another function.
            RuntimeError: while another map uses the journal.
        """
        from penstock import fanout

        return fanout.map_in_threads(
            self,
            function,
            items,
            tokens=tokens,
            key=key,
            retry=retry,
            return_exceptions=return_exceptions,
            progress=progress,
            journal=journal,
        )

    @overload
    async def amap(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        tokens: int | Callable[[T], int] = 0,
        key: str | int | Callable[[T], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> list[R]: ...
    @overload
    async def amap(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        tokens: int | Callable[[T], int] = 0,
        key: str | int | Callable[[T], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: bool,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> list[R | BaseException]: ...
    @arguments.checked("limiter.amap")
    async def amap(
        self,
        function: Callable[[Any], Awaitable[Any]],
        items: Iterable[Any],
        *,
        tokens: int | Callable[[Any], int] = 0,
        key: str | int | Callable[[Any], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: bool = False,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> list[Any]:
        """Call a coroutine function with each item, each call with a permit. Gives the results in order.

        A task is made only for a call that is admitted: a million items need no million tasks. Arguments as in `map`;
        the first exception cancels the calls under way.
        """
        from penstock import fanout

        return await fanout.amap(
            self,
            function,
            items,
            tokens=tokens,
            key=key,
            retry=retry,
            return_exceptions=return_exceptions,
            progress=progress,
            journal=journal,
        )

    @overload
    def astream(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        tokens: int | Callable[[T], int] = 0,
        key: str | int | Callable[[T], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> AsyncIterator[tuple[int, R]]: ...
    @overload
    def astream(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        tokens: int | Callable[[T], int] = 0,
        key: str | int | Callable[[T], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: bool,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> AsyncIterator[tuple[int, R | BaseException]]: ...
    @arguments.checked("limiter.astream")
    def astream(
        self,
        function: Callable[[Any], Awaitable[Any]],
        items: Iterable[Any],
        *,
        tokens: int | Callable[[Any], int] = 0,
        key: str | int | Callable[[Any], str | int | None] | None = None,
        retry: Retry | None = None,
        return_exceptions: bool = False,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> AsyncIterator[tuple[int, Any]]:
        """Call a coroutine function with each item, as `amap` does, and give ``(index, result)`` as calls finish.

        Leaving the loop early cancels the calls under way.
        """
        from penstock import fanout

        return fanout.astream(
            self,
            function,
            items,
            tokens=tokens,
            key=key,
            retry=retry,
            return_exceptions=return_exceptions,
            progress=progress,
            journal=journal,
        )

    @property
    def retry_budget(self) -> RetryBudget:
        """The share of this limiter's calls that may be retries: 20 % of those in flight, at least 3."""
        try:
            return self._retry_budget
        except AttributeError:
            self._retry_budget: RetryBudget = RetryBudget()
            return self._retry_budget

    @property
    def given_up(self) -> Memory:
        """Requests of governed clients that were given up, and what they ended with."""
        try:
            return self._given_up
        except AttributeError:
            self._given_up: Memory = Memory()
            return self._given_up

    def stats(self) -> Stats:
        """A snapshot of the limiter's numbers."""
        numbers = self.snapshot()
        numbers["levels"] = tuple(Level(*level) for level in numbers["levels"])
        numbers["labels"] = {label: Share(*share) for label, share in numbers["labels"].items()}
        return Stats(attempts=numbers["granted"] - numbers.pop("abandoned"), **numbers)


class _Signature:
    """What `inspect.signature` shows of `Limiter`; inspect is slow to import."""

    def __get__(self, *_: object) -> Any:
        import inspect

        return inspect.signature(_core.Limiter)


Limiter.__signature__ = _Signature()  # type: ignore[attr-defined]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.after_fork)
