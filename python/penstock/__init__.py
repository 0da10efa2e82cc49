"""Penstock: a gate in front of LLM provider calls.

It lets exactly as many calls through as the provider's quota takes: requests and tokens together, concurrency, and a
queue in which the first comes first::

    from penstock import Limiter

    gate = Limiter(requests=500, tokens=200_000, concurrency=16)  # per minute, as providers quote RPM and TPM

    @gate.limit(tokens=1_200)
    async def summarize(text): ...

    results = await gate.gather(*(summarize(text) for text in texts))
"""

from penstock import providers
from penstock._core import Cost, Permit, Rate, RetryBudget, Verdict, __version__, estimate_tokens
from penstock.budgets import budget
from penstock.errors import (
    AcquireTimeout,
    BudgetExceeded,
    CostExceedsLimit,
    PenstockError,
    QueueFull,
    QuotaExhausted,
    StoreUnavailable,
)
from penstock.governing import atransport, govern, transport, ungovern
from penstock.installing import install
from penstock.limiter import Limiter
from penstock.rates import per_day, per_hour, per_minute, per_second
from penstock.retry import GaveUp, Retry
from penstock.scoping import scope
from penstock.stats import Level, Share, Stats
from penstock.usage import Usage

__all__ = [
    "AcquireTimeout",
    "BudgetExceeded",
    "Cost",
    "CostExceedsLimit",
    "GaveUp",
    "Level",
    "Limiter",
    "PenstockError",
    "Permit",
    "QueueFull",
    "QuotaExhausted",
    "Rate",
    "Retry",
    "RetryBudget",
    "Share",
    "Stats",
    "StoreUnavailable",
    "Usage",
    "Verdict",
    "__version__",
    "atransport",
    "budget",
    "estimate_tokens",
    "govern",
    "install",
    "per_day",
    "per_hour",
    "per_minute",
    "per_second",
    "providers",
    "scope",
    "transport",
    "ungovern",
]
