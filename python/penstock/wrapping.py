"""What a callable is made of: whether it is a coroutine function or a generator is said by its code."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Makes of a function one that does more.
    Wrap = Callable[[Any], Any]


class Wraps(NamedTuple):
    """How a decorator wraps what it is given: functions, coroutine functions, and both kinds of generators."""

    function: Wrap
    coroutine: Wrap
    generator: Wrap
    async_generator: Wrap


def decorated(what: Any, by: str, wraps: Wraps) -> Any:
    """What is decorated, wrapped by what it is; ``by`` is what the decorator is called in messages.

    Raises:
        TypeError: for what is no function: a class, a property, a coroutine that was called already.
    """
    if isinstance(what, (classmethod, staticmethod)):
        return type(what)(decorated(what.__func__, by, wraps))
    if isinstance(what, type):
        raise TypeError(f"{by}() decorates functions, not the class {what!r}; decorate its methods")
    if not callable(what):
        raise TypeError(f"{by}() decorates functions, not {what!r}; is it @{by} without its parentheses?")
    return functools.wraps(what)(_wrap_for(what, wraps)(what))


def _wrap_for(function: Any, wraps: Wraps) -> Wrap:
    import inspect  # slow to import, and whoever has a function to decorate has it already

    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isroutine(function) or isinstance(function, type) or inspect.iscoroutinefunction(function)):
        function = type(function).__call__  # an object that can be called
    if inspect.isasyncgenfunction(function):
        return wraps.async_generator
    if inspect.isgeneratorfunction(function):
        return wraps.generator
    return wraps.coroutine if inspect.iscoroutinefunction(function) else wraps.function
