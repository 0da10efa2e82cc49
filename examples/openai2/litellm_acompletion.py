"""litellm, `asyncio.gather` over `acompletion`, for any of its providers.

As it was, most calls fail, after three requests each. With one line added, each makes one request and is answered.
"""

import asyncio

from _provider import MODEL, REQUESTS, TOKENS, failed, provider  # first: litellm looks at the environment

# isort: split

import litellm
from litellm import acompletion

import penstock
from penstock import Limiter

litellm.suppress_debug_info = True

TEXTS = [f"Text number {number}: the sea was low." for number in range(40)]


async def summarize_all(where: dict[str, str]) -> list[object]:
    """Make all calls at once."""
    calls = (
        acompletion(f"openai/{MODEL}", [{"role": "user", "content": f"Summarize: {text}"}], **where) for text in TEXTS
    )
    return await asyncio.gather(*calls, return_exceptions=True)


def as_it_was() -> None:
    """Make them with nothing in front of the provider."""
    with provider(refusals=True) as where:
        results = asyncio.run(summarize_all(where))
    print(f"as it was: {failed(results)} of {len(results)} calls failed")


def with_one_line() -> None:
    """Make them through a gate that stands before the whole process."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where, penstock.install(gate, hosts=["127.0.0.1", "api.openai.com"]):
        results = asyncio.run(summarize_all(where))
    print(f"governed: {failed(results)} of {len(results)} calls failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
