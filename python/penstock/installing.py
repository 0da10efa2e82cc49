"""`install`: a limiter in front of every call of a process that goes to a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.governing import THREE_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from penstock.integrations.gate import Gatekeeper
    from penstock.limiter import Limiter
    from penstock.retry import Retry


class Installation:
    """What `install` gives: a context manager; ``uninstall()`` ends it, too."""

    __slots__ = ("_gatekeeper",)

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper

    def uninstall(self) -> None:
        """Undo the installation: calls that begin from here on leave as they did before. Again is harmless."""
        from penstock.integrations import process

        process.remove(self._gatekeeper)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.uninstall()

    def __repr__(self) -> str:
        return f"<Installation of {self._gatekeeper!r}>"


def install(
    limiter: Limiter | Mapping[str, Limiter],
    *,
    hosts: Iterable[str] | None = None,
    retry: Retry | None = THREE_ATTEMPTS,
    stream_usage: bool = True,
) -> Installation:
    """Put a limiter in front of every call of this process that goes to a provider; no object is needed.

    Every client of httpx and httpx2 is governed when it sends the first such call, whoever made it and when: the
    clients of SDKs and frameworks, hidden ones too, and of libraries that are imported later. One that `govern` was
    given stays with the limiter it has. Of several installations the latest that names a host has its calls::

        penstock.install(limiter)                # until the process ends

        with penstock.install(limiter):          # or for a block
            index = VectorStoreIndex.from_documents(documents)

    Args:
        limiter: a limiter, or a mapping from model names or globs to limiters, as in `govern`.
        hosts: whose calls are governed besides those of known providers: host names or URLs, with a port or without
            (``"llm.internal"``, ``"*.example.com"``, ``"127.0.0.1:8000"``).
        retry: how failed requests are tried again; None makes one attempt.
        stream_usage: as in `govern`.

    Raises:
        TypeError, ValueError: for an argument that cannot be, with its name, its value and what is allowed.
    """
    from penstock.integrations import process
    from penstock.integrations.gate import Gatekeeper

    gatekeeper = Gatekeeper(limiter, retry, stream_usage, process.Hosts(hosts))
    process.add(gatekeeper)
    return Installation(gatekeeper)
