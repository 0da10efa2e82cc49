"""How OpenAI writes quotas down: durations, ``x-ratelimit-*`` headers, and the text of a refusal.

Formats from recorded answers, such as ``x-ratelimit-reset-requests: 12ms`` and "Rate limit reached for gpt-4o in
organization org-... on tokens per min (TPM): Limit 30000, Used 30000, Requested 890. Please try again in 1.78s."
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .policy import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .quota import Level, Refusal

__all__ = ["go_duration", "quota_headers", "refusal_message", "retry_headers"]

MILLISECOND = 1_000_000
MINUTE = 60 * NANOSECONDS
HOUR = 60 * MINUTE

# The periods that have a name in OpenAI's messages. Any other (tests like short ones) is called a minute, the only name
# that clients know for a period short enough to wait for.
PERIODS = {24 * HOUR: ("day", "D")}
DEFAULT_PERIOD = ("min", "M")


def go_duration(nanoseconds: int) -> str:
    """Write a duration as Go's ``Duration.String`` does: ``0s``, ``12ms``, ``1.78s``, ``6m0s``, ``2h22m12.864s``."""
    if nanoseconds < 0:
        return "-" + go_duration(-nanoseconds)
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", MILLISECOND)):
        if nanoseconds < size * 1_000:
            return _decimal(nanoseconds, size) + unit
    hours, rest = divmod(nanoseconds, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    text = _decimal(rest, NANOSECONDS) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, unit: int) -> str:
    """``value / unit`` exactly, without trailing zeros; ``unit`` is a power of ten."""
    whole, fraction = divmod(value, unit)
    if not fraction:
        return str(whole)
    return f"{whole}.{str(fraction).zfill(len(str(unit)) - 1).rstrip('0')}"


def quota_headers(levels: Mapping[str, Level]) -> dict[str, str]:
    """Write ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``; reset is the time to full, to the nearest ms."""
    headers = {}
    for dimension, level in levels.items():
        headers[f"x-ratelimit-limit-{dimension}"] = str(level.limit)
        headers[f"x-ratelimit-remaining-{dimension}"] = str(level.remaining)
        nearest = (level.reset + MILLISECOND // 2) // MILLISECOND * MILLISECOND
        headers[f"x-ratelimit-reset-{dimension}"] = go_duration(nearest)
    return headers


def retry_headers(wait: int) -> dict[str, str]:
    """Write ``retry-after`` in seconds and ``retry-after-ms``, both rounded up, so that who obeys has waited enough."""
    return {"retry-after": str(-(-wait // NANOSECONDS)), "retry-after-ms": str(-(-wait // MILLISECOND))}


def refusal_message(model: str, organization: str, refusal: Refusal) -> str:
    """Write what a 429 says: that the request is too large, or else how long to wait (rounded up to 1 ms)."""
    period, letter = PERIODS.get(refusal.per, DEFAULT_PERIOD)
    what = f"for {model} in organization {organization} on {refusal.dimension} per {period}"
    what += f" ({refusal.dimension[0].upper()}P{letter}): Limit {refusal.limit}"
    if refusal.wait is None:
        return (
            f"Request too large {what}, Requested {refusal.requested}. "
            "The input or output tokens must be reduced in order to run successfully."
        )
    wait = go_duration(-(-refusal.wait // MILLISECOND) * MILLISECOND)
    return (
        f"Rate limit reached {what}, Used {refusal.used}, Requested {refusal.requested}. Please try again in {wait}. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )
