"""What goes wrong, on demand: for one request by its header, for the n-th to arrive, or for a time."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from .policy import count, seconds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["FAULT_HEADER", "Fault", "FaultKind", "Faults"]

FAULT_HEADER = "x-fake-fault"
"""A request header: kinds of faults, separated by commas, each with its settings after semicolons, as in
``throttled; retry_after=3600`` or ``gzip, half``."""

FaultKind = Literal[
    "throttled",
    "overloaded",
    "error",
    "insufficient_quota",
    "oversize",
    "daily",
    "status",
    "drop",
    "half",
    "short",
    "overloaded_event",
    "malformed",
    "slow",
    "gzip",
    "deflate",
]

REFUSING = frozenset({"throttled", "overloaded", "error", "insufficient_quota", "oversize", "daily", "status"})
"""Kinds that answer in place of the provider, before it has counted anything."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, and for which requests.

    Kinds that answer in place of the provider, without use of quota, in its own words:

    - ``"throttled"``: 429, with ``retry_after`` if one is given;
    - ``"overloaded"``: 503 (Anthropic 529);
    - ``"error"``: 500;
    - ``"insufficient_quota"``: an account without money, as each provider says it;
    - ``"oversize"``: a request larger than the limit itself;
    - ``"daily"``: a daily quota that is spent (Gemini's comes with a retryDelay of 1 s);
    - ``"status"``: ``status`` and ``body`` as given.

    Kinds that befall a request which was admitted and counted:

    - ``"drop"``: the connection is closed in place of an answer;
    - ``"half"``: the connection is closed after half of the answer, or after ``after`` events of a stream;
    - ``"short"``: a stream ends there as if it were complete, without its last events;
    - ``"overloaded_event"``: a stream that began with 200 ends there with the provider's overload error;
    - ``"malformed"``: 200, and a body that is not JSON (a stream of events that are not);
    - ``"slow"``: the answer's headers come ``seconds`` later than they would have;
    - ``"gzip"``, ``"deflate"``: the answer is compressed, streams event by event.

    Which requests: all, or those that meet every condition given.
    """

    kind: FaultKind
    arrivals: Collection[int] | None = None
    """The n-th requests to arrive at the provider, counted from 1."""
    every: int | None = None
    """Each n-th request to arrive."""
    times: int | None = None
    """No more than so many requests, the first ones that meet the other conditions."""
    between: tuple[float, float] | None = None
    """From and until when, in seconds since the provider started."""
    model: str | None = None
    """A model's name, or a pattern such as ``gpt-*``."""
    retry_after: float | None = None
    """Seconds that the refusal states; None for none at all."""
    seconds: float = 1.0
    """Of ``"slow"``."""
    status: int | None = None
    """The HTTP status, in place of the usual one."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of a refusal, on top of the usual ones."""
    body: str | bytes = b""
    """Of ``"status"``."""
    after: int | None = None
    """Events of a stream that come before it breaks; by default half of them."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(FaultKind))}, not {self.kind!r}")
        for name in ("every", "times"):
            if getattr(self, name) is not None:
                count(name, getattr(self, name))
        for name in ("retry_after", "seconds"):
            if getattr(self, name) is not None:
                seconds(name, getattr(self, name))
        if self.after is not None:
            count("after", self.after, minimum=0)
        if self.status is not None:
            count("status", self.status, minimum=100, maximum=599)

    @property
    def refuses(self) -> bool:
        """Whether it answers in place of the provider."""
        return self.kind in REFUSING

    def concerns(self, number: int, now: float, model: str) -> bool:
        """Whether the ``number``-th request, which came at ``now``, meets its conditions (but for ``times``)."""
        return (
            (self.arrivals is None or number in self.arrivals)
            and (self.every is None or number % self.every == 0)
            and (self.between is None or self.between[0] <= now < self.between[1])
            and (self.model is None or fnmatch.fnmatchcase(model, self.model))
        )


class Faults:
    """The faults of a provider at this time."""

    def __init__(self, faults: Collection[Fault] = ()) -> None:
        if not all(isinstance(fault, Fault) for fault in faults):
            raise TypeError(f"faults must be a collection of Fault, not {faults!r}")
        # Replaced, never changed in place: the provider's thread reads while others write.
        self._rules: tuple[_Rule, ...] = tuple(_Rule(fault) for fault in faults)

    def add(self, fault: Fault) -> None:
        """Have this go wrong from now on."""
        self._rules = (*self._rules, _Rule(fault))

    def remove(self, fault: Fault) -> None:
        """Have this go wrong no more; nothing happens if it is not there."""
        self._rules = tuple(rule for rule in self._rules if rule.fault is not fault)

    def clear(self) -> None:
        """Have nothing go wrong any more."""
        self._rules = ()

    def befalling(self, number: int, now: float, model: str, header: str | None) -> list[Fault]:
        """Find what goes wrong with a request. Raises ``ValueError`` if its header makes no sense."""
        found = [] if header is None else parse(header)
        found += [rule.fault for rule in self._rules if rule.take(number, now, model)]
        return found


class _Rule:
    """A fault, and how often it may still befall a request."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._left = fault.times

    def take(self, number: int, now: float, model: str) -> bool:
        if self._left == 0 or not self.fault.concerns(number, now, model):
            return False
        if self._left is not None:
            self._left -= 1
        return True


def parse(header: str) -> list[Fault]:
    """Read faults as the header or the command line has them."""
    return [_parsed(part) for part in header.split(",") if part.strip()]


def _parsed(text: str) -> Fault:
    kind, *settings = (part.strip() for part in text.split(";"))
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        values[name.strip()] = _setting(name.strip(), value.strip())
    return Fault(cast("FaultKind", kind), **values)


def _setting(name: str, value: str) -> object:
    if name in ("every", "times", "status", "after"):
        return int(value)
    if name in ("retry_after", "seconds"):
        return float(value)
    if name == "arrivals":
        return frozenset(int(number) for number in value.split())
    if name == "between":
        start, stop = value.split("-")
        return float(start), float(stop)
    if name in ("model", "body"):
        return value
    allowed = "after, arrivals, between, body, every, model, retry_after, seconds, status, times"
    raise ValueError(f"a fault has {allowed}, and no {name!r}")
