"""Amazon Bedrock's dialect: Converse and ConverseStream, and InvokeModel for Anthropic's models.

A request reserves the tokens of its prompt and ``maxTokens`` (64,000 if it has none), and is settled, when it is done,
to the prompt and five times the output of Claude, or the output of others. No answer has a header about quotas.
"""

# ruff: noqa: D102 - the methods are documented in Dialect

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..dialect import Dialect
from .converse import read_converse, read_invoke
from .errors import TOO_MANY, fault_problem, overloaded_event, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..dialect import Call, Incoming, Problem
    from ..fault import Fault
    from ..quota import Level, Refusal

__all__ = ["Bedrock"]

PATH = re.compile(r"/model/(.+)/(converse|converse-stream|invoke|invoke-with-response-stream)")
CREDENTIAL = re.compile(r"Credential=([^/,\s]+)")


class Bedrock(Dialect):
    """The dialect, for callers with any of the accepted keys (None: any at all): the ids of access keys."""

    name = "bedrock"
    settles = True

    def claims(self, path: str, headers: Mapping[str, str]) -> bool:  # noqa: ARG002
        return path.startswith("/model/")

    def key(self, request: Incoming) -> str | None:
        authorization = request.headers.get("authorization", "")
        found = CREDENTIAL.search(authorization)
        scheme, _, token = authorization.partition(" ")
        return found[1] if found else (token.strip() or None if scheme.lower() == "bearer" else None)

    def read(self, request: Incoming) -> Call:
        found = PATH.fullmatch(request.path)
        if found is None or request.method != "POST":
            raise problem(404, "UnknownOperationException", "Unknown operation", counts=False)
        keys, key = self.settings.keys, self.key(request)
        if key is None or (keys is not None and key not in keys):
            text = "The security token included in the request is invalid."
            raise problem(403, "UnrecognizedClientException", text, counts=False)
        model, action = unquote(found[1]), found[2]
        models = self.settings.models
        if models is not None and model not in models:
            text = "The provided model identifier is invalid."
            raise problem(400, "ValidationException", text, counts=False, model=model)
        if action.startswith("invoke"):
            return read_invoke(self, request, model, stream=action != "invoke")
        return read_converse(self, request, model, stream=action != "converse")

    def headers(self, number: int, milliseconds: int) -> dict[str, str]:
        return {
            "x-amzn-RequestId": f"00000000-0000-4000-8000-{number:012x}",
            "x-amzn-bedrock-invocation-latency": str(milliseconds),
        }

    def quota_headers(self, levels: Mapping[str, Level], now: float) -> dict[str, str]:  # noqa: ARG002
        return {}

    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        kind = "requests" if refusal.dimension == "requests" else "tokens"
        return problem(429, "ThrottlingException", TOO_MANY[kind], model=call.model)

    def fault(self, fault: Fault, model: str) -> Problem:
        return fault_problem(fault, model)

    def overloaded_event(self, call: Call) -> bytes:  # noqa: ARG002
        return overloaded_event()

    def bad_wish(self, message: str, model: str) -> Problem:
        return problem(400, "ValidationException", message, model=model)
