"""What a provider enforces: the quotas' sizes and algorithm, checked once, from which each model's quota is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Literal, cast, get_args

from .enforcer import Enforcer, FixedWindow, RollingWindow, SubWindows, TokenBucket
from .quota import Quota

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DAY", "NANOSECONDS", "Enforcement", "Policy", "count", "seconds"]

Enforcement = Literal["token_bucket", "fixed_window", "rolling_window", "sub_window"]

NANOSECONDS = 1_000_000_000
"""In a second."""
DAY = 86_400 * NANOSECONDS
"""In nanoseconds."""


def seconds(name: str, value: object, *, minimum: float = 0.0, exclusive: bool = False) -> float:
    """Check a number of seconds (or any other real number) that must not be below ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < minimum or (exclusive and number == minimum):
        bound = f"greater than {minimum:g}" if exclusive else f"at least {minimum:g}"
        raise ValueError(f"{name} must be finite and {bound}, not {value!r}")
    return number


def count(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Check a whole number (``2e5`` counts as one) that must not be below ``minimum`` or above ``maximum``."""
    number = seconds(name, value, minimum=minimum)
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, not {value!r}")
    return value if isinstance(value, int) else int(number)


class Policy:
    """Amounts per period and how they are enforced. The arguments are those of ``FakeProvider``."""

    def __init__(
        self,
        *,
        requests: int | None,
        tokens: int | None,
        per: float,
        enforcement: Enforcement,
        burst: int | Mapping[str, int] | None,
        sub_window: float | None,
        phase: float,
        failed_count: bool,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        daily: Mapping[str, int] | None = None,
    ) -> None:
        given: dict[str, int | None] = {
            "requests": requests,
            "tokens": tokens,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
        }
        self.amounts = {name: count(name, amount) for name, amount in given.items() if amount is not None}
        self.daily = self._checked_daily(daily, given)
        self.per = self._nanoseconds("per", per)
        if enforcement not in get_args(Enforcement):
            allowed = ", ".join(get_args(Enforcement))
            raise ValueError(f"enforcement must be one of {allowed}, not {enforcement!r}")
        self.enforcement: Enforcement = enforcement
        self.sub_window = self._checked_sub_window(sub_window)
        self.burst = self._checked_burst(burst)
        self._origin = -round(seconds("phase", phase) * NANOSECONDS)
        if -self._origin >= self.per:
            raise ValueError(f"phase must be below per={per!r}, not {phase!r}")
        self.failed_count = failed_count

    @staticmethod
    def _nanoseconds(name: str, value: object) -> int:
        number = round(seconds(name, value, exclusive=True) * NANOSECONDS)
        if number < 1:
            raise ValueError(f"{name} must be at least a nanosecond, not {value!r}")
        return number

    @staticmethod
    def _checked_daily(value: object, dimensions: Mapping[str, object]) -> dict[str, int]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise TypeError(f"daily must be a mapping such as {{'requests': 200}}, not {value!r}")
        unknown = [name for name in value if name not in dimensions]
        if unknown:
            raise ValueError(f"daily names {unknown[0]!r}; there is {', '.join(dimensions)}")
        return {name: count(f"daily {name}", amount) for name, amount in value.items()}

    def _checked_sub_window(self, value: object) -> int:
        if value is None:
            # Azure's: ten seconds of a minute.
            return self.per // 6 if self.per % 6 == 0 else self.per
        sub_window = self._nanoseconds("sub_window", value)
        if self.enforcement == "sub_window" and self.per % sub_window:
            per = self.per / NANOSECONDS
            raise ValueError(f"sub_window must divide per={per:g} s into whole windows, not {value!r}")
        return sub_window

    def _checked_burst(self, value: object) -> dict[str, int]:
        if value is None:
            return {}
        if self.enforcement != "token_bucket":
            raise ValueError(f"burst is the capacity of a token bucket; enforcement={self.enforcement!r} has none")
        if isinstance(value, Mapping):
            unknown = [name for name in value if name not in self.amounts]
            if unknown:
                raise ValueError(f"burst names {unknown[0]!r}, which has no quota; there is {self._names()}")
            bursts = cast("Mapping[str, object]", value)
        elif len(self.amounts) == 1:
            bursts = dict.fromkeys(self.amounts, value)
        else:
            raise ValueError(
                f"burst={value!r} is ambiguous with {self._names()}: give {{'requests': ..., 'tokens': ...}}"
            )
        return {name: count(f"burst of {name}", burst) for name, burst in bursts.items()}

    def _names(self) -> str:
        return " and ".join(self.amounts) or "no quota"

    def _enforcer(self, dimension: str, amount: int) -> Enforcer:
        if self.enforcement == "token_bucket":
            return TokenBucket(amount, self.per, burst=self.burst.get(dimension))
        if self.enforcement == "rolling_window":
            return RollingWindow(amount, self.per)
        if self.enforcement == "sub_window" and dimension == "requests":
            return SubWindows(amount, self.per, sub=self.sub_window, origin=self._origin)
        return FixedWindow(amount, self.per, origin=self._origin)

    def new_quota(self) -> Quota:
        """Make a quota with nothing in use."""
        enforcers = {dimension: self._enforcer(dimension, amount) for dimension, amount in self.amounts.items()}
        days = {dimension: self._day(amount) for dimension, amount in self.daily.items()}
        return Quota(enforcers, failed_count=self.failed_count, days=days)

    def _day(self, amount: int) -> Enforcer:
        """A day's amount: refilled all the time where the minute's is (OpenAI, Groq), else renewed at once (Gemini)."""
        bucket = self.enforcement == "token_bucket"
        return TokenBucket(amount, DAY) if bucket else FixedWindow(amount, DAY)

    def optimum(self, costs: Iterable[int | Mapping[str, int]]) -> float:
        """Compute the seconds from first to last admission if each cost came the moment that it could be admitted."""
        quota = self.new_quota()
        now = 0
        for given in costs:
            cost = {"requests": 1, **given} if isinstance(given, Mapping) else {"requests": 1, "tokens": given}
            late = cost.pop("output_tokens", 0)
            wait = quota.wait(cost, now)
            if wait is None:
                size = ", ".join(f"{amount} {name}" for name, amount in cost.items() if name != "requests")
                raise ValueError(f"a request of {size} is too large for {self} and is never admitted")
            now += wait
            quota.admit(cost, now)
            quota.debit("output_tokens", late, now)
        return now / NANOSECONDS

    def __str__(self) -> str:
        amounts = " and ".join(f"{amount:,} {name}" for name, amount in self.amounts.items()) or "no quota"
        days = "".join(f", {amount:,} {name} per day" for name, amount in self.daily.items())
        return f"{amounts} per {self.per / NANOSECONDS:g} s ({self.enforcement.replace('_', ' ')}){days}"
