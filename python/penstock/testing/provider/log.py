"""The provider's own record of what reached it, so that tests can judge a client from the server's side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .policy import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Arrival", "ArrivalLog", "Summary"]


@dataclass(slots=True)
class Arrival:
    """One request as the provider saw it. Times are seconds since the provider started."""

    time: float
    """When it was counted."""
    endpoint: str
    """The path, such as ``/v1/chat/completions``."""
    model: str | None = None
    """None if the request was too malformed to tell."""
    requests: int = 1
    """Asked of the request quota; 0 for what is free, such as a list of models."""
    tokens: int = 0
    """Asked of the token quota, as counted at admission."""
    admitted: bool = False
    refused_by: str | None = None
    """The dimension that was short."""
    wait: float | None = None
    """The wait stated in a refusal, in seconds; None if it was too large to be ever admitted."""
    status: int | None = None
    """The HTTP status that was sent; None until one is."""
    key: str | None = None
    """The API key it came with."""
    attempt: int | None = None
    """The number of retries before this one, if the SDK said so (``x-stainless-retry-count``)."""
    stream: bool = False
    dialect: str = "openai"
    """The way of speaking: ``openai``, ``azure``, ``anthropic``, ``gemini``, ``bedrock`` or ``cohere``."""
    fault: str | None = None
    """The kinds of the faults that befell it, separated by commas."""
    tokens_in: int = 0
    """Prompt tokens of the answer's usage; 0 if there was no answer."""
    tokens_out: int = 0
    """Completion tokens that were sent."""
    finished: float | None = None
    """When the answer was complete, or the client was gone; None while under way."""
    disconnected: bool = False
    """Whether the client went away before its answer was complete."""


@dataclass(frozen=True)
class Summary:
    """A run in numbers: ``sent == admitted + refused + failed + free``."""

    sent: int
    """Requests that arrived."""
    admitted: int
    refused: int
    """Answered 429 by the quota."""
    failed: int
    """Answered with another error (400, 401, 404, 405, or that of a fault)."""
    disconnected: int
    """Admitted, but the client went away before its answer was complete."""
    tokens_admitted: int
    """Sum of the admitted requests' cost in tokens, as counted at admission, or as settled where they are."""
    tokens_in: int
    tokens_out: int
    in_flight: int
    """Admitted and not yet finished."""
    peak_concurrency: int
    """The most that were ever in flight."""
    elapsed: float
    """Seconds from the first arrival to the last."""
    utilisation: Mapping[str, float]
    """By dimension: what was admitted, over the most that the enforcement could have admitted from the first arrival to
    the last (0 to 1; for a token bucket that includes what was in it at first). Several models count together."""
    free: int = 0
    """Answered at no cost: lists of models, files, batches, counts of tokens."""

    def __str__(self) -> str:
        shares = ", ".join(f"{share:.1%} of {name}" for name, share in self.utilisation.items())
        return (
            f"{self.sent:,} sent, {self.admitted:,} admitted, {self.refused:,} refused, {self.failed:,} failed, "
            f"{self.disconnected:,} disconnected; {self.tokens_admitted:,} tokens admitted; "
            f"{self.in_flight:,} in flight (peak {self.peak_concurrency:,}); {self.elapsed:.1f} s"
            + (f"; used {shares}" if shares else "")
        )


class ArrivalLog:
    """The arrivals, and running totals of them that outlive the records being cleared."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.first: int | None = None
        self.last = 0
        self.sent = 0
        self._admitted = self._refused = self._disconnected = 0
        self._free = 0
        self._tokens_admitted = self._tokens_in = self._tokens_out = 0
        self._in_flight = self._peak = 0

    def arrive(self, arrival: Arrival, now: int) -> None:
        """Record a request the moment it is counted; ``now`` in nanoseconds."""
        self.arrivals.append(arrival)
        self.sent += 1
        if self.first is None:
            self.first = now
        self.last = max(self.last, now)

    def admit(self, arrival: Arrival) -> None:
        """Mark an arrival as admitted and in flight."""
        arrival.admitted = True
        self._admitted += 1
        self._tokens_admitted += arrival.tokens
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)

    def settle(self, difference: int) -> None:
        """Correct the admitted tokens by what an admitted request used more, or less, than was reserved for it."""
        self._tokens_admitted += difference

    def free(self) -> None:
        """Count an arrival that costs nothing."""
        self._free += 1

    def refuse(self, arrival: Arrival, dimension: str, wait: int | None) -> None:
        """Mark an arrival as refused for want of ``dimension``; ``wait`` in nanoseconds, as stated."""
        arrival.refused_by = dimension
        arrival.wait = None if wait is None else wait / NANOSECONDS
        self._refused += 1

    def finish(self, arrival: Arrival, now: int, *, disconnected: bool = False) -> None:
        """Mark an arrival as answered, or its client as gone; ``now`` in nanoseconds."""
        arrival.finished = now / NANOSECONDS
        arrival.disconnected = disconnected
        if arrival.admitted:
            self._in_flight -= 1
            self._disconnected += disconnected
            self._tokens_in += arrival.tokens_in
            self._tokens_out += arrival.tokens_out

    def summary(self, available: Mapping[str, int]) -> Summary:
        """Add up; ``available`` is what the quotas could have admitted from ``first`` to ``last``."""
        used = {
            "requests": self._admitted,
            "tokens": self._tokens_admitted,
            "input_tokens": self._tokens_in,
            "output_tokens": self._tokens_out,
        }
        return Summary(
            sent=self.sent,
            admitted=self._admitted,
            refused=self._refused,
            failed=self.sent - self._admitted - self._refused - self._free,
            disconnected=self._disconnected,
            tokens_admitted=self._tokens_admitted,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            in_flight=self._in_flight,
            peak_concurrency=self._peak,
            elapsed=0.0 if self.first is None else (self.last - self.first) / NANOSECONDS,
            free=self._free,
            utilisation={name: used.get(name, 0) / amount for name, amount in available.items() if amount},
        )
