"""tenacity: retries by composing when to stop, how long to wait and what to retry."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from peerbench.adapters.empty import empty_coroutine, empty_function
from peerbench.peer import Call, Peer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tenacity(Peer):
    """tenacity.retry."""

    name = "tenacity"
    distribution = "tenacity"
    module = "tenacity"
    use = "Exponential waits with jitter, 5 attempts; given a coroutine function, the decorator makes an AsyncRetrying."
    keeps_a_limit: ClassVar[bool] = False

    def retries(self) -> Sequence[Call]:
        """Offer the same decorator for both."""
        from tenacity import retry, stop_after_attempt, wait_exponential_jitter

        decorator = "@retry(stop=stop_after_attempt(5), wait=wait_exponential_jitter())"

        def names() -> dict[str, object]:
            decorate = retry(stop=stop_after_attempt(5), wait=wait_exponential_jitter())
            return {"coroutine": decorate(empty_coroutine), "function": decorate(empty_function)}

        return (
            Call("decorated coroutine", "await coroutine()", names, variant=decorator),
            Call("decorated function", "function()", names, variant=decorator),
        )
