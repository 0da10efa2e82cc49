"""The environment is what its requirements say it is: both HTTP stacks, and frameworks that reach the provider."""

from importlib.metadata import version

import httpx
import httpx2
from counting import at_server, equal, gate


def major(package: str) -> int:
    return int(version(package).partition(".")[0])


def test_both_http_stacks_are_here() -> None:
    from anthropic import Anthropic
    from openai import OpenAI

    assert (major("openai"), major("anthropic")) == (2, 2)
    assert isinstance(OpenAI()._client, httpx.Client)
    assert isinstance(Anthropic()._client, httpx2.Client)


def test_what_a_framework_sends_reaches_the_provider(provider) -> None:
    from langchain_openai import ChatOpenAI

    llm = ChatOpenAI(model="gpt-4o-mini", base_url=provider.base_url, api_key="any")
    answer = llm.invoke("Hello")
    assert answer.usage_metadata["total_tokens"] == at_server(provider).tokens
    assert at_server(provider).calls == 1


def test_the_two_sides_of_a_run_are_compared(provider) -> None:
    from openai import OpenAI

    limiter = gate()
    client = OpenAI(base_url=provider.base_url, api_key="any")
    for number in range(3):
        with limiter.permit(tokens=1_000) as permit:
            messages = [{"role": "user", "content": f"Number {number}"}]
            answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
            permit.settle(tokens=answer.usage.total_tokens)
    assert equal(provider, limiter).calls == 3
