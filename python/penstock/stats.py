"""A limiter's numbers, as of one moment."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock._core import Rate

#: What is said of a rate that was not configured.
_ORIGINS = {"told": " (as the provider says)", "tried": " (tried)"}


class Level(NamedTuple):
    """How one rate stands.

    Attributes:
        dimension: what the rate counts.
        rate: the rate.
        available: what could leave now; negative when more was used than estimated.
        window: what could leave before the rolling window is full (the whole amount for a rate without one).
        origin: how the rate came to be: ``"configured"``; ``"told"`` by an answer of the provider; or ``"tried"``, what
            the provider has taken so far.
    """

    dimension: str
    rate: Rate
    available: int
    window: int
    origin: str = "configured"


class Share(NamedTuple):
    """What the governed calls of one label came to (`penstock.scope`).

    Attributes:
        attempts: calls that are over, failed ones too.
        tokens: tokens that they were charged, as settled: input and output together, as the provider counts.
        input_tokens: tokens sent.
        output_tokens: tokens received.
        waited: seconds that they have waited together.
        waited_max: the longest wait, in seconds.
    """

    attempts: int
    tokens: int
    input_tokens: int
    output_tokens: int
    waited: float
    waited_max: float


class Stats(NamedTuple):
    """A snapshot of a limiter. ``print(limiter.stats())`` is readable.

    Attributes:
        name: the limiter's name.
        in_flight: permits that are out.
        waiting: calls that wait.
        granted: permits given so far.
        attempts: calls that left so far: permits given, less those given back before they were used.
        cancelled: calls given up while they waited, or before their permit was used.
        timeouts: calls that ran into their timeout, at once or later.
        refused: calls that cost more than a limit, or that found the queue full.
        waited: seconds that all calls have waited together.
        waited_p50: seconds that half of the calls waited at most.
        waited_p99: seconds that 99 of 100 calls waited at most.
        waited_max: the longest wait, in seconds.
        cooldown: seconds until anything may leave again; 0 when nothing holds it.
        speed: how fast the slowest rate runs, from 0 to 1: below 1 when the provider is overloaded, or when others use
            the same quota.
        concurrency: how many calls may be under way at once, None when that is not bounded.
        keys: keys that are remembered.
        levels: how each rate stands.
        estimate_error: by how much, as a share, estimates of governed calls' input have lately been off the usage that
            the provider reported, after correction by what was learnt; None before the first.
        labels: the numbers of governed calls by the label of their `penstock.scope`.
    """

    name: str
    in_flight: int
    waiting: int
    granted: int
    attempts: int
    cancelled: int
    timeouts: int
    refused: int
    waited: float
    waited_p50: float
    waited_p99: float
    waited_max: float
    cooldown: float
    speed: float
    concurrency: int | None
    keys: int
    levels: tuple[Level, ...]
    estimate_error: float | None = None
    labels: Mapping[str, Share] = MappingProxyType({})

    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain values, rates as text: ready for JSON."""
        values = self._asdict()
        values["levels"] = [
            {
                "dimension": level.dimension,
                "amount": level.rate.amount,
                "per": level.rate.per,
                "available": level.available,
                "window": level.window,
                "origin": level.origin,
            }
            for level in self.levels
        ]
        values["labels"] = {label: share._asdict() for label, share in self.labels.items()}
        return values

    def __str__(self) -> str:
        of = "" if self.concurrency is None else f" of {self.concurrency}"
        lines = [
            f"limiter {self.name}",
            f"  {self.in_flight}{of} in flight, {self.waiting} waiting",
            f"  {self.granted} granted, {self.cancelled} cancelled, {self.timeouts} timed out, {self.refused} refused",
            (
                f"  waited {self.waited:.1f} s in all; half up to {self.waited_p50:.3g} s, "
                f"99 % up to {self.waited_p99:.3g} s, at most {self.waited_max:.3g} s"
            ),
        ]
        lines += [
            f"  {level.dimension}: {level.available:,} free now, {level.window:,} of {level.rate.amount:,} "
            f"per {level.rate.per:g} s left" + _ORIGINS.get(level.origin, "")
            for level in self.levels
        ]
        if self.cooldown > 0:
            lines.append(f"  cooling down for another {self.cooldown:.1f} s")
        if self.speed < 1:
            lines.append(f"  slowed to {self.speed:.0%} of what was configured")
        if self.estimate_error is not None:
            lines.append(f"  estimates of input off by {self.estimate_error:.0%}")
        lines += [
            f"  label {label}: {share.attempts:,} calls, {share.tokens:,} tokens, "
            f"waited {share.waited:.1f} s in all, at most {share.waited_max:.3g} s"
            for label, share in self.labels.items()
        ]
        return "\n".join(lines)
