"""What OpenAI says when something goes wrong on its side, or with an account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import headers as wire
from ..dialect import Problem, encode, event
from ..policy import NANOSECONDS
from .body import error

if TYPE_CHECKING:
    from ..fault import Fault

__all__ = ["fault_problem", "overloaded_chat_event", "overloaded_response_event"]

OVERLOADED = {
    "code": "server_is_overloaded",
    "type": "service_unavailable_error",
    "message": "Our servers are currently overloaded. Please try again later.",
}
NO_MONEY = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
MORE = "Visit https://platform.openai.com/account/rate-limits to learn more."


def fault_problem(fault: Fault, model: str, organization: str) -> Problem:
    """Write the answer of a fault, as published ones have it."""
    status, body = _fault(fault, model, organization)
    headers = {} if fault.retry_after is None else wire.retry_headers(round(fault.retry_after * NANOSECONDS))
    return Problem(fault.status or status, body, {**headers, **fault.headers}, counts=False, model=model)


def _fault(fault: Fault, model: str, organization: str) -> tuple[int, bytes]:
    where = f"for {model} in organization {organization} on"
    if fault.kind == "overloaded":
        return 503, encode({"error": OVERLOADED})
    if fault.kind == "insufficient_quota":
        return 429, error(NO_MONEY, kind="insufficient_quota", code="insufficient_quota")
    if fault.kind == "oversize":
        text = (
            f"Request too large {where} tokens per min (TPM): Limit 30000, Requested 151125. "
            "The input or output tokens must be reduced in order to run successfully."
        )
        return 429, error(f"{text} {MORE}", kind="tokens", code="rate_limit_exceeded")
    if fault.kind == "daily":
        text = f"Rate limit reached {where} requests per day (RPD): Limit 200, Used 200, Requested 100. "
        return 429, error(f"{text}Please try again in 12h0m0s. {MORE}", kind="requests", code="rate_limit_exceeded")
    if fault.kind == "throttled":
        text = f"Rate limit reached {where} requests per min (RPM). {MORE}"
        return 429, error(text, kind="requests", code="rate_limit_exceeded")
    if fault.kind == "status":
        return 500, fault.body if isinstance(fault.body, bytes) else fault.body.encode()
    text = "The server had an error while processing your request. Sorry about that!"
    return 500, error(text, kind="server_error", code=None)


def overloaded_chat_event() -> bytes:
    """Write the error that ends a stream of chunks."""
    return event({"error": OVERLOADED})


def overloaded_response_event() -> bytes:
    """Write the event that ends a stream of the Responses API."""
    response = {"id": "resp_overloaded", "object": "response", "status": "failed", "error": OVERLOADED, "output": []}
    failed = {"type": "response.failed", "sequence_number": 999, "response": response}
    return event(failed, "response.failed")
