"""AG2 1.x, many agents at once: its `RetryMiddleware` tries again at once, four times, and is refused four times."""

import asyncio

from _provider import MODEL, REQUESTS, TOKENS, failed, provider
from ag2 import Agent
from ag2.config import OpenAIConfig
from ag2.middleware import RetryMiddleware

import penstock
from penstock import Limiter


async def ask_all(config: OpenAIConfig) -> list[object]:
    """Ask all agents at once."""
    agents = [Agent(f"agent_{number}", config=config, middleware=[RetryMiddleware()]) for number in range(30)]
    questions = (agent.ask(f"Question {number}: why is the sea salt?") for number, agent in enumerate(agents))
    return await asyncio.gather(*questions, return_exceptions=True)


def as_it_was() -> None:
    """Ask with nothing in front of the provider."""
    with provider(refusals=True) as where:
        results = asyncio.run(ask_all(OpenAIConfig(MODEL, max_retries=0, **where)))
    print(f"as it was: {failed(results)} of {len(results)} agents failed")


def with_one_line() -> None:
    """Ask through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        config = penstock.govern(OpenAIConfig(MODEL, **where), gate)  # the one line
        results = asyncio.run(ask_all(config))
    print(f"governed: {failed(results)} of {len(results)} agents failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
