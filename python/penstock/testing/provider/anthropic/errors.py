"""What Anthropic says when something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dialect import Problem, encode

if TYPE_CHECKING:
    from ..fault import Fault
    from ..quota import Refusal

__all__ = ["OVERLOADED", "fault_problem", "problem", "rate_limit"]

OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
KINDS = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
}
MORE = (
    "For details, refer to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for current "
    "usage. Please reduce the prompt length or the maximum tokens requested, or try again later. You may also contact "
    "sales at https://www.anthropic.com/contact-sales to discuss your options for a rate limit increase."
)


def problem(
    status: int,
    kind: str,
    message: str,
    *,
    counts: bool = True,
    model: str | None = None,
    headers: dict[str, str] | None = None,
) -> Problem:
    """Make an answer that is an error."""
    body = encode({"type": "error", "error": {"type": kind, "message": message}})
    return Problem(status, body, headers or {}, counts=counts, model=model)


def rate_limit(refusal: Refusal, organization: str, model: str, seconds: int) -> Problem:
    """Write the refusal for want of quota; ``retry-after`` in whole seconds."""
    message = (
        f"This request would exceed your organization's rate limit of {refusal.limit:,} {KINDS[refusal.dimension]} per "
        f"minute (org: {organization}, model: {model}). {MORE}"
    )
    return problem(429, "rate_limit_error", message, model=model, headers={"retry-after": str(seconds)})


def fault_problem(fault: Fault, model: str) -> Problem:
    """Write the answer of a fault, as published ones have it."""
    status, body = _fault(fault, model)
    headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
    if fault.kind == "throttled" and not headers:
        headers["retry-after"] = "1"  # without one, a 429 of Anthropic's is a spend cap
    return Problem(fault.status or status, body, {**headers, **fault.headers}, counts=False, model=model)


def _fault(fault: Fault, model: str) -> tuple[int, bytes]:
    if fault.kind == "overloaded":
        return 529, encode(OVERLOADED)
    if fault.kind == "insufficient_quota":
        text = (
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
            "purchase credits."
        )
        return 400, _body("invalid_request_error", text)
    if fault.kind == "oversize":
        return 413, _body("request_too_large", "Request exceeds the maximum allowed number of bytes.")
    if fault.kind == "daily":
        # There is no daily quota; what no retry cures today is the spend cap, a 429 without retry-after.
        error = {
            "type": "rate_limit_error",
            "message": "This request would exceed your account's spend limit.",
            "details": {"error_code": "enforced_spend_limit_reached"},
        }
        return 429, encode({"type": "error", "error": error})
    if fault.kind == "throttled":
        text = f"This request would exceed your organization's rate limit of 50 requests per minute (model: {model})."
        return 429, _body("rate_limit_error", text)
    if fault.kind == "status":
        return 500, fault.body if isinstance(fault.body, bytes) else fault.body.encode()
    return 500, _body("api_error", "Internal server error")


def _body(kind: str, message: str) -> bytes:
    return encode({"type": "error", "error": {"type": kind, "message": message}})
