"""The gate in clients of httpx and httpx2: written once, made for each when it is met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.integrations.gate import Gatekeeper


def attach(http_client: Any, gatekeeper: Gatekeeper) -> None:
    """Govern a ``Client`` or ``AsyncClient`` of httpx or httpx2 in place. Again changes the gatekeeper."""
    raise NotImplementedError


def detach(http_client: Any) -> None:
    """Undo `attach`. Harmless on a client that is not governed."""


def transport(limiter: Any, retry: Any, stream_usage: bool, inner: Any) -> Any:
    """What `penstock.transport` gives."""
    raise NotImplementedError


def atransport(limiter: Any, retry: Any, stream_usage: bool, inner: Any) -> Any:
    """What `penstock.atransport` gives."""
    raise NotImplementedError


def govern(obj: Any, gatekeeper: Gatekeeper) -> bool:
    """Govern ``obj``, if it is a client."""
    attach(obj, gatekeeper)
    return True


def ungovern(obj: Any) -> bool:
    """Undo `govern`."""
    detach(obj)
    return True
