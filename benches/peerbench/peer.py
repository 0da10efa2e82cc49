"""What an adapter offers to the scenarios."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from peerbench.figures import Shape

CASES: Mapping[str, str] = {
    "await": "`await` one admission with room",
    "async with": "`async with` around an empty block",
    "decorated coroutine": "decorator on an empty coroutine, awaited",
    "call": "one admission with room, synchronous",
    "with": "`with` around an empty block",
    "decorated function": "decorator on an empty function, called",
}
"""The uncontended calls, in the order of the report."""

BARE = "@limiter.limit(tokens=10)"
"""The decorator of the gate without retries, which the retrying ones are compared with."""

ROOM = 10**9
"""An amount per second that no loop in Python can use up."""


@dataclass(frozen=True)
class Call:
    """One way to make an uncontended admission: a statement, as a user would write it, and the names it needs."""

    case: str
    statement: str
    names: Callable[[], dict[str, object]]
    dimensions: int = 1
    variant: str = ""


@dataclass(frozen=True)
class Waits:
    """A limiter that is about to be waited for."""

    acquire: Callable[[], Awaitable[object]]
    """What each waiter awaits: the library's own method if possible, so that nothing of ours is measured."""
    shape: Shape
    """What the limiter was told to let through, which is what its waiters' due times follow from."""
    start: Callable[[], None] = field(default=lambda: None)
    """Called in the running loop just before the first waiter."""


WaitsFactory = Callable[[int, float, int], Waits]
"""Makes `Waits` for an amount, a period in seconds, and a burst."""


@dataclass(frozen=True)
class Threads:
    """A limiter that several threads are about to use."""

    admit: Callable[[], object]
    """Returns something true when admitted, something false when refused; or blocks until it is admitted."""
    shape: Shape
    start: Callable[[], None] = field(default=lambda: None)


class Peer(ABC):
    """One limiter, or one library that retries, under measurement.

    An adapter imports its library inside its methods, so that listing the adapters costs nothing and a process that
    measures one limiter loads only that one.
    """

    name: ClassVar[str]
    """The name in the tables and on the command line."""
    distribution: ClassVar[str | None] = None
    """The name of the package on the index; None for what comes with Python."""
    module: ClassVar[str | None] = None
    """What to import."""
    use: ClassVar[str] = ""
    """How the library is used here, where there was a choice."""
    keeps_a_limit: ClassVar[bool] = True
    """False for a queue that is released on schedule, for comparison."""
    cannot: ClassVar[Mapping[str, str]] = {}
    """Why it has no figure: a case of `CASES`, "threads" or "waiting", and the reason."""

    def missing(self) -> str | None:
        """Why this peer cannot be measured here, or None if it can."""
        if self.module is None or importlib.util.find_spec(self.module) is not None:
            return None
        return f"{self.distribution} is not installed in this environment (benches/requirements-peers.txt)"

    def version(self) -> str:
        """Look up the installed version, or an empty string for what comes with Python."""
        return importlib.metadata.version(self.distribution) if self.distribution else ""

    def calls(self) -> Sequence[Call]:
        """List the uncontended calls that this library offers."""
        return ()

    def retries(self) -> Sequence[Call]:
        """List decorated calls that succeed at the first attempt; the variant of each is its decorator."""
        return ()

    def waits(self) -> Mapping[str, WaitsFactory]:
        """Ways to wait for this limiter, by variant; the plain one has an empty name."""
        return {}

    def threads(self, amount: int) -> Threads | None:
        """Make a limiter with room for `amount` admissions and next to no refill; None if threads cannot share one."""
        return None
