"""What frameworks' objects contain: agents, teams, pipelines and settings hold the models that are to be governed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock import governing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.integrations.gate import Gatekeeper

#: More objects than any team or pipeline holds: what holds more is not searched to its end.
_MOST = 100_000


def find(obj: object, packages: tuple[str, ...], wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """Every object in ``obj`` that is ``wanted``, each once, and ``obj`` itself if it is.

    Looked into are lists, tuples, sets and dicts, and the attributes of ``obj`` and of objects of ``packages``; not
    what is wanted itself.
    """
    seen: dict[int, object] = {}  # the objects too, so that no id is used twice
    todo = [obj]
    while todo and len(seen) < _MOST:
        current = todo.pop()
        if id(current) in seen or isinstance(current, (str, bytes, int, float, type(None), type)):
            continue
        seen[id(current)] = current
        if wanted(current):
            yield current
        elif isinstance(current, dict):
            todo.extend(current.values())
        elif isinstance(current, (list, tuple, set, frozenset)):
            todo.extend(current)
        elif current is obj or any(kind.__module__.partition(".")[0] in packages for kind in type(current).__mro__):
            todo.extend(attributes(current).values())


def attributes(obj: object) -> dict[str, Any]:
    """The attributes that an object has of its own, pydantic's private ones and slots included."""
    found: dict[str, Any] = {}
    for kind in type(obj).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(obj, name):
                found[name] = getattr(obj, name)
    found.update(getattr(obj, "__dict__", None) or {})
    found.update(getattr(obj, "__pydantic_private__", None) or {})
    return found


def clients(obj: object) -> list[Any]:
    """The SDK and HTTP clients that an object has as attributes, and the models of frameworks that it is built on."""
    return [value for value in attributes(obj).values() if _sends(value)]


def govern(client: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern a client that was found."""
    return governing._ask(client, "govern", gatekeeper)  # noqa: SLF001  the same, for a gatekeeper that is there already


def ungovern(client: Any) -> None:
    """Undo `govern`."""
    governing.ungovern(client)


def _sends(value: object) -> bool:
    """Whether it is a client: the options, timeouts and types of SDKs stand beside their clients."""
    kinds = type(value).__mro__
    known = {governing.INTEGRATIONS.get(kind.__module__.partition(".")[0]) for kind in kinds}
    if known & {"sdk", "http", "bedrock"}:
        return any("Client" in kind.__name__ for kind in kinds) or hasattr(value, "_client")
    return "langchain" in known
