"""The gate in clients of SDKs: whatever of theirs holds a client of httpx or httpx2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.integrations import http

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.integrations.gate import Gatekeeper

#: Packages whose objects are looked into.
_PACKAGES = frozenset({"openai", "anthropic", "groq", "mistralai", "cohere", "together", "fireworks", "google"})
#: How far down an HTTP client may be: Cohere's is three objects below its client.
_DEPTH = 5
#: The member of google-genai's clients that says whether a call goes through aiohttp.
_AIOHTTP = "_use_aiohttp"
#: The member of its HTTP clients that says whether they make another client for each event loop, out of reach.
_PER_LOOP = "_per_loop"


class _NotNow:
    """In place of a True: as good as False, and known again."""

    def __bool__(self) -> bool:
        return False


_NOT_NOW = _NotNow()


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern the HTTP clients in ``obj``. Google's calls that would go through aiohttp go through httpx instead."""
    found = False
    for part in _parts(obj):
        if _is_client(part):
            if vars(part).get(_PER_LOOP) is True:
                vars(part)[_PER_LOOP] = _NOT_NOW
            http.attach(part, gatekeeper)
            found = True
        elif callable(getattr(type(part), _AIOHTTP, None)):
            vars(part)[_AIOHTTP] = _never
    return found


def ungovern(obj: Any) -> bool:
    """Undo `govern`."""
    found = False
    for part in _parts(obj):
        if _is_client(part):
            http.detach(part)
            if vars(part).get(_PER_LOOP) is _NOT_NOW:
                vars(part)[_PER_LOOP] = True
            found = True
        elif vars(part).get(_AIOHTTP) is _never:
            del vars(part)[_AIOHTTP]
    return found


def _never() -> bool:
    return False


def _parts(obj: Any) -> Iterator[Any]:
    """``obj`` and what of its SDK it holds, down to the HTTP clients, each once."""
    seen: set[int] = set()
    level = [obj]
    for _ in range(_DEPTH):
        below: list[Any] = []
        for part in level:
            if id(part) in seen:
                continue
            seen.add(id(part))
            yield part
            if not _is_client(part):
                below += [held for held in _members(part) if _is_client(held) or _is_of_sdk(held)]
        level = below


def _members(part: Any) -> list[Any]:
    held = list(vars(part).values()) if hasattr(part, "__dict__") else []
    for kind in type(part).__mro__:
        slots = vars(kind).get("__slots__", ())
        held += [getattr(part, name, None) for name in ((slots,) if isinstance(slots, str) else slots)]
    return held


def _is_of_sdk(thing: Any) -> bool:
    return not isinstance(thing, type) and type(thing).__module__.partition(".")[0] in _PACKAGES


def _is_client(thing: Any) -> bool:
    return any(
        kind.__name__ in {"Client", "AsyncClient"} and kind.__module__.partition(".")[0] in {"httpx", "httpx2"}
        for kind in type(thing).__mro__
    )
