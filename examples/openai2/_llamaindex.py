"""The models of the examples for LlamaIndex, which calls the provider's address `api_base`."""

from __future__ import annotations

import logging
from typing import Any

from _provider import EMBEDDING_MODEL, MODEL
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

logging.getLogger("llama_index").setLevel(logging.ERROR)  # it warns before each retry


def llm(where: dict[str, Any], **more: Any) -> OpenAI:
    """Make the LLM."""
    return OpenAI(model=MODEL, **_renamed(where), **more)


def embedding(where: dict[str, Any], **more: Any) -> OpenAIEmbedding:
    """Make the model that embeds."""
    return OpenAIEmbedding(model=EMBEDDING_MODEL, **_renamed(where), **more)


def _renamed(where: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("base_url", "api_base"): value for name, value in where.items()}
