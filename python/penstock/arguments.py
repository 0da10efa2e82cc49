"""What is said of arguments that a call does not have."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

F = TypeVar("F", bound="Callable[..., Any]")

#: `inspect.CO_COROUTINE`; that module is slow to import.
_COROUTINE = 0x80

#: What arguments are called elsewhere.
_MEANT = {
    "rpm": "requests",
    "tpm": "tokens",
    "itpm": "input_tokens",
    "otpm": "output_tokens",
    "calls": "requests",
    "total_tokens": "tokens",
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "max_concurrency": "concurrency",
    "max_attempts": "attempts",
    "max_retries": "attempts",
}


def hint(name: str, known: Collection[str]) -> str:
    """What to say of a name that is not among those that are known: the one that was probably meant, or all."""
    import difflib  # only for who has made a mistake

    meant = _MEANT.get(name)
    near = [meant] if meant in known else difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"


def unknown(call: str, given: Collection[str], known: Collection[str]) -> TypeError | None:
    """The error for the first argument that is not known, with the one that was probably meant; None if all are.

    Args:
        call: what was called.
        given: the names that it was given.
        known: the names that it has.
    """
    for name in given:
        if name not in known:
            return TypeError(f"{call}() has no argument {name!r}; {hint(name, known)}")
    return None


def checked(call: str) -> Callable[[F], F]:
    """Have a function tell which argument was probably meant by one that it does not have.

    For what is called seldom: it costs a call more. ``call`` is what it is called.
    """

    def decorator(function: F) -> F:
        code = function.__code__
        own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        known = [name for name in own if name != "self"]

        def check(given: Collection[str]) -> None:
            wrong = unknown(call, given, known)
            if wrong is not None:
                raise wrong

        @functools.wraps(function)
        def wrapper(*args: Any, **given: Any) -> Any:
            check(given)
            return function(*args, **given)

        @functools.wraps(function)
        async def coroutine(*args: Any, **given: Any) -> Any:
            check(given)
            return await function(*args, **given)

        return cast("F", coroutine if code.co_flags & _COROUTINE else wrapper)

    return decorator
