"""What Bedrock says when something is wrong: a message, and the kind in ``x-amzn-ErrorType``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dialect import Problem, encode
from .eventstream import message as event_message

if TYPE_CHECKING:
    from ..fault import Fault

__all__ = ["BUSY", "TOO_MANY", "fault_problem", "overloaded_event", "problem"]

NAMESPACE = "http://internal.amazon.com/coral/com.amazon.bedrock/"
TOO_MANY = {
    "requests": "Too many requests, please wait before trying again.",
    "tokens": "Too many tokens, please wait before trying again.",
}
BUSY = "Bedrock is unable to process your request."


def problem(status: int, kind: str, text: str, *, counts: bool = True, model: str | None = None) -> Problem:
    """Make an answer that is an error."""
    headers = {"x-amzn-ErrorType": f"{kind}:{NAMESPACE}"}
    return Problem(status, encode({"message": text}), headers, counts=counts, model=model)


def overloaded_event() -> bytes:
    """Write the exception that ends a stream."""
    kind = "serviceUnavailableException"
    body = encode({"message": BUSY})
    return event_message(body, exception_type=kind, content_type="application/json", message_type="exception")


def fault_problem(fault: Fault, model: str) -> Problem:
    """Write the answer of a fault, as published ones have it."""
    made = _fault(fault)
    headers = {**made.headers, **fault.headers}
    if fault.retry_after is not None:
        headers["x-amz-retry-after"] = str(round(fault.retry_after * 1000))
    return Problem(fault.status or made.status, made.body, headers, counts=False, model=model)


def _fault(fault: Fault) -> Problem:
    if fault.kind == "throttled":
        return problem(429, "ThrottlingException", TOO_MANY["requests"])
    if fault.kind == "overloaded":
        return problem(503, "ServiceUnavailableException", BUSY)
    if fault.kind in ("insufficient_quota", "daily"):
        text = "You have exceeded a service quota of your account."
        return problem(400, "ServiceQuotaExceededException", text)
    if fault.kind == "oversize":
        return problem(400, "ValidationException", "Input is too long for requested model.")
    if fault.kind == "status":
        return Problem(500, fault.body if isinstance(fault.body, bytes) else fault.body.encode())
    return problem(500, "InternalServerException", "The system encountered an unexpected error.")
