"""Gemini's dialect: content, streamed or not, embeddings, and what is free.

Tokens are those of the prompt alone. No answer has a header about quotas; a refusal tells in its body which quota is
short and how long to wait. For a quota of a day it says one second, whatever is true.
"""

# ruff: noqa: D102 - the methods are documented in Dialect

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dialect import Dialect, event
from .content import read_content
from .embeddings import read_embeddings
from .errors import OVERLOADED, fault_problem, problem, refusal_problem
from .free import read_free

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..dialect import Call, Incoming, Problem
    from ..fault import Fault
    from ..quota import Level, Refusal

__all__ = ["Gemini"]

PREFIXES = ("/v1beta/", "/v1alpha/", "/v1beta1/")
GENERATING = ("generateContent", "streamGenerateContent")
EMBEDDING = ("embedContent", "batchEmbedContents")


class Gemini(Dialect):
    """The dialect, for callers with any of the accepted keys (None: any key at all)."""

    name = "gemini"

    def claims(self, path: str, headers: Mapping[str, str]) -> bool:
        return path.startswith(PREFIXES) or ("x-goog-api-key" in headers and path.startswith("/v1/"))

    def key(self, request: Incoming) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bearer = token.strip() or None if scheme.lower() == "bearer" else None
        return request.headers.get("x-goog-api-key") or request.query.get("key") or bearer

    def read(self, request: Incoming) -> Call:
        name, _, action = request.path.rpartition("/")[2].partition(":")
        free = read_free(request, name, action, self.settings.models)
        if free is None and (action not in (*GENERATING, *EMBEDDING) or request.method != "POST"):
            raise problem(404, "NOT_FOUND", f"Requested entity was not found: {request.path}", counts=False)
        self._authenticate(self.key(request))
        models = self.settings.models
        if free is not None:
            return free
        if models is not None and name not in models:
            message = f"models/{name} is not found for API version v1beta, or is not supported for {action}."
            raise problem(404, "NOT_FOUND", message, counts=False, model=name)
        if action in EMBEDDING:
            return read_embeddings(request, name, action)
        return read_content(self, request, name, action)

    def _authenticate(self, key: str | None) -> None:
        keys = self.settings.keys
        if key is None or (keys is not None and key not in keys):
            message = "API key not valid. Please pass a valid API key."
            raise problem(400, "INVALID_ARGUMENT", message, counts=False)

    def headers(self, number: int, milliseconds: int) -> dict[str, str]:  # noqa: ARG002 - it has no ids
        return {"server-timing": f"gfet4t7; dur={milliseconds}", "x-content-type-options": "nosniff"}

    def quota_headers(self, levels: Mapping[str, Level], now: float) -> dict[str, str]:  # noqa: ARG002
        return {}

    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        return refusal_problem(call.model, refusal)

    def fault(self, fault: Fault, model: str) -> Problem:
        return fault_problem(fault, model)

    def overloaded_event(self, call: Call) -> bytes:  # noqa: ARG002
        return event(OVERLOADED)

    def bad_wish(self, message: str, model: str) -> Problem:
        return problem(400, "INVALID_ARGUMENT", message, model=model)
