"""Governed HTTP clients for configurations, which make an SDK's client anew: for each agent, each run, each pickle."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from penstock.integrations import http

if TYPE_CHECKING:
    from penstock.integrations.gate import Gatekeeper

_MARK = "_penstock_made"


def client(library: str, kind: str, gatekeeper: Gatekeeper) -> Any:
    """A governed client with the timeout and the connections that SDKs give theirs. Its deep copies are itself.

    Args:
        library: ``"httpx"`` or ``"httpx2"``.
        kind: ``"Client"`` or ``"AsyncClient"``.
        gatekeeper: what governs it.
    """
    hx: Any = importlib.import_module(library)
    made = getattr(hx, kind)(
        timeout=hx.Timeout(600.0, connect=5.0),
        limits=hx.Limits(max_connections=1_000, max_keepalive_connections=100),
        follow_redirects=True,
    )
    http.attach(made, gatekeeper)
    vars(made)[_MARK] = True
    return made


def is_ours(value: object) -> bool:
    """Whether a client was made here."""
    return _MARK in getattr(value, "__dict__", {})
