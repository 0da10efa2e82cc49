"""``@limiter.limit(...)``: a permit around each call of a function, a coroutine, a generator or an async generator."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from penstock import _parking
from penstock._core import Permit
from penstock.usage import Usage, usage_of
from penstock.wrapping import code_of

if TYPE_CHECKING:
    from penstock._core import Attempts, Scope
    from penstock.limiter import Limiter
    from penstock.retry import Retry

F = TypeVar("F", bound=Callable[..., Any])
#: Gives the permit of a call with these arguments, or what to wait on: a task awaits it, a thread sleeps on it.
Begin = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class Terms:
    """On what terms a decorated function gets its permits: its costs, as numbers or as functions of its arguments."""

    __slots__ = ("_fixed", "_of_call", "_scope", "limiter", "retry", "usage")

    def __init__(self, limiter: Limiter, usage: Callable[[Any], Any] | None, retry: Retry | None, **terms: Any) -> None:
        if retry is not None and not hasattr(retry, "after"):
            raise TypeError(f"retry must be a Retry or None, not {retry!r}")
        if usage is not None and not callable(usage):
            raise TypeError(f"usage must be a function of a call's result, or None, not {usage!r}")
        self.limiter = limiter
        self.usage = usage
        self.retry = retry
        self._of_call = {name: value for name, value in terms.items() if callable(value)}
        self._fixed = {name: value for name, value in terms.items() if name not in self._of_call}
        self._scope = limiter.permit(**self._fixed)  # what cannot be is refused when the decorator is written

    @property
    def fixed(self) -> Scope | None:
        """The permit to ask for, if it is the same for every call."""
        return None if self._of_call else self._scope

    def scope(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope:
        """The permit to ask for, for a call with these arguments."""
        if not self._of_call:
            return self._scope
        called = {name: value(*args, **kwargs) for name, value in self._of_call.items()}
        return self.limiter.permit(**self._fixed, **called)

    def used(self, result: object) -> Usage | None:
        """What a call used, as its result says; None when nobody counts it, or when it does not say."""
        if self.usage is not None:
            return _given_usage(self.usage(result))
        return usage_of(result) if self.limiter.counts else None

    def used_so_far(self, item: object, before: Usage | None) -> Usage | None:
        """What a stream has used by this item. A user's ``usage`` has the last word; providers say it in parts."""
        used = self.used(item)
        if used is None or before is None:
            return used or before
        return used if self.usage is not None else before.grown_to(used)

    def settle(self, permit: Permit, result: object) -> None:
        """Settle a permit by what its result says that the call used."""
        _settle(permit, self.used(result))


def _given_usage(used: object) -> Usage | None:
    """What a user's ``usage`` function gave."""
    if used is None or isinstance(used, Usage):
        return used
    if isinstance(used, (int, float)) and not isinstance(used, bool):
        return Usage(used)  # type: ignore[arg-type]  # settle() says what is wrong with a number
    if isinstance(used, Mapping) and used and used.keys() <= {"tokens", "input_tokens", "output_tokens"}:
        # settle() makes the sum of both where the total is not said, and says what is wrong.
        return Usage(used.get("tokens"), used.get("input_tokens"), used.get("output_tokens"))  # type: ignore[arg-type]
    recognised = usage_of({"usage": used})
    if recognised is None:
        allowed = "a number of tokens, a dict of tokens, input_tokens and output_tokens, a usage object or None"
        raise TypeError(f"usage must return {allowed}, not {used!r}")
    return recognised


def decorate(terms: Terms, function: F) -> F:
    """Put a permit around each call of ``function``."""
    import inspect  # slow to import, and whoever has a function to decorate has it already

    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(decorate(terms, function.__func__))
    if not callable(function):
        raise TypeError(f"limit() decorates functions, not {function!r}; is it @limiter.limit without its parentheses?")
    target = code_of(function)
    wrapped: Any
    if inspect.isasyncgenfunction(target):
        wrapped = _async_generator(
            terms, lambda args, kwargs: terms.scope(args, kwargs).abegin(), function, terms.retry
        )
    elif inspect.isgeneratorfunction(target):
        wrapped = _generator(terms, lambda args, kwargs: terms.scope(args, kwargs).begin(), function, terms.retry)
    elif inspect.iscoroutinefunction(target):
        wrapped = _coroutine(terms, function)
    else:
        wrapped = _function(terms, function)
    return cast("F", functools.wraps(function)(wrapped))


def _coroutine(terms: Terms, function: Callable[..., Any]) -> Callable[..., Any]:
    limiter, scope, retry = terms.limiter, terms.fixed, terms.retry
    abegin = None if scope is None else scope.abegin

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        permit: Any = abegin() if abegin is not None else terms.scope(args, kwargs).abegin()
        if permit.__class__ is not Permit:
            permit = await permit
        try:
            result = await function(*args, **kwargs)
            if result.__class__ in _UNFINISHED:
                held, permit = permit, None
                return _unfinished(terms, held, result)
            if (result is not None and limiter.counts) or terms.usage is not None:
                terms.settle(permit, result)
            return result
        finally:
            if permit is not None:
                permit.release()

    async def persistent(*args: Any, **kwargs: Any) -> Any:
        assert retry is not None  # noqa: S101
        call: Attempts | None = None
        try:
            while True:
                permit: Any = abegin() if abegin is not None else terms.scope(args, kwargs).abegin()
                if permit.__class__ is not Permit:
                    permit = await permit
                try:
                    call = call or retry.start(limiter)
                    try:
                        result = await function(*args, **kwargs)
                    except Exception as error:
                        delay = retry.after(call, error, limiter, permit)
                        if delay is None:
                            raise
                    else:
                        if result.__class__ in _UNFINISHED:
                            held, permit = permit, None
                            return _unfinished(terms, held, result)
                        if (result is not None and limiter.counts) or terms.usage is not None:
                            terms.settle(permit, result)
                        return result
                finally:
                    if permit is not None:
                        permit.release()
                await _parking.apause(delay)
        finally:
            if call is not None:
                call.end()

    return wrapper if retry is None else persistent


def _function(terms: Terms, function: Callable[..., Any]) -> Callable[..., Any]:
    limiter, scope, retry = terms.limiter, terms.fixed, terms.retry
    begin = None if scope is None else scope.begin

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        permit: Any = begin() if begin is not None else terms.scope(args, kwargs).begin()
        if permit.__class__ is not Permit:
            permit = _parking.begin(permit)
        try:
            result = function(*args, **kwargs)
            if result.__class__ in _UNFINISHED:
                held, permit = permit, None
                return _unfinished(terms, held, result)
            if (result is not None and limiter.counts) or terms.usage is not None:
                terms.settle(permit, result)
            return result
        finally:
            if permit is not None:
                permit.release()

    def persistent(*args: Any, **kwargs: Any) -> Any:
        assert retry is not None  # noqa: S101
        call: Attempts | None = None
        try:
            while True:
                permit: Any = begin() if begin is not None else terms.scope(args, kwargs).begin()
                if permit.__class__ is not Permit:
                    permit = _parking.begin(permit)
                try:
                    call = call or retry.start(limiter)
                    try:
                        result = function(*args, **kwargs)
                    except Exception as error:
                        delay = retry.after(call, error, limiter, permit)
                        if delay is None:
                            raise
                    else:
                        if result.__class__ in _UNFINISHED:
                            held, permit, again, call = permit, None, Again(call, function, args, kwargs), None
                            return _unfinished(terms, held, result, again)
                        if (result is not None and limiter.counts) or terms.usage is not None:
                            terms.settle(permit, result)
                        return result
                finally:
                    if permit is not None:
                        permit.release()
                _parking.pause(delay)
        finally:
            if call is not None:
                call.end()

    return wrapper if retry is None else persistent


#: What a call may give that is not over when the call is.
_UNFINISHED = frozenset({AsyncGeneratorType, CoroutineType, GeneratorType})


def _unfinished(terms: Terms, permit: Permit, result: Any, again: Again | None = None) -> Any:
    """What a call gives whose result is not over yet: that holds the call's permit from here on, and runs in it.

    A coroutine is what a plain function around a coroutine function gives, as OpenAI's methods are; ``again``
    is how its call is tried again.
    """
    permit.suspend()

    def resume(*_: Any) -> Permit:
        permit.resume()
        return permit

    if result.__class__ is CoroutineType:
        return _finish(terms, resume, result) if again is None else _persist(terms, resume, result, again)
    wrap: Any = _generator if result.__class__ is GeneratorType else _async_generator
    return wrap(terms, resume, lambda *_: result)()


async def _finish(terms: Terms, resume: Callable[[], Permit], coroutine: Coroutine[Any, Any, Any]) -> Any:
    permit = resume()
    try:
        result = await coroutine
        terms.settle(permit, result)
        return result
    finally:
        permit.release()


class Again(NamedTuple):
    """A call that is under way, and how to make it again."""

    call: Attempts
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


async def _persist(
    terms: Terms, resume: Callable[[], Permit], coroutine: Coroutine[Any, Any, Any], again: Again
) -> Any:
    assert terms.retry is not None  # noqa: S101
    attempt: Coroutine[Any, Any, Any] | None = coroutine
    try:
        permit = resume()
        while True:
            try:
                try:
                    result = await (again.function(*again.args, **again.kwargs) if attempt is None else attempt)
                except Exception as error:
                    delay = terms.retry.after(again.call, error, terms.limiter, permit)
                    if delay is None:
                        raise
                else:
                    terms.settle(permit, result)
                    return result
            finally:
                permit.release()
            attempt = None
            await _parking.apause(delay)
            entry: Any = terms.scope(again.args, again.kwargs).abegin()
            permit = entry if entry.__class__ is Permit else await entry
    finally:
        again.call.end()


# Streams. A generator shares the context of whoever iterates it, so a permit is the enclosing one only while the
# generator itself runs: suspended before each item is handed out, resumed when the next one is asked for. A stream that
# fails is begun anew only while nobody has seen any of it.


def _generator(  # noqa: PLR0915  one loop, which reads best in one piece
    terms: Terms, begin: Begin, make: Callable[..., Generator[Any, Any, Any]], retry: Retry | None = None
) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # noqa: PLR0912, PLR0915
        call: Attempts | None = None
        try:
            while True:
                permit = begin(args, kwargs)
                if permit.__class__ is not Permit:
                    permit = _parking.begin(permit)
                used: Usage | None = None
                streamed = False
                try:
                    call = call or (retry.start(terms.limiter) if retry is not None else None)
                    inner = make(*args, **kwargs)
                    step, sent = inner.send, None
                    try:
                        while True:
                            try:
                                item = step(sent)
                            except StopIteration as stop:
                                return stop.value
                            except Exception as error:
                                if retry is None or call is None:
                                    raise
                                delay = retry.after(call, error, terms.limiter, permit, streamed=streamed)
                                if delay is None:
                                    raise
                                break
                            streamed = True
                            used = terms.used_so_far(item, used)
                            permit.suspend()
                            try:
                                sent, step = (yield item), inner.send
                            except GeneratorExit:
                                raise
                            except BaseException as error:  # noqa: BLE001  it is thrown in, and belongs to the generator
                                sent, step = error, inner.throw
                            finally:
                                permit.resume()
                    finally:
                        inner.close()
                finally:
                    try:
                        _settle(permit, used)
                    finally:
                        permit.release()
                _parking.pause(delay)
        finally:
            if call is not None:
                call.end()

    return wrapper


def _async_generator(  # noqa: PLR0915  one loop, which reads best in one piece
    terms: Terms, begin: Begin, make: Callable[..., AsyncGenerator[Any, Any]], retry: Retry | None = None
) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:  # noqa: PLR0912, PLR0915
        call: Attempts | None = None
        try:
            while True:
                permit = begin(args, kwargs)
                if permit.__class__ is not Permit:
                    permit = await permit
                used: Usage | None = None
                streamed = False
                try:
                    call = call or (retry.start(terms.limiter) if retry is not None else None)
                    inner = make(*args, **kwargs)
                    step, sent = inner.asend, None
                    try:
                        while True:
                            try:
                                item = await step(sent)
                            except StopAsyncIteration:
                                return
                            except Exception as error:
                                if retry is None or call is None:
                                    raise
                                delay = retry.after(call, error, terms.limiter, permit, streamed=streamed)
                                if delay is None:
                                    raise
                                break
                            streamed = True
                            used = terms.used_so_far(item, used)
                            permit.suspend()
                            try:
                                sent, step = (yield item), inner.asend
                            except GeneratorExit:
                                raise
                            except BaseException as error:  # noqa: BLE001  it is thrown in, and belongs to the generator
                                sent, step = error, inner.athrow
                            finally:
                                permit.resume()
                    finally:
                        await inner.aclose()
                finally:
                    try:
                        _settle(permit, used)
                    finally:
                        permit.release()
                await _parking.apause(delay)
        finally:
            if call is not None:
                call.end()

    return wrapper


def _settle(permit: Permit, used: Usage | None) -> None:
    if used is not None:
        permit.settle(used.tokens, used.input_tokens, used.output_tokens)
