"""``@limiter.limit(...)``: a permit around each call of a function, a coroutine, a generator or an async generator."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from penstock import _parking, streams
from penstock._core import Permit
from penstock.errors import PenstockError
from penstock.failures import being_handled, raise_from
from penstock.forgotten import waiting
from penstock.usage import Usage, usage_of
from penstock.wrapping import Wraps, decorated

if TYPE_CHECKING:
    from penstock._core import Attempts
    from penstock.limiter import Limiter
    from penstock.retry import Retry

F = TypeVar("F", bound=Callable[..., Any])


class Terms:
    """On what terms a decorated function gets its permits: its costs, as numbers or as functions of its arguments."""

    __slots__ = ("_fixed", "_of_call", "_scope", "limiter", "retry", "usage")

    def __init__(self, limiter: Limiter, usage: Callable[[Any], Any] | None, retry: Retry | None, **terms: Any) -> None:
        if retry is not None and not hasattr(type(retry), "after"):
            raise TypeError(f"retry must be a Retry or None, not {retry!r}")
        if usage is not None and not callable(usage):
            raise TypeError(f"usage must be a function of a call's result, or None, not {usage!r}")
        self.limiter = limiter
        self.usage = usage
        self.retry = retry
        self._of_call = {name: value for name, value in terms.items() if callable(value)}
        self._fixed = {name: value for name, value in terms.items() if name not in self._of_call}
        for name, function in self._of_call.items():
            _check_function_of_call(name, function)
        self._scope = limiter.permit(**self._fixed)  # what cannot be is refused when the decorator is written

    @property
    def ask(self) -> Callable[[], Any] | None:
        """Asks for the permit of a call, if it is the same for every call."""
        return None if self._of_call else self._scope.ask

    def ask_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The permit of a call with these arguments, or what to wait on: a task awaits it, a thread sleeps on it."""
        if not self._of_call:
            return self._scope.ask()
        called = {name: value(*args, **kwargs) for name, value in self._of_call.items()}
        for name, value in called.items():
            if value is None and name != "key":
                raise TypeError(f"{name} must be a function that gives a whole number, not None")
        return self.limiter.permit(**self._fixed, **called).ask()

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
        streams.settle(permit, self.used(result))


def _check_function_of_call(name: str, function: Callable[..., Any]) -> None:
    import inspect  # as in `decorated`

    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{name} must be a value, or a function that gives one at once, not {function!r}; "
            "is it @limiter.limit without its parentheses?"
        )


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
    retry = terms.retry

    def of_function(plain: Callable[..., Any]) -> Callable[..., Any]:
        return _function(terms, plain) if retry is None else _persistent_function(terms, plain, retry)

    def of_coroutine(coroutine: Callable[..., Any]) -> Callable[..., Any]:
        return _coroutine(terms, coroutine) if retry is None else _persistent_coroutine(terms, coroutine, retry)

    def of_generator(generator: Callable[..., Any]) -> Callable[..., Any]:
        return streams.generator(terms.ask_for, generator, terms.used_so_far, retry, terms.limiter)

    def of_async_generator(generator: Callable[..., Any]) -> Callable[..., Any]:
        return streams.async_generator(terms.ask_for, generator, terms.used_so_far, retry, terms.limiter)

    wraps = Wraps(of_function, of_coroutine, of_generator, of_async_generator)
    return cast("F", decorated(function, "limiter.limit", wraps))


# What follows is run by every decorated call, so it is written out where a helper would cost a call. A permit becomes
# the enclosing one inside `try`: whatever comes between, Ctrl-C too, finds a permit that is released or can be dropped.
# One that is left behind in the context variable encloses nothing once it is released.


#: What a decorated function does to an event loop, and what to do instead.
_BLOCKING = (
    "a function decorated with limiter.limit()",
    "decorate a coroutine function, or call it through asyncio.to_thread()",
)


def _coroutine(terms: Terms, function: Callable[..., Any]) -> Callable[..., Any]:
    limiter, ask, ask_for, always = terms.limiter, terms.ask, terms.ask_for, terms.usage is not None
    enter, leave = limiter.enclosing.set, limiter.enclosing.reset

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        permit: Any = ask() if ask is not None else ask_for(args, kwargs)
        if type(permit) is not Permit:
            with waiting:
                permit = await permit
            permit.open()
        token = None
        try:
            token = enter(permit)
            result = await (function(*args, **kwargs) if kwargs else function(*args))
            if result is not None or always:
                if type(result) in _UNFINISHED:
                    held, permit = permit, None
                    return _unfinished(terms, held, result)
                if always or limiter.counts:
                    terms.settle(permit, result)
            return result
        finally:
            if permit is not None:
                permit.release()
            if token is not None:
                try:  # noqa: SIM105  a context manager would cost every call
                    leave(token)
                except ValueError:  # closed in another context, where nothing was entered
                    pass

    return wrapper


def _persistent_coroutine(terms: Terms, function: Callable[..., Any], retry: Retry) -> Callable[..., Any]:
    limiter, ask, ask_for, always = terms.limiter, terms.ask, terms.ask_for, terms.usage is not None
    enter, leave = limiter.enclosing.set, limiter.enclosing.reset
    begin = retry.budget_for(limiter).begin

    async def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: PLR0912  one loop, which reads best in one piece
        call: Attempts | None = None
        failure: Exception | None = None
        try:
            while True:
                try:
                    permit: Any = ask() if ask is not None else ask_for(args, kwargs)
                    if type(permit) is not Permit:
                        with waiting:
                            permit = await permit
                        permit.open()
                except PenstockError as refusal:
                    raise_from(refusal, failure)
                token = None
                try:
                    token = enter(permit)
                    call = call or begin(being_handled())
                    try:
                        result = await (function(*args, **kwargs) if kwargs else function(*args))
                    except Exception as error:
                        delay = retry.after(call, error, limiter, permit)
                        if delay is None:
                            raise
                        failure = error
                    else:
                        if result is not None or always:
                            if type(result) in _UNFINISHED:
                                held, permit = permit, None
                                return _unfinished(terms, held, result)
                            if always or limiter.counts:
                                terms.settle(permit, result)
                        return result
                finally:
                    if permit is not None:
                        permit.release()
                    if token is not None:
                        try:  # noqa: SIM105  as above
                            leave(token)
                        except ValueError:
                            pass
                await _parking.apause(delay)
        finally:
            failure = None  # or it and this frame would keep each other
            if call is not None:
                call.end()

    return wrapper


def _function(terms: Terms, function: Callable[..., Any]) -> Callable[..., Any]:
    limiter, ask, ask_for, always = terms.limiter, terms.ask, terms.ask_for, terms.usage is not None
    enter, leave = limiter.enclosing.set, limiter.enclosing.reset

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        permit: Any = ask() if ask is not None else ask_for(args, kwargs)
        if type(permit) is not Permit:
            permit = _parking.park(permit, *_BLOCKING)
            permit.open()
        token = None
        try:
            token = enter(permit)
            result = function(*args, **kwargs) if kwargs else function(*args)
            if result is not None or always:
                if type(result) in _UNFINISHED:
                    held, permit = permit, None
                    return _unfinished(terms, held, result)
                if always or limiter.counts:
                    terms.settle(permit, result)
            return result
        finally:
            if permit is not None:
                permit.release()
            if token is not None:
                leave(token)

    return wrapper


def _persistent_function(terms: Terms, function: Callable[..., Any], retry: Retry) -> Callable[..., Any]:
    limiter, ask, ask_for, always = terms.limiter, terms.ask, terms.ask_for, terms.usage is not None
    enter, leave = limiter.enclosing.set, limiter.enclosing.reset
    begin = retry.budget_for(limiter).begin

    def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: PLR0912  one loop, which reads best in one piece
        call: Attempts | None = None
        failure: Exception | None = None
        try:
            while True:
                try:
                    permit: Any = ask() if ask is not None else ask_for(args, kwargs)
                    if type(permit) is not Permit:
                        permit = _parking.park(permit, *_BLOCKING)
                        permit.open()
                except PenstockError as refusal:
                    raise_from(refusal, failure)
                token = None
                try:
                    token = enter(permit)
                    call = call or begin(being_handled())
                    try:
                        result = function(*args, **kwargs) if kwargs else function(*args)
                    except Exception as error:
                        delay = retry.after(call, error, limiter, permit)
                        if delay is None:
                            raise
                        failure = error
                    else:
                        if result is not None or always:
                            if type(result) in _UNFINISHED:
                                held, permit, again, call = permit, None, Again(call, function, args, kwargs), None
                                return _unfinished(terms, held, result, again)
                            if always or limiter.counts:
                                terms.settle(permit, result)
                        return result
                finally:
                    if permit is not None:
                        permit.release()
                    if token is not None:
                        leave(token)
                _parking.pause(delay, *_BLOCKING)
        finally:
            failure = None  # or it and this frame would keep each other
            if call is not None:
                call.end()

    return wrapper


#: What a call may give that is not over when the call is.
_UNFINISHED = frozenset({AsyncGeneratorType, CoroutineType, GeneratorType})


def _unfinished(terms: Terms, permit: Permit, result: Any, again: Again | None = None) -> Any:
    """What a call gives whose result is not over yet: that holds the call's permit from here on, and runs in it.

    A coroutine is what a plain function around a coroutine function gives, as OpenAI's methods are; ``again``
    is how its call is tried again.
    """
    if result.__class__ is CoroutineType:
        return _finish(terms, permit, result) if again is None else _persist(terms, permit, result, again)
    wrap: Any = streams.generator if result.__class__ is GeneratorType else streams.async_generator
    return wrap(lambda *_: permit, lambda *_: result, terms.used_so_far)()


async def _finish(terms: Terms, permit: Permit, coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        permit.resume()
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


async def _persist(terms: Terms, permit: Any, coroutine: Coroutine[Any, Any, Any], again: Again) -> Any:
    assert terms.retry is not None  # noqa: S101
    attempt: Coroutine[Any, Any, Any] | None = coroutine
    failure: Exception | None = None
    try:
        while True:
            try:
                permit.resume()
                try:
                    result = await (again.function(*again.args, **again.kwargs) if attempt is None else attempt)
                except Exception as error:
                    delay = terms.retry.after(again.call, error, terms.limiter, permit)
                    if delay is None:
                        raise
                    failure = error
                else:
                    terms.settle(permit, result)
                    return result
            finally:
                permit.release()
            attempt = None
            await _parking.apause(delay)
            try:
                permit = terms.ask_for(again.args, again.kwargs)
                if type(permit) is not Permit:
                    with waiting:
                        permit = await permit
            except PenstockError as refusal:
                raise_from(refusal, failure)
    finally:
        failure = None  # or it and this frame would keep each other
        again.call.end()
