"""How long the provider takes: seeded, so that a run can be repeated."""

from __future__ import annotations

import random

__all__ = ["Latency", "NetworkJitter"]


class Latency:
    """The time from admission to the end of the answer.

    Log-normal, as response times of services are: ``median * exp(jitter * z)`` with a standard normal ``z``. So half of
    the answers take longer than ``median`` and, at ``jitter=0.2``, one in a hundred longer than 1.6 times that. With
    ``jitter=0`` all take exactly ``median`` seconds.
    """

    def __init__(self, median: float, jitter: float, seed: int) -> None:
        self._median = median
        self._jitter = jitter
        self._random = random.Random(f"latency {seed}")  # noqa: S311 - repeatable, not secret

    def draw(self) -> float:
        """Seconds for the next answer."""
        if self._jitter == 0:
            return self._median
        return self._median * self._random.lognormvariate(0, self._jitter)


class NetworkJitter:
    """The delay between a request's reaching the socket and its being counted: uniform from 0 to ``spread`` seconds.

    Loopback has next to none. With it, requests are counted late and out of order, as across a real network.
    """

    def __init__(self, spread: float, seed: int) -> None:
        self._spread = spread
        self._random = random.Random(f"network {seed}")  # noqa: S311 - repeatable, not secret

    def draw(self) -> float:
        """Seconds of delay for the next request."""
        return self._random.uniform(0, self._spread) if self._spread else 0.0
