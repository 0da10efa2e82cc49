"""LangChain, `batch` and `abatch` with `max_concurrency`, the fix that articles recommend.

A bound of calls under way is not a rate: fast answers let more calls through than a minute's quota has. With one line
added the same batches finish without a refusal, and the bound may go.
"""

import asyncio

from _provider import MODEL, REQUESTS, TOKENS, failed, provider
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI

import penstock
from penstock import Limiter

INPUTS = [{"text": f"Text number {number}: the sea was low."} for number in range(40)]
PROMPT = ChatPromptTemplate.from_template("Summarize in five words: {text}")


def batches(chain: Runnable) -> list[object]:
    """Make forty calls in threads, and forty in tasks, eight at a time."""
    config = {"max_concurrency": 8}
    done = chain.batch(INPUTS, config=config, return_exceptions=True)
    return done + asyncio.run(chain.abatch(INPUTS, config=config, return_exceptions=True))


def as_it_was() -> None:
    """Make them eight at a time."""
    with provider(refusals=True) as where:
        chain = PROMPT | ChatOpenAI(model=MODEL, **where) | StrOutputParser()
        results = batches(chain)
    print(f"as it was: {failed(results)} of {len(results)} calls failed")


def with_one_line() -> None:
    """Govern the whole chain: the model inside is found."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        chain = PROMPT | ChatOpenAI(model=MODEL, **where) | StrOutputParser()
        penstock.govern(chain, gate)  # the one line
        results = batches(chain)
    print(f"governed: {failed(results)} of {len(results)} calls failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
