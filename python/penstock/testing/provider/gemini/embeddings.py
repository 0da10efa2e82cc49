"""Gemini's ``embedContent`` and ``batchEmbedContents``."""

# ruff: noqa: D102 - the methods are documented in Call

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dialect import Call, encode, json_object
from ..openai.embeddings import vector
from ..tokens import estimate
from .content import characters
from .errors import problem

if TYPE_CHECKING:
    from ..dialect import Incoming

__all__ = ["Embeddings", "read_embeddings"]

DEFAULT_DIMENSIONS = 3072  # of gemini-embedding-001


class Embeddings(Call):
    """Vectors for one or more contents."""

    def __init__(self, model: str, contents: list[Any], dimensions: int, *, batch: bool) -> None:
        self.model = model
        self._contents = contents
        self._dimensions = dimensions
        self._batch = batch
        self.tokens_in = sum(estimate(characters({"contents": [content]})) for content in contents)
        self.cost = {"requests": len(contents), "tokens": self.tokens_in, "input_tokens": self.tokens_in}

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002 - embeddings carry neither
        vectors = [{"values": vector(encode(content), self._dimensions)} for content in self._contents]
        return encode({"embeddings": vectors} if self._batch else {"embedding": vectors[0]})


def read_embeddings(request: Incoming, model: str, action: str) -> Embeddings:
    """Check a request for embeddings as Gemini does, and count it: each content is a request of its own."""
    body = json_object(request.body) or {}
    batch = action == "batchEmbedContents"
    asked = body.get("requests") if batch else [body]
    contents = [item.get("content") for item in asked if isinstance(item, dict)] if isinstance(asked, list) else []
    if not contents or not all(isinstance(content, dict) for content in contents):
        raise problem(400, "INVALID_ARGUMENT", "* content is not specified", model=model)
    first = asked[0] if isinstance(asked, list) else {}
    wish = first.get("outputDimensionality")
    dimensions = wish if type(wish) is int and 1 <= wish <= DEFAULT_DIMENSIONS else DEFAULT_DIMENSIONS
    return Embeddings(model, contents, dimensions, batch=batch)
