"""`scope`: what governed calls inherit from the code around them."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar, Token
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from penstock import arguments, streams
from penstock.wrapping import Wraps, decorated

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

F = TypeVar("F", bound="Callable[..., Any]")


class Inherited(NamedTuple):
    """What governed calls inherit here. None is what nobody said.

    Attributes:
        key: whom they belong to.
        priority: a higher one goes first.
        timeout: seconds that they are ready to wait.
        label: what their numbers are kept under.
    """

    key: str | int | None = None
    priority: int | None = None
    timeout: float | timedelta | None = None
    label: str | None = None


_NOTHING = Inherited()
_inherited: ContextVar[Inherited] = ContextVar("penstock_scope", default=_NOTHING)

#: What governed calls inherit here.
inherited = _inherited.get


class scope:  # noqa: N801  it reads as a statement, as `contextlib.suppress` does
    """What governed calls inside inherit: whom they belong to, how urgent they are, what they are counted under.

    ``with``, ``async with``, and a decorator of functions, coroutines, generators and async generators. A scope inside
    another changes what it names, and leaves the rest. Tasks inherit it, and so do threads that run in a copy of the
    context, as `asyncio.to_thread` and LangChain's do::

        with penstock.scope(key=tenant, priority=1, label="chat"):
            agent.invoke(question)

    Args:
        key: whom calls belong to (tenant, user, agent).
        priority: a higher one goes first.
        timeout: seconds that each call is ready to wait for its permit; 0 is now or never.
        label: what the limiter's numbers are kept under, besides those of all calls.
    """

    __slots__ = ("_changes", "_tokens")

    @arguments.checked("scope")
    def __init__(
        self,
        *,
        key: str | int | None = None,
        priority: int | None = None,
        timeout: float | timedelta | None = None,
        label: str | None = None,
    ) -> None:
        named: dict[str, Any] = {"key": key, "priority": priority, "timeout": timeout, "label": label}
        self._changes = {name: value for name, value in named.items() if value is not None}
        _check(key, priority, timeout, label)
        self._tokens: list[Token[Inherited]] = []

    def __repr__(self) -> str:
        return f"scope({', '.join(f'{name}={value!r}' for name, value in self._changes.items())})"

    def _enter(self) -> Token[Inherited]:
        return _inherited.set(inherited()._replace(**self._changes))

    def __enter__(self) -> Self:
        self._tokens.append(self._enter())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _leave(self._tokens)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _leave(self._tokens)

    def __call__(self, function: F) -> F:
        """Run each call of ``function`` in this scope."""
        wraps = Wraps(
            self._function,
            self._coroutine,
            lambda generator: streams.in_steps(generator, lambda: _Inside(self._enter)),
            lambda generator: streams.in_async_steps(generator, lambda: _Inside(self._enter)),
        )
        return cast("F", decorated(function, "scope", wraps))

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            token = self._enter()
            try:
                return function(*args, **kwargs)
            finally:
                _inherited.reset(token)

        return wrapper

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            token = self._enter()
            try:
                return await function(*args, **kwargs)
            finally:
                _inherited.reset(token)

        return wrapper


class _Inside:
    """The steps of a generator that is in a scope while its own code runs."""

    __slots__ = ("_enter", "_token", "failure")

    def __init__(self, enter: Callable[[], Token[Inherited]]) -> None:
        self._enter = enter
        self.failure: Exception | None = None

    def begin(self, _permit: object) -> None:
        self._token = self._enter()

    def hand_out(self, _item: object) -> None:
        _reset(self._token)

    def go_on(self) -> None:
        self._token = self._enter()

    def failed(self, _error: Exception) -> None:
        return None

    def end(self) -> None:
        _reset(self._token)

    def close(self) -> None:
        pass


def _reset(token: Token[Inherited]) -> None:
    # A generator that nobody finished may be closed in one context, and go on in another.
    with contextlib.suppress(ValueError):
        _inherited.reset(token)


def _leave(tokens: list[Token[Inherited]]) -> None:
    """Ends the block that began last in this context: a scope may be entered by several tasks at once."""
    for place in range(len(tokens) - 1, -1, -1):
        try:
            _inherited.reset(tokens[place])
        except ValueError:  # a block of another task
            continue
        del tokens[place]
        return


def _check(key: object, priority: object, timeout: object, label: object) -> None:
    if key is not None and (isinstance(key, bool) or not isinstance(key, (str, int))):
        raise TypeError(f"key must be text or a whole number, not {key!r}")
    if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int)):
        raise TypeError(f"priority must be a whole number, not {priority!r}")
    if priority is not None and not -(2**31) <= priority < 2**31:
        raise ValueError(f"priority must be from -2**31 to 2**31 - 1, not {priority}")
    if timeout is not None:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"timeout must be seconds or a timedelta, not {timeout!r}")
        if not seconds >= 0:
            raise ValueError(f"timeout must be 0 or more, not {timeout!r}")
    if label is not None and not isinstance(label, str):
        raise TypeError(f"label must be text, not {label!r}")
