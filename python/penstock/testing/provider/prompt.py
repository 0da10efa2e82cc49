"""What a request asks for, whatever provider's words it is in: given to who decides on the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["JSONObject", "Prompt", "Tool"]

JSONObject = Mapping[str, Any]


@dataclass(frozen=True)
class Tool:
    """A function that the model may call."""

    name: str
    schema: JSONObject
    """Of its arguments."""


@dataclass(frozen=True)
class Prompt:
    """One request for generated text."""

    dialect: str
    """``"openai"``, ``"azure"``, ``"anthropic"``, ``"gemini"``, ``"bedrock"`` or ``"cohere"``."""
    endpoint: str
    """The path, such as ``/v1/chat/completions``."""
    model: str
    body: JSONObject
    """The request's JSON as it came."""
    headers: Mapping[str, str]
    """The request's headers, found without regard to case."""
    text: str = ""
    """All text of the last message."""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """``"auto"``, ``"none"``, ``"required"``, or the name of the tool that must be called."""
    called: tuple[str, ...] = ()
    """Names of the tools that were called since the last message of the user."""
    schema: JSONObject | None = None
    """The JSON schema that the answer must follow, if one was given."""
    json: bool = False
    """Whether the answer must be JSON, of any kind if there is no schema."""
    max_tokens: int | None = None
    """The most tokens that the answer may have."""
    extra: JSONObject = field(default_factory=dict)
    """What else a dialect has to say."""
