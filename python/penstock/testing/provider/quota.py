"""A model's quota: all its dimensions at once, admitted together or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .enforcer import Enforcer, SubWindows

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Level", "Quota", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """Why a cost was not admitted."""

    dimension: str
    """The dimension that is short, such as ``requests``."""
    limit: int
    """The limit as the provider publishes it; for a cost that is too large, what it was too large for."""
    per: int
    """The period of the limit in nanoseconds."""
    used: int
    """What of the limit was in use."""
    requested: int
    """What this request asked of the dimension."""
    wait: int | None
    """The stated wait in nanoseconds; None if the cost is above what can ever be admitted."""


class Level(NamedTuple):
    """One dimension as the headers of an answer show it."""

    limit: int
    remaining: int
    reset: int
    """Nanoseconds until the dimension is full again: not a wait."""
    per: int = 0
    """The period of the limit in nanoseconds."""
    part: Level | None = None
    """The same of the sub-window, where there are some."""


class Quota:
    """Enforcers by dimension, debited in one step.

    With ``failed_count``, requests that fail use the request quota too (OpenAI: "unsuccessful requests contribute to
    your per-minute limit"). A request that is refused for its tokens, too large or malformed takes one from the request
    quota if one is there to take. A request refused because the request quota is spent takes nothing, for there is
    nothing to take. So failures are as dear as successes, and yet quota comes back at its rate whatever the client
    does: no amount of hammering locks it out for ever.
    """

    def __init__(
        self, enforcers: Mapping[str, Enforcer], *, failed_count: bool, days: Mapping[str, Enforcer] | None = None
    ) -> None:
        self._enforcers = enforcers
        self._failed_count = failed_count
        # What binds: each dimension of the period, and those that have a quota of a day besides.
        self._all = [*enforcers.items(), *(days or {}).items()]

    def admit(self, cost: Mapping[str, int], now: int) -> Refusal | None:
        """Charge ``cost`` in every dimension and give None; or charge it in none, and say which one is short."""
        refusal = self._refusal(cost, now)
        if refusal is not None:
            self.fail(now)
            return refusal
        for dimension, enforcer in self._all:
            enforcer.charge(cost.get(dimension, 0), now)
        return None

    def debit(self, dimension: str, amount: int, now: int) -> None:
        """Take what was used beyond what was charged, as output is while it is made; this may leave a debt."""
        for name, enforcer in self._all:
            if name == dimension and amount > 0:
                enforcer.charge(amount, now)

    def settle(self, dimension: str, charged: int, actual: int, at: int, now: int) -> None:
        """Replace what was charged at ``at`` by what was used."""
        for name, enforcer in self._all:
            if name == dimension and actual > charged:
                enforcer.charge(actual - charged, now)
            elif name == dimension and actual < charged:
                enforcer.refund(charged - actual, at, now)

    def _refusal(self, cost: Mapping[str, int], now: int) -> Refusal | None:
        """Find the dimension that is too small for the cost, or else the one with the longest wait."""
        worst: Refusal | None = None
        for dimension, enforcer in self._all:
            amount = cost.get(dimension, 0)
            used = enforcer.used(now)
            if amount > enforcer.largest:
                return Refusal(dimension, enforcer.largest, enforcer.per, used, amount, None)
            if enforcer.wait(amount, now) > 0:
                wait = enforcer.stated_wait(amount, now)
                if worst is None or wait > (worst.wait or 0):
                    worst = Refusal(dimension, enforcer.limit, enforcer.per, used, amount, wait)
        return worst

    def fail(self, now: int) -> None:
        """Count a request that failed, if failures count and there is quota to take."""
        for dimension, enforcer in self._all:
            if self._failed_count and dimension == "requests" and enforcer.wait(1, now) == 0:
                enforcer.charge(1, now)

    def wait(self, cost: Mapping[str, int], now: int) -> int | None:
        """Nanoseconds until ``cost`` is admitted if nothing else comes; None if it never is."""
        longest = 0
        for dimension, enforcer in self._all:
            amount = cost.get(dimension, 0)
            if amount > enforcer.largest:
                return None
            longest = max(longest, enforcer.wait(amount, now))
        return longest

    def levels(self, now: int) -> dict[str, Level]:
        """Each dimension's limit, what remains of it, and when it is full again."""
        return {dimension: _level(enforcer, now) for dimension, enforcer in self._enforcers.items()}

    def available(self, start: int, end: int) -> dict[str, int]:
        """Give the most that each dimension can admit from ``start`` to ``end``, with nothing in use at first."""
        return {dimension: enforcer.available(start, end) for dimension, enforcer in self._enforcers.items()}


def _level(enforcer: Enforcer, now: int) -> Level:
    part = _level(enforcer.part, now) if isinstance(enforcer, SubWindows) else None
    return Level(enforcer.limit, max(0, enforcer.remaining(now)), enforcer.time_to_full(now), enforcer.per, part)
