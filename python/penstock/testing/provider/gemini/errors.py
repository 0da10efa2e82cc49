"""What Gemini says when something is wrong: ``google.rpc.Status``, with details of quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dialect import Problem, encode
from ..policy import DAY, NANOSECONDS

if TYPE_CHECKING:
    from ..fault import Fault
    from ..quota import Refusal

__all__ = ["OVERLOADED", "fault_problem", "problem", "refusal_problem"]

TYPES = "type.googleapis.com/google.rpc."
LINK = "https://ai.google.dev/gemini-api/docs/rate-limits"
SPENT = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    f"head to: {LINK}. "
)
OVERLOADED = {
    "error": {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}
}
REQUESTS = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
TOKENS = "generativelanguage.googleapis.com/generate_content_free_tier_input_token_count"


def problem(
    status: int, code: str, message: str, *, counts: bool = True, model: str | None = None, details: Any = None
) -> Problem:
    """Make an answer that is an error."""
    error = {"code": status, "message": message, "status": code}
    if details is not None:
        error["details"] = details
    return Problem(status, encode({"error": error}), counts=counts, model=model)


def quota_problem(model: str, dimension: str, amount: int, wait: float, *, daily: bool) -> Problem:
    """Write the refusal for want of quota, as recorded; a daily one states a second, as recorded too."""
    period = "PerDay" if daily else "PerMinute"
    if dimension == "requests":
        metric, name = REQUESTS, f"GenerateRequests{period}PerProjectPerModel-FreeTier"
    else:
        metric, name = TOKENS, f"GenerateContentInputTokensPerModel{period}-FreeTier"
    violation = {
        "quotaMetric": metric,
        "quotaId": name,
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": str(amount),
    }
    delay = "1s" if daily else f"{wait:.9f}".rstrip("0").rstrip(".") + "s"
    details = [
        {
            "@type": f"{TYPES}Help",
            "links": [{"description": "Learn more about Gemini API quotas", "url": LINK}],
        },
        {"@type": f"{TYPES}QuotaFailure", "violations": [violation]},
        {"@type": f"{TYPES}RetryInfo", "retryDelay": delay},
    ]
    message = f"{SPENT}\n* Quota exceeded for metric: {metric}, limit: {amount}\nPlease retry in {delay}."
    return problem(429, "RESOURCE_EXHAUSTED", message, model=model, details=details)


def refusal_problem(model: str, refusal: Refusal) -> Problem:
    """Write the refusal for want of quota; one that is too large is told to wait for a period like any other."""
    wait = (refusal.per if refusal.wait is None else refusal.wait) / NANOSECONDS
    return quota_problem(model, refusal.dimension, refusal.limit, wait, daily=refusal.per == DAY)


def fault_problem(fault: Fault, model: str) -> Problem:
    """Write the answer of a fault, as published ones have it."""
    made = _fault(fault, model)
    return Problem(fault.status or made.status, made.body, dict(fault.headers), counts=False, model=model)


def _fault(fault: Fault, model: str) -> Problem:
    if fault.kind == "overloaded":
        return Problem(503, encode(OVERLOADED))
    if fault.kind == "insufficient_quota":
        text = (
            "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your "
            "project and billing."
        )
        return problem(429, "RESOURCE_EXHAUSTED", text)
    if fault.kind == "oversize":
        text = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
        return problem(400, "INVALID_ARGUMENT", text)
    if fault.kind == "daily":
        return quota_problem(model, "requests", 20, 1.0, daily=True)
    if fault.kind == "throttled":
        if fault.retry_after is None:
            return problem(429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later.")
        return quota_problem(model, "requests", 10_000, fault.retry_after, daily=False)
    if fault.kind == "status":
        return Problem(500, fault.body if isinstance(fault.body, bytes) else fault.body.encode())
    return problem(500, "INTERNAL", "An internal error has occurred. Please retry or report.")
