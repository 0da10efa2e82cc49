"""LangChain, streams and parallel chains: three branches for each text, all streamed at once.

Each input costs three calls, and a stream that fails has no retry of LangChain's at all. With one line added a stream
waits for its turn, and holds its place under `concurrency` until its end.
"""

import asyncio

from _provider import MODEL, REQUESTS, TOKENS, failed, provider
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableParallel
from langchain_openai import ChatOpenAI

import penstock
from penstock import Limiter

TEXTS = [f"Text number {number}: the sea was low." for number in range(20)]


def chains(llm: ChatOpenAI) -> Runnable:
    """Build a summary, a title and a translation, side by side."""
    tasks = {"summary": "Summarize: {text}", "title": "A title for: {text}", "german": "In German: {text}"}
    return RunnableParallel(
        {name: ChatPromptTemplate.from_template(task) | llm | StrOutputParser() for name, task in tasks.items()}
    )


async def stream(chain: Runnable, text: str) -> dict[str, str]:
    """Put the pieces of one text's three streams together."""
    parts = dict.fromkeys(("summary", "title", "german"), "")
    async for chunk in chain.astream({"text": text}):
        for name, piece in chunk.items():
            parts[name] += piece
    return parts


async def stream_all(chain: Runnable) -> list[object]:
    """Stream them all at once."""
    return await asyncio.gather(*(stream(chain, text) for text in TEXTS), return_exceptions=True)


def as_it_was() -> None:
    """Stream sixty answers with nothing in front of the provider."""
    with provider(refusals=True) as where:
        results = asyncio.run(stream_all(chains(ChatOpenAI(model=MODEL, **where))))
    print(f"as it was: {failed(results)} of {len(results)} texts failed")


def with_one_line() -> None:
    """Stream them through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=8)
    with provider(refusals=False) as where:
        llm = penstock.govern(ChatOpenAI(model=MODEL, **where), gate)  # the one line
        results = asyncio.run(stream_all(chains(llm)))
    print(f"governed: {failed(results)} of {len(results)} texts failed; {gate.stats().in_flight} streams left open")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
