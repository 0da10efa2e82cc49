"""For tests: a strict provider on loopback, and time that passes by itself.

`virtual_time` needs nothing more; `FakeProvider` needs the extra: ``pip install 'penstock[testing]'``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.testing.clock import VirtualClock, virtual_time
    from penstock.testing.provider import FakeProvider

__all__ = ["FakeProvider", "VirtualClock", "virtual_time"]

_HOMES = {"FakeProvider": "provider", "VirtualClock": "clock", "virtual_time": "clock"}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
