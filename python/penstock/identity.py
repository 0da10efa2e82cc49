"""Who a limiter is: how a copy, a pickle or a configuration finds the same one again."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from penstock.errors import StoreUnavailable

if TYPE_CHECKING:
    from penstock.limiter import Limiter

#: Tells this process from others, and is the same in its forks: names that were made up are only known here.
_HERE = os.urandom(8).hex()

#: Whatever a permit may be had from.
_GIVE_PERMITS = (
    *("permit", "ask", "ask_for", "acquire", "aacquire", "try_acquire"),
    *("enter_now", "__enter__", "__aenter__"),
)

#: The limiters of this process, by kind, store, name, and where the name was made up if it was.
_LIMITERS: WeakValueDictionary[tuple[str, str, str, str], Limiter] = WeakValueDictionary()


def note(limiter: Limiter, origin: str) -> None:
    """Remember a limiter under its name. Of several with one name the last counts."""
    _LIMITERS[type(limiter).__qualname__, limiter.store, limiter.name, origin] = limiter


def origin_of(given: dict[str, Any]) -> str:
    """Where the name of a limiter with these arguments was made up; nothing if it was given."""
    named = given.get("name") is not None or str(given.get("store", "")).startswith("shm://")
    return "" if named else _HERE


def find(kind: type[Limiter], store: str, name: str, origin: str, given: dict[str, Any]) -> Limiter:
    """The limiter of that name and store; if this process has none, one with the same limits.

    One that is kept in the memory of the process which this one is a worker of gives no permits here, since both would
    use the whole quota: it raises `StoreUnavailable`. Not at once: a pool of processes waits for ever for a task that
    cannot be unpickled.
    """
    limiter = _LIMITERS.get((kind.__qualname__, store, name, origin))
    if limiter is not None:
        return limiter
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    if store == "memory://" and multiprocessing is not None and multiprocessing.parent_process() is not None:
        kind = _stranded(kind, name)
    limiter = kind(**{**given, "name": name})
    note(limiter, origin)
    return limiter


def _stranded(kind: type[Limiter], name: str) -> type[Limiter]:
    """A kind of limiter that gives no permits."""
    message = (
        f"limiter {name!r} is kept in the memory of the process that made it, and this worker of it would use the "
        f"quota once more: give it a store that both share, as in Limiter(..., name={name!r}, store='shm://{name}')"
    )

    def refuse(*_: object, **__: object) -> Any:
        raise StoreUnavailable(message)

    return type(kind.__name__, (kind,), {"__slots__": (), **dict.fromkeys(_GIVE_PERMITS, refuse)})


def describe(limiter: Limiter) -> dict[str, Any]:
    """The limiter as plain data that JSON can hold; `read` finds it again."""
    return {"name": limiter.name, "store": limiter.store, "origin": limiter.origin, "limits": _plain(limiter.given)}


def read(kind: type[Limiter], description: dict[str, Any]) -> Limiter:
    """The limiter that `describe` described."""
    given = cast("dict[str, Any]", _rich(description["limits"]))
    return find(kind, description["store"], description["name"], description["origin"], given)


def _plain(value: Any) -> Any:
    from penstock._core import Rate

    if isinstance(value, Rate):
        return {"amount": value.amount, "per": value.per, "burst": value.burst, "window": value.window}
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.total_seconds() if hasattr(value, "total_seconds") else value


def _rich(value: Any) -> Any:
    from penstock._core import Rate

    if isinstance(value, dict):
        if value.keys() == {"amount", "per", "burst", "window"}:
            return Rate(value["amount"], value["per"], burst=value["burst"], window=value["window"])
        return {name: _rich(one) for name, one in value.items()}
    return [_rich(one) for one in value] if isinstance(value, list) else value
