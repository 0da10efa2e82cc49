"""Rates by their period: ``per_minute(500)`` is ``Rate(500, per=60)``."""

from __future__ import annotations

from penstock._core import Rate


def per_second(amount: float, *, burst: int | None = None, window: bool = True) -> Rate:
    """``amount`` per second; ``burst`` and ``window`` as in `Rate`."""
    return Rate(amount, 1, burst=burst, window=window)


def per_minute(amount: float, *, burst: int | None = None, window: bool = True) -> Rate:
    """``amount`` per minute, as providers quote RPM and TPM; ``burst`` and ``window`` as in `Rate`."""
    return Rate(amount, 60, burst=burst, window=window)


def per_hour(amount: float, *, burst: int | None = None, window: bool = True) -> Rate:
    """``amount`` per hour; ``burst`` and ``window`` as in `Rate`."""
    return Rate(amount, 3_600, burst=burst, window=window)


def per_day(amount: float, *, burst: int | None = None, window: bool = True) -> Rate:
    """``amount`` per 24 hours; ``burst`` and ``window`` as in `Rate`."""
    return Rate(amount, 86_400, burst=burst, window=window)
