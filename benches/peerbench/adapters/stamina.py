"""stamina: tenacity with its choices made."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from peerbench.adapters.empty import empty_coroutine, empty_function
from peerbench.peer import Call, Peer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Stamina(Peer):
    """stamina.retry."""

    name = "stamina"
    distribution = "stamina"
    module = "stamina"
    use = "As it comes: 10 attempts within 45 s, exponential waits with jitter."
    keeps_a_limit: ClassVar[bool] = False

    def retries(self) -> Sequence[Call]:
        """Offer the same decorator for both."""
        import stamina

        decorator = "@stamina.retry(on=Exception)"

        def names() -> dict[str, object]:
            decorate = stamina.retry(on=Exception)
            return {"coroutine": decorate(empty_coroutine), "function": decorate(empty_function)}

        return (
            Call("decorated coroutine", "await coroutine()", names, variant=decorator),
            Call("decorated function", "function()", names, variant=decorator),
        )
