"""AG2 1.x, a loop that finds no end: two agents who answer each other until the budget is used up."""

import asyncio

from _provider import MODEL, REQUESTS, TOKENS, provider
from ag2 import Agent
from ag2.config import OpenAIConfig

import penstock
from penstock import BudgetExceeded, Limiter


async def talk(config: OpenAIConfig) -> None:
    """Have a writer and a critic answer each other."""
    writer, critic = Agent("writer", config=config), Agent("critic", config=config)
    said: str | None = "Write a line about the sea."
    while True:
        said = (await writer.ask(said or "Go on.")).body
        said = (await critic.ask(said or "Go on.")).body


def as_it_was() -> None:
    """Let them talk until the provider has enough: here, of 60 requests per minute."""
    with provider(refusals=True, requests=60) as where:
        try:
            asyncio.run(talk(OpenAIConfig(MODEL, max_retries=0, **where)))
        except Exception as error:  # noqa: BLE001  whatever ends it
            print(f"as it was: it ended with {type(error).__name__}")


def with_one_line() -> None:
    """Let them talk through a gate, and within a budget."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        config = penstock.govern(OpenAIConfig(MODEL, **where), gate)  # the one line
        try:
            with penstock.budget(calls=12, seconds=60) as spent:  # and one for the end
                asyncio.run(talk(config))
        except BudgetExceeded as error:
            print(f"governed: it ended with {error}; {spent.tokens} tokens were used")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
