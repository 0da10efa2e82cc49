"""LlamaIndex under `govern`: every way to a model passes the gate once, and models stay what they were."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from counting import DAY, at_gate, at_server, equal, gate, settled
from llama_index.core import Document, Settings, SummaryIndex, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.core.rate_limiter import BaseRateLimiter, TokenBucketRateLimiter
from llama_index.core.schema import TextNode
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI, OpenAIResponses
from pydantic import BaseModel

import penstock
from penstock import Limiter, Rate, Retry
from penstock.integrations.llamaindex import RateLimiter
from penstock.testing.provider import FakeProvider
from penstock.testing.provider.fault import Fault

QUESTION = [ChatMessage(role="user", content="What is a penstock?")]


class Answer(BaseModel):
    """An answer."""

    text: str
    confident: bool


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def documents(count: int) -> list[Document]:
    return [
        Document(text=f"Document {number}. The gate lets through what the turbine takes.") for number in range(count)
    ]


def llm_at(provider: FakeProvider, **more: Any) -> OpenAI:
    return OpenAI(model="gpt-4o-mini", api_base=provider.base_url, api_key="any", **more)


def embedding_at(provider: FakeProvider, **more: Any) -> OpenAIEmbedding:
    return OpenAIEmbedding(
        model="text-embedding-3-small", api_base=provider.base_url, api_key="any", embed_batch_size=10, **more
    )


# Ways to a model: each gets the LLM, the embedding and an index of both.


def from_documents(llm: Any, embedding: Any, index: Any) -> Any:
    VectorStoreIndex.from_documents(documents(25), embed_model=embedding)


def from_documents_async(llm: Any, embedding: Any, index: Any) -> Any:
    VectorStoreIndex.from_documents(documents(25), embed_model=embedding, use_async=True)


def chat(llm: Any, embedding: Any, index: Any) -> Any:
    llm.chat(QUESTION)


def complete(llm: Any, embedding: Any, index: Any) -> Any:
    llm.complete("What is a penstock?")


def stream_chat(llm: Any, embedding: Any, index: Any) -> Any:
    assert "".join(chunk.delta or "" for chunk in llm.stream_chat(QUESTION))


def stream_complete(llm: Any, embedding: Any, index: Any) -> Any:
    assert "".join(chunk.delta or "" for chunk in llm.stream_complete("What is a penstock?"))


async def achat(llm: Any, embedding: Any, index: Any) -> Any:
    await llm.achat(QUESTION)


async def acomplete(llm: Any, embedding: Any, index: Any) -> Any:
    await llm.acomplete("What is a penstock?")


async def astream_chat(llm: Any, embedding: Any, index: Any) -> Any:
    assert [chunk async for chunk in await llm.astream_chat(QUESTION)]


async def astream_complete(llm: Any, embedding: Any, index: Any) -> Any:
    assert [chunk async for chunk in await llm.astream_complete("What is a penstock?")]


def predict(llm: Any, embedding: Any, index: Any) -> Any:
    llm.predict(PromptTemplate("What is {thing}?"), thing="a penstock")


async def apredict(llm: Any, embedding: Any, index: Any) -> Any:
    await llm.apredict(PromptTemplate("What is {thing}?"), thing="a penstock")


def structured_predict(llm: Any, embedding: Any, index: Any) -> Any:
    assert isinstance(llm.structured_predict(Answer, PromptTemplate("What is {thing}?"), thing="a penstock"), Answer)


def as_structured_llm(llm: Any, embedding: Any, index: Any) -> Any:
    assert isinstance(llm.as_structured_llm(Answer).chat(QUESTION).raw, Answer)


async def astructured(llm: Any, embedding: Any, index: Any) -> Any:
    assert isinstance((await llm.as_structured_llm(Answer).achat(QUESTION)).raw, Answer)


def chat_with_tools(llm: Any, embedding: Any, index: Any) -> Any:
    llm.chat_with_tools([FunctionTool.from_defaults(multiply)], user_msg="What is 6 times 7?")


def query(llm: Any, embedding: Any, index: Any) -> Any:
    index.as_query_engine(llm=llm).query("What is a penstock?")


async def aquery(llm: Any, embedding: Any, index: Any) -> Any:
    await index.as_query_engine(llm=llm).aquery("What is a penstock?")


def streaming_query(llm: Any, embedding: Any, index: Any) -> Any:
    assert "".join(index.as_query_engine(llm=llm, streaming=True).query("What is a penstock?").response_gen)


def tree_summarize(llm: Any, embedding: Any, index: Any) -> Any:
    engine = SummaryIndex.from_documents(documents(12)).as_query_engine(llm=llm, response_mode="tree_summarize")
    engine.query("What do they say?")


async def tree_summarize_async(llm: Any, embedding: Any, index: Any) -> Any:
    summary = SummaryIndex.from_documents(documents(12))
    await summary.as_query_engine(llm=llm, response_mode="tree_summarize", use_async=True).aquery("What do they say?")


def chat_engine(llm: Any, embedding: Any, index: Any) -> Any:
    engine = index.as_chat_engine(llm=llm, chat_mode="condense_plus_context")
    engine.chat("What is a penstock?")
    engine.chat("And a turbine?")


async def function_agent(llm: Any, embedding: Any, index: Any) -> Any:
    agent = FunctionAgent(tools=[multiply], llm=llm, streaming=True)
    await agent.run("What is 6 times 7?")


async def many_embeddings(llm: Any, embedding: Any, index: Any) -> Any:
    await embedding.aget_text_embedding_batch([f"text {number}" for number in range(65)])


def pipeline(llm: Any, embedding: Any, index: Any) -> Any:
    IngestionPipeline(transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), embedding]).run(
        documents=documents(8)
    )


async def pipeline_async(llm: Any, embedding: Any, index: Any) -> Any:
    await IngestionPipeline(transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), embedding]).arun(
        documents=documents(8)
    )


def one_embedding(llm: Any, embedding: Any, index: Any) -> Any:
    embedding.get_query_embedding("one")
    embedding.get_text_embedding("two")


WAYS = [
    *(from_documents, from_documents_async, chat, complete, stream_chat, stream_complete, achat, acomplete),
    *(astream_chat, astream_complete, predict, apredict, structured_predict, as_structured_llm, astructured),
    *(chat_with_tools, query, aquery, streaming_query, tree_summarize, tree_summarize_async, chat_engine),
    *(function_agent, many_embeddings, pipeline, pipeline_async, one_embedding),
]


def take(way: Any, *args: Any) -> None:
    result = way(*args)
    if asyncio.iscoroutine(result):
        asyncio.run(result)


def test_every_way_to_a_model_passes_the_gate_once(provider: FakeProvider) -> None:
    limiter = gate()
    llm, embedding = llm_at(provider), embedding_at(provider)
    penstock.govern(llm, limiter)
    penstock.govern(embedding, limiter)
    index = VectorStoreIndex.from_documents(documents(5), embed_model=embedding)
    counted = equal(provider, limiter).calls
    assert counted == 1
    for way in WAYS:
        before = counted
        take(way, llm, embedding, index)
        try:
            counted = equal(provider, limiter).calls
        except AssertionError as error:
            raise AssertionError(f"{way.__name__}: {error}") from None
        assert counted > before, f"{way.__name__} reached nothing"
    assert len(WAYS) >= 24
    assert all(arrival.status == 200 for arrival in provider.log)


# What a governed model is.


def test_it_is_what_it_was(provider: FakeProvider) -> None:
    limiter = gate()
    llm, twin = llm_at(provider), llm_at(provider)
    assert penstock.govern(llm, limiter) is llm
    assert type(llm) is OpenAI
    assert (llm.max_retries, llm.reuse_client) == (0, True)
    dump = llm.model_dump()
    assert {**dump, "max_retries": twin.max_retries} == twin.model_dump()
    assert isinstance(llm.rate_limiter, BaseRateLimiter)
    penstock.govern(llm, limiter)  # again changes nothing
    assert penstock.ungovern(llm) is llm
    assert llm.model_dump() == twin.model_dump()
    assert (llm.max_retries, llm.rate_limiter) == (twin.max_retries, None)
    llm.chat(QUESTION)
    assert (at_server(provider).calls, at_gate(limiter).calls) == (1, 0)


def test_a_rate_limiter_of_somebody_else_comes_back(provider: FakeProvider) -> None:
    own = TokenBucketRateLimiter(requests_per_minute=1)
    llm = llm_at(provider, reuse_client=False, max_retries=7)
    llm.rate_limiter = own
    limiter = gate()
    penstock.govern(llm, limiter)
    for _ in range(3):
        llm.chat(QUESTION)
    assert equal(provider, limiter).calls == 3
    penstock.ungovern(llm)
    assert llm.rate_limiter is own
    assert (llm.reuse_client, llm.max_retries) == (False, 7)


def test_copies_and_pickles_are_governed(provider: FakeProvider) -> None:
    limiter = gate()
    llm = penstock.govern(llm_at(provider), limiter)
    embedding = penstock.govern(embedding_at(provider), limiter)
    calls = 0
    for again in (lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, copy.copy, lambda m: m.model_copy()):
        again(llm).chat(QUESTION)
        again(embedding).get_text_embedding("text")
        asyncio.run(again(llm).achat(QUESTION))
        assert llm.rate_limiter is not None  # LlamaIndex deletes what it cannot pickle, from the original
        llm.chat(QUESTION)
        calls += 4
        assert equal(provider, limiter).calls == calls
    clone = pickle.loads(pickle.dumps(llm))  # a copy shares the client, and with it the gate
    clone.chat(QUESTION)
    penstock.ungovern(clone)
    assert (clone.max_retries, clone.rate_limiter) == (llm_at(provider).max_retries, None)
    clone.chat(QUESTION)
    llm.chat(QUESTION)
    assert at_server(provider).calls == at_gate(limiter).calls + 1


def test_settings_and_what_contains_models_are_governed(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = gate()
    monkeypatch.setattr(Settings, "_llm", llm_at(provider))
    monkeypatch.setattr(Settings, "_embed_model", embedding_at(provider))
    assert penstock.govern(Settings, limiter) is Settings
    index = VectorStoreIndex.from_documents(documents(3))
    index.as_query_engine().query("What is a penstock?")
    assert equal(provider, limiter).calls == 3
    penstock.ungovern(Settings)
    assert Settings.llm.max_retries == llm_at(provider).max_retries

    agent = FunctionAgent(tools=[multiply], llm=llm_at(provider))
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(), embedding_at(provider)])
    engine = index.as_query_engine(llm=llm_at(provider))
    for thing in (agent, pipeline, engine, llm_at(provider).as_structured_llm(Answer)):
        assert penstock.govern(thing, gate()) is thing
    assert agent.llm.max_retries == pipeline.transformations[1].max_retries == 0
    with pytest.raises(TypeError, match="govern"):
        penstock.govern(SentenceSplitter(), limiter)


def test_the_responses_api(provider: FakeProvider) -> None:
    limiter = gate()
    llm = OpenAIResponses(model="gpt-4o-mini", api_base=provider.base_url, api_key="any")
    penstock.govern(llm, limiter)
    llm.chat(QUESTION)
    assert "".join(chunk.delta or "" for chunk in llm.stream_chat(QUESTION))
    asyncio.run(llm.achat(QUESTION))
    assert equal(provider, limiter).calls == 3


# Failures: one owner of retries.


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_failing_provider_is_asked_no_more_than_attempts_times(attempts: int) -> None:
    with FakeProvider(latency=0.0, faults=[Fault("error")]) as provider:
        limiter = Limiter(concurrency=8)
        retry = Retry(attempts=attempts, initial=0.01)
        llm = penstock.govern(llm_at(provider), limiter, retry=retry)
        embedding = penstock.govern(embedding_at(provider), limiter, retry=retry)
        for call in (  # the same request once more would be answered from memory
            lambda: llm.complete("one"),
            lambda: asyncio.run(llm.acomplete("two")),
            lambda: list(llm.stream_complete("three")),
            lambda: embedding.get_text_embedding("text"),
            lambda: asyncio.run(embedding.aget_text_embedding_batch(["one", "two"])),
        ):
            before = len(provider.log)
            with pytest.raises(Exception, match="(?i)error"):
                call()
            assert len(provider.log) - before == attempts
        settled(limiter)


# Worker processes.


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["shm", "memory"])
def test_workers_share_the_limiter_or_make_no_call(
    provider: FakeProvider, store: str, request: pytest.FixtureRequest
) -> None:
    name = f"llamaindex-{os.getpid()}"
    request.addfinalizer(lambda: Path(f"/dev/shm/penstock-{os.geteuid()}-{name}").unlink(missing_ok=True))
    where = {"store": f"shm://{name}"} if store == "shm" else {}
    limiter = Limiter(
        requests=Rate(10_000, DAY, burst=10_000), tokens=Rate(10**6, DAY, burst=10**6), name=name, **where
    )
    # Without a splitter, whose tokenizer would be downloaded in each worker.
    pipeline = IngestionPipeline(
        transformations=[penstock.govern(embedding_at(provider), limiter)], disable_cache=True, docstore=None
    )
    nodes = [TextNode(text=f"Node {number}.") for number in range(40)]
    if store == "memory":
        with pytest.raises(penstock.StoreUnavailable, match="give it a store that both share"):
            pipeline.run(nodes=nodes, num_workers=2)
        assert at_server(provider).calls == 0
        return
    assert all(node.embedding for node in pipeline.run(nodes=nodes, num_workers=2))
    assert equal(provider, limiter).calls == 4


# Models without an HTTP client, and rate limiters of one's own.


def test_a_model_without_http_is_charged_by_an_estimate() -> None:
    limiter = gate()
    llm, embedding = MockLLM(max_tokens=50), MockEmbedding(embed_dim=8)
    penstock.govern(llm, limiter)
    penstock.govern(embedding, limiter)
    llm.chat(QUESTION)
    counted = at_gate(limiter)
    assert counted.calls == 1
    assert 50 + penstock.estimate_tokens(QUESTION[0].content) <= counted.tokens < 80
    asyncio.run(llm.acomplete("What is a penstock?"))
    list(llm.stream_chat(QUESTION))
    embedding.get_text_embedding_batch([f"some text {number}" for number in range(25)])
    asyncio.run(embedding.aget_text_embedding("some text"))
    assert at_gate(limiter).calls == 1 + 1 + 1 + 3 + 1
    assert at_gate(limiter).tokens > 3 * 50 + 26 * 2
    settled(limiter)


def test_what_a_call_costs_can_be_said() -> None:
    limiter = gate()
    fixed, computed = MockLLM(), MockLLM()
    fixed.rate_limiter = RateLimiter(limiter, tokens=70)
    computed.rate_limiter = RateLimiter(limiter, tokens=lambda model, sent: len(sent["messages"]) * 1_000)
    fixed.chat(QUESTION)
    computed.chat(QUESTION)
    assert at_gate(limiter).tokens == 1_070


def test_a_rate_limiter_alone_governs_the_model_that_it_is_in(provider: FakeProvider) -> None:
    limiter = gate()
    shared = RateLimiter(limiter)
    llm, embedding = llm_at(provider, rate_limiter=shared), embedding_at(provider, rate_limiter=shared)
    with penstock.install(limiter, hosts=[provider.base_url]):
        for model in (llm, copy.deepcopy(llm)):
            model.chat(QUESTION)
            list(model.stream_chat(QUESTION))
        embedding.get_text_embedding_batch(["text"] * 25)
    assert equal(provider, limiter).calls == 2 * 2 + 3
    penstock.ungovern(llm)
    assert (llm.rate_limiter, llm.max_retries) == (None, llm_at(provider).max_retries)


def test_a_native_hook_and_install_do_not_count_twice(provider: FakeProvider) -> None:
    class Bare(MockLLM):
        """A model on a client that `govern` does not see: it is made for each call."""

        def chat(self, messages: Any, **more: Any) -> Any:
            import httpx

            self.rate_limiter.acquire()
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": messages[0].content}]}
            return httpx.post(f"{provider.base_url}/chat/completions", json=body, headers={"authorization": "Bearer x"})

    limiter = gate()
    llm = Bare()
    llm.rate_limiter = RateLimiter(limiter)
    with penstock.install(limiter, hosts=[provider.base_url]):
        for _ in range(3):
            llm.chat(QUESTION)
    assert equal(provider, limiter).calls == 3


# Budgets.


def test_a_budget_ends_an_agent_and_an_ingestion(provider: FakeProvider) -> None:
    limiter = gate()
    llm, embedding = penstock.govern(llm_at(provider), limiter), penstock.govern(embedding_at(provider), limiter)

    async def loop() -> None:
        agent = FunctionAgent(tools=[multiply], llm=llm, streaming=False)
        while True:
            await agent.run("What is 6 times 7?")

    with pytest.raises(penstock.BudgetExceeded) as caught, penstock.budget(calls=5) as spent:
        asyncio.run(loop())
    assert (caught.value.dimension, caught.value.spent, caught.value.limit, spent.calls) == ("calls", 5, 5, 5)
    with pytest.raises(penstock.BudgetExceeded) as caught, penstock.budget(tokens=400) as spent:
        VectorStoreIndex.from_documents(documents(200), embed_model=embedding)
    assert caught.value.dimension == "tokens"
    assert 0 < spent.tokens <= 400
    settled(limiter)
    assert equal(provider, limiter).calls == 5 + spent.calls
