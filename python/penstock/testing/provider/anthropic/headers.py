"""How Anthropic writes quotas down: ``anthropic-ratelimit-*`` headers, with times as RFC 3339 has them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from ..policy import NANOSECONDS
from ..quota import Level

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["quota_headers"]

NAMES = {"requests": "requests", "tokens": "tokens", "input_tokens": "input-tokens", "output_tokens": "output-tokens"}


def quota_headers(levels: Mapping[str, Level], now: float) -> dict[str, str]:
    """Write ``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}``.

    Remaining tokens are to the nearest thousand. Resets are when a quota is full again, in whole seconds rounded down,
    so that one that is full already was so in the past, as in recorded answers. ``tokens`` is both kinds together.
    """
    shown = dict(levels)
    parts = [levels[name] for name in ("input_tokens", "output_tokens") if name in levels]
    if parts and "tokens" not in shown:
        shown["tokens"] = Level(
            sum(level.limit for level in parts),
            sum(level.remaining for level in parts),
            max(level.reset for level in parts),
        )
    headers = {}
    for dimension, level in shown.items():
        prefix = f"anthropic-ratelimit-{NAMES[dimension]}"
        headers[f"{prefix}-limit"] = str(level.limit)
        headers[f"{prefix}-remaining"] = str(_rounded(level.remaining) if "tokens" in dimension else level.remaining)
        headers[f"{prefix}-reset"] = rfc3339(now + level.reset / NANOSECONDS)
    return headers


def _rounded(tokens: int) -> int:
    """To the nearest thousand."""
    return (tokens + 500) // 1000 * 1000


def rfc3339(moment: float) -> str:
    """Write a time as ``2025-08-21T12:40:59Z``."""
    return datetime.datetime.fromtimestamp(int(moment), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
