"""What costs nothing at Gemini: lists of models, counts of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dialect import Free, json_object
from ..tokens import estimate
from .content import characters

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..dialect import Incoming

__all__ = ["read_free"]

MODELS = ("gemini-2.5-flash", "gemini-embedding-001")


def read_free(request: Incoming, name: str, action: str, models: Collection[str] | None) -> Free | None:
    """Answer a request that costs nothing; None if it is none."""
    if action == "countTokens" and request.method == "POST":
        body = json_object(request.body) or {}
        inner = body.get("generateContentRequest")
        return Free({"totalTokens": estimate(characters(inner if isinstance(inner, dict) else body))})
    if request.method != "GET" or action:
        return None
    if name == "models":
        return Free({"models": [_model(model) for model in sorted(models or MODELS)]})
    return Free(_model(name)) if "/models/" in request.path else None


def _model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
