"""Every client of httpx and httpx2 in this process, governed at its first call to a provider."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from penstock import _core
from penstock.integrations import http

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from penstock.integrations.gate import Gatekeeper

#: Google's SDK sends through aiohttp where that is installed, unless it is told otherwise.
_GOOGLE = "google.genai._api_client"
_LIBRARIES = ("httpx", "httpx2", _GOOGLE)

_lock = threading.RLock()
#: Whose calls are governed by whom, the latest first.
_installed: tuple[Gatekeeper, ...] = ()
#: Clients that are governed because of an installation.
_clients: weakref.WeakSet[Any] = weakref.WeakSet()


class Hosts:
    """Which hosts are meant: those of known providers, and those that are named.

    Args:
        named: host names or URLs, with a port or without; ``*`` stands for anything.
    """

    __slots__ = ("named",)

    def __init__(self, named: Iterable[str] | None) -> None:
        if isinstance(named, str) or (named is not None and not isinstance(named, Iterable)):
            raise TypeError(f"hosts must be a list of host names, or None, not {named!r}")
        self.named = tuple(_bare(host) for host in named or ())

    def __call__(self, host: str, port: int | None) -> bool:
        """Whether a host, at a port that is not the usual one, is meant."""
        full = host if port is None else f"{host}:{port}"
        if any(fnmatchcase(full, name) or fnmatchcase(host, name) for name in self.named):
            return True
        return _core.provider_of(full) != "unknown"

    def __repr__(self) -> str:
        return f"Hosts({list(self.named)!r})"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return Hosts, (self.named,)


def _bare(host: object) -> str:
    if not isinstance(host, str):
        raise TypeError(f"hosts must be host names, not {host!r}")
    bare = host.partition("://")[2] or host
    bare = bare.partition("/")[0].rpartition("@")[2].lower()
    if not bare or any(letter.isspace() for letter in bare):
        raise ValueError(f"hosts must be host names such as 'llm.internal' or '127.0.0.1:8000', not {host!r}")
    for usual in (":443", ":80"):
        bare = bare.removesuffix(usual)
    return bare


class _Latest:
    """Stands for whichever gatekeeper is the latest to be installed for a host."""

    def chosen(self, host: str, port: int | None) -> Gatekeeper | None:
        """The gatekeeper of a request; None where there is none any more."""
        for gatekeeper in _installed:
            if gatekeeper.chosen(host, port) is not None:
                return gatekeeper
        return None

    def __repr__(self) -> str:
        return f"<{len(_installed)} installed>"

    def __reduce__(self) -> str:
        return "LATEST"


LATEST: Any = _Latest()


def add(gatekeeper: Gatekeeper) -> None:
    """Govern calls to the hosts of ``gatekeeper`` from here on."""
    global _installed  # noqa: PLW0603  a process has one state of what is installed
    with _lock:
        first = not _installed
        _installed = (gatekeeper, *_installed)
        if first:
            sys.meta_path.insert(0, _watch)
            for name in _LIBRARIES:
                if name in sys.modules:
                    _patch(sys.modules[name])


def remove(gatekeeper: Gatekeeper) -> None:
    """Undo `add`."""
    global _installed  # noqa: PLW0603
    with _lock:
        if gatekeeper not in _installed:
            return
        _installed = tuple(one for one in _installed if one is not gatekeeper)
        if _installed:
            return
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(_watch)
        for name in _LIBRARIES:
            if name in sys.modules:
                _unpatch(sys.modules[name])
        for client in list(_clients):
            if _stands_for_latest(client):
                http.detach(client)
        _clients.clear()


def _stands_for_latest(client: Any) -> bool:
    transport = client._transport  # noqa: SLF001
    return isinstance(transport, http.Governed) and transport.keeper is LATEST


def _meet(client: Any, request: Any) -> None:
    """Governs a client that is about to send to a provider, unless it is governed already."""
    url = request.url
    if LATEST.chosen(url.host, url.port) is None:
        return
    transport = client._transport  # noqa: SLF001
    if not isinstance(transport, http.Governed):
        with _lock:
            if _installed:
                http.attach(client, LATEST, again=False)
                _clients.add(client)


def _patch(library: ModuleType) -> None:
    if library.__name__ == _GOOGLE:
        _replace(library.BaseApiClient, "_use_aiohttp", _unless_installed)
        return
    for kind in (library.Client, library.AsyncClient):
        _replace(kind, "send", _meeting)


def _replace(kind: type, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = vars(kind).get(name)
    if original is not None and not hasattr(original, _ORIGINAL):
        patched = functools.wraps(original)(around(original))
        setattr(patched, _ORIGINAL, original)
        setattr(kind, name, patched)


def _unpatch(library: ModuleType) -> None:
    google = library.__name__ == _GOOGLE
    kinds = [(library.BaseApiClient, "_use_aiohttp")] if google else []
    kinds = kinds or [(library.Client, "send"), (library.AsyncClient, "send")]
    for kind, name in kinds:
        # Who patched it after us keeps what they have, which calls ours; that has nothing to do from here on.
        original = getattr(vars(kind).get(name), _ORIGINAL, None)
        if original is not None:
            setattr(kind, name, original)


#: Where what was patched keeps what was there before.
_ORIGINAL = "__penstock_original__"


def _meeting(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if _installed:
            _meet(self, request)
        return original(self, request, *args, **kwargs)

    return send


def _unless_installed(original: Callable[..., Any]) -> Callable[..., Any]:
    def use_aiohttp(self: Any) -> Any:
        return not _installed and original(self)

    return use_aiohttp


class _Watch:
    """Patches a library that is imported while something is installed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _LIBRARIES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                return _patching(spec)
        return None


def _patching(spec: ModuleSpec) -> ModuleSpec:
    loader: Any = spec.loader
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        with _lock:
            if _installed:
                _patch(module)

    loader.exec_module = exec_module
    return spec


_watch = _Watch()
