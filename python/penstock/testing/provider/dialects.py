"""The dialects that a provider speaks, and which of them a request is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .anthropic import Anthropic
from .azure import Azure
from .bedrock import Bedrock
from .cohere import Cohere
from .gemini import Gemini
from .openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .dialect import Dialect, DialectName, Settings
    from .policy import Enforcement

__all__ = ["DIALECTS", "Dialects"]

# In the order in which they are asked whose request it is.
DIALECTS: Mapping[DialectName, type[Dialect]] = {
    "azure": Azure,
    "anthropic": Anthropic,
    "gemini": Gemini,
    "bedrock": Bedrock,
    "cohere": Cohere,
    "openai": OpenAI,
}


class Dialects:
    """All dialects of one provider: each request is answered in its own, by its path."""

    def __init__(self, first: DialectName, settings: Settings) -> None:
        if first not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}, not {first!r}")
        self._all = {name: kind(settings) for name, kind in DIALECTS.items()}
        self.first = self._all[first]
        """The one that the provider was made for: it answers what none claims."""

    def of(self, path: str, headers: Mapping[str, str]) -> Dialect:
        """Find the dialect of a request."""
        return next((dialect for dialect in self._all.values() if dialect.claims(path, headers)), self.first)


def enforcement_of(name: DialectName) -> Enforcement:
    """How the provider of this dialect enforces its quotas."""
    kinds: dict[str, Literal["sub_window", "rolling_window"]] = {"azure": "sub_window", "gemini": "rolling_window"}
    return kinds.get(name, "token_bucket")
