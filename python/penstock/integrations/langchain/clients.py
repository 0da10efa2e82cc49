"""Models that speak through an SDK or an HTTP client: governed there.

LangChain keeps one default HTTP client for all models of an address, so the client that is found is left alone: the
model gets a twin of it, and of the SDK's client around it.
"""

# ruff: noqa: SLF001  clients of httpx do not say what they send with

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from penstock import governing
from penstock.integrations import http, walking
from penstock.integrations.pools import cloned

if TYPE_CHECKING:
    from penstock.integrations.gate import Gatekeeper

_BEFORE = "_penstock_clients"
_HTTP = ("httpx", "httpx2")
_SETTINGS = frozenset({"http_client", "http_async_client", "async_http_client"})
#: The integrations whose objects are clients.
_CLIENTS = frozenset({"bedrock", "http", "sdk"})


def govern(model: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern the clients of a model; False if none is found."""
    ungovern(model)
    twins = _Twins(gatekeeper)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    lazy = _make_lazy_clients(model)
    for place in _places(model):
        for name, value in place.items():
            # What the model's clients were made of stays what it was.
            twin = None if name in _SETTINGS else twins.of(value)
            if twin is not None:
                before[name] = value
                after[name] = twin
    for name in lazy:
        before.pop(name, None)
    if not after:
        _forget(model, lazy)
        return False
    for place in _places(model):
        place.update({name: twin for name, twin in after.items() if name in place})
    # Nothing that keeps a model from being pickled which could be before.
    model.__dict__[_BEFORE] = (before, lazy, twins.in_place)
    return True


def ungovern(model: Any) -> bool:
    """Give a model its clients back; False if they were not governed."""
    kept = model.__dict__.pop(_BEFORE, None)
    if kept is None:
        return False
    before, lazy, in_place = kept
    for place in _places(model):
        place.update({name: value for name, value in before.items() if name in place})
    _forget(model, lazy)
    for client in in_place:
        walking.ungovern(client)
    return True


def _places(model: Any) -> list[dict[str, Any]]:
    """Where a model keeps its attributes."""
    private = getattr(model, "__pydantic_private__", None)
    return [model.__dict__, private] if private else [model.__dict__]


def _make_lazy_clients(model: Any) -> list[str]:
    """Make the clients that would be made with the first call; gives the names of what is there now and was not."""
    before = set(model.__dict__)
    for kind in type(model).__mro__:
        for name, value in vars(kind).items():
            if isinstance(value, cached_property) and name.endswith("client"):
                getattr(model, name)
    return [name for name in model.__dict__ if name not in before]


def _forget(model: Any, lazy: list[str]) -> None:
    """Let the model make these anew when it wants them."""
    for name in lazy:
        model.__dict__.pop(name, None)


class _Twins:
    """Governed twins of clients, one of each."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper
        self._made: dict[int, tuple[Any, Any]] = {}  # by the client's id, with the client, so that the id stays its own
        #: Clients that have no twin, and are governed themselves.
        self.in_place: list[Any] = []

    def of(self, value: Any) -> Any:
        """The twin of a client, or of a part of an SDK's client; None for anything else."""
        if not _is_client(value):
            return None
        known = self._made.get(id(value))
        if known is None:
            known = self._made[id(value)] = (value, self._make(value))
        return known[1]

    def _make(self, value: Any) -> Any:
        if _is_http(value):
            if not hasattr(value, "_transport"):
                return None
            twin = _twin(value)
            http.attach(twin, self._gatekeeper)
            return twin
        inner = getattr(value, "_client", None)
        if inner is not None and _is_http(inner) and callable(getattr(value, "copy", None)):
            return value.copy(http_client=self.of(inner))  # a client of an SDK made by Stainless
        if inner is not None and _is_http(getattr(inner, "_client", None)):
            return type(value)(self.of(inner))  # one of its resources, such as `client.chat.completions`
        if walking.govern(value, self._gatekeeper):
            self.in_place.append(value)
            return value
        return None


def _is_client(value: object) -> bool:
    """Whether it is of an SDK or an HTTP library."""
    kinds = (governing.INTEGRATIONS.get(kind.__module__.partition(".")[0]) for kind in type(value).__mro__)
    return any(kind in _CLIENTS for kind in kinds)


def _is_http(value: object) -> bool:
    return any(kind.__module__.partition(".")[0] in _HTTP for kind in type(value).__mro__)


def _twin(client: Any) -> Any:
    """A client with the settings, headers and proxies of this one, and with connections of its own."""
    twin = object.__new__(type(client))
    twin.__dict__.update(client.__dict__)
    transports = {id(transport): cloned(transport) for transport in (client._transport, *client._mounts.values())}
    twin._transport = transports[id(client._transport)]
    twin._mounts = {pattern: transports[id(transport)] for pattern, transport in client._mounts.items()}
    return twin
