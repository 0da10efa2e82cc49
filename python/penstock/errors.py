"""What Penstock raises. Each error carries the number that helps."""

from __future__ import annotations


class PenstockError(Exception):
    """The base of all errors of Penstock."""


class AcquireTimeout(PenstockError, TimeoutError):
    """There was no permit in time, or it was known at once that there would be none.

    Attributes:
        retry_after: seconds that the wait would have taken at the least, as far as the rates tell; 0.0 when the limiter
            only lacks a free slot, since nobody knows when one comes free.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (str(self), self.retry_after)


class CostExceedsLimit(PenstockError, ValueError):
    """A call costs more than a rate admits in a whole period: no wait can satisfy it.

    Attributes:
        dimension: ``"requests"``, ``"tokens"``, ``"input_tokens"`` or ``"output_tokens"``.
        cost: what the call costs in it.
        limit: the most that a call may cost in it.
    """

    def __init__(self, message: str, dimension: str, cost: int, limit: int) -> None:
        super().__init__(message)
        self.dimension = dimension
        self.cost = cost
        self.limit = limit

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (str(self), self.dimension, self.cost, self.limit)


class QueueFull(PenstockError):
    """As many calls wait as may (``max_waiting``).

    Attributes:
        waiting: how many do.
    """

    def __init__(self, message: str, waiting: int) -> None:
        super().__init__(message)
        self.waiting = waiting

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (str(self), self.waiting)


class QuotaExhausted(PenstockError, RuntimeError):  # LangGraph's retry policies leave a RuntimeError alone
    """The provider said that a quota is spent: a daily limit, the account's credit. No wait that fits a call helps.

    One call every 30 seconds is let through to see whether it is back.

    Attributes:
        resets_at: when it resets, in seconds since 1970; None when the provider did not say.
    """

    def __init__(self, message: str, resets_at: float | None = None) -> None:
        super().__init__(message)
        self.resets_at = resets_at

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (str(self), self.resets_at)


class BudgetExceeded(PenstockError, RuntimeError):  # LangGraph's retry policies leave a RuntimeError alone
    """A block has used up its `penstock.budget`.

    Attributes:
        dimension: ``"calls"``, ``"tokens"`` or ``"seconds"``.
        spent: what the block had used of it.
        limit: what it was given.
    """

    def __init__(self, message: str, dimension: str, spent: float, limit: float) -> None:
        super().__init__(message)
        self.dimension = dimension
        self.spent = spent
        self.limit = limit

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (str(self), self.dimension, self.spent, self.limit)


class StoreUnavailable(PenstockError, ConnectionError):
    """What several processes share cannot be had, or is of no use; the message says why, and what to do."""
