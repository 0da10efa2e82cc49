"""What differs between providers: paths, what a request costs, and how answers, headers and errors look.

A dialect is sans-I/O: it turns a request's bytes into a ``Call`` and a ``Call`` into an answer's bytes. The server does
the rest (sockets, quotas, time, the log), so another provider is one more file beside ``openai.py``.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .quota import Level, Refusal

__all__ = ["Call", "Dialect", "Problem"]


@dataclass(eq=False)
class Problem(Exception):
    """A request that is answered with an error: raised while reading it, or made from a refusal."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    counts: bool = True
    """Whether it uses the request quota where failed requests do: not if the caller or the path is unknown."""
    model: str | None = None
    """The model it was meant for, as far as that is known."""

    def __str__(self) -> str:
        return self.body.decode()


class Call(abc.ABC):
    """A well-formed request, and how to answer it."""

    model: str
    cost: Mapping[str, int]
    """By dimension, as the provider counts at admission."""
    tokens_in: int
    """Prompt tokens of the usage."""
    tokens_out: int
    """Completion tokens of the usage."""
    stream: bool

    @abc.abstractmethod
    def answer(self, number: int, created: int) -> bytes:
        """Write the body of the ``number``-th answer, made at ``created`` (seconds since 1970)."""

    @abc.abstractmethod
    def events(self, number: int, created: int, chunks: int) -> list[bytes]:
        """Write the same as a stream: what to send at each of at most ``chunks`` moments, at least one."""


class Dialect(abc.ABC):
    """One provider's way of speaking HTTP."""

    base_path: str
    """What the client's base URL ends in."""

    @abc.abstractmethod
    def key(self, headers: Mapping[str, str]) -> str | None:
        """Find the API key that a request came with."""

    @abc.abstractmethod
    def read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call:
        """Understand a request, or raise the ``Problem`` to answer with."""

    @abc.abstractmethod
    def headers(self, number: int, milliseconds: int) -> dict[str, str]:
        """Write the headers of every answer: its id, and how long it took."""

    @abc.abstractmethod
    def quota_headers(self, levels: Mapping[str, Level]) -> dict[str, str]:
        """Write the headers that tell a quota's state."""

    @abc.abstractmethod
    def refuse(self, call: Call, refusal: Refusal) -> Problem:
        """Write the answer to a call that the quota has no room for."""
