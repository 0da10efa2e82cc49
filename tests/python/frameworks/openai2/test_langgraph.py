"""LangGraph over governed models: fan-outs, tasks, heartbeats, retry policies, cancellation, siblings, budgets."""

import asyncio
import operator
from typing import Annotated, TypedDict

import pytest
from chat_models import anthropic, openai, plain
from counting import at_gate, equal, gate, settled
from langgraph.errors import NodeTimeoutError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy, Send, TimeoutPolicy

import penstock
from penstock import AcquireTimeout, BudgetExceeded, CostExceedsLimit, Limiter, Rate, Retry
from penstock.testing.provider import Fault


class State(TypedDict):
    count: int
    texts: Annotated[list[str], operator.add]


def fan_out(node, **settings):
    """A graph that runs a node ``count`` times, side by side."""
    graph = StateGraph(State)
    graph.add_node("node", node, **settings)
    graph.add_conditional_edges(START, lambda state: [Send("node", {"number": n}) for n in range(state["count"])])
    graph.add_edge("node", END)
    return graph.compile()


def asking(llm):
    def node(state):
        return {"texts": [str(llm.invoke(f"Number {state['number']}").content)]}

    return node


def aasking(llm):
    async def node(state):
        return {"texts": [str((await llm.ainvoke(f"Number {state['number']}")).content)]}

    return node


def start(count):
    return {"count": count, "texts": []}


@pytest.mark.parametrize("make", [openai, anthropic, plain])
def test_a_fan_out_of_tasks(provider, make) -> None:
    limiter = gate()
    graph = penstock.govern(fan_out(aasking(make(provider))), limiter)
    assert len(asyncio.run(graph.ainvoke(start(60)))["texts"]) == 60
    assert equal(provider, limiter).calls == 60


@pytest.mark.parametrize("make", [openai, plain])
def test_a_fan_out_of_threads(provider, make) -> None:
    limiter = gate()
    graph = penstock.govern(fan_out(asking(make(provider))), limiter)
    assert len(graph.invoke(start(40))["texts"]) == 40
    assert equal(provider, limiter).calls == 40


def test_parallel_branches_and_streams_of_the_graph(provider) -> None:
    limiter = gate()
    llm = penstock.govern(openai(provider), limiter)

    async def branch(state):
        return {"texts": [str((await llm.ainvoke("A branch")).content)]}

    graph = StateGraph(State)
    for name in ("one", "two", "three"):
        graph.add_node(name, branch)
        graph.add_edge(START, name)
        graph.add_edge(name, "join")
    graph.add_node("join", branch)
    graph.add_edge("join", END)
    compiled = graph.compile()

    async def read():
        return [chunk async for chunk in compiled.astream(start(0), stream_mode="messages")]

    assert asyncio.run(read())
    assert equal(provider, limiter).calls == 4


@pytest.mark.parametrize("in_threads", [False, True])
def test_functional_tasks(provider, in_threads) -> None:
    limiter = gate()
    llm = penstock.govern(openai(provider), limiter)

    @task
    async def asummarize(number):
        return str((await llm.ainvoke(f"Number {number}")).content)

    @task
    def summarize(number):
        return str(llm.invoke(f"Number {number}").content)

    @entrypoint()
    async def aflow(count):
        return await asyncio.gather(*(asummarize(number) for number in range(count)))

    @entrypoint()
    def flow(count):
        return [future.result() for future in [summarize(number) for number in range(count)]]

    done = flow.invoke(25) if in_threads else asyncio.run(aflow.ainvoke(25))
    assert len(done) == 25
    assert equal(provider, limiter).calls == 25


def test_an_entrypoint_is_governed_as_a_graph_is(provider) -> None:
    limiter = gate()
    llm = openai(provider)

    @entrypoint()
    async def flow(text):
        return str((await llm.ainvoke(text)).content)

    asyncio.run(penstock.govern(flow, limiter).ainvoke("Hello"))
    assert equal(provider, limiter).calls == 1


# Node timeouts.


@pytest.mark.parametrize("make", [openai, plain])
@pytest.mark.parametrize("refresh_on", ["auto", "heartbeat"])
def test_a_node_that_queues_is_not_idle(provider, make, refresh_on) -> None:
    # The fifth of five calls queues for 2 seconds: twice its idle timeout.
    limiter = Limiter(requests=Rate(2, 1, burst=1, window=False))
    llm = penstock.govern(make(provider), limiter)
    timeout = TimeoutPolicy(idle_timeout=1.0, refresh_on=refresh_on)
    graph = fan_out(aasking(llm), timeout=timeout)
    assert len(asyncio.run(graph.ainvoke(start(5)))["texts"]) == 5
    assert len(provider.log) == 5
    settled(limiter)


def test_a_node_that_waits_for_a_retry_is_not_idle(provider) -> None:
    provider.inject(Fault("throttled", retry_after=2, times=1))
    limiter = Limiter(requests=600)
    graph = fan_out(aasking(penstock.govern(openai(provider), limiter)), timeout=TimeoutPolicy(idle_timeout=1.0))
    assert len(asyncio.run(graph.ainvoke(start(1)))["texts"]) == 1
    assert len(provider.log) == 2


def test_a_provider_that_does_not_answer_is_idle_all_the_same(provider) -> None:
    provider.inject(Fault("slow", seconds=5))
    limiter = gate()
    graph = fan_out(aasking(penstock.govern(openai(provider), limiter)), timeout=TimeoutPolicy(idle_timeout=0.5))
    with pytest.raises(NodeTimeoutError):
        asyncio.run(graph.ainvoke(start(1)))
    settled(limiter)
    assert at_gate(limiter).calls == 1  # the provider runs what was sent


# Retry policies.

FAST = RetryPolicy(max_attempts=3, initial_interval=0.01, jitter=False)


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("kind", ["error", "throttled", "overloaded"])
def test_a_retry_policy_does_not_multiply(provider, in_threads, kind) -> None:
    provider.inject(Fault(kind))
    limiter = gate()
    llm = penstock.govern(
        openai(provider), limiter, retry=Retry(attempts=2, initial=0.01, factor=1000, max_delay=20, jitter=None)
    )
    graph = fan_out((asking if in_threads else aasking)(llm), retry_policy=FAST)
    with pytest.raises(Exception, match=r"429|50\d"):
        graph.invoke(start(1)) if in_threads else asyncio.run(graph.ainvoke(start(1)))
    assert len(provider.log) == 2
    settled(limiter)


@pytest.mark.parametrize("kind", ["insufficient_quota", "oversize", "daily"])
def test_what_no_retry_can_cure_is_sent_once(provider, kind) -> None:
    provider.inject(Fault(kind))
    limiter = gate()
    graph = fan_out(aasking(penstock.govern(openai(provider), limiter)), retry_policy=FAST)
    with pytest.raises(Exception, match=r"429|quota|413|large"):
        asyncio.run(graph.ainvoke(start(1)))
    assert len(provider.log) == 1
    settled(limiter)


def test_a_retry_policy_does_not_retry_what_the_limiter_refuses(provider) -> None:
    limiter = Limiter(requests=Rate(1, 3600), tokens=2_000)
    llm = penstock.govern(openai(provider), limiter)
    tries = []

    async def node(state):
        tries.append(state)
        return {"texts": [str((await llm.ainvoke("word " * (1 + state["number"]))).content)]}

    graph = fan_out(node, retry_policy=FAST)
    asyncio.run(graph.ainvoke(start(1)))
    with penstock.scope(timeout=0), pytest.raises(AcquireTimeout):
        asyncio.run(graph.ainvoke(start(1)))
    assert len(tries) == 2

    async def large(state):
        return await node({"number": 10_000})

    graph = fan_out(large, retry_policy=FAST)
    with pytest.raises(CostExceedsLimit):
        asyncio.run(graph.ainvoke(start(1)))
    assert len(tries) == 3
    assert len(provider.log) == 1
    settled(limiter)


# What ends before its calls do.


def test_a_cancelled_graph_leaves_no_permit(provider) -> None:
    limiter = Limiter(requests=Rate(5, 60, burst=5), concurrency=3)
    graph = fan_out(aasking(penstock.govern(openai(provider), limiter)))

    async def main():
        running = asyncio.create_task(graph.ainvoke(start(30)))
        while limiter.stats().waiting < 25:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return limiter.stats()

    stats = asyncio.run(main())
    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert len(provider.log) <= 5


def test_a_failed_sibling_leaves_no_permit(provider) -> None:
    limiter = Limiter(requests=Rate(5, 60, burst=5), concurrency=3)
    llm = penstock.govern(openai(provider), limiter)

    async def node(state):
        if state["number"] == 0:
            while limiter.stats().waiting < 25:
                await asyncio.sleep(0.01)
            raise RuntimeError("a node that fails")
        return {"texts": [str((await llm.ainvoke("Hello")).content)]}

    with pytest.raises(RuntimeError, match="fails"):
        asyncio.run(fan_out(node).ainvoke(start(30)))
    settled(limiter)
    assert len(provider.log) <= 5


def test_a_run_that_times_out_in_the_queue_leaves_no_permit(provider) -> None:
    limiter = Limiter(requests=Rate(1, 60))
    llm = penstock.govern(openai(provider), limiter)
    graph = fan_out(aasking(llm), timeout=TimeoutPolicy(run_timeout=0.5))
    with pytest.raises(NodeTimeoutError):
        asyncio.run(graph.ainvoke(start(5)))
    settled(limiter)
    assert len(provider.log) == 1


# Loops without an end.


def loop(llm):
    graph = StateGraph(State)
    graph.add_node("write", lambda state: {"texts": [str(llm.invoke("Write").content)]})
    graph.add_node("read", lambda state: {"texts": [str(llm.invoke("Read").content)]})
    graph.add_edge(START, "write")
    graph.add_edge("write", "read")
    graph.add_conditional_edges("read", lambda state: "write", ["write"])
    return graph.compile()


@pytest.mark.parametrize("make", [openai, plain])
def test_a_budget_ends_a_loop(provider, make) -> None:
    limiter = gate()
    graph = loop(penstock.govern(make(provider), limiter))
    with pytest.raises(BudgetExceeded) as raised, penstock.budget(calls=7) as spent:
        graph.invoke(start(0), {"recursion_limit": 100})
    assert (raised.value.dimension, raised.value.spent, raised.value.limit) == ("calls", 7, 7)
    assert spent.calls == equal(provider, limiter).calls == 7
    assert spent.tokens == at_gate(limiter).tokens


def test_a_budget_in_tokens_ends_a_loop(provider) -> None:
    limiter = gate()
    graph = loop(penstock.govern(openai(provider), limiter))
    with pytest.raises(BudgetExceeded) as raised, penstock.budget(tokens=150) as spent:
        asyncio.run(graph.ainvoke(start(0), {"recursion_limit": 100}))
    assert raised.value.dimension == "tokens"
    assert raised.value.limit == 150
    assert spent.tokens == equal(provider, limiter).tokens


def test_a_budget_is_not_retried_by_a_policy(provider) -> None:
    limiter = gate()
    llm = penstock.govern(openai(provider), limiter)
    tries = []

    async def node(state):
        tries.append(state)
        for _ in range(5):
            await llm.ainvoke("Again")
        return {"texts": []}

    with pytest.raises(BudgetExceeded), penstock.budget(calls=3):
        asyncio.run(fan_out(node, retry_policy=FAST).ainvoke(start(1)))
    assert len(tries) == 1
    assert len(provider.log) == 3
