"""`RateLimiter`: a permit for each call of a chat model, asked for where LangChain asks its own rate limiters."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.tracers.context import register_configure_hook

from penstock import scoping
from penstock.failures import verdict_of
from penstock.integrations.gate import Carried, carry
from penstock.integrations.langchain.prompts import cost_of
from penstock.usage import usage_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from uuid import UUID

    from penstock._core import Permit
    from penstock.limiter import Limiter


class RateLimiter(BaseRateLimiter):  # type: ignore[misc]  # where LangChain is not installed, it is Any
    """A permit for each call of a chat model, for the field ``rate_limiter`` that every chat model has.

    As in::

        llm = ChatBedrock(model="...", rate_limiter=RateLimiter(gate))

    For providers and worker processes where `penstock.govern` cannot be used: it can be pickled, and finds its limiter
    again. LangChain tells a rate limiter nothing but that a call is about to be made; what the call costs, when it ends
    and what it used is learnt from LangChain's callbacks. With a governed model beneath, a call is counted once, and
    the governed model settles it.

    It does not see what a model's own retries send: give the model ``max_retries=0``. Cached answers cost nothing.

    Args:
        limiter: the limiter.
        key: whom calls belong to; by default as `penstock.scope` says.
        priority: a higher one goes first; by default as `penstock.scope` says.
        timeout: seconds that a call is ready to wait; by default as `penstock.scope` says.
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        key: str | int | None = None,
        priority: int | None = None,
        timeout: float | timedelta | None = None,
    ) -> None:
        self.limiter = limiter
        self.key = key
        self.priority = priority
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"RateLimiter({self.limiter.name!r})"

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait until the call may leave; without ``blocking``, say whether it may now.

        Raises:
            AcquireTimeout, CostExceedsLimit, QueueFull, QuotaExhausted: as `Limiter.acquire` does.
        """
        call, terms = self._terms()
        if blocking:
            permit: Permit | None = self.limiter.acquire(**terms)
        else:
            terms.pop("timeout")
            permit = self.limiter.try_acquire(**terms)
        return self._leave(call, permit)

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """The twin of `acquire` for tasks."""
        if not blocking:
            return self.acquire(blocking=False)
        call, terms = self._terms()
        return self._leave(call, await self.limiter.aacquire(**terms))

    def _terms(self) -> tuple[_Call | None, dict[str, Any]]:
        """The call that is about to be made, and what to ask for it."""
        inherited = scoping.inherited()
        call = next((call for call in _started.get() if call.fresh), None)
        sent, received = (0, 0) if call is None else call.begin()
        priority = inherited.priority if self.priority is None else self.priority
        return call, {
            "input_tokens": sent,
            "output_tokens": received,
            "key": inherited.key if self.key is None else self.key,
            "priority": priority or 0,
            "timeout": inherited.timeout if self.timeout is None else self.timeout,
        }

    def _leave(self, call: _Call | None, permit: Permit | None) -> bool:
        if permit is None:
            return False
        if call is None:
            permit.release()  # whoever asks here is not LangChain, and nobody will say when the call is over
        else:
            call.left = carry(self.limiter, permit)
        return True


class _Call:
    """A call of which LangChain's callbacks told that it starts. It lives as long as the context that it runs in."""

    __slots__ = ("__weakref__", "_prompt", "_settings", "fresh", "left")

    def __init__(self, prompt: object, settings: dict[str, Any]) -> None:
        self._prompt: object = prompt
        self._settings = settings
        #: Whether no rate limiter was asked for it yet.
        self.fresh = True
        self.left: Carried | None = None

    def begin(self) -> tuple[int, int]:
        """What it costs: tokens sent and received."""
        self.fresh = False
        prompt, self._prompt = self._prompt, None
        return cost_of(prompt, self._settings)

    def end(self) -> tuple[Limiter, Permit] | None:
        """Its permit, if no governed transport has taken it over."""
        self.fresh = False
        left, self.left = self.left, None
        permit = None if left is None else left.take(left.limiter)
        return None if left is None or permit is None else (left.limiter, permit)


#: The calls that have started in this context, those that no rate limiter was asked for yet among them.
_started: ContextVar[tuple[_Call, ...]] = ContextVar("penstock_langchain_calls", default=())
_by_run: WeakValueDictionary[UUID, _Call] = WeakValueDictionary()


class _Watcher(BaseCallbackHandler):  # type: ignore[misc]  # where LangChain is not installed, it is Any
    """Is told of each call of a chat model in this process when it starts and how it ends."""

    run_inline = True  # in the context of the call, not in some thread
    ignore_agent = ignore_chain = ignore_custom_event = ignore_retriever = ignore_retry = True

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: Sequence[Any], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Note the call for the rate limiter that is asked next."""
        _ = serialized
        call = _by_run[run_id] = _Call(messages, kwargs.get("invocation_params") or {})
        _started.set((*(call for call in _started.get() if call.fresh), call))

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        """LLMs that are no chat models ask no rate limiter."""

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Settle and release the call's permit."""
        _ = kwargs
        held = None if (call := _by_run.pop(run_id, None)) is None else call.end()
        if held is not None:
            _, permit = held
            used = usage_of(response)
            if used is not None:
                permit.settle(used.tokens, used.input_tokens, used.output_tokens)
            permit.release()

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Release the call's permit, and tell the limiter what the provider said."""
        _ = kwargs
        held = None if (call := _by_run.pop(run_id, None)) is None else call.end()
        if held is not None:
            limiter, permit = held
            verdict = verdict_of(error)
            if verdict is not None:
                limiter.heed(verdict, permit)
                if verdict.charged != "all":
                    permit.settle(0, 0, 0)
            permit.release()


_watcher: ContextVar[_Watcher | None] = ContextVar("penstock_langchain_watcher", default=_Watcher())  # noqa: B039  it has no state
register_configure_hook(_watcher, inheritable=False)
