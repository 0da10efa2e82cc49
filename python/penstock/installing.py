"""`install`: a limiter in front of every call of a process that goes to a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.governing import THREE_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from penstock.limiter import Limiter
    from penstock.retry import Retry


class Installation:
    """What `install` gives: a context manager; ``uninstall()`` ends it, too."""

    def uninstall(self) -> None:
        """Undo the installation. Again is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.uninstall()


def install(
    limiter: Limiter | Mapping[str, Limiter],
    *,
    hosts: Iterable[str] | None = None,
    retry: Retry | None = THREE_ATTEMPTS,
    stream_usage: bool = True,
) -> Installation:
    """Put a limiter in front of every call of this process that goes to a provider; no object is needed.

    Args:
        limiter: a limiter, or a mapping from model names or globs to limiters, as in `govern`.
        hosts: whose calls are governed: host names (a leading ``*.`` takes in subdomains), with a port or without;
            by default the hosts of known providers.
        retry: how failed requests are tried again; None makes one attempt.
        stream_usage: as in `govern`.
    """
    raise NotImplementedError
