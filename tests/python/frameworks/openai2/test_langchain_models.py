"""Governed models are what they were: type, settings, copies, pickles, cache keys. Ungoverned, all is as before."""

import asyncio
import copy
import pickle
import re

import pytest
from chat_models import MAKERS, anthropic, openai, plain
from counting import at_gate, equal, gate, settled
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumps
from langchain_openai import OpenAIEmbeddings
from plain_models import PlainChat, PlainEmbeddings

import penstock
from penstock import AcquireTimeout, Limiter, Rate

SHARED = ("openai", "azure", "anthropic")


@pytest.mark.parametrize("name", MAKERS)
def test_type_settings_and_what_is_dumped_stay(provider, name) -> None:
    governed, other = (MAKERS[name](provider, tags=["a"]) for _ in range(2))
    assert penstock.govern(governed, gate()) is governed
    assert type(governed).__name__ == type(other).__name__
    assert type(governed).__module__ == type(other).__module__
    assert isinstance(governed, type(other))
    assert isinstance(governed, BaseChatModel)
    if name in SHARED:
        assert type(governed) is type(other)
    assert governed.model_dump() == other.model_dump()
    assert dumps(governed) == dumps(other)
    assert re.sub("0x[0-9a-f]+", "", repr(governed)) == re.sub("0x[0-9a-f]+", "", repr(other))
    assert governed._get_llm_string() == other._get_llm_string()
    assert governed.get_lc_namespace() == other.get_lc_namespace()


@pytest.mark.parametrize("name", MAKERS)
def test_copies_are_governed_too(provider, name) -> None:
    limiter = gate()
    llm = penstock.govern(MAKERS[name](provider), limiter)
    for made in (llm.model_copy(), llm.model_copy(update={"tags": ["b"]}), copy.copy(llm)):
        made.invoke("Hello")
        asyncio.run(made.ainvoke("Hello"))
    assert equal(provider, limiter).calls == 6


@pytest.mark.parametrize("name", MAKERS)
def test_ungoverned_it_is_as_before(provider, name) -> None:
    limiter = gate()
    llm = MAKERS[name](provider)
    before = dict(llm.__dict__)
    penstock.govern(llm, limiter)
    llm.invoke("Hello")
    assert penstock.ungovern(llm) is llm
    assert llm.__dict__.keys() - {"_serialized"} == before.keys() - {"_serialized"}
    assert all(llm.__dict__[name] is value for name, value in before.items() if name != "_serialized")
    assert type(llm) is type(MAKERS[name](provider))
    llm.invoke("Hello")
    asyncio.run(llm.ainvoke("Hello"))
    assert (at_gate(limiter).calls, len(provider.log)) == (1, 3)
    penstock.ungovern(llm)


@pytest.mark.parametrize("name", MAKERS)
def test_governing_again_changes_the_limiter(provider, name) -> None:
    first, second = gate(), gate()
    llm = MAKERS[name](provider)
    penstock.govern(penstock.govern(llm, first), second)
    llm.invoke("Hello")
    assert at_gate(first).calls == 0
    assert equal(provider, second).calls == 1


@pytest.mark.parametrize("make", [openai, anthropic])
def test_others_of_the_same_address_are_not_governed(provider, make) -> None:
    # LangChain keeps one HTTP client for all of them.
    limiter = gate()
    other = make(provider)
    other.invoke("Hello")
    llm = penstock.govern(make(provider), limiter)
    for model in (llm, other, make(provider)):
        model.invoke("Hello")
        asyncio.run(model.ainvoke("Hello"))
    assert at_gate(limiter).calls == 2
    # An ungoverned client of httpx sends some requests twice, in the second `asyncio.run`.
    assert len(provider.log) >= 7


def test_each_of_two_models_of_an_address_has_its_own_limiter(provider) -> None:
    limiters = gate(), gate()
    for limiter in limiters:
        penstock.govern(openai(provider), limiter).invoke("Hello")
    assert [at_gate(limiter).calls for limiter in limiters] == [1, 1]


def test_the_governed_model_may_be_collected_and_others_go_on(provider) -> None:
    import gc

    other = openai(provider)
    for _ in range(3):
        llm = penstock.govern(openai(provider), gate())
        llm.invoke("Hello")
        del llm
        gc.collect()
    assert other.invoke("Hello").content


@pytest.mark.parametrize("make", [plain, anthropic])
def test_what_could_be_pickled_still_can_and_stays_governed(provider, make) -> None:
    limiter = gate()
    llm = penstock.govern(make(provider), limiter)
    for made in (pickle.loads(pickle.dumps(llm)), copy.deepcopy(llm)):
        assert type(made).__name__ == type(llm).__name__
        made.invoke("Hello")
        asyncio.run(made.ainvoke("Hello"))
    llm.invoke("Hello")
    assert equal(provider, limiter).calls == 5


def test_embeddings_without_a_client_are_pickled(provider) -> None:
    limiter = gate()
    embeddings = penstock.govern(PlainEmbeddings(provider.base_url), limiter)
    for made in (pickle.loads(pickle.dumps(embeddings)), copy.copy(embeddings), copy.deepcopy(embeddings)):
        assert made.embed_query("abcd")
    assert equal(provider, limiter).calls == 3
    penstock.ungovern(embeddings)
    assert type(embeddings) is PlainEmbeddings
    assert type(pickle.loads(pickle.dumps(embeddings))) is PlainEmbeddings


@pytest.mark.parametrize("name", ["openai", "plain"])
def test_cached_answers_cost_nothing(provider, name) -> None:
    limiter = gate()
    llm = penstock.govern(MAKERS[name](provider, cache=InMemoryCache()), limiter)
    assert llm.invoke("Hello").content == llm.invoke("Hello").content
    assert equal(provider, limiter).calls == 1


def test_usage_of_streams_is_reported_as_before(provider) -> None:
    # With `http_client=` ChatOpenAI no longer asks for it; governed, it still does.
    chunks = list(penstock.govern(openai(provider), gate()).stream("Hello"))
    usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    # The model is not asked to report, since its base URL is not OpenAI's; the gate asks, and keeps it to itself.
    assert usage == [chunk.usage_metadata for chunk in openai(provider).stream("Hello") if chunk.usage_metadata]


def test_a_model_with_http_clients_of_its_own(provider) -> None:
    import httpx

    limiter = gate()
    client, async_client = httpx.Client(), httpx.AsyncClient()
    llm = penstock.govern(openai(provider, http_client=client, http_async_client=async_client), limiter)
    assert llm.http_client is client
    llm.invoke("Hello")
    asyncio.run(llm.ainvoke("Hello"))
    assert equal(provider, limiter).calls == 2
    client.get(provider.base_url + "/models")
    assert at_gate(limiter).calls == 2


def test_many_event_loops_and_threads(provider) -> None:
    limiter = gate()
    llm = penstock.govern(openai(provider), limiter)
    for _ in range(4):
        asyncio.run(llm.ainvoke("Hello"))
    llm.batch(["Hello"] * 8)
    assert equal(provider, limiter).calls == 12


@pytest.mark.parametrize("name", MAKERS)
def test_a_wait_that_is_too_long_is_told_at_once_and_sent_never(provider, name) -> None:
    limiter = Limiter(requests=Rate(1, 3600))
    llm = penstock.govern(MAKERS[name](provider), limiter)
    llm.invoke("Hello")
    with penstock.scope(timeout=0.5):
        for call in (
            lambda: llm.invoke("Hello"),
            lambda: list(llm.stream("Hello")),
            lambda: asyncio.run(llm.ainvoke("x")),
        ):
            with pytest.raises(AcquireTimeout) as raised:
                call()
            assert raised.value.retry_after > 60
            assert isinstance(raised.value, TimeoutError)
    assert len(provider.log) == 1
    settled(limiter)


def test_a_tool_that_asks_the_model_is_counted(provider) -> None:
    from langchain_core.tools import tool

    limiter = gate()
    llm = penstock.govern(openai(provider), limiter)

    @tool
    def think(about: str) -> str:
        """Think."""
        return str(llm.invoke(about).content)

    create_agent(llm, [think]).invoke({"messages": [("user", "Think")]})
    assert equal(provider, limiter).calls == 3


def test_a_mapping_of_models(provider) -> None:
    large, small = gate(), gate()
    limiters = {"gpt-4o": large, "*-mini": small}
    penstock.govern(openai(provider), limiters).invoke("Hello")
    assert penstock.govern(PlainChat(base_url=provider.base_url, model="gpt-4o"), limiters).invoke("Hello")
    assert (at_gate(large).calls, at_gate(small).calls) == (1, 1)


def test_keys_are_inherited_by_threads_and_tasks(provider) -> None:
    limiter = gate(requests=Rate(1000, 3600, burst=1000), per_key={"requests": Rate(2, 3600, burst=2)})
    models = [penstock.govern(MAKERS[name](provider), limiter) for name in ("openai", "plain")]
    for number, llm in enumerate(models):
        with penstock.scope(key=f"tenant {number}", timeout=0):
            llm.batch(["Hello", "Hello"])
            with pytest.raises(AcquireTimeout):
                asyncio.run(llm.ainvoke("Hello"))
        with penstock.scope(key=f"other {number}", timeout=0):
            asyncio.run(llm.abatch(["Hello", "Hello"]))
            with pytest.raises(AcquireTimeout):
                llm.invoke("Hello")
    assert len(provider.log) == 8


def test_embeddings_of_openai_are_what_they_were(provider) -> None:
    made = OpenAIEmbeddings(base_url=provider.origin + "/v1", api_key="any", check_embedding_ctx_length=False)
    client = made.client
    penstock.govern(made, gate())
    assert type(made) is OpenAIEmbeddings
    penstock.ungovern(made)
    assert made.client is client
