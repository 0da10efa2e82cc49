"""The real SDKs, each made for a fake provider and called in the same way, in threads and in tasks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from penstock.testing.provider import FakeProvider

MODEL = "model-1"


def messages(text: str) -> Any:
    return [{"role": "user", "content": text}]


@dataclass(frozen=True)
class Sdk:
    """One client of one SDK."""

    name: str
    dialect: Any
    """Of the provider that it speaks to."""
    make: Callable[[FakeProvider], Any]
    """A client, with the SDK's own defaults for retries and timeouts."""
    call: Callable[..., Any]
    """``call(client, text, stream, max_tokens)``: an answer, an iterator of events, or an awaitable of either."""
    text: Callable[[Any], str]
    """The text of an answer, or of an event of a stream."""
    errors: Callable[[], Any]
    """The base of the SDK's own errors."""
    tasks: bool = False
    compressed: bool = True
    """Whether the SDK reads compressed answers."""

    def say(self, client: Any, text: str, *, stream: bool = False, max_tokens: int = 20) -> str:
        """Make a call, read it to its end, and give its text."""
        answer = self.call(client, text, stream, max_tokens)
        if not stream:
            return self.text(answer)
        return "".join(map(self.text, answer))

    async def asay(self, client: Any, text: str, *, stream: bool = False, max_tokens: int = 20) -> str:
        """The same, in a task."""
        answer = self.call(client, text, stream, max_tokens)
        if not stream:
            return self.text(await answer)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return "".join([self.text(event) async for event in answer])

    @contextlib.contextmanager
    def client(self, provider: FakeProvider) -> Iterator[Any]:
        """A client in a ``with`` block, closed after it as far as the SDK can."""
        client = self.make(provider)
        try:
            yield client
        finally:
            close = getattr(client, "close", None)
            if close is not None:
                close()

    @contextlib.asynccontextmanager
    async def aclient(self, provider: FakeProvider) -> AsyncIterator[Any]:
        """The same for tasks."""
        client = self.make(provider)
        try:
            yield client
        finally:
            if hasattr(client, "aio"):
                await client.aio.aclose()
            elif hasattr(client, "__aexit__"):
                await client.__aexit__(None, None, None)


def _of_openai(answer: Any) -> str:
    choices = getattr(answer, "choices", None) or answer.data.choices
    if not choices:
        return ""
    choice = choices[0]
    said = choice.message if getattr(choice, "message", None) is not None else choice.delta
    return said.content or ""


def _openai(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    return client.chat.completions.create(model=MODEL, messages=messages(text), max_tokens=max_tokens, stream=stream)


def _responses(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    return client.responses.create(model=MODEL, input=text, max_output_tokens=max_tokens, stream=stream)


def _of_responses(answer: Any) -> str:
    if hasattr(answer, "output_text"):
        return answer.output_text
    return answer.delta if answer.type == "response.output_text.delta" else ""


def _anthropic(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    return client.messages.create(model=MODEL, messages=messages(text), max_tokens=max_tokens, stream=stream)


def _of_anthropic(answer: Any) -> str:
    if answer.type == "message":
        return "".join(block.text for block in answer.content)
    return answer.delta.text if answer.type == "content_block_delta" else ""


def _mistral(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    ask = client.chat.stream if stream else client.chat.complete
    return ask(model=MODEL, messages=messages(text), max_tokens=max_tokens)


def _amistral(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    ask = client.chat.stream_async if stream else client.chat.complete_async
    return ask(model=MODEL, messages=messages(text), max_tokens=max_tokens)


def _cohere(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    ask = client.chat_stream if stream else client.chat
    return ask(model=MODEL, messages=messages(text), max_tokens=max_tokens)


def _of_cohere(answer: Any) -> str:
    if not hasattr(answer, "type"):
        return "".join(part.text for part in answer.message.content)
    return answer.delta.message.content.text if answer.type == "content-delta" else ""


def _gemini(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    models = client.models
    ask = models.generate_content_stream if stream else models.generate_content
    return ask(model=MODEL, contents=text, config={"max_output_tokens": max_tokens})


def _agemini(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    models = client.aio.models
    ask = models.generate_content_stream if stream else models.generate_content
    return ask(model=MODEL, contents=text, config={"max_output_tokens": max_tokens})


def _of_gemini(answer: Any) -> str:
    return answer.text or ""


def _bedrock(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    asked = {
        "modelId": MODEL,
        "messages": [{"role": "user", "content": [{"text": text}]}],
        "inferenceConfig": {"maxTokens": max_tokens},
    }
    return client.converse_stream(**asked)["stream"] if stream else client.converse(**asked)


def _of_bedrock(answer: Any) -> str:
    if "output" in answer:
        return "".join(block["text"] for block in answer["output"]["message"]["content"])
    return answer.get("contentBlockDelta", {}).get("delta", {}).get("text", "")


CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"


def _invoke(client: Any, text: str, stream: bool, max_tokens: int) -> Any:
    asked = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": max_tokens, "messages": messages(text)}
    if stream:
        return client.invoke_model_with_response_stream(modelId=CLAUDE, body=json.dumps(asked))["body"]
    return client.invoke_model(modelId=CLAUDE, body=json.dumps(asked))


def _of_invoke(answer: Any) -> str:
    if "body" in answer:
        return "".join(block["text"] for block in json.loads(answer["body"].read())["content"])
    event = json.loads(answer["chunk"]["bytes"])
    return event["delta"].get("text", "") if event["type"] == "content_block_delta" else ""


def boto3_client(provider: FakeProvider, **settings: Any) -> Any:
    """Boto3's client of Bedrock, as people make it; its own retries are on."""
    import boto3
    import botocore.config

    return boto3.Session(region_name="eu-north-1", aws_access_key_id="AKIATEST", aws_secret_access_key="secret").client(
        "bedrock-runtime", endpoint_url=provider.origin, config=botocore.config.Config(**settings)
    )


def _made(module: str, name: str, **options: Any) -> Callable[[FakeProvider], Any]:
    """Make a client of a class; a callable option is asked for its value with the provider."""

    def make(provider: FakeProvider) -> Any:
        import importlib

        kind = getattr(importlib.import_module(module), name)
        given = {key: value(provider) if callable(value) else value for key, value in options.items()}
        return kind(api_key="k", **given)

    return make


def _error(module: str, *names: str) -> Callable[[], Any]:
    def find() -> Any:
        import importlib

        found = importlib.import_module(module)
        return tuple(getattr(found, name) for name in names)

    return find


def _base(provider: FakeProvider) -> str:
    return f"{provider.origin}/v1"


def _origin(provider: FakeProvider) -> str:
    return provider.origin


_AZURE = {"azure_endpoint": _origin, "api_version": "2025-04-01-preview"}
_OPENAI = {"dialect": "openai", "text": _of_openai, "errors": _error("openai", "OpenAIError")}
_ANTHROPIC = {"dialect": "anthropic", "text": _of_anthropic, "errors": _error("anthropic", "AnthropicError")}
_MISTRAL = {
    "dialect": "openai",
    "text": _of_openai,
    "errors": _error("mistralai.client.errors", "MistralError", "NoResponseError"),
    "make": _made("mistralai.client", "Mistral", server_url=_origin),
}
_COHERE = {"dialect": "cohere", "text": _of_cohere, "errors": _error("cohere.core.api_error", "ApiError")}
_GEMINI = {
    "dialect": "gemini",
    "text": _of_gemini,
    "errors": _error("google.genai.errors", "APIError"),
    "make": _made("google.genai", "Client", http_options=lambda provider: {"base_url": provider.origin}),
}

_BEDROCK = {
    "dialect": "bedrock",
    "make": boto3_client,
    "errors": _error("botocore.exceptions", "ClientError", "BotoCoreError"),
    "compressed": False,
}

SDKS = [
    Sdk("openai", call=_openai, make=_made("openai", "OpenAI", base_url=_base), **_OPENAI),
    Sdk("openai-async", call=_openai, make=_made("openai", "AsyncOpenAI", base_url=_base), tasks=True, **_OPENAI),
    Sdk(
        "responses",
        call=_responses,
        make=_made("openai", "OpenAI", base_url=_base),
        **{**_OPENAI, "text": _of_responses},
    ),
    Sdk(
        "responses-async",
        call=_responses,
        make=_made("openai", "AsyncOpenAI", base_url=_base),
        tasks=True,
        **{**_OPENAI, "text": _of_responses},
    ),
    Sdk("azure", call=_openai, make=_made("openai", "AzureOpenAI", **_AZURE), **{**_OPENAI, "dialect": "azure"}),
    Sdk(
        "azure-async",
        call=_openai,
        make=_made("openai", "AsyncAzureOpenAI", **_AZURE),
        tasks=True,
        **{**_OPENAI, "dialect": "azure"},
    ),
    Sdk("anthropic", call=_anthropic, make=_made("anthropic", "Anthropic", base_url=_origin), **_ANTHROPIC),
    Sdk(
        "anthropic-async",
        call=_anthropic,
        make=_made("anthropic", "AsyncAnthropic", base_url=_origin),
        tasks=True,
        **_ANTHROPIC,
    ),
    Sdk("gemini", call=_gemini, **_GEMINI),
    Sdk("gemini-async", call=_agemini, tasks=True, **_GEMINI),
    Sdk("mistral", call=_mistral, **_MISTRAL),
    Sdk("mistral-async", call=_amistral, tasks=True, **_MISTRAL),
    Sdk("cohere", call=_cohere, make=_made("cohere", "ClientV2", base_url=_origin), **_COHERE),
    Sdk("cohere-async", call=_cohere, make=_made("cohere", "AsyncClientV2", base_url=_origin), tasks=True, **_COHERE),
    Sdk("bedrock", call=_bedrock, text=_of_bedrock, **_BEDROCK),
    Sdk("bedrock-invoke", call=_invoke, text=_of_invoke, **_BEDROCK),
]
SDKS += [
    Sdk(
        f"{name}-async" if tasks else name,
        call=_openai,
        make=_made(name, f"Async{kind}" if tasks else kind, base_url=_origin),
        tasks=tasks,
        **{**_OPENAI, "errors": _error(name, f"{kind}Error")},
    )
    for name, kind in (("groq", "Groq"), ("together", "Together"), ("fireworks", "Fireworks"))
    for tasks in (False, True)
]
