"""`budget`: a hard stop for a block, in calls, tokens and seconds."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

from penstock import _core, arguments
from penstock.errors import BudgetExceeded
from penstock.wrapping import Wraps, decorated

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from datetime import timedelta
    from types import TracebackType

    from penstock._core import Budget

F = TypeVar("F", bound="Callable[..., Any]")

#: The innermost budget of the code that runs here; the compiled core asks it for each permit while there are budgets.
INSIDE: ContextVar[Budget | None] = ContextVar("penstock_budget", default=None)


class budget:  # noqa: N801  named like what it is used as: `with penstock.budget(...)`
    """A hard stop for a block, for loops whose end an agent decides: no call leaves that would go beyond it.

    As in::

        with penstock.budget(calls=50, tokens=100_000, seconds=120) as spent:
            await team.run(task="...")
        print(spent.calls, spent.tokens, spent.seconds)

    Every permit that any limiter gives inside counts, in all tasks that the block starts and in threads that run in a
    copy of its context: of decorated calls, of governed ones, of your own. A retry counts as a call. Tokens are those
    that were settled; a call under way counts with its estimate, and a call whose estimate is more than what is left
    does not leave. ``seconds`` is the time since the block began; it bounds waiting, too: a call that would have to
    wait longer fails at once. A call that is under way is not interrupted.

    A budget inside another counts against both. What a block has started stays bound when the block is over. It works
    with ``with`` and ``async with``, each time with a fresh budget, and as a decorator of functions and coroutines,
    with one for each call.

    Args:
        calls: how many calls may leave.
        tokens: how many tokens they may use, input and output together.
        seconds: how long after its beginning the last one may leave; seconds, or a timedelta.

    Raises:
        BudgetExceeded: instead of a permit, from the call that would go beyond; with its ``dimension`` (``"calls"``,
            ``"tokens"`` or ``"seconds"``), ``spent`` and ``limit``. From the block, too, where a framework has made
            another exception with its text of it.
        TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed.
    """

    __slots__ = ("_blocks", "_limits")

    @arguments.checked("budget")
    def __init__(
        self, calls: int | None = None, tokens: int | None = None, seconds: float | timedelta | None = None
    ) -> None:
        if callable(calls):
            raise TypeError(f"calls must be a whole number, not {calls!r}; is it @budget without its parentheses?")
        self._limits = (calls, tokens, seconds)
        _core.Budget(*self._limits)  # what cannot be is refused here, not where the block begins
        self._blocks: list[tuple[Budget, Token[Budget | None]]] = []

    def __enter__(self) -> Budget:
        block = _core.Budget(*self._limits)
        self._blocks.append((block, INSIDE.set(block)))
        return block

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        inside = INSIDE.get()
        # The block of this task tree, if several use it at once; else the last that began.
        own = next((index for index, (block, _) in enumerate(self._blocks) if block is inside), -1)
        block, token = self._blocks.pop(own)
        try:
            INSIDE.reset(token)
        except ValueError:  # it began in another context, which nobody can leave from here
            block.disown()
        # A team of AutoGen makes a `RuntimeError` with nothing but the text of what its agents raise.
        if isinstance(error, Exception) and not isinstance(error, BudgetExceeded):
            refused = block.refused
            if refused is not None and BudgetExceeded.__name__ in str(error):
                raise BudgetExceeded(*refused) from error

    async def __aenter__(self) -> Budget:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Give each call of a function, or of a coroutine function, a budget of its own."""
        return cast("F", decorated(function, "budget", Wraps(self._function, self._coroutine, _refuse, _refuse)))

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with budget(*self._limits):
                return function(*args, **kwargs)

        return wrapper

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with budget(*self._limits):
                return await function(*args, **kwargs)

        return wrapper

    def __repr__(self) -> str:
        given = zip(("calls", "tokens", "seconds"), self._limits, strict=True)
        return f"budget({', '.join(f'{name}={value!r}' for name, value in given if value is not None)})"


def _refuse(generator: object) -> Any:
    raise TypeError(
        f"budget() decorates functions and coroutines, not the generator {generator!r}, whose code runs in turns with "
        "that of its caller: put the block where it is iterated"
    )
