"""What a callable is made of: whether it is a coroutine function or a generator is said by its code."""

from __future__ import annotations

import functools
from typing import Any


def code_of(function: Any) -> Any:
    """What runs when ``function`` is called: behind partials, and in instances that can be called."""
    import inspect  # slow to import, and whoever has a function to decorate has it already

    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type) or inspect.iscoroutinefunction(function):
        return function
    return type(function).__call__
