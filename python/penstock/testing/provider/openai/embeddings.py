"""Embeddings: vectors of length 1 that depend on the text alone."""

# ruff: noqa: D102 - the methods are documented in Call

from __future__ import annotations

import base64
import functools
import hashlib
import json
import struct
from typing import TYPE_CHECKING

from ..dialect import Call, encode
from ..tokens import estimate
from .body import integer, invalid, missing, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..prompt import JSONObject

__all__ = ["Embeddings", "read_embeddings", "unit_vector", "vector"]

DEFAULT_DIMENSIONS = 1536  # of text-embedding-3-small


class Embeddings(Call):
    """Vectors for one or more inputs."""

    def __init__(
        self, request: JSONObject, *, inputs: Sequence[bytes], tokens: int, dimensions: int, as_base64: bool
    ) -> None:
        self.model = request["model"]
        self.cost = {"requests": 1, "tokens": tokens, "input_tokens": tokens}
        self.tokens_in = tokens
        self._inputs = inputs
        self._dimensions = dimensions
        self._base64 = as_base64

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002 - embeddings do not say when
        data = [
            {"object": "embedding", "index": index, "embedding": self._vector(text)}
            for index, text in enumerate(self._inputs)
        ]
        usage = {"prompt_tokens": self.tokens_in, "total_tokens": self.tokens_in}
        # Mistral has an id, which its SDK insists on; OpenAI has none.
        name = f"embd-{number:032x}"
        return encode({"id": name, "object": "list", "data": data, "model": self.model, "usage": usage})

    def _vector(self, text: bytes) -> str | list[float]:
        if self._base64:
            return base64.b64encode(unit_vector(text, self._dimensions)).decode()
        return vector(text, self._dimensions)


def read_embeddings(request: JSONObject) -> Embeddings:
    """Check an embeddings request's body as OpenAI does, and count it."""
    text(request, "model", "you must provide a model parameter")
    given = request.get("input")
    if given is None:
        raise missing(request, "input")
    inputs = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not inputs:
        raise invalid(request, "input", "input cannot be an empty array", "invalid_type")
    if not all(item and (isinstance(item, str) or _is_tokens(item)) for item in inputs):
        wanted = "expected a string or an array of tokens, or an array of those, none of them empty"
        raise invalid(request, "input", wanted, "invalid_type")
    encoding = request.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise invalid(request, "encoding_format", "expected 'float' or 'base64'", "invalid_value")
    return Embeddings(
        request,
        inputs=[json.dumps(item).encode() for item in inputs],
        tokens=sum(estimate(len(item)) if isinstance(item, str) else len(item) for item in inputs),
        dimensions=integer(request, "dimensions", maximum=4096) or DEFAULT_DIMENSIONS,
        as_base64=encoding == "base64",
    )


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def vector(text: bytes, dimensions: int) -> list[float]:
    """Make a vector of length 1 that depends on the text alone."""
    return list(struct.unpack(f"<{dimensions}f", unit_vector(text, dimensions)))


def unit_vector(text: bytes, dimensions: int) -> bytes:
    """Make a vector of length 1 that depends on the text alone, as little-endian floats.

    Each bit of a hash gives a component its sign, so that making one costs microseconds and unlike texts are nearly
    orthogonal.
    """
    digest = hashlib.shake_128(text).digest(-(-dimensions // 8))
    return b"".join(map(_components(dimensions).__getitem__, digest))[: 4 * dimensions]


@functools.lru_cache(maxsize=16)
def _components(dimensions: int) -> list[bytes]:
    """For each byte of a hash, the eight components it stands for."""
    size = dimensions**-0.5
    return [struct.pack("<8f", *(size if byte >> bit & 1 else -size for bit in range(8))) for byte in range(256)]
