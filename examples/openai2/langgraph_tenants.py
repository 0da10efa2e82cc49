"""LangGraph, many users on one key: one of them floods, and the others get nothing.

As it was, whoever asks most takes the quota, and the others' runs fail. With one line for the model and a scope around
each run, users share what there is, and each has a bound of its own.
"""

import asyncio
from typing import TypedDict

from _provider import MODEL, REQUESTS, TOKENS, provider
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

import penstock
from penstock import Limiter

USERS = {"flood": 60, "ada": 2, "ben": 2, "eva": 2}


class State(TypedDict):
    """What a user asks, and is told."""

    question: str
    answer: str


def build(llm: ChatOpenAI) -> CompiledStateGraph:
    """Build an assistant of one node."""

    async def answer(state: State) -> dict[str, str]:
        return {"answer": str((await llm.ainvoke(state["question"])).content)}

    graph = StateGraph(State)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()


async def serve(graph: CompiledStateGraph) -> dict[str, str]:
    """Run all questions of all users at once, the flood first; gives how many of each were answered, and when."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def ask(user: str, number: int) -> float:
        with penstock.scope(key=user):
            await graph.ainvoke({"question": f"Question {number} of {user}", "answer": ""})
        return loop.time() - began

    async def serve_one(user: str, count: int) -> str:
        times = await asyncio.gather(*(ask(user, number) for number in range(count)), return_exceptions=True)
        done = [seconds for seconds in times if isinstance(seconds, float)]
        return f"{len(done)} of {count} answered" + (f", the last after {max(done):.1f} s" if done else "")

    lines = await asyncio.gather(*(serve_one(user, count) for user, count in USERS.items()))
    return dict(zip(USERS, lines, strict=True))


def as_it_was() -> None:
    """Serve them with nothing in front of the provider."""
    with provider(refusals=True) as where:
        told = asyncio.run(serve(build(ChatOpenAI(model=MODEL, max_retries=0, **where))))
    for user, line in told.items():
        print(f"as it was: {user}: {line}")


def with_one_line() -> None:
    """Serve them through a gate that knows whom a call belongs to."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, per_key={"requests": REQUESTS * 0.8})
    with provider(refusals=False) as where:
        llm = penstock.govern(ChatOpenAI(model=MODEL, **where), gate)  # the one line
        told = asyncio.run(serve(build(llm)))
    for user, line in told.items():
        print(f"governed: {user}: {line}")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
