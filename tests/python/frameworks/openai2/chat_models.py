"""The chat models that are tested, made for a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_anthropic import ChatAnthropic
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from plain_models import PlainChat

if TYPE_CHECKING:
    from penstock.testing.provider import FakeProvider


def openai(provider: FakeProvider, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o-mini", base_url=provider.origin + "/v1", api_key="any", **settings)


def azure(provider: FakeProvider, **settings: Any) -> AzureChatOpenAI:
    return AzureChatOpenAI(
        azure_endpoint=provider.origin,
        azure_deployment="gpt-4o-mini",
        api_version="2024-10-21",
        api_key="any",
        stream_usage=True,
        **settings,
    )


def anthropic(provider: FakeProvider, **settings: Any) -> ChatAnthropic:
    return ChatAnthropic(model="claude-sonnet-5", base_url=provider.origin, api_key="any", max_tokens=64, **settings)


def plain(provider: FakeProvider, **settings: Any) -> PlainChat:
    return PlainChat(base_url=provider.origin + "/v1", **settings)


MAKERS = {"openai": openai, "azure": azure, "anthropic": anthropic, "plain": plain}
