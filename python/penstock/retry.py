"""`Retry`: one owner of retries."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import timedelta
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from penstock import _parking, arguments, streams
from penstock._core import RetryBudget, RetryPolicy, next_order
from penstock.errors import PenstockError
from penstock.failures import annotate, being_handled, chain, get, verdict_of
from penstock.wrapping import Wraps, decorated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from penstock._core import Attempts, Permit, Verdict
    from penstock.limiter import Limiter

F = TypeVar("F", bound=Callable[..., Any])
On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], Any] | None

#: Where an exception carries what its retries came to; whoever sees it does not retry again.
_MARK = "penstock"


#: What to do where a function that waits between its attempts holds an event loop up.
_INSTEAD = "decorate a coroutine function, or call it through asyncio.to_thread()"


class GaveUp(NamedTuple):
    """What the retries of a call came to; the exception that is raised in the end carries it as ``error.penstock``.

    Attributes:
        attempts: how many were made.
        waits: the seconds waited before each attempt but the first.
        reason: why there was no further one.
        order: its place in the order of the process's calls: who made a later one has not given this up.
    """

    attempts: int
    waits: tuple[float, ...]
    reason: str
    order: int = 0


class Retry:
    """How often, how late and how spread out a failed call is tried again.

    As a decorator of functions, coroutines, generators and async generators; as ``limit(retry=...)``, where every
    attempt passes the limiter again; and as a loop::

        for attempt in Retry():          # or: async for attempt in Retry():
            with attempt:
                response = call()

    A failure is retried when what the provider said allows it (see `Verdict`): never a spent quota, a request that is
    too large or wrong, or a stream that has begun. A wait that the provider states is a floor; where it states none,
    the delay grows from ``initial`` by ``factor`` up to ``max_delay``, with jitter. In the end the original exception
    is raised; ``error.penstock`` says what was tried. A `Retry` around another leaves alone what that gave up.

    Args:
        attempts: how many attempts a call makes at most, the first included.
        initial: seconds before the second attempt, at most.
        factor: by how much the delay grows from attempt to attempt.
        max_delay: seconds that a delay grows to at most. A stated wait is not shortened: one above this and above five
            minutes is not waited for at all.
        jitter: ``"full"``, ``"equal"``, ``"decorrelated"`` or None.
        deadline: seconds after the start of the first attempt in which the last must start.
        on: what to retry besides failures of providers: an exception class or several; or a function of the exception
            that gives True, False, None (as without it), or the seconds to wait.
        budget: the share of calls that may be retries; by default one for each limiter, or for this `Retry` where there
            is no limiter: 20 % of calls in flight, at least 3.

    Raises:
        TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed.
    """

    __slots__ = ("_budget", "_given", "_on", "_own", "_policy", "_shown")

    @arguments.checked("Retry")
    def __init__(
        self,
        attempts: int = 5,
        *,
        initial: float = 1.0,
        factor: float = 2.0,
        max_delay: float = 60.0,
        jitter: str | None = "full",
        deadline: float | None = None,
        on: On = None,
        budget: RetryBudget | None = None,
    ) -> None:
        if callable(attempts):
            raise TypeError(
                f"attempts must be a whole number, at least 1, not {attempts!r}; is it @Retry without its parentheses?"
            )
        if on is not None and not callable(on) and not _are_exceptions(on):
            raise TypeError(f"on must be an exception class, a tuple of these, a function or None, not {on!r}")
        if budget is not None and not isinstance(budget, RetryBudget):
            raise TypeError(f"budget must be a RetryBudget or None, not {budget!r}")
        seed = int.from_bytes(os.urandom(8), "little")
        self._policy = RetryPolicy(attempts, initial, factor, max_delay, jitter, deadline, seed)
        self._on = on
        self._budget = budget
        self._own = RetryBudget() if budget is None else budget
        self._given: dict[str, Any] = {
            "attempts": attempts,
            "initial": initial,
            "factor": factor,
            "max_delay": max_delay,
        }
        self._given |= {"jitter": jitter, "deadline": deadline, "on": on}
        self._shown = f"Retry({attempts}, initial={initial}, factor={factor}, max_delay={max_delay}, jitter={jitter!r}"
        self._shown += "" if deadline is None else f", deadline={deadline}"

    def __repr__(self) -> str:
        return self._shown + ")"

    @property
    def arguments(self) -> dict[str, Any]:
        """What it can be made of again, as data: ``Retry(**retry.arguments)``. Functions and classes are left out."""
        given = {name: value for name, value in self._given.items() if name != "on" and value is not None}
        return given if "jitter" in given else {**given, "jitter": "none"}

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it has a budget of its own where it arrives: what is in flight there is another process's."""
        return _again, (self._given,)

    # One call: `start` when its first attempt has its permit, `after` each failure, `end` when it is over.

    def start(self, limiter: Limiter | None = None) -> Attempts:
        """Begin a call, within the budget of this retry or of the limiter."""
        return self.budget_for(limiter).begin(being_handled())

    def budget_for(self, limiter: Limiter | None) -> RetryBudget:
        """Of which budget the calls through ``limiter`` are."""
        return self._own if limiter is None or self._budget is not None else limiter.retry_budget

    def after(
        self,
        call: Attempts,
        error: BaseException,
        limiter: Limiter | None = None,
        permit: Permit | None = None,
        *,
        streamed: bool = False,
    ) -> float | None:
        """Seconds to wait before the next attempt, or None if ``error`` is to be raised.

        What the provider said is passed on to the limiter, and the failed attempt's permit is settled.
        """
        if not isinstance(error, Exception):
            call.end()
            return None
        verdict = verdict_of(error, call.handled)
        if limiter is not None and verdict is not None:
            limiter.heed(verdict, permit)
            if permit is not None and verdict.charged != "all":
                permit.settle(0, 0, 0)
        if _gave_up(error, call):
            call.end()
            return None
        try:
            wait = self._asked(error, verdict)
        except BaseException:
            call.end()
            raise
        if wait is None:
            _mark(error, call, "nothing says that trying again can help", quiet=verdict is None)
            return None
        stated = None if isinstance(wait, bool) else float(wait)
        delay, reason = self._policy.decide(call, verdict, stated, streamed, limiter is None)
        if reason is not None:
            _mark(error, call, reason)
        return delay

    def weigh(
        self,
        call: Attempts,
        verdict: Verdict | None,
        error: Callable[[], Exception],
        limiter: Limiter,
        permit: Permit | None,
        *,
        streamed: bool = False,
    ) -> tuple[float | None, str]:
        """Seconds to wait before the next attempt, or None and why there is none: `after`, for who sees answers.

        Args:
            call: as `start` gave it.
            verdict: what the answer means; None when it is not known to mean anything.
            error: makes the exception that ``on`` is asked about.
            limiter: is told what the provider said.
            permit: of the failed attempt; it is settled.
            streamed: whether the caller has been given a part of the answer.
        """
        if verdict is not None:
            limiter.heed(verdict, permit)
            if permit is not None and verdict.charged != "all":
                permit.settle(0, 0, 0)
        wait: float | bool | None = None if verdict is None else True
        if self._on is not None:
            wait = self._asked(error(), verdict)
        if wait is None:
            return None, "nothing says that trying again can help"
        stated = None if isinstance(wait, bool) else float(wait)
        delay, reason = self._policy.decide(call, verdict, stated, streamed, False)
        return delay, reason or ""

    def step(self, retry: int) -> float:
        """The longest backoff before retry number ``retry``, in seconds; the first is 1."""
        return self._policy.step(retry)

    def _asked(self, error: Exception, verdict: Verdict | None) -> float | bool | None:
        """True to go by the verdict, seconds to wait, or None not to retry at all."""
        answer: Any = None
        if self._on is not None and not issubclass(type(error), PenstockError):
            on: Any = self._on
            answer = (isinstance(error, on) or None) if _are_exceptions(on) else on(error)
        if answer is False:
            return None
        if isinstance(answer, timedelta):
            answer = answer.total_seconds()
        if answer is not None and answer is not True:
            if not isinstance(answer, (int, float)) or not 0 <= answer < float("inf"):
                raise TypeError(f"on must give True, False, None or a number of seconds, not {answer!r}") from error
            return float(answer)
        return True if answer is True or verdict is not None else None

    # As a decorator.

    def __call__(self, function: F) -> F:
        """Retry each call of ``function``."""
        wraps = Wraps(
            self._function,
            self._coroutine,
            lambda generator: streams.generator(None, generator, retry=self),
            lambda generator: streams.async_generator(None, generator, retry=self),
        )
        return cast("F", decorated(function, "Retry", wraps))

    # Whatever ends a call ends its `Attempts`: a traceback may keep the frames, and what is in them, for long.

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        begin = self._own.begin

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = begin(being_handled())
            try:
                while True:
                    try:
                        return await function(*args, **kwargs)
                    except Exception as error:
                        delay = self.after(call, error)
                        if delay is None:
                            raise
                    await _parking.apause(delay)
            finally:
                call.end()

        return wrapper

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        begin = self._own.begin

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = begin(being_handled())
            finished = True
            try:
                while True:
                    try:
                        result = function(*args, **kwargs)
                    except Exception as error:
                        delay = self.after(call, error)
                        if delay is None:
                            raise
                    else:
                        if result.__class__ is CoroutineType:
                            # A plain function around a coroutine function, as the methods of OpenAI's SDK are.
                            finished = False
                            return self._finish(call, result, lambda: function(*args, **kwargs))
                        return result
                    _parking.pause(delay, "a function decorated with Retry()", _INSTEAD)
            finally:
                if finished:
                    call.end()

        return wrapper

    async def _finish(
        self, call: Attempts, first: Coroutine[Any, Any, Any], again: Callable[[], Coroutine[Any, Any, Any]]
    ) -> Any:
        """The result of a call whose first attempt is a coroutine already."""
        attempt: Coroutine[Any, Any, Any] | None = first
        try:
            while True:
                try:
                    return await (again() if attempt is None else attempt)
                except Exception as error:
                    delay = self.after(call, error)
                    if delay is None:
                        raise
                attempt = None
                await _parking.apause(delay)
        finally:
            call.end()

    # As a loop.

    def __iter__(self) -> Iterator[Attempt]:
        """Attempts of one call; the loop ends with the first that succeeds."""
        return _Loop(self)

    def __aiter__(self) -> AsyncIterator[Attempt]:
        """Attempts of one call; the loop ends with the first that succeeds."""
        return _Loop(self)


def _again(given: dict[str, Any]) -> Retry:
    return Retry(**given)


class _Loop:
    """The attempts of one call, one after the other.

    No generator: a loop that is left by an exception would leave a suspended one behind, for asyncio to close.
    """

    __slots__ = ("_attempt", "_call", "_retry")

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._call = retry.start()
        self._attempt: Attempt | None = None

    def __del__(self) -> None:
        # A loop that is left is over, even while someone keeps its last attempt.
        call = getattr(self, "_call", None)
        if call is not None:
            call.end()

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> Attempt:
        if self._attempt is not None:
            if self._attempt.delay is None:
                self._call.end()
                raise StopIteration
            try:
                _parking.pause(self._attempt.delay, "a loop over Retry()", "use `async for` in a coroutine")
            except BaseException:
                self._call.end()
                raise
        self._attempt = Attempt(self._retry, self._call)
        return self._attempt

    async def __anext__(self) -> Attempt:
        if self._attempt is not None:
            if self._attempt.delay is None:
                self._call.end()
                raise StopAsyncIteration
            try:
                await _parking.apause(self._attempt.delay)
            except BaseException:
                self._call.end()
                raise
        self._attempt = Attempt(self._retry, self._call)
        return self._attempt


class Attempt:
    """One attempt of a retry loop: ``with attempt:`` around the call.

    Attributes:
        number: 1 for the first.
        delay: seconds before the next one; None if there is none.
    """

    __slots__ = ("_call", "_retry", "delay", "number")

    def __init__(self, retry: Retry, call: Attempts) -> None:
        self._retry = retry
        self._call = call
        self.number = call.told()[0]
        self.delay: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            self._call.end()
            return False
        self.delay = self._retry.after(self._call, error)
        if self.delay is None:
            self._call.end()
        return self.delay is not None

    def __repr__(self) -> str:
        return f"<Attempt {self.number}>"


def _are_exceptions(on: object) -> bool:
    kinds = on if isinstance(on, tuple) else (on,)
    return bool(kinds) and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)


def _gave_up(error: BaseException, call: Attempts) -> bool:
    """Whether an inner `Retry` has given this failure, or the one behind it, up in the course of ``call``."""
    for current in chain(error, call.handled):
        mark = get(current, _MARK)
        # One that is raised again later, as mocks do, was given up by another call.
        if isinstance(mark, GaveUp) and mark.order > call.order:
            return True
    return False


def _mark(error: BaseException, call: Attempts, reason: str, *, quiet: bool = False) -> None:
    attempts, waits = call.told()
    call.end()
    with contextlib.suppress(Exception):  # a class that lets nothing be set: the note alone will do
        setattr(error, _MARK, GaveUp(attempts, tuple(waits), reason, next_order()))
    if not quiet:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts, {sum(waits):.1f} s of waiting between them"
        annotate(error, f"penstock: {reason} ({times})")
