"""Every way into a chat model of LangChain: what the gate saw is what the server saw, in calls and in tokens."""

import asyncio
import itertools
from typing import TypedDict

import pytest
from chat_models import MAKERS, openai
from counting import at_gate, equal, gate
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel
from langchain_core.tools import tool
from langchain_openai import OpenAIEmbeddings
from plain_models import PlainCompletion, PlainEmbeddings
from pydantic import BaseModel

import penstock

TEXTS = ["Hello", "Good morning, how is the sea?", "And good night"]


class Weather(BaseModel):
    """How the weather is."""

    city: str
    days: int


@tool
def weather(city: str) -> str:
    """How the weather is in a city."""
    return f"dry in {city}"


def invoke(llm):
    assert llm.invoke(TEXTS[0]).content


def ainvoke(llm):
    assert asyncio.run(llm.ainvoke(TEXTS[0])).content


def batch(llm):
    assert len(llm.batch(TEXTS)) == 3


def abatch(llm):
    assert len(asyncio.run(llm.abatch(TEXTS, config={"max_concurrency": 2}))) == 3


def generate(llm):
    assert len(llm.generate([[HumanMessage(text)] for text in TEXTS]).generations) == 3


def agenerate(llm):
    assert len(asyncio.run(llm.agenerate([[HumanMessage(text)] for text in TEXTS])).generations) == 3


def stream(llm):
    assert "".join(chunk.text for chunk in llm.stream(TEXTS[1]))


def astream(llm):
    async def read():
        return "".join([chunk.text async for chunk in llm.astream(TEXTS[1])])

    assert asyncio.run(read())


def events(llm):
    async def read():
        return [event["event"] async for event in llm.astream_events(TEXTS[1], version="v2")]

    assert "on_chat_model_stream" in asyncio.run(read())


def chain(llm):
    prompt = ChatPromptTemplate.from_template("A title for: {text}")
    assert (prompt | llm | StrOutputParser()).invoke({"text": "the sea"})


def parallel(llm):
    prompt = ChatPromptTemplate.from_template("A title for: {text}")
    branches = RunnableParallel(one=prompt | llm, two=prompt | llm | StrOutputParser())
    assert len(asyncio.run(branches.ainvoke({"text": "the sea"}))) == 2


def retried(llm):
    assert llm.with_retry(stop_after_attempt=2).invoke(TEXTS[0]).content


def fallbacks(llm):
    assert llm.with_fallbacks([llm]).invoke(TEXTS[0]).content


def tools(llm):
    assert llm.bind_tools([weather]).invoke(TEXTS[1]).tool_calls[0]["name"] == "weather"


def streamed_tools(llm):
    chunks = list(llm.bind_tools([weather]).stream(TEXTS[1]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.tool_calls[0]["name"] == "weather"


def structured_by_function(llm):
    assert isinstance(llm.with_structured_output(Weather, method="function_calling").invoke(TEXTS[1]), Weather)


def structured_by_schema(llm):
    assert isinstance(llm.with_structured_output(Weather, method="json_schema").invoke(TEXTS[1]), Weather)


def astructured_by_schema(llm):
    assert isinstance(asyncio.run(llm.with_structured_output(Weather, method="json_schema").ainvoke(TEXTS[1])), Weather)


def structured_as_json(llm):
    assert llm.with_structured_output(None, method="json_mode").invoke("Answer in JSON") == {}


def agent(llm):
    state = create_agent(llm, [weather]).invoke({"messages": [("user", TEXTS[1])]})
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]


def aagent(llm):
    state = asyncio.run(create_agent(llm, [weather]).ainvoke({"messages": [("user", TEXTS[1])]}))
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]


def agent_with_response_format(llm):
    state = create_agent(llm, [weather], response_format=Weather).invoke({"messages": [("user", TEXTS[1])]})
    assert isinstance(state["structured_response"], Weather)


def streamed_agent(llm):
    parts = create_agent(llm, [weather]).stream({"messages": [("user", TEXTS[1])]}, stream_mode="messages")
    assert list(parts)


#: Entry points that every model has, and those of models that can use tools.
PLAIN = [
    invoke,
    ainvoke,
    batch,
    abatch,
    generate,
    agenerate,
    stream,
    astream,
    events,
    chain,
    parallel,
    retried,
    fallbacks,
]
WITH_TOOLS = [tools, streamed_tools, structured_by_function, structured_by_schema, agent, aagent, streamed_agent]
WITH_TOOLS += [agent_with_response_format, astructured_by_schema]
CASES = [(name, entry) for name in MAKERS for entry in PLAIN]
CASES += [(name, entry) for name in MAKERS if name != "plain" for entry in WITH_TOOLS]
CASES += [(name, structured_as_json) for name in ("openai", "azure")]


@pytest.mark.parametrize(
    ("name", "entry"), CASES, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_the_gate_sees_what_the_server_sees(provider, name, entry) -> None:
    limiter = gate()
    entry(penstock.govern(MAKERS[name](provider), limiter))
    equal(provider, limiter)


def test_what_max_tokens_reserves_is_what_both_sides_count(provider) -> None:
    limiter = gate()
    llm = penstock.govern(openai(provider, max_tokens=30), limiter)
    invoke(llm)
    ainvoke(llm)
    stream(llm)
    charged = sum(arrival.tokens for arrival in provider.log)
    assert at_gate(limiter) == (len(provider.log), charged)
    assert charged == 30 * len(provider.log)


@pytest.mark.parametrize("settings", [{"use_responses_api": True}, {"streaming": True}, {"n": 2}])
def test_settings_of_chat_openai(provider, settings) -> None:
    limiter = gate()
    llm = penstock.govern(openai(provider, **settings), limiter)
    invoke(llm)
    if "n" not in settings:
        ainvoke(llm)
        stream(llm)
    equal(provider, limiter)


def test_embeddings_of_openai(provider) -> None:
    limiter = gate()
    made = OpenAIEmbeddings(
        base_url=provider.origin + "/v1", api_key="any", check_embedding_ctx_length=False, chunk_size=2
    )
    embeddings = penstock.govern(made, limiter)
    assert embeddings is made
    assert len(embeddings.embed_documents(TEXTS)) == 3
    assert len(asyncio.run(embeddings.aembed_documents(TEXTS))) == 3
    assert embeddings.embed_query("Hello")
    assert asyncio.run(embeddings.aembed_query("Hello"))
    assert equal(provider, limiter).calls == 6


def test_embeddings_without_a_client(provider) -> None:
    limiter = gate()
    embeddings = penstock.govern(PlainEmbeddings(provider.base_url), limiter)
    assert len(embeddings.embed_documents(["abcd"])) == 1
    assert asyncio.run(embeddings.aembed_query("abcd"))
    assert equal(provider, limiter).calls == 2


def test_a_completion_model_without_a_client(provider) -> None:
    limiter = gate()
    llm = penstock.govern(PlainCompletion(base_url=provider.base_url), limiter)
    assert llm.invoke("Hello")
    assert len(llm.batch(["Hello", "Goodbye"])) == 2
    assert asyncio.run(llm.ainvoke("Hello"))
    stats = limiter.stats()
    assert stats.attempts == len(provider.log) == 4
    assert stats.in_flight == 0


class State(TypedDict):
    text: str


def test_models_are_found_wherever_a_runnable_keeps_them(provider) -> None:
    from langgraph.graph import END, START, StateGraph

    closed_over, bound, attribute, in_agent = (openai(provider) for _ in range(4))
    chain = ChatPromptTemplate.from_template("{text}") | bound.bind(stop=["x"]).with_retry() | StrOutputParser()

    class Service:
        def __init__(self):
            self.llm = attribute

        async def node(self, state):
            return {"text": str((await self.llm.ainvoke(state["text"])).content)}

    service = Service()

    def closure(state):
        return {"text": str(closed_over.invoke(state["text"]).content)}

    graph = StateGraph(State)
    graph.add_node("closure", closure)
    graph.add_node("chain", lambda state: {"text": chain.invoke(state)})
    graph.add_node("method", service.node)
    graph.add_node("through", lambda state: {"text": str(service.llm.invoke(state["text"]).content)})
    graph.add_node("agent", create_agent(in_agent, []))
    for one, other in itertools.pairwise((START, "closure", "chain", "method", "through", END)):
        graph.add_edge(one, other)
    compiled = graph.compile()

    limiter = gate()
    assert penstock.govern(compiled, limiter) is compiled
    asyncio.run(compiled.ainvoke({"text": "Hello"}))
    create_agent(in_agent, []).invoke({"messages": [("user", "Hello")]})
    assert equal(provider, limiter).calls == 5

    penstock.ungovern(compiled)
    before = equal(provider, limiter)
    asyncio.run(compiled.ainvoke({"text": "Hello"}))
    assert limiter.stats().attempts == before.calls
    assert len(provider.log) == before.calls + 4


def test_what_has_no_model_cannot_be_governed() -> None:
    from langchain_core.runnables import RunnableLambda

    with pytest.raises(TypeError, match="govern"):
        penstock.govern(RunnableLambda(lambda text: text), gate())
