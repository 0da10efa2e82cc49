"""AutoGen (0.4 and later): chat completion clients, and the agents and teams that hold them.

A client that speaks through an SDK is governed in its HTTP client, below the team: a team turns the error of a call
into the text of a `RuntimeError`, so that nothing above it can tell whether to try again.

A governed client dumps itself as a `Governed` component, which names its limiter; loaded, it is what it was, governed.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from autogen_core import Component, ComponentModel
from autogen_core.models import ChatCompletionClient
from pydantic import BaseModel

from penstock import governing, identity
from penstock.integrations import texts, walking
from penstock.integrations.gate import Gatekeeper
from penstock.limiter import Limiter
from penstock.retry import Retry
from penstock.scoping import inherited

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from autogen_core import CancellationToken
    from autogen_core.models import CreateResult, LLMMessage, ModelInfo, RequestUsage
    from autogen_core.tools import Tool, ToolSchema
    from typing_extensions import Self

#: Where a client keeps that it is governed, and what was added to its arguments.
_MARK = "_penstock_governed"
#: What a governed client's calls are made by, if it has no HTTP client.
_CALLS = ("create", "create_stream")


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern every chat completion client in ``obj``; False if there is none."""
    clients = _clients(obj)
    for client in clients:
        _govern(client, gatekeeper)
    return bool(clients)


def ungovern(obj: Any) -> bool:
    """Undo `govern` on every chat completion client in ``obj``."""
    clients = _clients(obj)
    for client in clients:
        _ungovern(client)
    return bool(clients)


def _clients(obj: Any) -> list[Any]:
    packages = ("autogen_core", "autogen_ext", "autogen_agentchat", "penstock")
    return list(walking.find(obj, packages, _is_client))


def _is_client(thing: Any) -> bool:
    if not isinstance(thing, ChatCompletionClient):
        return False
    # What wraps another client (a cache, `Governed`) calls that one.
    return not any(isinstance(value, ChatCompletionClient) for value in walking.attributes(thing).values())


def _govern(client: Any, gatekeeper: Gatekeeper) -> None:
    _ungovern(client)
    added: list[str] = []
    found = walking.clients(client)
    if any([walking.govern(one, gatekeeper) for one in found]):  # noqa: C419  all of them
        arguments = client.__dict__.get("_raw_config")
        # Unpickled, the client makes its SDK's anew from its arguments. A pickle of a governed HTTP client is governed.
        if isinstance(arguments, dict) and arguments.get("http_client") is None:
            arguments["http_client"] = getattr(found[0], "_client", None)
            added.append("http_client")
    else:
        for name, call in (("create", _create), ("create_stream", _create_stream)):
            client.__dict__[name] = functools.partial(call, client, gatekeeper)
    client.__dict__["dump_component"] = functools.partial(_dump, client, gatekeeper)
    client.__dict__[_MARK] = added


def _ungovern(client: Any) -> None:
    added = client.__dict__.pop(_MARK, None)
    if added is None:
        return
    for name in (*_CALLS, "dump_component"):
        client.__dict__.pop(name, None)
    for one in walking.clients(client):
        walking.ungovern(one)
    for name in added:
        client._raw_config.pop(name, None)  # noqa: SLF001


def _dump(client: Any, gatekeeper: Gatekeeper) -> ComponentModel:
    """``dump_component`` of a client that is governed in place."""
    return _describe(type(client).dump_component(client), gatekeeper, wrapped=False)


# Clients without an HTTP client: calls wait here for their permits.


def _decorated(gatekeeper: Gatekeeper, client: Any, messages: Any, tools: Any, function: Any) -> Any:
    """``function`` behind the limiter of the client's model."""
    model = getattr(client, "_create_args", {}).get("model")
    limiter = gatekeeper.pick(model if isinstance(model, str) else None)
    if limiter is None:
        return function
    scope = inherited()
    terms = {name: getattr(scope, name) for name in ("key", "timeout")}
    tokens = texts.tokens_of(messages, [getattr(tool, "schema", tool) for tool in tools])
    return limiter.limit(tokens, priority=scope.priority or 0, retry=gatekeeper.retry, **terms)(function)


async def _create(
    client: Any,
    gatekeeper: Gatekeeper,
    messages: Sequence[LLMMessage],
    *,
    tools: Sequence[Tool | ToolSchema] = (),
    cancellation_token: CancellationToken | None = None,
    **arguments: Any,
) -> CreateResult:
    async def call() -> CreateResult:
        result: CreateResult = await type(client).create(
            client, messages, tools=tools, cancellation_token=cancellation_token, **arguments
        )
        return result

    # A task, so that the token ends the wait, too.
    task = asyncio.ensure_future(_decorated(gatekeeper, client, messages, tools, call)())
    if cancellation_token is not None:
        cancellation_token.link_future(task)
    result: CreateResult = await task
    return result


async def _create_stream(
    client: Any,
    gatekeeper: Gatekeeper,
    messages: Sequence[LLMMessage],
    *,
    tools: Sequence[Tool | ToolSchema] = (),
    cancellation_token: CancellationToken | None = None,
    **arguments: Any,
) -> AsyncGenerator[str | CreateResult, None]:
    async def call() -> AsyncGenerator[str | CreateResult, None]:
        stream = type(client).create_stream(
            client, messages, tools=tools, cancellation_token=cancellation_token, **arguments
        )
        async for item in stream:
            yield item

    stream = _decorated(gatekeeper, client, messages, tools, call)()
    try:
        while True:
            step = asyncio.ensure_future(anext(stream))
            if cancellation_token is not None:
                cancellation_token.link_future(step)
            try:
                item = await step
            except StopAsyncIteration:
                return
            yield item
    finally:
        await stream.aclose()


# Components.


class GovernedConfig(BaseModel):
    """`Governed` as data."""

    client: ComponentModel
    #: A limiter as `penstock.identity.describe` describes it, or several by model names.
    limiter: dict[str, Any] | None = None
    limiters: dict[str, dict[str, Any]] | None = None
    #: Arguments of `Retry`; None makes one attempt.
    retry: dict[str, Any] | None = None
    stream_usage: bool = True
    #: Whether there is a `Governed` around the client, or the client was governed in place.
    wrapped: bool = True


class Governed(ChatCompletionClient, Component[GovernedConfig]):  # type: ignore[misc,type-arg,unused-ignore]
    """A chat completion client around another that is governed, for clients of any kind.

    One that speaks through an SDK is governed as `penstock.govern` does; the calls of any other wait here for their
    permits, are settled by the usage that they report, and are tried again when their errors allow it. A cancellation
    token ends the wait, too.

    ``dump_component`` writes down the limiter by its name, store and limits, and ``load_component`` finds it again; a
    process that has none of that name makes it.

    Args:
        client: the client whose calls are governed.
        limiter: a limiter, or a mapping from model names or globs to limiters, as in `penstock.govern`.
        retry: how failed calls are tried again; None makes one attempt.
        stream_usage: as in `penstock.govern`.
    """

    component_type = "model"
    component_config_schema = GovernedConfig
    component_provider_override = "penstock.integrations.autogen.Governed"

    def __init__(
        self,
        client: ChatCompletionClient,
        limiter: Limiter | Mapping[str, Limiter],
        *,
        retry: Retry | None = governing.THREE_ATTEMPTS,
        stream_usage: bool = True,
    ) -> None:
        self.client = client
        self._gatekeeper = Gatekeeper(limiter, retry, stream_usage)
        govern(client, self._gatekeeper)

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Any = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """See ``ChatCompletionClient.create``."""
        result: CreateResult = await self.client.create(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            json_output=json_output,
            extra_create_args=extra_create_args or {},
            cancellation_token=cancellation_token,
        )
        return result

    def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Any = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """See ``ChatCompletionClient.create_stream``."""
        stream: AsyncGenerator[str | CreateResult, None] = self.client.create_stream(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            json_output=json_output,
            extra_create_args=extra_create_args or {},
            cancellation_token=cancellation_token,
        )
        return stream

    async def close(self) -> None:
        """Close the client."""
        await self.client.close()

    def actual_usage(self) -> RequestUsage:
        """What the client says that it used."""
        return self.client.actual_usage()

    def total_usage(self) -> RequestUsage:
        """What the client says that it used in all."""
        return self.client.total_usage()

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """What the client counts."""
        return int(self.client.count_tokens(messages, tools=tools))

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """What the client says is left of its model's context."""
        return int(self.client.remaining_tokens(messages, tools=tools))

    @property
    def capabilities(self) -> Any:
        """What the client's model can do."""
        return self.client.capabilities

    @property
    def model_info(self) -> ModelInfo:
        """What the client's model can do."""
        return self.client.model_info

    def _to_config(self) -> GovernedConfig:
        model = type(self.client).dump_component(self.client)
        return GovernedConfig.model_validate(_describe(model, self._gatekeeper, wrapped=True).config)

    @classmethod
    def _from_config(cls, config: GovernedConfig) -> Self:
        client: Any = ChatCompletionClient.load_component(config.client)
        limiter: Any
        if config.limiter is not None:
            limiter = identity.read(Limiter, config.limiter)
        else:
            limiter = {name: identity.read(Limiter, one) for name, one in (config.limiters or {}).items()}
        retry = None if config.retry is None else Retry(**config.retry)
        if config.wrapped:
            return cls(client, limiter, retry=retry, stream_usage=config.stream_usage)
        governing.govern(client, limiter, retry=retry, stream_usage=config.stream_usage)
        return client  # type: ignore[no-any-return]  # as `ChatCompletionClient.load_component` may give any of these


def _describe(client: ComponentModel, gatekeeper: Gatekeeper, *, wrapped: bool) -> ComponentModel:
    """A governed client as data."""
    config: dict[str, Any] = {"client": client, "stream_usage": gatekeeper.stream_usage, "wrapped": wrapped}
    if isinstance(gatekeeper.limiter, Limiter):
        config["limiter"] = identity.describe(gatekeeper.limiter)
    else:
        config["limiters"] = {name: identity.describe(one) for name, one in gatekeeper.limiter.items()}
    config["retry"] = gatekeeper.retry.arguments
    return ComponentModel(
        provider=Governed.component_provider_override,
        component_type="model",
        version=1,
        component_version=1,
        description=client.description,
        label=client.label,
        config=GovernedConfig(**config).model_dump(exclude_none=True),
    )
