"""`Gatekeeper`: one policy of governing, whatever library sends the requests."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from penstock.limiter import Limiter
from penstock.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock._core import Permit

#: One attempt, and no other: what no retry at all is.
ONCE = Retry(attempts=1)

#: How many models a gatekeeper keeps the limiter of; names may come from users.
_MOST_MODELS = 10_000


class Gatekeeper:
    """Whose calls are governed, by which limiter, and how they are tried again.

    Args:
        limiter: a limiter, or a mapping from model names or globs to limiters.
        retry: how failed requests are tried again; None makes one attempt.
        stream_usage: whether streams of OpenAI's kind are asked to report their usage.
        hosts: which hosts and ports are governed; None for all.

    Raises:
        TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed.
    """

    __slots__ = ("_limiters", "_picked", "hosts", "limiter", "mute", "retry", "stream_usage")

    def __init__(
        self,
        limiter: Limiter | Mapping[str, Limiter],
        retry: Retry | None,
        stream_usage: bool,
        hosts: Callable[[str, int | None], bool] | None = None,
    ) -> None:
        self._limiters = _checked(limiter)
        if retry is not None and not isinstance(retry, Retry):
            raise TypeError(f"retry must be a Retry or None, not {retry!r}")
        self.limiter = limiter
        self.retry = ONCE if retry is None else retry
        self.stream_usage = bool(stream_usage)
        self.hosts = hosts
        #: Hosts that refuse to be asked for the usage of a stream.
        self.mute: set[str] = set()
        self._picked: dict[str | None, Limiter | None] = {}

    def __repr__(self) -> str:
        return f"<Gatekeeper with {self.limiter!r}, {self.retry!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Gatekeeper, (self.limiter, self.retry, self.stream_usage, self.hosts)

    def chosen(self, host: str, port: int | None) -> Gatekeeper | None:
        """Itself, if it governs requests to that host; None lets them pass."""
        return self if self.hosts is None or self.hosts(host, port) else None

    def pick(self, model: str | None) -> Limiter | None:
        """The limiter of a model: by its name, by the longest glob that fits, by ``"*"``; None lets it pass."""
        if isinstance(self._limiters, Limiter):
            return self._limiters
        try:
            return self._picked[model]
        except KeyError:
            limiter = self._pick(model, self._limiters)
            if len(self._picked) < _MOST_MODELS:
                self._picked[model] = limiter
            return limiter

    def _pick(self, model: str | None, limiters: dict[str, Limiter]) -> Limiter | None:
        if model is not None:
            if model in limiters:
                return limiters[model]
            from fnmatch import fnmatchcase

            fitting = [name for name in limiters if fnmatchcase(model, name)]
            if fitting:
                return limiters[max(fitting, key=len)]
        if "*" in limiters:
            return limiters["*"]
        import warnings

        what = "a call that names no model" if model is None else f"model {model!r}"
        known = ", ".join(map(repr, limiters))
        message = f'penstock: {what} passes without a limiter; known are {known}. Add one for "*" to take in the rest'
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None


def _checked(limiter: Any) -> Limiter | dict[str, Limiter]:
    if isinstance(limiter, Limiter):
        return limiter
    if not isinstance(limiter, Mapping):
        raise TypeError(f"limiter must be a Limiter, or a mapping from model names to Limiters, not {limiter!r}")
    if not limiter:
        raise ValueError("limiter must name at least one model, not be an empty mapping")
    for name, one in limiter.items():
        if not isinstance(name, str) or not isinstance(one, Limiter):
            raise TypeError(f"limiter must map model names to Limiters, not {name!r} to {one!r}")
    return dict(limiter)


# Permits that a framework's own hook has taken for the request that comes next.


class Carried:
    """A permit that waits for its request. Whoever sends that takes it, once."""

    __slots__ = ("_held", "limiter")

    def __init__(self, limiter: Limiter, permit: Permit) -> None:
        self.limiter = limiter
        self._held = [permit]

    def take(self, limiter: Limiter) -> Permit | None:
        """The permit, if it is of ``limiter`` and nobody has taken it."""
        if limiter is not self.limiter:
            return None
        try:
            return self._held.pop()
        except IndexError:
            return None


_carried: ContextVar[Carried | None] = ContextVar("penstock_carried", default=None)


#: What was left to the requests of this context, if anything was.
left = _carried.get


def carried(limiter: Limiter) -> Permit | None:
    """The permit that was left to this request, if there is one."""
    one = left()
    return None if one is None else one.take(limiter)


def carry(limiter: Limiter, permit: Permit) -> Carried:
    """Leave a permit to the next governed request of this context, which then asks for none.

    For hooks of frameworks that are told before a call and not after it. The request settles and releases the permit;
    if none comes, or the next hook's call is first, the permit gives itself back when it is dropped.
    """
    one = Carried(limiter, permit)
    _carried.set(one)
    return one
