"""What is computed from the times of admissions. Pure functions, times in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Shape:
    """What a limiter was told to let through: a token bucket, a rolling window, or both.

    The bucket holds `burst` and gets `amount` per `per` seconds. If `window` is given, no more than `amount` leave in
    any window of that many seconds. `at_once` is what is in the bucket at the start, if it is not full.
    """

    amount: int
    per: float
    burst: int
    window: float | None = None
    at_once: int | None = None

    @property
    def first(self) -> int:
        """How many leave at the start."""
        return self.burst if self.at_once is None else self.at_once

    @property
    def rate(self) -> float:
        """Admissions per second."""
        return self.amount / self.per


def due_times(shape: Shape, count: int) -> list[float]:
    """When the first `count` admissions are due, counted from the moment the limiter may be used.

    >>> due_times(Shape(amount=2, per=1.0, burst=1), 4)
    [0.0, 0.5, 1.0, 1.5]
    >>> due_times(Shape(amount=2, per=1.0, burst=2, at_once=0), 3)
    [0.5, 1.0, 1.5]
    >>> due_times(Shape(amount=2, per=1.0, burst=2, window=1.0), 5)
    [0.0, 0.0, 1.0, 1.0, 2.0]
    """
    due: list[float] = []
    for k in range(count):
        at = max(0, k + 1 - shape.first) / shape.rate
        if shape.window is not None and k >= shape.amount:
            at = max(at, due[k - shape.amount] + shape.window)
        due.append(at)
    return due


def lags(shape: Shape, times: Sequence[float]) -> list[float]:
    """How late each left once its turn had come: the earliest time that the limits allow after what had left before.

    Unlike lateness by the schedule, this leaves out what was lost before: a limiter that may not make up for a loop
    that was busy is late from then on by the schedule, and by its limits is not. `times` are sorted.

    >>> lags(Shape(amount=2, per=1.0, burst=1), [0.0, 0.5, 3.0, 3.5, 4.25])
    [0.0, 0.0, 2.0, 0.0, 0.25]
    >>> lags(Shape(amount=2, per=1.0, burst=2, window=1.0), [0.0, 0.0, 1.5, 1.5, 2.5])
    [0.0, 0.0, 0.5, 0.5, 0.0]
    """
    late: list[float] = []
    lost = 0.0  # the seconds in which the bucket was full
    shifts = [(0, 0.0)]  # by how much they delay those from this number on: who found the bucket full was not delayed
    for k, at in enumerate(times):
        while len(shifts) > 1 and shifts[1][0] <= k:
            del shifts[0]
        ready = max(0.0, (k + 1 - shape.first) / shape.rate + shifts[0][1])
        if shape.window is not None and k >= shape.amount:
            ready = max(ready, times[k - shape.amount] + shape.window)
        late.append(max(0.0, at - ready))
        over = shape.first + (at - lost) * shape.rate - k - shape.burst
        if over > 0:
            lost += over / shape.rate
            shifts.append((k + shape.burst, lost))
    return late


def quantile(ordered: Sequence[float], share: float) -> float:
    """Find the value below which a share of the sorted values lies (nearest rank).

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def overtaken(order: Iterable[int]) -> int:
    """Count the waiters admitted after one who came later. `order` has the waiters' numbers as they were admitted.

    >>> overtaken([0, 1, 2, 3]), overtaken([3, 0, 1, 2]), overtaken([0, 2, 1, 3])
    (0, 3, 1)
    """
    latest = -1
    passed = 0
    for number in order:
        if number < latest:
            passed += 1
        else:
            latest = number
    return passed


def fullest_window(times: Sequence[float], width: float) -> int:
    """Find the largest number of admissions in any window of `width` seconds. `times` are sorted.

    >>> fullest_window([0.0, 0.4, 0.9, 1.0, 1.1], 1.0)
    4
    """
    fullest = 0
    first = 0
    for last, at in enumerate(times):
        while times[first] <= at - width:
            first += 1
        fullest = max(fullest, last - first + 1)
    return fullest


def violations(times: Sequence[float], width: float, allowed: float) -> int:
    """How many admissions came when the window of `width` seconds behind them was full already. `times` are sorted.

    >>> violations([0.0, 0.4, 0.9, 1.0, 1.1], 1.0, allowed=2)
    3
    """
    over = 0
    first = 0
    for last, at in enumerate(times):
        while times[first] <= at - width:
            first += 1
        over += last - first + 1 > allowed
    return over


def rate_reached(shape: Shape, elapsed: float, count: int) -> float | None:
    """Find the share of the configured rate that `count` admissions within `elapsed` seconds make.

    Those that leave at the start are left aside.

    >>> rate_reached(Shape(amount=50, per=1.0, burst=1), 4.0, 101)
    0.5
    """
    paced = count - shape.first
    return paced / elapsed / shape.rate if paced > 0 and elapsed > 0 else None
