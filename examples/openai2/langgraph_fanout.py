"""LangGraph, a fan-out: `Send` starts a node for each of sixty sections, and one refusal ends the whole run.

As it was, the run dies on its first 429, and the answers that were already paid for are lost with it. With one line
added the nodes wait for their turn, and a node with an idle timeout is not killed while it does.
"""

import asyncio
import operator
from typing import Annotated, TypedDict

from _provider import MODEL, REQUESTS, TOKENS, provider
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send, TimeoutPolicy

import penstock
from penstock import Limiter

SECTIONS = [f"Section {number}: the sea was low." for number in range(60)]


class State(TypedDict):
    """The sections, and what became of them."""

    sections: list[str]
    summaries: Annotated[list[str], operator.add]


def build(llm: ChatOpenAI) -> CompiledStateGraph:
    """Build a graph that summarizes each section in a node of its own."""

    async def summarize(state: dict[str, str]) -> dict[str, list[str]]:
        answer = await llm.ainvoke(f"Summarize in five words: {state['section']}")
        return {"summaries": [str(answer.content)]}

    def fan_out(state: State) -> list[Send]:
        return [Send("summarize", {"section": section}) for section in state["sections"]]

    graph = StateGraph(State)
    graph.add_node("summarize", summarize, timeout=TimeoutPolicy(idle_timeout=2))
    graph.add_conditional_edges(START, fan_out, ["summarize"])
    graph.add_edge("summarize", END)
    return graph.compile()


def as_it_was() -> None:
    """Run it with nothing in front of the provider."""
    with provider(refusals=True) as where:
        graph = build(ChatOpenAI(model=MODEL, **where))
        try:
            asyncio.run(graph.ainvoke({"sections": SECTIONS, "summaries": []}))
        except Exception as error:  # noqa: BLE001  of the SDK, or NodeTimeoutError: whichever comes first
            print(f"as it was: the run ended with {type(error).__name__}, and no summary is left")


def with_one_line() -> None:
    """Govern the graph: the models that its nodes use are found."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        graph = build(ChatOpenAI(model=MODEL, **where))
        penstock.govern(graph, gate)  # the one line
        state = asyncio.run(graph.ainvoke({"sections": SECTIONS, "summaries": []}))
    print(f"governed: {len(state['summaries'])} of {len(SECTIONS)} sections summarized")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
