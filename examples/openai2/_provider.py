"""What the examples talk to: OpenAI if OPENAI_API_KEY is set, else a strict provider on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from penstock.testing.provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# No telemetry, no look at the network for a model's price; and what frameworks say of failures beside raising them.
os.environ.setdefault("LANGSMITH_TRACING", "false")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
for name in ("asyncio", "LiteLLM", "openai"):
    logging.getLogger(name).setLevel(logging.CRITICAL)

MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
EMBEDDING_MODEL = os.environ.get("OPENAI_EMBEDDING_MODEL", "text-embedding-3-small")
#: What the provider on this machine allows each minute; yours is on your account's limits page.
REQUESTS = int(os.environ.get("OPENAI_RPM", "600"))
TOKENS = int(os.environ.get("OPENAI_TPM", "200000"))
#: Whether there is a real key. Examples then run as they are, and cost a few cents.
REAL = bool(os.environ.get("OPENAI_API_KEY"))


@contextlib.contextmanager
def provider(*, refusals: bool, requests: int = REQUESTS, tokens: int = TOKENS) -> Iterator[dict[str, Any]]:
    """Give what a model is told to find its provider, and say in the end what the provider saw.

    On this machine it must be true that there were refusals, or that there were none (of 20 requests not one): else the
    example fails.
    """
    if REAL:
        yield {}
        return
    burst = {"requests": max(requests // 40, 1), "tokens": tokens // 40}  # of the minute's quota, 1.5 seconds
    with FakeProvider(requests=requests, tokens=tokens, burst=burst, latency=0.1) as running:
        yield {"base_url": running.base_url, "api_key": "any"}
        summary = running.summary()
    print(f"    the provider saw {summary.sent} requests and refused {summary.refused}")
    # A machine that stands still for half a second may send a request of this second into the next.
    if (summary.refused > summary.sent // 20) != refusals:
        sys.exit(f"{summary.refused} refusals where there should be {'some' if refusals else 'none'}")


def failed(results: Iterable[object]) -> int:
    """How many of the results are exceptions."""
    return sum(isinstance(result, BaseException) for result in results)
