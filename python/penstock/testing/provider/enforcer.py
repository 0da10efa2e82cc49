"""How a provider enforces one amount per period: four algorithms behind one interface.

Everything here is sans-I/O. Times are whole nanoseconds since the provider started; a time earlier than one already
seen counts as that one. Amounts and costs are whole numbers, and all arithmetic is in integers, so each decision is
exact and can be checked in virtual time.
"""

# ruff: noqa: D102 - the methods are documented once, in Enforcer

from __future__ import annotations

import abc
from collections import deque

__all__ = ["Enforcer", "FixedWindow", "RollingWindow", "SubWindows", "TokenBucket"]


class Enforcer(abc.ABC):
    """Counts one dimension against ``limit`` per ``per`` nanoseconds."""

    def __init__(self, limit: int, per: int) -> None:
        self.limit = limit
        self.per = per

    @property
    def largest(self) -> int:
        """The largest cost that can ever be admitted."""
        return self.limit

    @abc.abstractmethod
    def wait(self, cost: int, now: int) -> int:
        """Nanoseconds until ``cost`` (at most ``largest``) is admitted if nothing else comes; 0 means now."""

    def stated_wait(self, cost: int, now: int) -> int:
        """Give the wait that the provider states in a refusal; never shorter than the true one."""
        return self.wait(cost, now)

    @abc.abstractmethod
    def charge(self, cost: int, now: int) -> None:
        """Take ``cost``, for which ``wait`` has just said 0."""

    @abc.abstractmethod
    def refund(self, cost: int, charged: int, now: int) -> None:
        """Give back a part of what was charged at ``charged``, as far as it is still in use."""

    @abc.abstractmethod
    def used(self, now: int) -> int:
        """Give what is in use, rounded up."""

    def remaining(self, now: int) -> int:
        """Give what is left of ``limit``, rounded down."""
        return self.limit - self.used(now)

    @abc.abstractmethod
    def time_to_full(self, now: int) -> int:
        """Nanoseconds until nothing is in use, if nothing else comes."""

    @abc.abstractmethod
    def available(self, start: int, end: int) -> int:
        """Give the most that can be admitted from ``start`` to ``end``, both included, with nothing in use at first."""


class TokenBucket(Enforcer):
    """A bucket of capacity ``burst`` (by default ``limit``), full at first, refilled at ``limit / per``.

    This is what OpenAI's and Groq's refusals describe: 12 of 15 published messages obey
    ``wait = (Used + Requested - Limit) * Window / Limit`` to the printed digit, with whole numbers for ``Used``.
    """

    def __init__(self, limit: int, per: int, *, burst: int | None = None) -> None:
        super().__init__(limit, per)
        self._burst = limit if burst is None else burst
        # The level is kept in units of 1/per, in which one nanosecond refills exactly `limit`.
        self._capacity = self._burst * per
        self._level = self._capacity
        self._at = 0

    @property
    def largest(self) -> int:
        return self._burst

    def _refill(self, now: int) -> int:
        if now > self._at:
            self._level = min(self._capacity, self._level + (now - self._at) * self.limit)
            self._at = now
        return self._level

    def wait(self, cost: int, now: int) -> int:
        missing = cost * self.per - self._refill(now)
        return max(0, -(-missing // self.limit))

    def stated_wait(self, cost: int, now: int) -> int:
        # From the rounded `used`, as the published messages have it: at 3 a minute a refusal says 20 s, never 2 s.
        missing = self.used(now) + cost - self.limit
        return max(0, -(-missing * self.per // self.limit))

    def charge(self, cost: int, now: int) -> None:
        self._level = self._refill(now) - cost * self.per

    def refund(self, cost: int, charged: int, now: int) -> None:  # noqa: ARG002 - a bucket does not know when
        self._level = min(self._capacity, self._refill(now) + cost * self.per)

    def used(self, now: int) -> int:
        return self.limit - self._refill(now) // self.per

    def time_to_full(self, now: int) -> int:
        return -(-(self._capacity - self._refill(now)) // self.limit)

    def available(self, start: int, end: int) -> int:
        return self._burst + (end - start) * self.limit // self.per


class FixedWindow(Enforcer):
    """A counter that is reset at ``origin`` and every ``per`` from there: Azure's tokens per minute.

    Two full windows can follow each other at once across a boundary.
    """

    def __init__(self, limit: int, per: int, *, origin: int = 0) -> None:
        super().__init__(limit, per)
        self._origin = origin
        self._at = 0
        self._used = 0

    def _index_at(self, now: int) -> int:
        return (now - self._origin) // self.per

    def _turn(self, now: int) -> int:
        if self._index_at(now) > self._index_at(self._at):
            self._used = 0
        self._at = max(self._at, now)
        return self._at

    def to_boundary(self, now: int) -> int:
        """Give the nanoseconds from ``now`` to the next reset."""
        return self.per - (now - self._origin) % self.per

    def wait(self, cost: int, now: int) -> int:
        at = self._turn(now)
        return 0 if self._used + cost <= self.limit else self.to_boundary(at)

    def charge(self, cost: int, now: int) -> None:
        self._turn(now)
        self._used += cost

    def refund(self, cost: int, charged: int, now: int) -> None:
        if self._index_at(charged) == self._index_at(self._turn(now)):
            self._used = max(0, self._used - cost)

    def used(self, now: int) -> int:
        self._turn(now)
        return self._used

    def time_to_full(self, now: int) -> int:
        at = self._turn(now)
        return self.to_boundary(at) if self._used else 0

    def available(self, start: int, end: int) -> int:
        return self.limit * (self._index_at(end) - self._index_at(start) + 1)


class RollingWindow(Enforcer):
    """At most ``limit`` in any half-open window of ``per``: Mistral's and Gemini's tokens per minute.

    Exact: every charge is kept until it is ``per`` old.
    """

    def __init__(self, limit: int, per: int) -> None:
        super().__init__(limit, per)
        self._charges: deque[tuple[int, int]] = deque()
        self._used = 0
        self._at = 0

    def _expire(self, now: int) -> int:
        self._at = max(self._at, now)
        while self._charges and self._charges[0][0] + self.per <= self._at:
            self._used -= self._charges.popleft()[1]
        return self._at

    def wait(self, cost: int, now: int) -> int:
        at = self._expire(now)
        excess = self._used + cost - self.limit
        until = at
        for charged_at, charged in self._charges:
            if excess <= 0:
                break
            excess -= charged
            until = charged_at + self.per
        return until - at

    def charge(self, cost: int, now: int) -> None:
        at = self._expire(now)
        self._charges.append((at, cost))
        self._used += cost

    def refund(self, cost: int, charged: int, now: int) -> None:
        self._expire(now)
        for index, (at, amount) in enumerate(self._charges):
            if at == charged and amount >= cost:
                self._charges[index] = (at, amount - cost)
                self._used -= cost
                return

    def used(self, now: int) -> int:
        self._expire(now)
        return self._used

    def time_to_full(self, now: int) -> int:
        at = self._expire(now)
        return self._charges[-1][0] + self.per - at if self._charges else 0

    def available(self, start: int, end: int) -> int:
        return self.limit * ((end - start) // self.per + 1)


class SubWindows(Enforcer):
    """``limit`` per ``per``, handed out in fixed windows of ``sub``: Azure's requests per minute, in 1 s or 10 s.

    Each sub-window admits its share, rounded up (600 a minute: 10 in each second; 500: 9), and the whole period never
    more than ``limit``. Source: Microsoft's "typically 1 or 10 seconds ... 600-RPM deployment ... more than 10 requests
    ... during each 1-second period". ``per`` is a whole multiple of ``sub``.
    """

    def __init__(self, limit: int, per: int, *, sub: int, origin: int = 0) -> None:
        super().__init__(limit, per)
        self._slice = FixedWindow(-(-limit * sub // per), sub, origin=origin)
        self._whole = FixedWindow(limit, per, origin=origin)

    @property
    def largest(self) -> int:
        return self._slice.limit

    def wait(self, cost: int, now: int) -> int:
        # The end of a period is the end of a sub-window too, so the later of the two frees both.
        return max(self._slice.wait(cost, now), self._whole.wait(cost, now))

    def charge(self, cost: int, now: int) -> None:
        self._slice.charge(cost, now)
        self._whole.charge(cost, now)

    def refund(self, cost: int, charged: int, now: int) -> None:
        self._slice.refund(cost, charged, now)
        self._whole.refund(cost, charged, now)

    @property
    def part(self) -> FixedWindow:
        """One sub-window."""
        return self._slice

    def used(self, now: int) -> int:
        return self._whole.used(now)

    def time_to_full(self, now: int) -> int:
        return self._whole.time_to_full(now)

    def available(self, start: int, end: int) -> int:
        # Period by period: the first and the last may be entered or left half-way, those between are used in full.
        periods = self._whole.available(start, end) // self.limit
        if periods == 1:
            return min(self._slice.available(start, end), self.limit)
        entered = start + self._whole.to_boundary(start)
        left = end + self._whole.to_boundary(end) - self.per
        first = min(self._slice.available(start, entered - 1), self.limit)
        last = min(self._slice.available(left, end), self.limit)
        return first + (periods - 2) * self.limit + last
