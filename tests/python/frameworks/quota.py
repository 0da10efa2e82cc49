"""Real time against a quota: what a run of many calls comes to when the limiter is told what the provider allows.

In CI a few calls tell whether anything is refused; ``PENSTOCK_SOAK=1`` makes as many as the patterns that users meet,
and holds the time to 1.1 of the optimum. Figures of such a run are on the frameworks' pages in ``docs/``.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock import Limiter, Rate
from penstock.testing.provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = bool(os.environ.get("PENSTOCK_SOAK"))
#: What the provider lets through at once after a pause, and what of it the limiter uses; the rest is paced. What is
#: left is room for a first request that arrives late, on a machine that does other things: 1.2 seconds in CI.
BURST = 10
USED = BURST - 1 if FULL else 4


def many(full: int) -> int:
    """How many calls a pattern makes: all of them, or as many as take three seconds."""
    return full if FULL else min(full, 25)


@contextmanager
def against(requests: int, name: str) -> Iterator[tuple[FakeProvider, Limiter]]:
    """A provider with a token bucket of so many requests per minute, and a limiter of its shape.

    In the end nothing has been refused, nothing is held, and the time is near the optimum: that of a client which knows
    the bucket.
    """
    limiter = Limiter(requests=Rate(requests, per=60, burst=USED, window=False), concurrency=64)
    with FakeProvider(requests=requests, burst={"requests": BURST}, latency=0.05, latency_jitter=0.0) as provider:
        yield provider, limiter
        summary, log = provider.summary(), list(provider.log)
    # From the first request to the last, as the provider saw them: what frameworks do before that is theirs.
    took = log[-1].time - log[0].time
    optimum = max(summary.sent - BURST, 1) * 60 / requests
    print(
        f"\n{name}: {summary.sent} requests, {summary.refused} refused, {took:.1f} s, {took / optimum:.3f} of the best"
    )
    assert (summary.refused, summary.failed) == (0, 0)
    assert summary.sent > 0
    stats = limiter.stats()
    assert (stats.in_flight, stats.waiting, stats.granted) == (0, 0, summary.sent)
    # A machine that does other things meanwhile may take its time; one that has nothing else to do may not.
    assert took <= (1.1 * optimum if FULL else 3 * optimum + 10)
