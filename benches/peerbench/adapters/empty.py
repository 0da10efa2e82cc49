"""What the decorators decorate."""

from __future__ import annotations


async def empty_coroutine() -> None:
    """Await nothing."""


def empty_function() -> None:
    """Do nothing."""
