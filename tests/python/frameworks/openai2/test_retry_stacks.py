"""Whatever retries over a governed model: at most ``attempts`` requests a call, and one for what cannot be cured."""

import asyncio

import pytest
import tenacity
from chat_models import anthropic, openai, plain
from counting import gate, settled
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

import penstock
from penstock import Retry
from penstock.testing.provider import Fault

#: Two waits of 0.01 and 0.4 seconds; the next would be 16, and so long the call is answered with its last failure.
ATTEMPTS = 3
RETRY = Retry(attempts=ATTEMPTS, initial=0.01, factor=40, max_delay=20, jitter=None)

#: Those that an article stacks: they retry at once, or nearly.
SOON = {"wait_exponential_jitter": False, "stop_after_attempt": 3}


def bare(llm):
    return lambda: llm.invoke("Hello")


def abare(llm):
    return lambda: asyncio.run(llm.ainvoke("Hello"))


def streamed(llm):
    return lambda: list(llm.stream("Hello"))


def with_retry(llm):
    retried = llm.with_retry(**SOON)
    return lambda: retried.invoke("Hello")


def awith_retry(llm):
    retried = llm.with_retry(**SOON)
    return lambda: asyncio.run(retried.ainvoke("Hello"))


def batched_with_retry(llm):
    retried = llm.with_retry(**SOON)
    return lambda: retried.batch(["Hello"])


def tenacity_over_it(llm):
    return tenacity.retry(stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_fixed(0.01), reraise=True)(bare(llm))


def tenacity_over_with_retry(llm):
    return tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.01), reraise=True)(
        with_retry(llm)
    )


def retry_policy(llm):
    graph = StateGraph(MessagesState)
    policy = RetryPolicy(max_attempts=3, initial_interval=0.01, jitter=False, retry_on=Exception)
    graph.add_node("node", lambda state: {"messages": [llm.invoke(state["messages"])]}, retry_policy=policy)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    compiled = graph.compile()
    return lambda: compiled.invoke({"messages": [("user", "Hello")]})


def retry_policy_over_with_retry(llm):
    return retry_policy(llm.with_retry(**SOON))


def retry_middleware(llm):
    middleware = ModelRetryMiddleware(max_retries=3, initial_delay=0.01, jitter=False, on_failure="error")
    agent = create_agent(llm, [], middleware=[middleware])
    return lambda: agent.invoke({"messages": [("user", "Hello")]})


def fallbacks_to_itself(llm):
    both = llm.with_fallbacks([llm, llm])
    return lambda: both.invoke("Hello")


STACKS = [
    bare,
    abare,
    streamed,
    with_retry,
    awith_retry,
    batched_with_retry,
    tenacity_over_it,
    tenacity_over_with_retry,
]
STACKS += [retry_policy, retry_policy_over_with_retry, retry_middleware, fallbacks_to_itself]


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.__name__)
@pytest.mark.parametrize("make", [openai, anthropic, plain], ids=lambda make: make.__name__)
def test_at_most_so_many_attempts(provider, make, stack) -> None:
    provider.inject(Fault("error"))
    limiter = gate()
    call = stack(penstock.govern(make(provider), limiter, retry=RETRY))
    with pytest.raises(Exception, match=r"500|[Ss]erver"):
        call()
    assert len(provider.log) == ATTEMPTS
    settled(limiter)


@pytest.mark.parametrize("kind", ["insufficient_quota", "oversize", "daily"])
@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.__name__)
def test_what_cannot_be_cured_is_sent_once(provider, stack, kind) -> None:
    provider.inject(Fault(kind))
    limiter = gate()
    call = stack(penstock.govern(openai(provider), limiter, retry=RETRY))
    with pytest.raises(Exception, match=r"429|413|quota|400"):
        call()
    assert len(provider.log) == 1
    settled(limiter)


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.__name__)
def test_a_failure_that_passes_is_retried_below(provider, stack) -> None:
    provider.inject(Fault("error", times=1))
    limiter = gate()
    stack(penstock.govern(openai(provider), limiter, retry=Retry(attempts=2, initial=0.01)))()
    assert len(provider.log) == 2
    settled(limiter)


def test_without_governing_they_multiply(provider) -> None:
    provider.inject(Fault("error", headers={"retry-after-ms": "1"}))  # or the SDK alone would sleep for 13 seconds
    with pytest.raises(Exception, match="500"):
        retry_policy_over_with_retry(openai(provider))()
    assert len(provider.log) == 27


def test_a_chain_with_retries_that_is_governed_whole_makes_no_more(provider) -> None:
    provider.inject(Fault("error"))
    chain = openai(provider).with_retry(stop_after_attempt=3) | (lambda message: message.content)
    penstock.govern(chain, gate(), retry=RETRY)
    with pytest.raises(Exception, match="500"):
        chain.invoke("Hello")
    assert len(provider.log) == ATTEMPTS
    assert chain.first.max_attempt_number == 1
    penstock.ungovern(chain)
    assert chain.first.max_attempt_number == 3
