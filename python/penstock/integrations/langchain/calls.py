"""A governed call of a model's method: its permit, its attempts, and what became of the same call before."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from penstock import _core, decorate, scoping
from penstock._core import Permit
from penstock.errors import PenstockError
from penstock.failures import verdict_of
from penstock.integrations.gate import carried
from penstock.integrations.langchain.prompts import cost_of
from penstock.integrations.langgraph import Beating

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from penstock._core import Memory
    from penstock.integrations.gate import Gatekeeper
    from penstock.limiter import Limiter

#: How long a call is remembered that no other attempt can cure, when the provider states no time.
_INCURABLE_SECONDS = 30.0


class Call:
    """One call. A block in which it is made raises at once what the same call has just ended with, if it was given up.

    Args:
        keeper: who lets it through.
        limiter: the limiter of its model.
        model: what is called, by class and name.
        prompt: messages, a prompt or documents.
        settings: keyword arguments of the call.
        bounds: what may bound the answer, besides the settings.
    """

    __slots__ = ("_keeper", "_limiter", "_memory", "_model", "_prompt", "_settings", "_terms")

    def __init__(
        self, keeper: Gatekeeper, limiter: Limiter, model: str, *, prompt: Any, settings: dict[str, Any], bounds: Any
    ) -> None:
        self._keeper = keeper
        self._limiter = limiter
        self._memory: Memory = limiter.given_up
        self._model = model
        self._prompt = prompt
        self._settings = settings
        left = carried(limiter)
        if left is not None:
            left.abandon()  # a rate limiter's, which knew less about the call
        sent, received = cost_of(prompt, settings, bounds)
        inherited = scoping.inherited()
        self._terms = _Queueing(
            limiter,
            None,
            keeper.retry,
            input_tokens=sent,
            output_tokens=received,
            key=inherited.key,
            priority=inherited.priority or 0,
            timeout=inherited.timeout,
        )

    def limited(self, method: Callable[..., Any], *, tasks: bool) -> Callable[..., Any]:
        """The method, each attempt of which waits for a permit, in a task or in a thread."""
        self._terms.tasks = tasks
        return decorate.decorate(self._terms, method)

    def __enter__(self) -> None:
        if len(self._memory):
            error = self._memory.recall(self._hash())
            if isinstance(error, Exception):
                raise _another(error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, PenstockError):
            return
        verdict = verdict_of(error)
        if verdict is None:
            return
        seconds = verdict.wait
        if seconds is None:
            gave_up = getattr(error, "penstock", None)
            seconds = self._keeper.retry.step(max(1, getattr(gave_up, "attempts", 1)))
            if verdict.kind in {"oversize", "quota_exhausted"}:
                seconds = max(seconds, _INCURABLE_SECONDS)
        self._memory.remember(self._hash(), seconds, _another(error))

    def _hash(self) -> int:
        settings = {name: value for name, value in self._settings.items() if name != "run_manager"}
        said = repr((self._prompt, sorted(settings.items(), key=lambda item: item[0])))
        return _core.hash_request("CALL", self._model, "", said.encode(errors="replace"))


def _another(error: Exception) -> Exception:
    """The same error without its traceback, which keeps alive what its frames hold; itself if it cannot be copied."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001  somebody else's class
        return error
    return twin.with_traceback(None) if type(twin) is type(error) else error


class _Queueing(decorate.Terms):
    """Terms on which a LangGraph node's heartbeat beats while a call of it queues."""

    __slots__ = ("tasks",)  # whether the call waits in a task

    tasks: bool

    @property
    def ask(self) -> None:
        """Each call asks for its permit by `ask_for`."""
        return

    def ask_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The permit of a call, or what to wait on."""
        permit = super().ask_for(args, kwargs)
        return permit if type(permit) is Permit or not self.tasks else _beating(permit)


async def _beating(waiter: Awaitable[Permit]) -> Permit:
    with Beating():
        return await waiter
