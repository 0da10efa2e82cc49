"""How a governed client is copied and pickled: frameworks do both with what holds their clients.

Clients of httpx and httpx2 can do neither by themselves. A copy of a governed one is the client itself, with its
connections; a pickle is its settings, and governs again where it is read.
"""

from __future__ import annotations

import functools
import pickle
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.integrations.gate import Gatekeeper

#: Settings of a client that it has as attributes of the same names.
_SETTINGS = ("timeout", "follow_redirects", "max_redirects", "base_url")


def teach(client: Any) -> None:
    """Let a governed client be copied and pickled."""
    vars(client).update(
        __deepcopy__=functools.partial(_itself, client), __reduce_ex__=functools.partial(_reduced, client)
    )


def unteach(client: Any) -> None:
    """Undo `teach`."""
    for name in ("__deepcopy__", "__reduce_ex__"):
        vars(client).pop(name, None)


def _itself(client: Any, _memo: object) -> Any:
    return client


def _reduced(client: Any, _protocol: int) -> tuple[Any, ...]:
    governed = client._transport  # noqa: SLF001
    settings = {name: getattr(client, name) for name in _SETTINGS}
    settings |= {
        "base_url": str(settings["base_url"]),
        "headers": client.headers.multi_items(),
        "params": str(client.params),
        "cookies": {cookie.name: cookie.value for cookie in client.cookies.jar},
        "trust_env": client.trust_env,
    }
    timeout = settings["timeout"]
    settings["timeout"] = {name: getattr(timeout, name) for name in ("connect", "read", "write", "pool")}
    if client.auth is not None:
        settings["auth"] = client.auth
    if any(client.event_hooks.values()):
        settings["event_hooks"] = client.event_hooks
    inner = governed.inner
    pool = getattr(inner, "_pool", None)
    if pool is None:
        settings["transport"] = inner
    else:
        context = pool._ssl_context  # noqa: SLF001
        if context is not None and context.verify_mode != ssl.CERT_REQUIRED:
            raise pickle.PicklingError(f"{client!r} does not verify certificates, which is not pickled")
        known = client._get_proxy_map(None, client.trust_env)  # noqa: SLF001
        if {str(pattern.pattern) for pattern in client._mounts} != set(known):  # noqa: SLF001
            raise pickle.PicklingError(f"{client!r} has proxies or mounts of its own, which are not pickled")
        settings["limits"] = {
            "max_connections": pool._max_connections,  # noqa: SLF001
            "max_keepalive_connections": pool._max_keepalive_connections,  # noqa: SLF001
            "keepalive_expiry": pool._keepalive_expiry,  # noqa: SLF001
        }
        settings |= {"http1": pool._http1, "http2": pool._http2}  # noqa: SLF001
    return _again, (type(client), settings, governed.keeper)


def _again(kind: Any, settings: dict[str, Any], keeper: Gatekeeper) -> Any:
    from penstock.integrations import http

    library = http.library_of(kind)
    settings["timeout"] = library.Timeout(**settings["timeout"])
    if "limits" in settings:
        settings["limits"] = library.Limits(**settings["limits"])
    client = kind(**settings)
    http.attach(client, keeper)
    return client
