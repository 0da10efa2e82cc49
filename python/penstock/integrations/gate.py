"""`Gatekeeper`: one policy of governing, whatever library sends the requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.limiter import Limiter
    from penstock.retry import Retry


class Gatekeeper:
    """Picks the limiter for a call, holds and settles its permit, decides on retries, remembers what it gave up.

    Args:
        limiter: a limiter, or a mapping from model names or globs to limiters.
        retry: how failed requests are tried again; None makes one attempt.
        stream_usage: whether streams of OpenAI's kind are asked to report their usage.
    """

    def __init__(self, limiter: Limiter | Mapping[str, Limiter], retry: Retry | None, stream_usage: bool) -> None:
        self.limiter = limiter
        self.retry = retry
        self.stream_usage = stream_usage
