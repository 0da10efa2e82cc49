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
#: The member of an SDK's object that keeps what was there before it was governed.
_KEPT = "_penstock_kept"


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern the HTTP clients in ``obj``, and turn off what the SDK does on its own around them."""
    found = False
    for part in _parts(obj):
        if _is_client(part):
            http.attach(part, gatekeeper)
            found = True
        members = vars(part) if hasattr(part, "__dict__") else {}
        if _KEPT not in members and (changes := dict(_changes(part))):
            members[_KEPT] = {name: members.get(name, _ABSENT) for name in changes}
            members.update(changes)
    return found


def ungovern(obj: Any) -> bool:
    """Undo `govern`."""
    found = False
    for part in _parts(obj):
        if _is_client(part):
            http.detach(part)
            found = True
        members = vars(part) if hasattr(part, "__dict__") else {}
        for name, value in members.pop(_KEPT, {}).items():
            if isinstance(value, str) and value == _ABSENT:
                members.pop(name, None)
            else:
                members[name] = value
    return found


#: In place of the value of a member that was not there.
_ABSENT = "penstock: absent"


def _changes(part: Any) -> Iterator[tuple[str, Any]]:
    """Members of an SDK's object that stand in the gate's way, and what takes their place."""
    # google-genai: calls of tasks that would go through aiohttp go through httpx; from 3.6 on those would go through
    # other clients, one for each event loop, where a governed client keeps a pool for each itself.
    if callable(getattr(type(part), "_use_aiohttp", None)):
        yield "_use_aiohttp", _never
        for name in ("_retry", "_async_retry"):
            retrying = vars(part).get(name)
            if hasattr(retrying, "copy"):
                yield name, retrying.copy(stop=_at_once)
    if _is_client(part) and vars(part).get("_per_loop") is True:
        yield "_per_loop", False
    # Cohere's retries, and those that Mistral's is told to make, know no x-should-retry.
    if isinstance(getattr(part, "base_max_retries", None), int):
        yield "base_max_retries", 0
    if type(part).__module__.startswith("mistralai") and "retry_config" in getattr(part, "__dict__", ()):
        import sys

        unset = getattr(sys.modules[type(part).__module__], "UNSET", None)
        yield "retry_config", unset


def _never() -> bool:
    return False


def _at_once(_state: object) -> bool:
    """When to stop: after the first attempt."""
    return True


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
