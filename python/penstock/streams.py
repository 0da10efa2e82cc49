"""Generators and async generators whose calls have a permit, are tried again, or run in a scope.

A generator shares the context of whoever iterates it, so what encloses it, a permit or a scope, does so only while the
generator itself runs: suspended before each item is handed out, resumed when the next one is asked for. A stream that
fails is begun anew only while nobody has seen any of it. What is sent and thrown in reaches it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from penstock import _parking
from penstock._core import Permit
from penstock.errors import PenstockError
from penstock.failures import raise_from
from penstock.forgotten import Stream, running_loop, waiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from penstock._core import Attempts
    from penstock.limiter import Limiter
    from penstock.retry import Retry
    from penstock.usage import Usage

    #: Gives the permit of a call with these arguments, or what to wait on: a task awaits it, a thread sleeps on it.
    Ask = Callable[[tuple[Any, ...], dict[str, Any]], Any]
    #: What a stream has used, from an item and from what it had used before.
    Used = Callable[[Any, "Usage | None"], "Usage | None"]


def settle(permit: Permit, used: Usage | None) -> None:
    """Settle a permit by what was used, if that is known."""
    if used is not None:
        permit.settle(used.tokens, used.input_tokens, used.output_tokens)


class Steps(Protocol):
    """One call of a stream, whose attempts are run in steps: what is the same for both kinds of generators."""

    #: What the last attempt failed with.
    failure: Exception | None

    def begin(self, permit: Permit | None) -> None:
        """An attempt begins, with its permit, if calls have one."""

    def hand_out(self, item: object) -> None:
        """An item is about to be handed out, to code that does not belong to the stream."""

    def go_on(self) -> None:
        """The next item is asked for."""

    def failed(self, error: Exception) -> float | None:
        """Seconds to wait before the next attempt, or None if ``error`` is to be raised."""

    def end(self) -> None:
        """An attempt ends, however."""

    def close(self) -> None:
        """The call ends. Not left to the end of this object: a traceback may keep that for long."""


class _Charged(Stream):
    """The steps of a call that has one permit for each attempt, if there is a limiter, and is tried again, if it is."""

    __slots__ = ("call", "failure", "limiter", "permit", "retry", "streamed", "used", "uses")

    def __init__(self, uses: Used | None, retry: Retry | None, limiter: Limiter | None) -> None:
        super().__init__()
        self.uses, self.retry, self.limiter = uses, retry, limiter
        self.call: Attempts | None = None
        self.permit: Permit | None = None
        self.used: Usage | None = None
        self.streamed = False
        self.failure: Exception | None = None

    def begin(self, permit: Permit | None) -> None:
        self.permit, self.used, self.streamed = permit, None, False
        if permit is not None:
            permit.resume()
            self.event_loop, self.reading = running_loop(), True
            self.watch()
        if self.call is None and self.retry is not None:
            self.call = self.retry.start(self.limiter)

    def hand_out(self, item: object) -> None:
        self.streamed = True
        if self.permit is not None:
            if self.uses is not None:
                self.used = self.uses(item, self.used)
            self.permit.suspend()
            self.reading = False

    def go_on(self) -> None:
        if self.permit is not None:
            self.permit.resume()
            self.reading, self.looks = True, 0

    def failed(self, error: Exception) -> float | None:
        if self.retry is None or self.call is None:
            return None
        self.failure = error
        return self.retry.after(self.call, error, self.limiter, self.permit, streamed=self.streamed)

    def end(self) -> None:
        permit, self.permit = self.permit, None
        if permit is not None:
            self.unwatch()
            try:
                settle(permit, self.used)
            finally:
                permit.release()

    def close(self) -> None:
        self.failure = None  # or it and this frame would keep each other
        if self.call is not None:
            self.call.end()


def generator(
    ask: Ask | None,
    make: Callable[..., Generator[Any, Any, Any]],
    uses: Used | None = None,
    retry: Retry | None = None,
    limiter: Limiter | None = None,
) -> Callable[..., Any]:
    """Wrap a generator function: a permit for each attempt, if there is a limiter to ask, and retries, if any."""
    return in_steps(make, lambda: _Charged(uses, retry, limiter), ask)


def async_generator(
    ask: Ask | None,
    make: Callable[..., AsyncGenerator[Any, Any]],
    uses: Used | None = None,
    retry: Retry | None = None,
    limiter: Limiter | None = None,
) -> Callable[..., Any]:
    """Wrap an async generator function, as `generator` does."""
    return in_async_steps(make, lambda: _Charged(uses, retry, limiter), ask)


#: What a decorated generator does to an event loop, and what to do instead.
_BLOCKING = ("a decorated generator", "decorate an async generator, or iterate it in a thread")


def in_steps(
    make: Callable[..., Generator[Any, Any, Any]], start: Callable[[], Steps], ask: Ask | None = None
) -> Callable[..., Any]:
    """Wrap a generator function, each call of which is run in the steps that ``start`` makes."""

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # noqa: PLR0912  one loop, which reads best in one piece
        stream = start()
        try:
            while True:
                try:
                    permit: Any = ask(args, kwargs) if ask is not None else None
                    if ask is not None and type(permit) is not Permit:
                        permit = _parking.park(permit, *_BLOCKING)
                except PenstockError as refusal:
                    raise_from(refusal, stream.failure)
                try:
                    stream.begin(permit)
                    inner = make(*args, **kwargs)
                    step, sent = inner.send, None
                    try:
                        while True:
                            try:
                                item = step(sent)
                            except StopIteration as stop:
                                return stop.value
                            except Exception as error:
                                delay = stream.failed(error)
                                if delay is None:
                                    raise
                                break
                            stream.hand_out(item)
                            try:
                                sent, step = (yield item), inner.send
                            except GeneratorExit:
                                raise
                            except BaseException as error:  # noqa: BLE001  it is thrown in, and belongs to the generator
                                sent, step = error, inner.throw
                            finally:
                                stream.go_on()
                    finally:
                        inner.close()
                finally:
                    stream.end()
                _parking.pause(delay, *_BLOCKING)
        finally:
            stream.close()

    return wrapper


def in_async_steps(
    make: Callable[..., AsyncGenerator[Any, Any]], start: Callable[[], Steps], ask: Ask | None = None
) -> Callable[..., Any]:
    """Wrap an async generator function, as `in_steps` does."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:  # noqa: PLR0912  one loop, which reads best in one piece
        stream = start()
        try:
            while True:
                try:
                    permit: Any = ask(args, kwargs) if ask is not None else None
                    if ask is not None and type(permit) is not Permit:
                        with waiting:
                            permit = await permit
                except PenstockError as refusal:
                    raise_from(refusal, stream.failure)
                try:
                    stream.begin(permit)
                    inner = make(*args, **kwargs)
                    step, sent = inner.asend, None
                    try:
                        while True:
                            try:
                                item = await step(sent)
                            except StopAsyncIteration:
                                return
                            except Exception as error:
                                delay = stream.failed(error)
                                if delay is None:
                                    raise
                                break
                            stream.hand_out(item)
                            try:
                                sent, step = (yield item), inner.asend
                            except GeneratorExit:
                                raise
                            except BaseException as error:  # noqa: BLE001  it is thrown in, and belongs to the generator
                                sent, step = error, inner.athrow
                            finally:
                                stream.go_on()
                    finally:
                        await inner.aclose()
                finally:
                    stream.end()
                await _parking.apause(delay)
        finally:
            stream.close()

    return wrapper
