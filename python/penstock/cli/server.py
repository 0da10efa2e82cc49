"""The provider that the demo runs against, and what a client may be told of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock._core import Rate
from penstock.testing.provider import FakeProvider

if TYPE_CHECKING:
    from penstock.testing.provider import Enforcement

#: Seconds by which requests may differ in how long they are on their way, on this machine. A limiter's bucket must be
#: smaller than the provider's by what they refill: the limiter's refills from when the first request left, and the
#: provider's, which was full, only from when that arrived. Measured: 0.02 s, and 0.16 s on a busy machine.
_MARGIN = 0.2


@dataclass(frozen=True)
class Server:
    """A provider's quota and how it is enforced. Arguments as of `FakeProvider`, but for the burst."""

    requests: int
    tokens: int
    per: float
    enforcement: Enforcement
    burst: float
    """How many seconds' worth of quota a token bucket holds."""
    sub_window: float
    latency: float
    network_jitter: float
    seed: int

    def start(self) -> FakeProvider:
        """Make a fresh one; it runs once."""
        bursts = None
        if self.enforcement == "token_bucket":
            bursts = {
                "requests": self._share(self.requests, self.burst),
                "tokens": self._share(self.tokens, self.burst),
            }
        return FakeProvider(
            requests=self.requests,
            tokens=self.tokens,
            per=self.per,
            enforcement=self.enforcement,
            burst=bursts,
            sub_window=self.sub_window,
            latency=self.latency,
            network_jitter=self.network_jitter,
            seed=self.seed,
        )

    def published(self) -> tuple[Rate, Rate]:
        """Give the limits of requests and of tokens as a provider's web page has them: amounts, and nothing more."""
        return Rate(self.requests, self.per), Rate(self.tokens, self.per)

    def told(self) -> tuple[Rate | list[Rate], Rate]:
        """Give the limits of requests and of tokens in the provider's own shape."""
        if self.enforcement == "token_bucket":
            return self._bucket(self.requests), self._bucket(self.tokens)
        requests, tokens = self._window(self.requests), self._window(self.tokens)
        if self.enforcement == "sub_window":
            share = math.ceil(self.requests * self.sub_window / self.per)
            return [Rate(share, self.sub_window, burst=share), requests], tokens
        return requests, tokens

    @property
    def jitter(self) -> float:
        """How many seconds requests may differ in how long they are on their way."""
        return self.network_jitter + _MARGIN

    def _bucket(self, amount: int) -> Rate:
        return Rate(amount, self.per, burst=self._share(amount, self.burst - self.jitter), window=False)

    def _window(self, amount: int) -> Rate:
        """All of a window may leave at once; the guard does the rest."""
        return Rate(amount, self.per, burst=amount)

    def _share(self, amount: int, seconds: float) -> int:
        return min(amount, max(1, round(amount * seconds / self.per)))

    def __str__(self) -> str:
        """Say in a line how large the quota is and how it is enforced."""
        shape = f"by {self.enforcement.replace('_', ' ')}"
        if self.enforcement == "token_bucket":
            shape = f"in token buckets of {self.burst:g} s"
        return f"{self.requests:,} requests and {self.tokens:,} tokens per {self.per:g} s, {shape}"
