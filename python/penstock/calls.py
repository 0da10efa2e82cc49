"""The calls of one map: each an item, its permits, its attempts, and its note in the journal."""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any

from penstock import _core, _parking
from penstock.errors import PenstockError
from penstock.failures import being_handled, raise_from
from penstock.usage import usage_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Self

    from penstock._core import Attempts, Permit
    from penstock.journal import Journal
    from penstock.limiter import Limiter
    from penstock.retry import Retry


class Calls:
    """How the calls of one map are made. Left as a context manager, it tries none of them again."""

    __slots__ = ("_asleep", "_function", "_key", "_limiter", "_mutex", "_notes", "_over", "_retry", "_tokens")

    def __init__(
        self,
        limiter: Limiter,
        function: Callable[[Any], Any],
        *,
        tokens: Any,
        key: Any,
        retry: Retry | None,
        notes: Journal | None,
    ) -> None:
        self._limiter = limiter
        self._function = function
        self._tokens = tokens
        self._key = key
        self._retry = retry
        self._notes = notes
        #: What threads sleep on that wait for their next attempt.
        self._asleep: list[Any] = []
        self._mutex = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with self._mutex:
            self._over.set()
            for lock in self._asleep:
                lock.release()
            self._asleep.clear()

    def terms(self, item: Any) -> dict[str, Any]:
        """What the permit of an item's call is asked for with."""
        tokens = _of(self._tokens, item)
        if tokens is None:
            raise TypeError("tokens must be a whole number, or a function that gives one, not None")
        return {"tokens": tokens, "key": _of(self._key, item)}

    def acquire(self, item: Any) -> Permit:
        """Wait in this thread for the permit of an item's call. The map has warned of a loop that this holds up."""
        terms = self.terms(item)
        permit = self._limiter.ask(terms["tokens"], 1, 0, 0, terms["key"], 0, None)
        return permit if isinstance(permit, _core.Permit) else _parking.park(permit)

    def make(self, permit: Permit, item: Any, name: str) -> Any:
        """Make a call in this thread; ``name`` is that of its note."""
        call: Attempts | None = None
        failure: Exception | None = None
        try:
            while True:
                with permit:
                    permit.resume()
                    call = call or self._begin()
                    try:
                        result = self._function(item)
                    except Exception as error:
                        delay = self._delay(call, error, permit)
                        if delay is None:
                            raise
                        failure = error
                    else:
                        settle(permit, result)
                        break
                if not self._pause(delay):
                    raise failure
                try:
                    permit = self.acquire(item)
                except PenstockError as refusal:
                    raise_from(refusal, failure)
        finally:
            failure = None  # or it and this frame would keep each other
            if call is not None:
                call.end()
        return result if self._notes is None else self._notes.note(name, result)

    async def amake(self, permit: Permit, item: Any, name: str) -> Any:
        """Make a call in this task; ``name`` is that of its note."""
        call: Attempts | None = None
        failure: Exception | None = None
        try:
            while True:
                with permit:
                    permit.resume()
                    call = call or self._begin()
                    try:
                        result = await self._called(item)
                    except Exception as error:
                        delay = self._delay(call, error, permit)
                        if delay is None:
                            raise
                        failure = error
                    else:
                        settle(permit, result)
                        break
                await _parking.apause(delay)
                try:
                    permit = await self._limiter.aacquire(**self.terms(item))
                except PenstockError as refusal:
                    raise_from(refusal, failure)
        finally:
            failure = None  # as above
            if call is not None:
                call.end()
        return result if self._notes is None else self._notes.note(name, result)

    def _called(self, item: Any) -> Awaitable[Any]:
        called = self._function(item)
        if inspect.isawaitable(called):
            return called
        raise TypeError(
            f"function must be a coroutine function, but {self._function!r} gave {called!r}; there is map() for others"
        )

    def _begin(self) -> Attempts | None:
        return None if self._retry is None else self._retry.budget_for(self._limiter).begin(being_handled())

    def _delay(self, call: Attempts | None, error: Exception, permit: Permit) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        if self._retry is None or call is None:
            return None
        return self._retry.after(call, error, self._limiter, permit)

    def _pause(self, seconds: float) -> bool:
        """Sleep until the next attempt; whether there is to be one. A map that ends meanwhile ends the sleep."""
        _core.check_pause(seconds)
        until = _core.clock_now() + seconds
        lock = _parking.Lock()
        lock.acquire()
        with self._mutex:
            if self._over.is_set():
                return False
            self._asleep.append(lock)
        while not self._over.is_set() and (left := until - _core.clock_now()) > 0:
            _parking.sleep_on(lock, left)
        with self._mutex:
            if self._over.is_set():
                return False
            self._asleep.remove(lock)
        return True


def settle(permit: Permit, result: object) -> None:
    """Settle a permit by what a result says that its call used, if it does."""
    used = usage_of(result)
    if used is not None:
        permit.settle(used.tokens, used.input_tokens, used.output_tokens)


def check_retry(retry: object) -> None:
    """Raise `TypeError` for what is no `Retry`."""
    if retry is not None and not hasattr(type(retry), "after"):
        raise TypeError(f"retry must be a Retry or None, not {retry!r}")


def _of(value: Any, item: Any) -> Any:
    return value(item) if callable(value) else value
