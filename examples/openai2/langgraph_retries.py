"""LangGraph, retries upon retries: the SDK's, the chain's and the node's multiply, and hammer a provider in need.

Two retries of the SDK, `with_retry` and a node's `RetryPolicy` make up to 27 requests of one call, and none of them
waits for what the provider asks. With one line added, retries have one owner: the gate.
"""

import asyncio
import operator
from typing import Annotated, TypedDict

from _provider import MODEL, REQUESTS, TOKENS, provider
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import RetryPolicy, Send

import penstock
from penstock import Limiter

TOPICS = [f"Topic {number}" for number in range(30)]


class State(TypedDict):
    """The topics, and what was written."""

    topics: list[str]
    notes: Annotated[list[str], operator.add]


def build(llm: Runnable) -> CompiledStateGraph:
    """Build a node for each topic, with a retry policy."""

    async def note(state: dict[str, str]) -> dict[str, list[str]]:
        answer = await llm.ainvoke(f"A note on {state['topic']}")
        return {"notes": [str(answer.content)]}

    graph = StateGraph(State)
    policy = RetryPolicy(max_attempts=3, initial_interval=0.2)
    graph.add_node("note", note, retry_policy=policy)
    graph.add_conditional_edges(START, lambda state: [Send("note", {"topic": topic}) for topic in state["topics"]])
    graph.add_edge("note", END)
    return graph.compile()


def stacked(where: dict[str, str]) -> Runnable:
    """A model with the SDK's retries, and retries around it."""
    return ChatOpenAI(model=MODEL, **where).with_retry(stop_after_attempt=3)


def as_it_was() -> None:
    """Run thirty nodes with all three layers."""
    with provider(refusals=True) as where:
        graph = build(stacked(where))
        try:
            state = asyncio.run(graph.ainvoke({"topics": TOPICS, "notes": []}))
            print(f"as it was: {len(state['notes'])} of {len(TOPICS)} notes written")
        except Exception as error:  # noqa: BLE001  of the SDK
            print(f"as it was: the run ended with {type(error).__name__}")


def with_one_line() -> None:
    """Govern the graph: a request for each note, and no more."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        graph = build(stacked(where))
        penstock.govern(graph, gate)  # the one line
        state = asyncio.run(graph.ainvoke({"topics": TOPICS, "notes": []}))
    print(f"governed: {len(state['notes'])} of {len(TOPICS)} notes written")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
