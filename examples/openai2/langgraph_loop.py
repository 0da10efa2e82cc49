"""LangGraph, a loop that does not end: a writer and a critic who is never content.

As it was, the loop runs into the provider's limit, or into the recursion limit, whichever comes first, and has spent
what it has spent. A governed model waits instead, and a budget ends the loop and says what it used.
"""

from typing import TypedDict

from _provider import MODEL, REQUESTS, TOKENS, provider
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph

import penstock
from penstock import BudgetExceeded, Limiter


class State(TypedDict):
    """The draft, and what the critic says."""

    draft: str
    critique: str


def build(llm: ChatOpenAI) -> CompiledStateGraph:
    """Build the loop: write, criticize, write again."""

    def write(state: State) -> dict[str, str]:
        return {"draft": str(llm.invoke(f"Write it better: {state['draft']} {state['critique']}").content)}

    def criticize(state: State) -> dict[str, str]:
        return {"critique": str(llm.invoke(f"What is wrong with: {state['draft']}").content)}

    graph = StateGraph(State)
    graph.add_node("write", write)
    graph.add_node("criticize", criticize)
    graph.add_edge(START, "write")
    graph.add_edge("write", "criticize")
    graph.add_conditional_edges("criticize", lambda _state: "write", ["write"])  # the critic is never content
    return graph.compile()


def as_it_was() -> None:
    """Run it until something breaks: here, a provider with 60 requests per minute."""
    with provider(refusals=True, requests=60) as where:
        graph = build(ChatOpenAI(model=MODEL, max_retries=0, **where))
        try:
            graph.invoke({"draft": "The sea.", "critique": ""}, {"recursion_limit": 100})
        except Exception as error:  # noqa: BLE001  whatever breaks first
            print(f"as it was: the loop ended with {type(error).__name__}")


def with_one_line() -> None:
    """Govern the model, and give the loop a budget."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        graph = build(penstock.govern(ChatOpenAI(model=MODEL, **where), gate))  # the one line
        try:
            with penstock.budget(calls=12, tokens=20_000) as spent:  # and one for the end
                graph.invoke({"draft": "The sea.", "critique": ""}, {"recursion_limit": 100})
        except BudgetExceeded as error:
            print(f"governed: the loop ended at its budget: {error.spent:g} of {error.limit:g} {error.dimension}")
            print(f"governed: it used {spent.calls} calls and {spent.tokens} tokens")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
