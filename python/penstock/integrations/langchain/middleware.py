"""`Middleware`: a permit around each model call of an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain.agents.middleware import AgentMiddleware

from penstock import scoping
from penstock.governing import THREE_ATTEMPTS
from penstock.integrations.langchain.prompts import cost_of
from penstock.usage import Usage, usage_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from langchain.agents.middleware import ModelRequest, ModelResponse

    from penstock.limiter import Limiter
    from penstock.retry import Retry


class Middleware(AgentMiddleware):  # type: ignore[misc]  # where LangChain is not installed, it is Any
    """A permit around each model call of an agent, for models that `penstock.govern` cannot reach.

    As in::

        agent = create_agent(model, tools, middleware=[Middleware(gate)])

    It sees what the agent's own model node asks, and not what a tool asks of a model. With a governed model beneath, a
    call is counted once.

    Args:
        limiter: the limiter.
        retry: how a failed call is tried again; None makes one attempt.
        key: whom calls belong to, or a function of the request that says so; by default as `penstock.scope` says.
        priority: a higher one goes first; by default as `penstock.scope` says.
        timeout: seconds that a call is ready to wait; by default as `penstock.scope` says.
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        retry: Retry | None = THREE_ATTEMPTS,
        key: str | int | Callable[[ModelRequest], str | int | None] | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__()
        self.limiter = limiter
        self.retry = retry
        self.key = key
        self.priority = priority
        self.timeout = timeout

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        """Make the call once there is a permit."""
        return self._limited(request, handler)(request)

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
    ) -> ModelResponse:
        """Make the call once there is a permit."""
        return await self._limited(request, handler)(request)

    def _limited(self, request: ModelRequest, handler: Callable[..., Any]) -> Callable[..., Any]:
        inherited = scoping.inherited()
        key = self.key(request) if callable(self.key) else self.key
        priority = inherited.priority if self.priority is None else self.priority
        sent, received = cost_of([request.system_prompt, request.messages], request.model_settings, request.model)
        limit = self.limiter.limit(
            input_tokens=sent,
            output_tokens=received,
            key=inherited.key if key is None else key,
            priority=priority or 0,
            timeout=inherited.timeout if self.timeout is None else self.timeout,
            retry=self.retry,
            usage=_used,
        )
        return limit(handler)


def _used(response: Any) -> Usage | None:
    """What a model call used: the response of an agent's model node is a list of messages."""
    return usage_of(getattr(response, "result", response))
