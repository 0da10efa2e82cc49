"""Anthropic's dialect: messages, streamed or not, and what is free.

Input and output tokens are in quotas apart. Input is estimated when a request arrives (a quarter of its characters);
output counts as it is made, and ``max_tokens`` does not ("does not factor into OTPM"): a request is refused while the
output quota is in debt. Tokens read from the cache do not count (the request header ``x-fake-cached-tokens`` has some).
"""

# ruff: noqa: D102 - the methods are documented in Dialect

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dialect import Dialect, Problem, event
from ..policy import NANOSECONDS
from . import headers as wire
from .errors import OVERLOADED, fault_problem, problem, rate_limit
from .free import read_free
from .messages import read_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..dialect import Call, Incoming
    from ..fault import Fault
    from ..quota import Level, Refusal

__all__ = ["Anthropic"]

MESSAGES = "/v1/messages"
ORGANIZATION = "00000000-0000-4000-8000-penstocktest"


class Anthropic(Dialect):
    """The dialect, for callers with any of the accepted keys (None: any key at all)."""

    name = "anthropic"

    def claims(self, path: str, headers: Mapping[str, str]) -> bool:
        return path.startswith(MESSAGES) or (path.startswith("/v1/models") and "anthropic-version" in headers)

    def key(self, request: Incoming) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return request.headers.get("x-api-key") or (token.strip() or None if scheme.lower() == "bearer" else None)

    def read(self, request: Incoming) -> Call:
        free = read_free(request, self.settings.models)
        if free is None and request.path != MESSAGES:
            raise problem(404, "not_found_error", "Not found", counts=False)
        if free is None and request.method != "POST":
            raise problem(405, "invalid_request_error", "Method Not Allowed", counts=False)
        self._authenticate(self.key(request))
        if "anthropic-version" not in request.headers:
            raise problem(400, "invalid_request_error", "anthropic-version: header is required", counts=False)
        return free if free is not None else read_message(self, request)

    def _authenticate(self, key: str | None) -> None:
        keys = self.settings.keys
        if key is None:
            raise problem(401, "authentication_error", "x-api-key header is required", counts=False)
        if keys is not None and key not in keys:
            raise problem(401, "authentication_error", "invalid x-api-key", counts=False)

    def headers(self, number: int, milliseconds: int) -> dict[str, str]:  # noqa: ARG002 - it does not say how long
        return {"request-id": f"req_{number:024d}", "anthropic-organization-id": ORGANIZATION}

    def quota_headers(self, levels: Mapping[str, Level], now: float) -> dict[str, str]:
        return wire.quota_headers(levels, now)

    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        if refusal.wait is None:
            # No single request is refused as too large for a quota: it is a throttle that never ends.
            return rate_limit(refusal, ORGANIZATION, call.model, -(-refusal.per // NANOSECONDS))
        return rate_limit(refusal, ORGANIZATION, call.model, -(-refusal.wait // NANOSECONDS))

    def fault(self, fault: Fault, model: str) -> Problem:
        return fault_problem(fault, model)

    def overloaded_event(self, call: Call) -> bytes:  # noqa: ARG002
        return event(OVERLOADED, "error")

    def bad_wish(self, message: str, model: str) -> Problem:
        return problem(400, "invalid_request_error", message, model=model)
