"""The patterns of articles on LlamaIndex and AutoGen, in real time against a quota that the limiter was told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.openai import OpenAIChatCompletionClient
from llama_index.core import Document, VectorStoreIndex
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI
from quota import FULL, against, many
from test_autogen import INFO

import penstock
from penstock.testing.provider import FakeProvider

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
]


def autogen_client(provider: FakeProvider) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(model="gpt-4o-mini", base_url=provider.base_url, api_key="any", model_info=INFO)


def embedding(provider: FakeProvider) -> OpenAIEmbedding:
    return OpenAIEmbedding(api_base=provider.base_url, api_key="any", embed_batch_size=10)


def test_llamaindex_embeddings_in_batches() -> None:
    with against(300, "LlamaIndex, 50 batches of embeddings") as (provider, limiter):
        model = penstock.govern(embedding(provider), limiter)
        texts = [f"text {number}" for number in range(10 * many(50))]
        assert len(asyncio.run(model.aget_text_embedding_batch(texts))) == len(texts)


def test_llamaindex_ingestion() -> None:
    with against(300, "LlamaIndex, from_documents of 500") as (provider, limiter):
        model = penstock.govern(embedding(provider), limiter)
        documents = [Document(text=f"Document {number}.") for number in range(10 * many(50))]
        VectorStoreIndex.from_documents(documents, embed_model=model)


def test_llamaindex_gather() -> None:
    with against(300, "LlamaIndex, gather of 100 achat") as (provider, limiter):
        llm = penstock.govern(OpenAI(model="gpt-4o-mini", api_base=provider.base_url, api_key="any"), limiter)

        async def main() -> None:
            await asyncio.gather(*(llm.acomplete(f"Question {number}?") for number in range(many(100))))

        asyncio.run(main())


def test_autogen_agents() -> None:
    with against(300, "AutoGen, 60 agents at once") as (provider, limiter):
        client = penstock.govern(autogen_client(provider), limiter)

        async def main() -> None:
            agents = [AssistantAgent(f"agent_{number}", model_client=client) for number in range(many(60))]
            results = await asyncio.gather(*(agent.run(task="What is a penstock?") for agent in agents))
            assert all(result.messages for result in results)

        asyncio.run(main())


def test_autogen_teams() -> None:
    with against(60 if FULL else 300, "AutoGen, 8 round-robin teams") as (provider, limiter):
        client = penstock.govern(autogen_client(provider), limiter)

        def team() -> Any:
            agents = [AssistantAgent(name, model_client=client) for name in ("writer", "critic")]
            return RoundRobinGroupChat(agents, termination_condition=MaxMessageTermination(5))

        async def main() -> None:
            results = await asyncio.gather(*(team().run(task="Write a line.") for _ in range(8)))
            assert all(len(result.messages) == 5 for result in results)

        asyncio.run(main())
