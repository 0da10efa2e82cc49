"""The two sides of a run, compared: what the gate let through, and what reached the provider."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from penstock import Limiter, Rate

if TYPE_CHECKING:
    from penstock.testing.provider import FakeProvider

#: Nothing that is charged in a test leaves these windows before it ends.
DAY = 86_400.0
PLENTY = 10**12


class Count(NamedTuple):
    """Calls and tokens of a run, from one side of it."""

    calls: int
    tokens: int


def gate(**limits: object) -> Limiter:
    """A limiter that holds nothing back, and counts all; or one of these limits."""
    limits = limits or {
        "requests": Rate(PLENTY, DAY, burst=PLENTY),
        "tokens": Rate(PLENTY, DAY, burst=PLENTY),
        "concurrency": 64,
    }
    return Limiter(**limits)  # type: ignore[arg-type]


def at_gate(*limiters: Limiter) -> Count:
    """What limiters let through: requests charged, and tokens as they were settled.

    Both are read from the windows of the ledgers, so a call that an enclosing permit covers is counted once.
    """
    spent = {"requests": 0, "tokens": 0}
    for limiter in limiters:
        for level in limiter.stats().levels:
            spent[level.dimension] += level.rate.amount - level.window
    return Count(spent["requests"], spent["tokens"])


def at_server(provider: FakeProvider) -> Count:
    """What reached the provider: requests, and tokens as its answers reported them."""
    return Count(len(provider.log), sum(arrival.tokens_in + arrival.tokens_out for arrival in provider.log))


def settled(*limiters: Limiter) -> None:
    """Wait until no permit is out: a stream that was dropped gives its own back when it is collected."""
    until = time.monotonic() + 5
    while any(limiter.stats().in_flight or limiter.stats().waiting for limiter in limiters):
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    for limiter in limiters:
        stats = limiter.stats()
        assert stats.in_flight == 0, f"permits that are still out:\n{stats}"
        assert stats.waiting == 0, f"calls that still wait:\n{stats}"


def answered(provider: FakeProvider) -> None:
    """Wait until the provider, too, knows that its answers have ended: it counts what it streams as it goes."""
    until = time.monotonic() + 5
    while provider.summary().in_flight and time.monotonic() < until:
        time.sleep(0.01)


def equal(provider: FakeProvider, *limiters: Limiter) -> Count:
    """Assert that both sides saw the same calls and the same tokens, and that nothing is held; gives the count."""
    settled(*limiters)
    answered(provider)
    seen, sent = at_gate(*limiters), at_server(provider)
    assert seen == sent, f"at the gate {seen}, at the server {sent}"
    assert sent.calls > 0, "nothing reached the provider: the test proves nothing"
    return sent
